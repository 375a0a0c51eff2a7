//! Tells the service manager how the process stands, in the words of `sd_notify(3)`.
//!
//! READY means that the listeners are open. WATCHDOG is said while the process's work goes on, whatever becomes of the issuer. Nobody
//! waits for the manager: what it does not take now is said again at the next turn.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How often the status line is looked at.
const TURN: Duration = Duration::from_secs(1);

/// What a service manager told its service in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Where it listens: a path, or an abstract name behind an `@`.
    socket: OsString,
    /// How long it waits for a sign of life before it restarts the service.
    watchdog: Option<Duration>,
}

impl Wishes {
    /// Those of the process with this number; `None` if nobody wants to be told anything.
    pub fn find(environment: &[(OsString, OsString)], process: u32) -> Option<Self> {
        let named = |name: &str| {
            let mut variables = environment.iter();
            let found = variables.find(|(it, value)| it == name && !value.is_empty());
            found.map(|(_, value)| value.as_os_str())
        };
        let number = |name: &str| named(name)?.to_str()?.parse::<u64>().ok();
        let ours =
            named("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process.into());
        let watchdog = number("WATCHDOG_USEC").filter(|wait| ours && *wait > 0);
        Some(Self {
            socket: named("NOTIFY_SOCKET")?.to_owned(),
            watchdog: watchdog.map(Duration::from_micros),
        })
    }
}

/// How the process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Its work goes on.
    pub goes_on: bool,
    /// One line for people.
    pub status: String,
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Prepares to tell it. Nothing is said yet.
    pub fn new(wishes: &Wishes) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address: address(&wishes.socket)?,
            watchdog: wishes.watchdog,
        })
    }

    /// Says that the process is ready, then how it stands, until `end`; and once `stopping` is cancelled, that it stops.
    pub async fn keep_told(
        self,
        stopping: CancellationToken,
        end: CancellationToken,
        mut pulse: impl FnMut() -> Pulse,
    ) {
        let mut said = Said::default();
        let turn = self.watchdog.map_or(TURN, |wait| (wait / 2).min(TURN));
        loop {
            let ending = end.is_cancelled();
            let stops = ending || stopping.is_cancelled();
            let now = Instant::now();
            let next = said.next(&pulse(), stops, self.beat_due(&said, now).then_some(now));
            let words = next.since(&said);
            if words.is_empty()
                || self
                    .socket
                    .send_to_addr(words.as_bytes(), &self.address)
                    .is_ok()
            {
                said = next;
            }
            if ending {
                return;
            }
            tokio::select! {
                () = sleep(turn) => {}
                () = stopping.cancelled(), if !stops => {}
                () = end.cancelled() => {}
            }
        }
    }

    /// A sign of life comes twice in the time that the manager waits.
    fn beat_due(&self, said: &Said, now: Instant) -> bool {
        self.watchdog.is_some_and(|wait| {
            let turn = (wait / 2).min(TURN);
            said.beat.is_none_or(|at| now + turn > at + wait / 2)
        })
    }
}

/// What the manager knows.
#[derive(Clone, Default)]
struct Said {
    ready: bool,
    stops: bool,
    status: String,
    beat: Option<Instant>,
}

impl Said {
    /// What it should know now.
    fn next(&self, pulse: &Pulse, stops: bool, beat: Option<Instant>) -> Self {
        Self {
            ready: true,
            stops,
            status: match stops {
                true => "draining".to_owned(),
                false => pulse.status.clone(),
            },
            // A drain has a deadline of its own.
            beat: beat.filter(|_| stops || pulse.goes_on).or(self.beat),
        }
    }

    /// The words for what differs.
    fn since(&self, before: &Self) -> String {
        let mut words = String::new();
        if self.ready && !before.ready {
            words.push_str("READY=1\n");
        }
        if self.stops && !before.stops {
            words.push_str("STOPPING=1\n");
        }
        if self.status != before.status {
            words.push_str(&format!("STATUS={}\n", self.status.replace('\n', " ")));
        }
        if self.beat != before.beat {
            words.push_str("WATCHDOG=1\n");
        }
        words
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "NOTIFY_SOCKET is neither a path nor an abstract name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn wishes(variables: &[(&str, &str)]) -> Option<Wishes> {
        let variable = |(name, value): &(&str, &str)| (name.into(), value.into());
        let environment: Vec<_> = variables.iter().map(variable).collect();
        Wishes::find(&environment, 7)
    }

    #[test]
    fn wishes_are_found_in_the_environment() {
        assert_eq!(wishes(&[("WATCHDOG_USEC", "9")]), None);
        assert_eq!(wishes(&[("NOTIFY_SOCKET", "")]), None);
        let watchdog = |more: &[(&str, &str)]| {
            let all = [&[("NOTIFY_SOCKET", "/run/x")], more].concat();
            wishes(&all).unwrap().watchdog
        };
        let nine = Some(Duration::from_micros(9));
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "9")]), nine);
        assert_eq!(
            watchdog(&[("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", "7")]),
            nine
        );
        assert_eq!(
            watchdog(&[("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", "8")]),
            None
        );
        for odd in ["0", "-1", "x"] {
            assert_eq!(watchdog(&[("WATCHDOG_USEC", odd)]), None, "{odd}");
        }
        let elsewhere = wishes(&[("NOTIFY_SOCKET", "vsock:2:1")]).unwrap();
        assert!(Manager::new(&elsewhere).is_err());
    }

    /// A manager's socket, abstract or in a folder, and the way to it.
    fn listening(socket: &str, watchdog: Option<Duration>) -> (UnixDatagram, Manager) {
        let wishes = Wishes {
            socket: socket.into(),
            watchdog,
        };
        let heard = UnixDatagram::bind_addr(&address(&wishes.socket).unwrap()).unwrap();
        heard.set_nonblocking(true).unwrap();
        (heard, Manager::new(&wishes).unwrap())
    }

    fn words(heard: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let next = || {
            let length = heard.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_hears_of_the_whole_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").display().to_string();
        let name = format!("@bearerd-test-{}", std::process::id());
        for socket in [path, name] {
            let (heard, manager) = listening(&socket, Some(Duration::from_secs(10)));
            let (stopping, end) = (CancellationToken::new(), CancellationToken::new());
            let goes_on = Rc::new(Cell::new(true));
            let seen = Rc::clone(&goes_on);
            let kept = manager.keep_told(stopping.clone(), end.clone(), move || Pulse {
                goes_on: seen.get(),
                status: "no token yet".into(),
            });
            let told = async {
                sleep(Duration::from_millis(1)).await;
                assert_eq!(
                    words(&heard),
                    ["READY=1\nSTATUS=no token yet\nWATCHDOG=1\n"]
                );
                sleep(Duration::from_secs(20)).await;
                assert_eq!(words(&heard), ["WATCHDOG=1\n"; 4]);
                goes_on.set(false);
                sleep(Duration::from_secs(60)).await;
                assert_eq!(words(&heard), [""; 0], "its work does not go on");
                stopping.cancel();
                sleep(Duration::from_millis(1)).await;
                assert_eq!(words(&heard), ["STOPPING=1\nSTATUS=draining\nWATCHDOG=1\n"]);
                end.cancel();
            };
            tokio::join!(kept, told);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_ends_at_once_is_told_too_and_a_manager_that_is_gone_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let (heard, manager) = listening(&path.display().to_string(), None);
        let end = CancellationToken::new();
        end.cancel();
        let pulse = || Pulse {
            goes_on: true,
            status: "a\nb".into(),
        };
        manager.keep_told(end.clone(), end.clone(), pulse).await;
        assert_eq!(words(&heard), ["READY=1\nSTOPPING=1\nSTATUS=draining\n"]);
        std::fs::remove_file(&path).unwrap();
        let (_, manager) = listening(&path.display().to_string(), None);
        manager.keep_told(end.clone(), end, pulse).await;
    }
}
