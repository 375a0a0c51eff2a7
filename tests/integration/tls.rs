//! Over TLS, as callers meet it: certificates that are replaced while everything runs, and callers of every kind.

pub mod caller;
#[path = "../../src/tls/testing.rs"]
pub mod certificates;
mod examples;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::grpc::calls::Caller;
use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::terminal::run;
use caller::{ask, connect, shown, side};
use certificates::{Authority, Pair, Wanted, server};

const GET: &str = "/bearerd.v1.TokenService/GetToken";

/// A daemon that speaks TLS with callers, on loopback too, and the folder of its files.
struct Desk {
    world: World,
    /// Not in the world's folder, of which a test knows what is in it.
    folder: TempDir,
    /// Who signs the daemon's certificates.
    root: Authority,
}

impl Desk {
    async fn new() -> Self {
        let world = World::quiet(Scale::still()).await;
        let desk = Self {
            world,
            folder: tempfile::tempdir().unwrap(),
            root: Authority::new("root"),
        };
        desk.put(&desk.root.issue(&server()));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn put(&self, pair: &Pair) {
        self.write("tls.crt", &pair.certificate);
        self.write("tls.key", &pair.key);
    }

    /// A connection may be idle for as long as a slow machine takes for a test.
    fn toml(&self) -> String {
        let text = self.world.toml(&self.world.state(), "state");
        let file = |name: &str| self.path(name).display().to_string();
        let always = |text: &str, section: &str| {
            text.replace(
                &format!("[{section}]\n"),
                &format!("[{section}]\ntls = \"always\"\n"),
            )
        };
        format!(
            "{}[tls]\ncertificate_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n[callers.orders]\nsans = [\"orders.shop.svc\"]\n\
             [limits]\nidle_timeout = \"1h\"\n",
            always(&always(&text, "http"), "grpc"),
            file("tls.crt"),
            file("tls.key"),
            file("ca.crt")
        )
    }

    async fn start(&self) -> Daemon {
        let file = self.world.write("state.toml", &self.toml());
        Daemon::start(&file, &self.world.captured).await
    }

    /// A caller's side, with a certificate by this authority.
    fn by(&self, authority: &Authority, protocol: &str) -> Arc<ClientConfig> {
        let pair = authority.issue(&certificates::caller(&["orders.shop.svc"], &[]));
        side(&[&self.root.certificate], Some(&pair), protocol)
    }

    /// No private key may be said or shown anywhere.
    fn finish(self, keys: &[Pair]) {
        for pair in keys {
            // Any line of it would do.
            let line = pair.key.lines().nth(1).unwrap();
            assert!(!self.world.captured.says(line), "a private key was shown");
        }
        self.world.finish();
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Asks over a connection of its own until the token is there.
async fn first_token(daemon: &Daemon, side: &Arc<ClientConfig>) {
    let mut stream = connect(address(&daemon.http), side).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while ask(&mut stream, "/v1/token").await.unwrap() != 200 {
        assert!(Instant::now() < deadline, "no token");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Connects again and again until it is shown this certificate.
async fn until_shown(to: &str, side: &Arc<ClientConfig>, wanted: &Pair) {
    let wanted = der(wanted);
    let deadline = Instant::now() + PATIENCE;
    while shown(&connect(address(to), side).await.unwrap()) != wanted {
        assert!(
            Instant::now() < deadline,
            "the new certificate is not shown"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

/// What callers that connect anew go by, and how far each of them has come.
#[derive(Clone)]
struct Crowd {
    /// A number that rises, and the sides of HTTP and gRPC.
    sides: Arc<Mutex<(usize, [Arc<ClientConfig>; 2])>>,
    /// The highest number with which each caller has been served.
    served: Arc<[AtomicUsize; 4]>,
    requests: Arc<AtomicUsize>,
}

/// Longer than any rest between two requests, so that the load leaves the machine some air.
const REST: Duration = Duration::from_millis(5);

impl Crowd {
    fn new(sides: [Arc<ClientConfig>; 2]) -> Self {
        Self {
            sides: Arc::new(Mutex::new((1, sides))),
            served: Arc::default(),
            requests: Arc::default(),
        }
    }

    fn change(&self, sides: [Arc<ClientConfig>; 2]) {
        let mut now = self.sides.lock().unwrap();
        *now = (now.0 + 1, sides);
    }

    /// Waits until nobody goes by earlier sides any more, while nobody has failed.
    async fn moved(&self, callers: &mut JoinSet<()>, what: &str) {
        let number = self.sides.lock().unwrap().0;
        let deadline = Instant::now() + PATIENCE;
        let behind = |it: &AtomicUsize| it.load(Ordering::Relaxed) < number;
        while self.served.iter().any(behind) {
            let failed = callers.try_join_next();
            assert!(failed.is_none(), "{what}: {failed:?}");
            assert!(Instant::now() < deadline, "{what}: somebody is not served");
            sleep(REST).await;
        }
    }

    /// Two callers over HTTP and two over gRPC, each with a new connection for each request.
    fn come_anew(&self, daemon: &Daemon, callers: &mut JoinSet<()>) {
        for index in 0..self.served.len() {
            let (crowd, grpc) = (self.clone(), index % 2 == 1);
            let to = address(if grpc { &daemon.grpc } else { &daemon.http });
            callers.spawn(async move {
                loop {
                    let (number, sides) = crowd.sides.lock().unwrap().clone();
                    let stream = connect(to, &sides[usize::from(grpc)]).await.unwrap();
                    crowd.request(stream, grpc).await;
                    crowd.served[index].store(number, Ordering::Relaxed);
                    sleep(REST).await;
                }
            });
        }
    }

    async fn request(
        &self,
        mut stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
        grpc: bool,
    ) {
        if grpc {
            get(&Caller::over(stream).await).await;
        } else {
            assert_eq!(ask(&mut stream, "/v1/token").await.unwrap(), 200);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Two callers over HTTP and two over gRPC that keep the connections that they have now.
    async fn stay(&self, daemon: &Daemon, callers: &mut JoinSet<()>) {
        let sides = self.sides.lock().unwrap().1.clone();
        for _ in 0..2 {
            let mut http = connect(address(&daemon.http), &sides[0]).await.unwrap();
            let grpc = connect(address(&daemon.grpc), &sides[1]).await.unwrap();
            let grpc = Caller::over(grpc).await;
            let crowd = self.clone();
            callers.spawn(async move {
                loop {
                    assert_eq!(ask(&mut http, "/v1/token").await.unwrap(), 200);
                    get(&grpc).await;
                    crowd.requests.fetch_add(2, Ordering::Relaxed);
                    sleep(REST).await;
                }
            });
        }
    }
}

async fn get(caller: &Caller) {
    let (messages, status) = caller.ask(GET, &[], b"").await;
    assert_eq!((messages.len(), status.code()), (1, Code::Ok), "{status:?}");
}

/// How files are replaced.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// As Kubernetes does it: the folder behind a link is swapped.
    Swap,
    /// File by file, in place.
    InPlace,
    /// File by file, by a new file that takes the old one's name.
    Rename,
}

impl Desk {
    /// Lets the three names lead through a link, as in a mounted Secret.
    fn link(&self, pair: &Pair, authorities: &str) {
        self.replace(Way::Swap, 0, pair, authorities);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            let _not_there = fs::remove_file(self.path(name));
            symlink(format!("..data/{name}"), self.path(name)).unwrap();
        }
    }

    fn replace(&self, way: Way, number: usize, pair: &Pair, authorities: &str) {
        let files = [
            ("tls.crt", pair.certificate.as_str()),
            ("tls.key", &pair.key),
            ("ca.crt", authorities),
        ];
        let revision = format!("..{number}");
        if let Way::Swap = way {
            fs::create_dir(self.path(&revision)).unwrap();
        }
        for (name, text) in files {
            match way {
                Way::Swap => self.write(&format!("{revision}/{name}"), text),
                Way::InPlace => fs::write(self.path(name), text).unwrap(),
                Way::Rename => {
                    self.write("fresh", text);
                    fs::rename(self.path("fresh"), self.path(name)).unwrap();
                }
            }
        }
        if let Way::Swap = way {
            symlink(revision, self.path("fresh")).unwrap();
            fs::rename(self.path("fresh"), self.path("..data")).unwrap();
        }
    }
}

#[tokio::test]
async fn fifty_rotations_under_load_fail_no_request() {
    let desk = Desk::new().await;
    // Whoever signs callers' certificates changes too: at each moment two do, and at each rotation one goes and one comes.
    let mut signers = vec![Authority::new("0"), Authority::new("1")];
    let both = |signers: &[Authority]| {
        let last = &signers[signers.len() - 2..];
        format!("{}{}", last[0].certificate, last[1].certificate)
    };
    let mut pairs = vec![desk.root.issue(&server())];
    desk.link(&pairs[0], &both(&signers));
    let daemon = desk.start().await;
    let sides = |signer: &Authority| ["http/1.1", "h2"].map(|it| desk.by(signer, it));
    let crowd = Crowd::new(sides(&signers[1]));
    let side = crowd.sides.lock().unwrap().1[0].clone();
    first_token(&daemon, &side).await;
    let mut kept = connect(address(&daemon.http), &side).await.unwrap();
    assert_eq!(ask(&mut kept, "/v1/token").await.unwrap(), 200);
    let mut callers = JoinSet::new();
    crowd.stay(&daemon, &mut callers).await;
    crowd.come_anew(&daemon, &mut callers);

    for number in 1..=50 {
        let way = match number {
            1..=17 => Way::Swap,
            18..=34 => Way::InPlace,
            _ => Way::Rename,
        };
        let what = format!("{way:?}, rotation {number}");
        crowd.moved(&mut callers, &what).await;
        let gone = desk.by(&signers[number - 1], "http/1.1");
        signers.push(Authority::new(&(number + 1).to_string()));
        pairs.push(desk.root.issue(&server()));
        desk.replace(way, number, &pairs[number], &both(&signers));
        let now = crowd.sides.lock().unwrap().1.clone();
        until_shown(&daemon.http, &now[0], &pairs[number]).await;
        until_shown(&daemon.grpc, &now[1], &pairs[number]).await;
        crowd.change(sides(&signers[number + 1]));
        // Since no session is taken up again, whoever may not come any more does not come.
        let mut stream = connect(address(&daemon.http), &gone).await.unwrap();
        assert!(ask(&mut stream, "/v1/token").await.is_err(), "{what}");
    }
    crowd.moved(&mut callers, "the last one").await;
    let failed = callers.try_join_next();
    assert!(failed.is_none(), "{failed:?}");
    callers.shutdown().await;
    assert_eq!(ask(&mut kept, "/v1/token").await.unwrap(), 200);
    assert_eq!(
        shown(&kept),
        der(&pairs[0]),
        "its connection is the first one"
    );

    let count = |outcome: &str| format!("bearerd_tls_reloads_total{{outcome={outcome:?}}}");
    assert_eq!(daemon.metric(&count("loaded")).await, 50.0);
    assert_eq!(daemon.metric(&count("refused")).await, 0.0);
    assert_eq!(daemon.metric("bearerd_tls_reload_failing").await, 0.0);
    let requests = crowd.requests.load(Ordering::Relaxed);
    println!("{requests} requests, none of which failed");
    assert!(requests > 50 * 8, "there was no load: {requests}");
    assert!(daemon.stop().await.success());
    desk.finish(&pairs);
}

#[tokio::test]
async fn bad_files_keep_the_old_ones_until_they_are_mended() {
    let desk = Desk::new().await;
    let signer = Authority::new("signer");
    desk.write("ca.crt", &signer.certificate);
    let good = desk.root.issue(&server());
    desk.put(&good);
    let daemon = desk.start().await;
    let side = desk.by(&signer, "http/1.1");
    first_token(&daemon, &side).await;
    let other = desk.root.issue(&server());
    let expired = desk.root.issue(&Wanted {
        life: Some((1_000_000_000, 1_600_000_000)),
        ..server()
    });
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    let cases = [
        (
            "tls.crt",
            Some(expired.certificate.clone()),
            "its certificate expired at 2020-09-13T12:26:40Z; renew it",
        ),
        (
            "tls.crt",
            Some(cut(&other.certificate)),
            "its PEM is cut off or damaged",
        ),
        (
            "tls.key",
            Some(other.key.clone()),
            "its key is not that of the certificate in",
        ),
        (
            "tls.key",
            Some(String::new()),
            "it is empty; write the whole file again",
        ),
        (
            "tls.key",
            None,
            "it cannot be read (No such file or directory",
        ),
        (
            "ca.crt",
            Some("nonsense".to_owned()),
            "no authority that can be used is in it",
        ),
    ];
    let refused = "bearerd_tls_reloads_total{outcome=\"refused\"}";
    for (number, (name, text, why)) in (1u8..).zip(cases) {
        let before = fs::read_to_string(desk.path(name)).unwrap();
        match text {
            Some(text) => desk.write(name, &text),
            None => fs::remove_file(desk.path(name)).unwrap(),
        }
        daemon.until_metric("bearerd_tls_reload_failing", 1.0).await;
        assert_eq!(daemon.metric(refused).await, f64::from(number), "{why}");
        let mut stream = connect(address(&daemon.http), &side).await.unwrap();
        assert_eq!(shown(&stream), der(&good));
        assert_eq!(ask(&mut stream, "/v1/token").await.unwrap(), 200);
        desk.write(name, &before);
        daemon.until_metric("bearerd_tls_reload_failing", 0.0).await;
        let said = desk.world.captured.lines("stderr");
        let told =
            |line: &&String| line.contains("WARN") && line.contains(why) && line.contains(name);
        assert_eq!(said.iter().filter(told).count(), 1, "{why}: {said:#?}");
    }
    // One that has little left of its life is taken, and told.
    let until = u64::try_from(bearerd::clock::wall().as_second()).unwrap() + 24 * 60 * 60;
    let soon = desk.root.issue(&Wanted {
        life: Some((1_000_000_000, until)),
        ..server()
    });
    desk.put(&soon);
    until_shown(&daemon.http, &side, &soon).await;
    let expiry = daemon.metric("bearerd_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry.await, until as f64);
    let deadline = Instant::now() + PATIENCE;
    while !desk
        .world
        .captured
        .says("expires soon and has not been replaced")
    {
        assert!(Instant::now() < deadline, "its end is not told");
        sleep(REST).await;
    }
    assert!(daemon.stop().await.success());
    desk.finish(&[good, other, expired, soon]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_files_at_the_start_are_bad_settings() {
    let desk = Desk::new().await;
    let file = desk.world.write("bad.toml", &desk.toml());
    let file = file.to_str().unwrap();
    let expired = desk.root.issue(&Wanted {
        life: Some((1_000_000_000, 1_600_000_000)),
        ..server()
    });
    let good = desk.root.issue(&server());
    let cases = [
        (
            &expired,
            Some("x"),
            "tls.certificate_file: PATH/tls.crt: its certificate expired at 2020-09-13T12:26:40Z; renew it",
        ),
        (
            &good,
            Some("nonsense"),
            "tls.client_ca_file: PATH/ca.crt: no authority that can be used is in it; ",
        ),
        (
            &good,
            None,
            "tls.client_ca_file: PATH/ca.crt: it cannot be read (No such file or directory (os error 2)); ",
        ),
    ];
    for (pair, authorities, line) in cases {
        desk.put(pair);
        let _not_there = fs::remove_file(desk.path("ca.crt"));
        if let Some(text) = authorities {
            desk.write("ca.crt", text);
        }
        let line = line.replace("PATH", desk.folder.path().to_str().unwrap());
        for command in ["check", "serve"] {
            let said = run(&[command, "--config", file], &[]);
            assert_eq!(
                (said.code, said.err.lines().count()),
                (Some(78), 1),
                "{said:?}"
            );
            assert!(said.err.starts_with(&line), "{}\nis not\n{line}", said.err);
        }
    }
    desk.finish(&[good, expired]);
}

/// Runs a foreign client in the folder of the files; everything that it says, and whether it was content.
fn foreign(desk: &Desk, program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    let command = command.args(arguments).current_dir(desk.folder.path());
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said.into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_openssl_are_served_and_turned_away_as_our_own_callers_are() {
    let desk = Desk::new().await;
    let signer = Authority::new("signer");
    desk.write("ca.crt", &signer.certificate);
    desk.write("root.crt", &desk.root.certificate);
    for (name, authority) in [("good", &signer), ("stranger", &desk.root)] {
        let pair = authority.issue(&certificates::caller(&["orders.shop.svc"], &[]));
        desk.write(&format!("{name}.crt"), &pair.certificate);
        desk.write(&format!("{name}.key"), &pair.key);
    }
    // A plain GetToken: a message of no bytes.
    desk.write("empty.grpc", "\0\0\0\0\0");
    let daemon = desk.start().await;
    first_token(&daemon, &desk.by(&signer, "http/1.1")).await;
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
    let (http, grpc) = (port(&daemon.http), port(&daemon.grpc));
    let curl = |more: &[&str]| {
        let mut all = vec![
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--cacert",
            "root.crt",
        ];
        all.extend(["--header", "X-Bearerd-Request: true", "--output", "body"]);
        all.extend(["--write-out", "%{http_code} %{http_version}"]);
        all.extend(more);
        foreign(&desk, "curl", &all)
    };
    let url = format!("https://localhost:{http}/v1/token");
    let good = ["--cert", "good.crt", "--key", "good.key"];
    let with = |more: &[&'static str], url: &str| {
        let all: Vec<&str> = good.iter().chain(more).copied().chain([url]).collect();
        curl(&all)
    };
    assert_eq!(with(&[], &url), (true, "200 1.1".to_owned()));
    assert_eq!(
        with(&["--tlsv1.2", "--tls-max", "1.2"], &url),
        (true, "200 1.1".to_owned())
    );
    let token = fs::read_to_string(desk.path("body")).unwrap();
    assert!(token.contains("access_token"));
    let url_grpc = format!("https://localhost:{grpc}{GET}");
    let call = [
        "--http2",
        "--data-binary",
        "@empty.grpc",
        "--header",
        "Content-Type: application/grpc",
        "--header",
        "TE: trailers",
    ];
    assert_eq!(with(&call, &url_grpc), (true, "200 2".to_owned()));

    let refused = [
        curl(&[&url]),
        curl(&["--cert", "stranger.crt", "--key", "stranger.key", &url]),
        with(&["--http1.1"], &url_grpc),
    ];
    for (content, said) in refused {
        assert!(!content && !said.contains("200"), "{said}");
    }
    let (_, in_clear) = curl(&[&url.replace("https", "http")]);
    assert_eq!(in_clear, "400 1.1");
    let problem = fs::read_to_string(desk.path("body")).unwrap();
    assert!(problem.contains("this port speaks TLS"), "{problem}");
    // TLS where there is none.
    let admin = format!("https://{}/livez", daemon.admin);
    assert!(!with(&[], &admin).0);
    for version in ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"] {
        let to = format!("localhost:{http}");
        // Debian's openssl speaks the old versions only below its usual level.
        let level = "DEFAULT:@SECLEVEL=0";
        let arguments = ["s_client", "-connect", &to, version, "-cipher", level];
        let files = [
            "-CAfile", "root.crt", "-cert", "good.crt", "-key", "good.key",
        ];
        let all: Vec<&str> = arguments.iter().chain(&files).copied().collect();
        let (_, said) = foreign(&desk, "openssl", &all);
        let old = ["-tls1", "-tls1_1"].contains(&version);
        assert_eq!(said.contains("BEGIN CERTIFICATE"), !old, "{said}");
        assert_eq!(said.contains("alert"), old, "{said}");
    }
    let count = |outcome: &str| format!("bearerd_tls_handshakes_total{{outcome={outcome:?}}}");
    for (outcome, expected) in [
        ("no_certificate", 1.0),
        ("unknown_issuer", 1.0),
        ("no_protocol", 1.0),
        ("not_tls", 1.0),
        ("incompatible", 2.0),
    ] {
        assert_eq!(daemon.metric(&count(outcome)).await, expected, "{outcome}");
    }
    assert!(daemon.stop().await.success());
    desk.finish(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_names_its_caller_who_may_do_what_that_name_may() {
    let desk = Desk::new().await;
    let signer = Authority::new("signer");
    desk.write("ca.crt", &signer.certificate);
    let toml = desk.toml()
        + "[callers.batch]\nuids = [4242]\nsans = [\"spiffe://prod/ns/*/sa/batch\"]\nmay = [\"report\"]\n";
    let file = desk.world.write("state.toml", &toml);
    let daemon = Daemon::start(&file, &desk.world.captured).await;
    first_token(&daemon, &desk.by(&signer, "http/1.1")).await;
    let unknown = (403, Code::PermissionDenied);
    let named = |dns: &[&'static str], uris: &[&'static str]| certificates::caller(dns, uris);
    for (wanted, expected) in [
        (named(&["Orders.Shop.svc"], &[]), (200, Code::Ok)),
        (
            named(&["x.other.svc", "orders.shop.svc"], &[]),
            (200, Code::Ok),
        ),
        (named(&[], &["spiffe://prod/ns/shop/sa/batch"]), unknown),
        (named(&["other.shop.svc"], &[]), unknown),
        (
            named(&["*.shop.svc"], &["spiffe://prod/ns/shop/sa/orders"]),
            unknown,
        ),
    ] {
        let pair = signer.issue(&wanted);
        let by = |protocol| side(&[&desk.root.certificate], Some(&pair), protocol);
        let mut http = connect(address(&daemon.http), &by("http/1.1"))
            .await
            .unwrap();
        let status = ask(&mut http, "/v1/token").await.unwrap();
        let grpc = connect(address(&daemon.grpc), &by("h2")).await.unwrap();
        let (_, said) = Caller::over(grpc).await.ask(GET, &[], b"").await;
        let code = said.code();
        assert_eq!(
            (status, code),
            expected,
            "{:?} {:?}",
            wanted.dns,
            wanted.uris
        );
    }
    assert!(daemon.stop().await.success());
    let said = |words: &[&str]| {
        let lines = desk.world.captured.lines("stderr");
        lines
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(said(&[
        "first_vend",
        "caller=\"orders\"",
        "orders.shop.svc"
    ]));
    assert!(said(&[
        "refused",
        "caller=\"batch\"",
        "not_permitted",
        "spiffe://prod/ns/shop/sa/batch"
    ]));
    assert!(said(&["refused", "unknown_caller", "other.shop.svc"]));
    assert!(
        !said(&["gives the token to every process"]),
        "its ports want certificates"
    );
    desk.finish(&[]);
}
