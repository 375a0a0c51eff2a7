//! A world for one test: a sandbox, a temporary folder, and daemons that run in it.
//!
//! [`World::finish`] ends the daemons and scans everything that they said and wrote for the keys and for every token that the
//! sandbox ever gave.

// Named, since another test target takes this file in by its path.
#[path = "harness/daemon.rs"]
mod daemon;
#[path = "harness/spellings.rs"]
mod spellings;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearerd::sandbox::{self, Running, Sandbox};
use tempfile::TempDir;

pub use daemon::{Daemon, Reply};
pub use spellings::{Spellings, base64, each};

/// How long anything may take that should happen soon. Only a broken daemon ever needs all of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const ACCOUNT: &str = "91c173bb-28d8-4030-9722-8663ff9589f3";

/// Says that this machine lacks what a test, or a part of it, needs. `tests/run` repeats and counts these lines at the end. The
/// stream is written to directly, since what a passing test prints is swallowed.
pub fn cannot_run_here(test: &str, reason: &str) {
    let line = format!("cannot run here: {test}: {reason}\n");
    let _nobody_reads_on = std::io::stderr().write_all(line.as_bytes());
}

/// The lengths of a test's world. The daemon and its sandbox go by the same ones.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub lifetime: Duration,
    pub window: Duration,
    pub in_flight: Duration,
    pub timeout: Duration,
    pub limit: u32,
}

impl Scale {
    /// A token lives an hour: nothing rotates while a test runs, and no mint is given up while a slow machine starts what looks at it.
    pub fn still() -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            window: Duration::from_secs(1800),
            in_flight: Duration::from_secs(60),
            timeout: Duration::from_secs(20),
            limit: 10,
        }
    }

    /// A token lives four seconds and is refreshed after about one and a half.
    pub fn brisk() -> Self {
        Self {
            lifetime: Duration::from_secs(4),
            window: Duration::from_secs(2),
            in_flight: Duration::from_millis(400),
            timeout: Duration::from_millis(200),
            limit: 10,
        }
    }
}

/// Everything that daemons said, and every secret that they must not have said.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<(String, String)>>>);

impl Captured {
    pub fn add(&self, origin: &str, text: &str) {
        self.0
            .lock()
            .unwrap()
            .push((origin.to_owned(), text.to_owned()));
    }

    /// Every line that came from there.
    pub fn lines(&self, origin: &str) -> Vec<String> {
        let said = self.0.lock().unwrap();
        let from = said.iter().filter(|(from, _)| from == origin);
        from.map(|(_, text)| text.clone()).collect()
    }

    /// Somebody has said this.
    pub fn says(&self, text: &str) -> bool {
        let said = self.0.lock().unwrap();
        said.iter().any(|(_, line)| line.contains(text))
    }

    fn scan(&self, secrets: &[String]) {
        let spellings = Spellings::of(secrets);
        for (origin, text) in self.0.lock().unwrap().iter() {
            for secret in secrets {
                if let Some(at) = text.find(secret.as_str()) {
                    let from = text[..at].rfind('\n').map_or(0, |at| at + 1);
                    panic!("a secret in {origin}, behind: {}…", &text[from..at]);
                }
            }
            assert!(
                !spellings.are_in(text),
                "a part of a secret, or one in another spelling, in {origin}: {}…",
                text.chars().take(80).collect::<String>()
            );
        }
    }
}

/// The filter that logs all there is. A bare `trace` holds what bearerd is built on at `warn`.
pub const EVERYTHING: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,tokio=trace,tonic=trace";

/// A sandbox, a folder, and what daemons in it go by.
pub struct World {
    pub sandbox: Sandbox,
    pub scale: Scale,
    pub captured: Captured,
    running: Option<Running>,
    folder: TempDir,
    /// Every half of a key that daemons could read, the replaced ones too.
    keys: Mutex<Vec<String>>,
    upstream: String,
    extra: String,
    level: &'static str,
}

impl World {
    pub async fn new(scale: Scale) -> Self {
        Self::with(scale, |_| {}).await
    }

    /// A world whose daemons say only what they say to people: for load, where every line counts.
    pub async fn quiet(scale: Scale) -> Self {
        Self {
            level: "info",
            ..Self::new(scale).await
        }
    }

    /// A world whose sandbox is not the default one.
    pub async fn with(scale: Scale, change: impl FnOnce(&mut sandbox::Settings)) -> Self {
        let mut settings = sandbox::Settings::new(ACCOUNT);
        settings.token_lifetime = scale.lifetime;
        settings.window = scale.window;
        settings.limit = scale.limit;
        settings.spends_per_second = 1_000_000;
        change(&mut settings);
        let running = Sandbox::start(settings).await.unwrap();
        // As closed as a daemon wants it, whatever the user's umask is.
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(private).tempdir();
        let folder = folder.unwrap();
        let world = Self {
            sandbox: running.sandbox().clone(),
            scale,
            captured: Captured::default(),
            running: Some(running),
            folder,
            keys: Mutex::default(),
            upstream: String::new(),
            extra: String::new(),
            level: EVERYTHING,
        };
        world.write_keys();
        world
    }

    /// Adds lines to the settings of daemons that are started from here on.
    pub fn settings(&mut self, lines: &str) {
        self.extra.push_str(lines);
        self.extra.push('\n');
    }

    /// Adds lines to the `[upstream]` settings of daemons that are started from here on.
    pub fn upstream(&mut self, lines: &str) {
        self.upstream.push_str(lines);
        self.upstream.push('\n');
    }

    /// Writes the sandbox's keys where the daemons read them.
    pub fn write_keys(&self) {
        for (index, key) in self.sandbox.keys().into_iter().enumerate() {
            self.write(&format!("key_id_{index}"), &key.key_id);
            self.write(&format!("api_key_{index}"), &key.api_key);
            self.keys.lock().unwrap().extend([key.key_id, key.api_key]);
        }
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn record(&self) -> PathBuf {
        self.state().join("record.json")
    }

    /// The settings of a daemon in this world: its state folder, and the name of its socket.
    pub fn toml(&self, state: &Path, name: &str) -> String {
        let level = self.level;
        let Scale {
            lifetime,
            window,
            in_flight,
            timeout,
            limit,
        } = &self.scale;
        let upstream = &self.upstream;
        let keys: String = (0..self.sandbox.keys().len())
            .map(|index| {
                let file = |kind: &str| self.path(&format!("{kind}_{index}")).display().to_string();
                format!(
                    "[[upstream.keys]]\nkey_id_file = {:?}\napi_key_file = {:?}\n",
                    file("key_id"),
                    file("api_key")
                )
            })
            .collect();
        format!(
            "[upstream]\naccount = {ACCOUNT:?}\nbase_url = {:?}\ntoken_lifetime = \"{lifetime:?}\"\ntimeout = \"{timeout:?}\"\n{upstream}{keys}\
             [budget]\nlimit = {limit}\nwindow = \"{window:?}\"\nin_flight = \"{in_flight:?}\"\n\
             [record.file]\nfolder = {state:?}\n\
             [http]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n[grpc]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n[admin]\nlisten = [\"127.0.0.1:0\"]\n[log]\nlevel = {level:?}\n{}",
            self.sandbox.base_url(),
            self.path(&format!("{name}.sock")).display(),
            self.path(&format!("{name}.grpc.sock")).display(),
            self.extra,
        )
    }

    /// Starts a daemon and waits until it serves.
    pub async fn start(&self) -> Daemon {
        self.start_in(&self.state(), "state").await
    }

    /// Starts another daemon on the same state folder.
    pub async fn start_beside(&self, name: &str) -> Daemon {
        self.start_in(&self.state(), name).await
    }

    /// Starts a daemon with a state folder of its own, and so a record of its own.
    pub async fn start_in(&self, state: &Path, name: &str) -> Daemon {
        let settings = self.write(&format!("{name}.toml"), &self.toml(state, name));
        Daemon::start(&settings, &self.captured).await
    }

    /// Ends the sandbox's process, as it were: connections are reset and new ones refused.
    pub async fn stop_sandbox(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub async fn start_sandbox(&mut self) {
        self.running = Some(self.sandbox.start_again().await.unwrap());
    }

    /// Looks at everything that was said and written. Call it last.
    pub fn finish(self) {
        let keys = self.keys.lock().unwrap().clone();
        let tokens = self.sandbox.issued_tokens();
        // What was cut off or spoilt on its way still shows one half of a token.
        let halves = tokens.iter().flat_map(|token| {
            let (head, tail) = token.split_at(token.len() / 2);
            [head.to_owned(), tail.to_owned()]
        });
        let secrets: Vec<String> = keys.iter().cloned().chain(halves).collect();
        self.captured.scan(&secrets);
        self.scan_state(&keys, &tokens);
        assert!(
            self.sandbox.worst_window_of_arrivals() <= self.scale.limit as usize,
            "law 1: {} mints arrived in one window",
            self.sandbox.worst_window_of_arrivals()
        );
    }

    /// The record may hold the token, and nothing else may; nobody else may read any of it.
    fn scan_state(&self, keys: &[String], tokens: &[String]) {
        let (all_keys, all_tokens) = (Spellings::of(keys), Spellings::of(tokens));
        for folder in fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
        {
            for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
                let name = file.file_name().into_string().unwrap();
                let mode = file.metadata().unwrap().permissions().mode() & 0o777;
                let text = fs::read_to_string(file.path()).unwrap_or_default();
                assert_eq!(mode, 0o600, "the mode of {name}");
                assert!(
                    !all_keys.are_in(&text) && !all_keys.are_in(&name),
                    "a key in {name}"
                );
                let holds_token = all_tokens.are_in(&text);
                assert!(
                    !holds_token || name.starts_with("record.json"),
                    "a token in {name}"
                );
            }
        }
    }
}
