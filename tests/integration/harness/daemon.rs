//! One daemon: a process, its addresses, and what can be asked of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Captured, PATIENCE};

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The last word of a problem's type.
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.text
        );
        self.json()["type"]
            .as_str()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned()
    }

    pub fn access_token(&self) -> String {
        self.json()["access_token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token: {}", self.text))
            .to_owned()
    }

    pub fn generation(&self) -> u64 {
        self.json()["generation"].as_u64().unwrap()
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    client: Client,
    captured: Captured,
    readers: Vec<JoinHandle<()>>,
    pub http: String,
    pub socket: String,
    pub grpc: String,
    pub grpc_socket: String,
    pub admin: String,
}

impl Daemon {
    /// Starts the binary with these settings, and waits until it has told its addresses.
    pub async fn start(settings: &Path, captured: &Captured) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command
            .args(["serve", "--config"])
            .arg(settings)
            .env_clear();
        Self::spawn(command, captured).await
    }

    /// Starts a daemon in a folder of its own, under a limit as `ulimit` writes it.
    pub async fn start_under(
        limit: &str,
        folder: &Path,
        settings: &Path,
        captured: &Captured,
    ) -> Self {
        let binary = env!("CARGO_BIN_EXE_bearerd");
        let script = format!("ulimit {limit}; exec \"$0\" serve --config \"$1\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, binary])
            .arg(settings)
            .env_clear()
            .current_dir(folder);
        Self::spawn(command, captured).await
    }

    /// Starts any command that becomes a daemon, and waits until it has told its addresses.
    pub async fn spawn(mut command: Command, captured: &Captured) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, said) = mpsc::channel();
        let mut readers = Vec::new();
        for (origin, stream) in [
            (
                "stderr",
                Box::new(child.stderr.take().unwrap()) as Box<dyn std::io::Read + Send>,
            ),
            ("stdout", Box::new(child.stdout.take().unwrap())),
        ] {
            let (captured, lines) = (captured.clone(), lines.clone());
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    captured.add(origin, &line);
                    let _test_has_moved_on = lines.send(in_text(line));
                }
            }));
        }
        drop(lines);
        let addresses = tokio::task::spawn_blocking(move || addresses(&said))
            .await
            .unwrap();
        let Some([http, socket, grpc, grpc_socket, admin]) = addresses else {
            let status = child.wait().unwrap();
            panic!(
                "the daemon has ended before it served: {status}; {:?}",
                captured.0.lock().unwrap()
            );
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-bearerd-request", HeaderValue::from_static("true"));
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .default_headers(headers)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            child,
            client,
            captured: captured.clone(),
            readers,
            http,
            socket,
            grpc,
            grpc_socket,
            admin,
        }
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and nothing is left of it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the process to end by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks politely and waits.
    pub async fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// One request over TCP, or why it got no answer.
    pub async fn send(
        &self,
        method: Method,
        base: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.client.request(method, format!("http://{base}{path}"));
        for (name, value) in headers {
            request = request.header(name.parse::<HeaderName>().unwrap(), *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let response = request.timeout(PATIENCE * 3).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let reply = Reply {
            status,
            headers,
            text: response.text().await?,
        };
        if status >= 400 || base == self.admin {
            self.captured.add(path, &reply.text);
            self.captured.add(path, &format!("{:?}", reply.headers));
        }
        Ok(reply)
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::GET, &self.http, path, headers, None)
            .await
            .unwrap()
    }

    pub async fn token(&self) -> Reply {
        self.get("/v1/token", &[]).await
    }

    pub async fn report(&self, body: &str) -> Reply {
        self.send(
            Method::POST,
            &self.http,
            "/v1/token/rejected",
            &[],
            Some(body),
        )
        .await
        .unwrap()
    }

    pub async fn refresh(&self) -> Reply {
        self.send(Method::POST, &self.admin, "/refresh", &[], None)
            .await
            .unwrap()
    }

    pub async fn ask_admin(&self, path: &str) -> Reply {
        self.send(Method::GET, &self.admin, path, &[], None)
            .await
            .unwrap()
    }

    pub async fn status(&self) -> Value {
        self.ask_admin("/status").await.json()
    }

    /// The value of one metric, named with its labels as they are shown.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask_admin("/metrics").await.text;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
            .parse()
            .unwrap()
    }

    /// Asks for the status again and again until it is as it should be.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "not until now: {what}; {status:#}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a metric has this value.
    pub async fn until_metric(&self, name: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name).await != value {
            assert!(Instant::now() < deadline, "{name} does not become {value}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the drain has begun.
    pub async fn until_draining(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self
            .ask_admin("/readyz?verbose")
            .await
            .text
            .contains("draining")
        {
            assert!(Instant::now() < deadline, "the drain does not begin");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first token, however long it takes.
    pub async fn first_token(&self) -> Reply {
        let reply = self.get("/v1/token", &[("prefer", "wait=30")]).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply
    }

    /// The token after this one, however long it takes.
    pub async fn next_token(&self, last: &Reply) -> Reply {
        let seen = [
            ("prefer", "wait=30"),
            ("if-none-match", last.header("etag")),
        ];
        let reply = self.get("/v1/token", &seen).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.generation() > last.generation());
        reply
    }
}

/// A line of a JSON log as it would be in a text log, as far as it tells an address.
fn in_text(line: String) -> String {
    let json: Value = serde_json::from_str(&line).unwrap_or_default();
    match (json["message"].as_str(), json["address"].as_str()) {
        (Some(message), Some(address)) => format!("{message} address={address}"),
        _ => line,
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

/// The addresses that the daemon tells in its log: HTTP and gRPC, each over TCP and over its socket, and admin.
fn addresses(said: &mpsc::Receiver<String>) -> Option<[String; 5]> {
    let mut found: [Option<String>; 5] = Default::default();
    while found.iter().any(Option::is_none) {
        let line = said.recv_timeout(PATIENCE).ok()?;
        let Some((_, address)) = line.split_once("address=") else {
            continue;
        };
        let address = address.trim().trim_matches('"').to_owned();
        let unix = usize::from(address.starts_with("unix:"));
        let place = match line {
            _ if line.contains("vending over HTTP") => unix,
            _ if line.contains("vending over gRPC") => 2 + unix,
            _ if line.contains("answering operators") => 4,
            _ => continue,
        };
        found[place] = Some(address.strip_prefix("unix:").unwrap_or(&address).to_owned());
    }
    Some(found.map(Option::unwrap_or_default))
}
