//! Daemons in namespaces of their own, as containers have them: a boot clock that is shifted, and
//! files under `/proc` with other contents.
//!
//! `unshare` of util-linux makes the namespaces. A machine without them, or a user without the
//! right to them, is said aloud.

use std::fmt;
use std::ops::Deref;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Daemon, World, cannot_run_here};

pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Of the shell, which becomes the daemon and keeps its number.
pub const OFFSETS: &str = "/proc/$$/timens_offsets";

/// What `OFFSETS` shows outside of every time namespace.
pub const NO_OFFSETS: &str = "monotonic           0         0\nboottime            0         0\n";

/// What is special about a container.
#[derive(Clone, Copy)]
pub struct Container {
    /// Seconds that its boot clock is ahead of the machine's. The kernel refuses an offset with
    /// which that clock would be negative.
    pub boot_offset: i64,
    /// A file, and what is in it instead.
    pub covered: Option<(&'static str, &'static [u8])>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot clock {:+} s", self.boot_offset)?;
        match self.covered {
            Some((path, _)) => write!(f, " with another {path}"),
            None => Ok(()),
        }
    }
}

/// A daemon in a container, seen from outside.
pub struct Contained {
    daemon: Daemon,
    inside: Pid,
}

impl Container {
    /// A container with this offset, in seconds.
    pub fn at(boot_offset: i64) -> Self {
        Self {
            boot_offset,
            covered: None,
        }
    }

    /// This container with other contents in a file.
    pub fn with(self, path: &'static str, contents: &'static [u8]) -> Self {
        Self {
            covered: Some((path, contents)),
            ..self
        }
    }

    /// Starts a daemon in it, on the state folder that its settings name.
    pub async fn start(&self, world: &World, name: &str, toml: &str) -> Contained {
        let settings = world.write(&format!("{name}.toml"), toml);
        let instead = world.path(&format!("{name}.instead"));
        let mut script = "shift; exec \"$@\"".to_owned();
        if let Some((path, contents)) = self.covered {
            std::fs::write(&instead, contents).unwrap();
            script = format!("mount --bind \"$1\" {path} && {script}");
        }
        let mut command = unshare(self.boot_offset);
        command
            .args(["sh", "-ec", &script, "sh"])
            .arg(instead)
            .arg(env!("CARGO_BIN_EXE_bearerd"))
            .args(["serve", "--config"])
            .arg(settings)
            .env_clear();
        let daemon = Daemon::spawn(command, &world.captured).await;
        let inside = child(daemon.pid());
        let offsets = std::fs::read_to_string(format!("/proc/{inside}/timens_offsets"));
        let shown = boot_offset(&offsets.unwrap());
        assert_eq!(shown, self.boot_offset, "the namespace's boot clock");
        Contained { daemon, inside }
    }
}

impl Contained {
    /// `kill -9`, and nothing is left of it.
    pub async fn kill(self) {
        kill_process(self.inside, Signal::KILL).unwrap();
        self.daemon.ended().await;
    }

    /// Asks politely and waits.
    pub async fn stop(self) -> ExitStatus {
        kill_process(self.inside, Signal::TERM).unwrap();
        self.daemon.ended().await
    }
}

impl Deref for Contained {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

/// True if this machine lets this user make such namespaces. Where it does not, the test that asks
/// says that it is not run.
pub fn available() -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(why_not);
    if let Some(why) = why_not {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        cannot_run_here(test, &format!("no time namespaces for this user: {why}"));
    }
    why_not.is_none()
}

fn why_not() -> Option<String> {
    const OFFSET: i64 = 86_400;
    let script = format!("mount --bind /dev/null {BOOT_ID} && exec cat /proc/self/timens_offsets");
    let tried = unshare(OFFSET).args(["sh", "-c", &script]).output();
    let output = match tried {
        Ok(output) => output,
        Err(error) => return Some(format!("unshare: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    if !output.status.success() {
        return Some(said);
    }
    let shown = boot_offset(&String::from_utf8_lossy(&output.stdout));
    (shown != OFFSET).then(|| format!("the offset does not hold: {shown}; {said}"))
}

/// `unshare` in front of a command. The command ends with it.
fn unshare(boot_offset: i64) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--time", "--mount", "--fork", "--kill-child"])
        .args(["--boottime", &boot_offset.to_string()]);
    command
}

/// The offset of the boot clock, in whole seconds.
fn boot_offset(offsets: &str) -> i64 {
    let line = offsets.lines().find_map(|it| it.strip_prefix("boottime"));
    let seconds = line.and_then(|it| it.split_whitespace().next());
    seconds.map_or(0, |it| it.parse().unwrap())
}

/// The one child of a process.
fn child(of: Pid) -> Pid {
    let path = format!("/proc/{of}/task/{of}/children");
    let children = std::fs::read_to_string(path).unwrap();
    let child = children.trim().parse().unwrap();
    Pid::from_raw(child).unwrap()
}
