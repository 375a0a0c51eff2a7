//! A daemon in this process, by a clock that the test sets, and everything that can be asked of it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearerd::app::App;
use bearerd::clock::{BootId, Clock, Stamp, SystemClock};
use bearerd::config::{self, Sources};
use bearerd::lifecycle::notify::{Manager, Wishes};
use bearerd::telemetry::{self, subscriber};
use bearerd::vend::{Status, Vend};
use jiff::{SignedDuration, Timestamp};
use prost::Message;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt;

use super::found::times_in;
use crate::grpc::calls::Caller;
use crate::harness::{PATIENCE, Scale, World};

const GET: &str = "/bearerd.v1.TokenService/GetToken";
const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";
const REPORT: &str = "/bearerd.v1.TokenService/ReportRejected";

/// The system's clocks, with the wall clock set and time passed by as the test says.
pub struct SetClock {
    system: SystemClock,
    /// How many seconds the wall clock is ahead of the machine's.
    ahead: AtomicI64,
    /// How many seconds have passed that were not waited for.
    passed: AtomicI64,
    /// How many seconds after the machine's boot this one was, if it was another.
    booted: AtomicI64,
}

impl SetClock {
    pub fn ahead(seconds: i64) -> Arc<Self> {
        Arc::new(Self {
            system: SystemClock::new(),
            ahead: AtomicI64::new(seconds),
            passed: AtomicI64::new(0),
            booted: AtomicI64::new(0),
        })
    }

    /// Another boot began so many seconds ago.
    pub fn reboot(&self, ago: Duration) {
        let boot = (self.now().boot - ago).as_secs();
        self.booted
            .store(boot.try_into().unwrap(), Ordering::SeqCst);
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::SeqCst);
    }

    /// Time goes by on both clocks.
    pub fn pass(&self, length: Duration) {
        let seconds = i64::try_from(length.as_secs()).unwrap();
        self.passed.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Stamp {
        let now = self.system.now();
        let passed = self.passed.load(Ordering::SeqCst);
        let ahead = self.ahead.load(Ordering::SeqCst);
        let booted = self.booted.load(Ordering::SeqCst);
        Stamp {
            wall: now.wall + SignedDuration::from_secs(passed + ahead),
            boot: now.boot + Duration::from_secs(passed.try_into().unwrap())
                - Duration::from_secs(booted.try_into().unwrap()),
        }
    }

    fn boot_id(&self) -> BootId {
        match self.booted.load(Ordering::SeqCst) {
            0 => self.system.boot_id(),
            _ => BootId::new("another"),
        }
    }
}

/// `bearerd.v1.Token`.
#[derive(Clone, PartialEq, Message)]
pub struct Got {
    #[prost(string, tag = "1")]
    pub access_token: String,
    #[prost(message, optional, tag = "2")]
    pub expires: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "3")]
    pub issued: Option<prost_types::Timestamp>,
    #[prost(uint64, tag = "4")]
    pub generation: u64,
    #[prost(uint32, tag = "6")]
    pub expires_in: u32,
}

impl Got {
    pub fn expires_at(&self) -> f64 {
        seconds(self.expires.as_ref())
    }

    pub fn issued_at(&self) -> f64 {
        seconds(self.issued.as_ref())
    }
}

fn seconds(at: Option<&prost_types::Timestamp>) -> f64 {
    let at = at.unwrap();
    at.seconds as f64 + f64::from(at.nanos) / 1e9
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, required, tag = "1")]
    token: Got,
}

/// `GetTokenRequest`, with a wait.
#[derive(Clone, PartialEq, Message)]
struct Waiting {
    #[prost(message, optional, tag = "1")]
    wait: Option<prost_types::Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(uint32, tag = "2")]
    status: u32,
}

/// An answer as a text, and the wall times between which it was made.
pub struct Place {
    pub name: String,
    pub text: String,
    pub asked: Timestamp,
    pub answered: Timestamp,
}

impl Place {
    pub fn json(&self) -> Value {
        let body = self.text.split_once("\n\n").map_or(&*self.text, |it| it.1);
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn generation(&self) -> u64 {
        self.json()["generation"].as_u64().unwrap()
    }

    /// The times that are told behind the headers.
    fn body_times(&self) -> Vec<f64> {
        let body = self.text.split_once("\n\n").map_or(&*self.text, |it| it.1);
        let times = times_in(body, self.answered);
        times
            .iter()
            .map(|it| it.0.as_duration().as_secs_f64())
            .collect()
    }

    fn retry_after(&self) -> f64 {
        let line = self
            .text
            .lines()
            .find_map(|it| it.strip_prefix("retry-after: "));
        line.unwrap_or_else(|| panic!("{}", self.text))
            .parse()
            .unwrap()
    }
}

/// What somebody without a token is told: the times in the words over HTTP, over gRPC, of `/readyz` and of `/refresh`; and when to
/// come again, in seconds, over HTTP and gRPC.
pub struct Told {
    pub detail: [Vec<f64>; 4],
    pub retry_after: [f64; 2],
}

/// A daemon in this process.
pub struct Inside {
    pub clock: Arc<SetClock>,
    vend: Arc<Vend>,
    client: Client,
    http: String,
    grpc: String,
    admin: String,
    notify: UnixDatagram,
    news: Mutex<String>,
    audit: PathBuf,
    told_before: AtomicUsize,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Inside {
    /// A world whose daemons keep an audit file.
    pub async fn world(scale: Scale) -> World {
        let mut world = World::new(scale).await;
        let audit = world.path("audit.log");
        world.settings(&format!("[audit]\nfile = {audit:?}"));
        world
    }

    pub async fn start(world: &World, clock: &Arc<SetClock>) -> Self {
        let file = world.write("inside.toml", &world.toml(&world.state(), "inside"));
        let reading = config::read(&Sources::new(Some(file), [], Vec::new())).unwrap();
        let settings = reading.effective.to_json();
        let (_log, handle) = subscriber(&telemetry::Settings::default(), false, std::io::sink);
        let socket = world.path("notify");
        let _left_by_one_before = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_nonblocking(true).unwrap();
        let environment = [("NOTIFY_SOCKET".into(), socket.into_os_string())];
        let wishes = Wishes::find(&environment, std::process::id()).unwrap();
        let app = App::bind_with(reading.config, Arc::clone(clock) as Arc<dyn Clock>);
        let app = app.await.unwrap();
        let app = app
            .for_operators(settings, handle)
            .under(Some(Manager::new(&wishes).unwrap()));
        let [http, grpc, admin] = [
            app.http_addresses(),
            app.grpc_addresses(),
            app.admin_addresses(),
        ]
        .map(|it| it[0].to_string());
        let vend = app.vend();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { app.run(stopped).await.unwrap() });
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        Self {
            clock: Arc::clone(clock),
            vend,
            client: Client::builder().no_proxy().build().unwrap(),
            http,
            grpc,
            admin,
            notify,
            news: Mutex::default(),
            audit: world.path("audit.log"),
            told_before: AtomicUsize::new(0),
            stop,
            task,
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }

    pub fn vend(&self) -> Arc<Vend> {
        Arc::clone(&self.vend)
    }

    pub fn http_address(&self) -> &str {
        &self.http
    }

    /// When this process began, which is what the daemon takes for its own start.
    pub fn started(&self) -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let behind_the_name = stat.rsplit_once(')').unwrap().1;
        let ticks = behind_the_name.split_whitespace().nth(19).unwrap();
        let now = self.clock.now();
        let boot = Duration::from_secs_f64(ticks.parse::<f64>().unwrap() / 100.0);
        super::seconds_at(Stamp { boot, ..now }, now)
    }

    /// Sets the wall clock, and waits until the keeper has taken a step by it, as it does each second.
    pub async fn set_ahead(&self, seconds: i64) {
        // Lines are on their way to the file for a moment.
        let length = || std::fs::metadata(&self.audit).map_or(0, |it| it.len());
        let mut before = length();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the audit never rests");
            sleep(Duration::from_millis(200)).await;
            match length() {
                same if same == before => break,
                more => before = more,
            }
        }
        let before = usize::try_from(before).unwrap();
        self.told_before.store(before, Ordering::SeqCst);
        self.clock.set_ahead(seconds);
        let set_at = self.clock.now();
        self.until(|status| status.at.is_some_and(|at| at.boot > set_at.boot))
            .await;
    }

    /// Waits until the status is so.
    pub async fn until(&self, is_so: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.vend.status()) {
            assert!(Instant::now() < deadline, "{:#?}", self.vend.status());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ask(&self, method: Method, base: &str, path: &str, body: Option<&str>) -> Place {
        let headers = [("x-bearerd-request", "true")];
        self.ask_with(method, base, path, &headers, body).await
    }

    async fn ask_with(
        &self,
        method: Method,
        base: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Place {
        let mut request = self
            .client
            .request(method.clone(), format!("http://{base}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let asked = self.clock.now().wall;
        let response = request.timeout(PATIENCE * 3).send().await.unwrap();
        let answered = self.clock.now().wall;
        let (status, headers) = (response.status(), response.headers().clone());
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
            .collect();
        let body = response.text().await.unwrap();
        Place {
            name: format!("{method} {path}, {status}"),
            text: format!("{headers}\n{body}"),
            asked,
            answered,
        }
    }

    pub async fn http(&self, path: &str) -> Place {
        self.ask(Method::GET, &self.http, path, None).await
    }

    pub async fn admin(&self, path: &str) -> Place {
        self.ask(Method::GET, &self.admin, path, None).await
    }

    pub async fn first_token(&self) -> Place {
        let headers = [("x-bearerd-request", "true"), ("prefer", "wait=30")];
        let place = self.ask_with(Method::GET, &self.http, "/v1/token", &headers, None);
        let place = place.await;
        assert!(place.name.ends_with("200 OK"), "{}", place.text);
        place
    }

    async fn caller(&self) -> Caller {
        Caller::over(TcpStream::connect(&self.grpc).await.unwrap()).await
    }

    pub async fn grpc_token(&self) -> Got {
        let (messages, status) = self.caller().await.ask(GET, &[], b"").await;
        assert!(!messages.is_empty(), "{status:?}");
        Response::decode(&messages[0][..]).unwrap().token
    }

    /// The token over every way that gRPC has, with the names of its three times there, and the wall
    /// times between which all were answered.
    pub async fn grpc_tokens(&self) -> Vec<([&'static str; 3], Got, [Timestamp; 2])> {
        let caller = self.caller().await;
        let asked = self.clock.now().wall;
        let wait = prost_types::Duration {
            seconds: 1,
            nanos: 0,
        };
        let waiting = Waiting { wait: Some(wait) }.encode_to_vec();
        let (plain, _) = caller.ask(GET, &[], b"").await;
        let (slow, _) = caller.ask(GET, &[], &waiting).await;
        let mut messages = vec![plain[0].clone(), slow[0].clone()];
        // What says how it is compressed goes the long way.
        for headers in [&[][..], &[("grpc-encoding", "identity")]] {
            let call = caller.begin(WATCH, headers, b"").await.unwrap();
            let mut answer = call.answered().await.unwrap();
            messages.push(answer.next().await.unwrap().unwrap());
        }
        let names = [
            [
                "GetToken expires_in",
                "GetToken expires_at",
                "GetToken issued_at",
            ],
            [
                "GetToken by tonic expires_in",
                "GetToken by tonic expires_at",
                "GetToken by tonic issued_at",
            ],
            [
                "WatchToken expires_in",
                "WatchToken expires_at",
                "WatchToken issued_at",
            ],
            [
                "WatchToken by tonic expires_in",
                "WatchToken by tonic expires_at",
                "WatchToken by tonic issued_at",
            ],
        ];
        let within = [asked, self.clock.now().wall];
        let tokens = messages
            .iter()
            .map(|it| Response::decode(&it[..]).unwrap().token);
        let named = names.into_iter().zip(tokens);
        named.map(|(names, got)| (names, got, within)).collect()
    }

    /// A gRPC call as a text: its headers, what it says of a token, and why it failed.
    async fn call(&self, path: &str, message: &[u8]) -> Place {
        let caller = self.caller().await;
        let asked = self.clock.now().wall;
        let call = caller.begin(path, &[], message).await.unwrap();
        let mut answer = call.answered().await.unwrap();
        let answered = self.clock.now().wall;
        let headers: String = answer
            .headers
            .iter()
            .filter(|(name, _)| name.as_str() != "grpc-message")
            .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
            .collect();
        let mut text = format!("{headers}\n");
        let first = match answer.trailers {
            None => answer.next().await.unwrap(),
            Some(_) => None,
        };
        match first {
            Some(message) => {
                if let Ok(response) = Response::decode(&message[..]) {
                    for at in [response.token.expires, response.token.issued]
                        .iter()
                        .flatten()
                    {
                        let at = Timestamp::new(at.seconds, at.nanos).unwrap();
                        text += &format!("{at}\n");
                    }
                }
            }
            None => {
                let status = answer.end();
                text += status.message();
                if let Some(info) = status.get_details_retry_info() {
                    let seconds = info.retry_delay.unwrap_or_default().as_secs();
                    text = format!("retry-after: {seconds}\n{text}");
                }
            }
        }
        Place {
            name: path.to_owned(),
            text,
            asked,
            answered,
        }
    }

    /// Every path that a door knows, as it says itself to who asks for another.
    async fn paths(&self, base: &str) -> Vec<String> {
        let answer = self.ask(Method::GET, base, "/nowhere", None).await.json();
        let detail = answer["detail"].as_str().unwrap().to_owned();
        let paths = detail.split([' ', ',']).filter(|it| it.starts_with('/'));
        paths.map(str::to_owned).collect()
    }

    /// What every path of every door says to who reads.
    pub async fn everything(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (base, least) in [(&self.http, 2), (&self.admin, 9)] {
            let paths = self.paths(base).await;
            assert!(paths.len() >= least, "{paths:?}");
            for path in paths {
                places.push(self.ask(Method::GET, base, &path, None).await);
                let verbose = format!("{path}?verbose");
                places.push(self.ask(Method::GET, base, &verbose, None).await);
                // Who keeps no rule of the door is told so, and with a date.
                places.push(self.ask_with(Method::GET, base, &path, &[], None).await);
            }
        }
        let text = [("x-bearerd-request", "true"), ("accept", "text/plain")];
        places.push(
            self.ask_with(Method::GET, &self.http, "/v1/token", &text, None)
                .await,
        );
        for path in [GET, WATCH, "/grpc.health.v1.Health/Check", "/nothing/Here"] {
            // Who watches in vain is answered by its first message alone.
            if path != WATCH || self.vend.current(self.clock.now()).is_ok() {
                places.push(self.call(path, b"").await);
            }
        }
        places.push(self.news());
        places
    }

    /// What is answered to who changes something, and what it has changed.
    pub async fn changes(&self) -> Vec<Place> {
        let generation = self
            .vend
            .status()
            .token
            .as_ref()
            .map_or(1, |it| it.generation.0);
        let report = format!("{{\"generation\":{generation},\"status\":401}}");
        let other = Report {
            generation,
            status: 401,
        }
        .encode_to_vec();
        let (http, admin) = (&*self.http, &*self.admin);
        let mut places = vec![
            self.ask(Method::PUT, admin, "/log?for=10m", Some("info"))
                .await,
            self.ask(Method::GET, admin, "/log", None).await,
            self.ask(Method::POST, http, "/v1/token/rejected", Some(&report))
                .await,
            self.call(REPORT, &other).await,
        ];
        for _ in 0..2 {
            places.push(self.ask(Method::POST, admin, "/refresh", None).await);
        }
        places.extend([
            self.admin("/status").await,
            self.admin("/readyz?verbose").await,
        ]);
        places
    }

    /// What the commands print that ask this daemon, or read its record. They go by the machine's own clocks.
    pub async fn commands(&self, world: &World) -> Vec<Place> {
        let settings = world.path("inside.toml").display().to_string();
        let (http, admin) = (self.http.clone(), self.admin.clone());
        let commands: Vec<Vec<String>> = [
            &["status", "--admin", &admin][..],
            &["status", "--admin", &admin, "--format", "json"],
            &["token", "--address", &http, "--format", "json"],
            &["ledger", "show", "--config", &settings],
            &["ledger", "show", "--config", &settings, "--format", "json"],
        ]
        .iter()
        .map(|it| it.iter().map(ToString::to_string).collect())
        .collect();
        let clock = Arc::clone(&self.clock);
        let run = move |arguments: Vec<String>| {
            let asked = clock.now().wall;
            let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
            command.args(&arguments).env_clear().stdin(Stdio::null());
            let output = command.output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            Place {
                name: arguments[..2].join(" "),
                text: format!("\n\n{}", String::from_utf8(said).unwrap()),
                asked,
                answered: clock.now().wall,
            }
        };
        tokio::task::spawn_blocking(move || commands.into_iter().map(run).collect())
            .await
            .unwrap()
    }

    /// What the audit told after the last step.
    pub fn audit_since_the_step(&self) -> Place {
        let audit = std::fs::read_to_string(&self.audit).unwrap();
        let now = self.clock.now().wall;
        let text = audit[self.told_before.load(Ordering::SeqCst)..].to_owned();
        Place {
            name: "audit".to_owned(),
            text,
            asked: now,
            answered: now,
        }
    }

    /// What the service manager was told last. Only what has changed is told.
    fn news(&self) -> Place {
        let mut last = self.news.lock().unwrap();
        let asked = self.clock.now().wall;
        let mut buffer = [0; 4096];
        while let Ok(length) = self.notify.recv(&mut buffer) {
            *last = String::from_utf8(buffer[..length].to_vec()).unwrap();
        }
        Place {
            name: "systemd".to_owned(),
            text: last.clone(),
            asked,
            answered: self.clock.now().wall,
        }
    }

    /// The time in the status line of the service manager, whose turn comes each second: the first
    /// that is the truth, or the last of many.
    pub async fn notified(&self, truth: f64) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.news().body_times().first().copied();
            match told {
                Some(at) if (at - truth).abs() <= 1.0 || Instant::now() >= deadline => return at,
                _ => assert!(Instant::now() < deadline, "nothing was told"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// One answer of each door, for their dates.
    pub async fn dates(&self) -> Vec<Place> {
        let headers = |place: Place| {
            let text = place.text.split_once("\n\n").unwrap().0.to_owned();
            Place { text, ..place }
        };
        let places = [
            self.http("/v1/token").await,
            self.admin("/livez").await,
            self.call(GET, b"").await,
            self.call("/grpc.health.v1.Health/Check", b"").await,
        ];
        places.map(headers).into()
    }

    pub async fn told(&self) -> Told {
        let http = self.http("/v1/token").await;
        let grpc = self.call(GET, b"").await;
        let ready = self.admin("/readyz?verbose").await;
        let refresh = self.ask(Method::POST, &self.admin, "/refresh", None).await;
        Told {
            retry_after: [http.retry_after(), grpc.retry_after()],
            detail: [http, grpc, ready, refresh].map(|it| it.body_times()),
        }
    }
}
