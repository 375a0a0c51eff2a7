//! The binary as somebody at a terminal uses it: arguments, what it says on which stream, and its exit code.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::harness::PATIENCE;

/// What a run came to.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command that runs the binary in an empty environment, but for what finds programs.
pub fn bearerd(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    Process::start(bearerd(arguments, environment)).end()
}

/// Runs a script by `sh`, with `bearerd` first in its path; every HTTP status that curl sees comes on stderr, a line each.
pub fn sh(script: &str, environment: &[(&str, &str)]) -> Said {
    let prelude = "set -eu\ncurl() { command curl --silent --show-error --write-out '%{stderr}HTTP %{http_code}\\n' \"$@\"; }\n";
    let binary = Path::new(env!("CARGO_BIN_EXE_bearerd"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{prelude}{script}"))
        .env_clear()
        .env("PATH", path)
        .envs(environment.iter().copied());
    Process::start(command).end()
}

impl Said {
    /// The HTTP statuses of a script's requests, in their order.
    pub fn statuses(&self) -> Vec<&str> {
        self.err
            .lines()
            .filter_map(|line| line.strip_prefix("HTTP "))
            .collect()
    }
}

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            keep(child.stdout.take().unwrap(), &out),
            keep(child.stderr.take().unwrap(), &err),
        ];
        Self {
            child,
            out,
            err,
            readers,
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Looks again and again until there is what is looked for.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "not until now: {what} (ended: {ended:?})\n{}{}",
                self.out(),
                self.err()
            );
            sleep(Duration::from_millis(2));
        }
    }

    /// Waits for it to end by itself.
    pub fn end(mut self) -> Said {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end\n{}{}",
                self.out(),
                self.err()
            );
            sleep(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Said {
            code: status.code(),
            out: self.out(),
            err: self.err(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

fn keep(stream: impl Read + Send + 'static, kept: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let kept = Arc::clone(kept);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    })
}

/// Holds a text to a file of `tests/golden`, or to a part of another file; `BLESS=1` writes it instead.
pub fn golden(path: &str, actual: &str, expected: &str, whole: &str) {
    if actual == expected {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, whole).unwrap();
        return;
    }
    let at = actual
        .lines()
        .zip(expected.lines())
        .position(|(one, other)| one != other);
    panic!(
        "{path} is no longer true, from line {} of what it should say on; if that is meant, write it anew with\n  \
         BLESS=1 tests/run integration\nand read the difference.\n\n{actual}",
        at.unwrap_or(actual.lines().count().min(expected.lines().count())) + 1
    );
}

/// The whole of a file of `tests/golden`.
pub fn golden_file(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    golden(&path, actual, &expected, actual);
}
