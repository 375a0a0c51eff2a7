//! A Truecaller that fits in a process: the business token's contract over plain HTTP, for demos, tests and users' CI.
//!
//! It mints, counts and refuses as the upstream is documented to, and goes wrong on request. What the contract leaves open is a
//! setting. The rules are pure functions of values and `now`; hyper is a thin shell around them. No `Debug`, log line or
//! control answer holds a token, and a key is shown only to whoever just made it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod answer;
mod body;
mod budget;
mod control;
mod fault;
mod gate;
mod handle;
mod keys;
mod log;
mod route;
mod script;
mod server;
mod settings;
mod tokens;
mod upstream;

pub use fault::{Fault, RetryAfter};
pub use gate::Gate;
pub use keys::{ApiKey, MOST_KEYS};
pub use log::{MintEntry, MintLog, Outcome};
pub use script::Script;
pub use settings::{OverBudget, Settings, Switches};
pub use tokens::fingerprint;
pub use upstream::{Spend, SpendCounts};

use keys::KeyRing;
use upstream::{Now, Upstream};

/// Why the sandbox cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The listener broke.
    #[error("cannot accept connections")]
    Accept {
        /// What the system said.
        source: io::Error,
    },
    /// An account has room for [`MOST_KEYS`] keys.
    #[error("an account holds at most {MOST_KEYS} keys")]
    TooManyKeys,
    /// The slot holds no key.
    #[error("there is no key {index}")]
    NoSuchKey {
        /// The slot.
        index: usize,
    },
}

/// A handle on the sandbox's state. Clones are the same sandbox; it outlives its listener.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    started: Instant,
    upstream: Mutex<Upstream>,
    arrivals: watch::Sender<u64>,
    answers: watch::Sender<u64>,
    /// The mint calls that are underway, and arrive whether or not their clients still wait.
    underway: Mutex<JoinSet<()>>,
}

/// A sandbox that listens and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub local_addr: SocketAddr,
    /// The handle.
    pub sandbox: Sandbox,
    listener: TcpListener,
}

impl Bound {
    /// Serves until `stop` is cancelled, then resets every open connection and frees the port.
    ///
    /// All connections belong to this future: dropping it closes them.
    ///
    /// # Errors
    /// [`Error::Accept`] if the listener breaks.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        server::serve(self.listener, self.sandbox, stop).await
    }

    fn start(self) -> Running {
        let sandbox = self.sandbox.clone();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(self.run(stop.clone()));
        Running {
            sandbox,
            stop,
            task,
        }
    }
}

/// A sandbox that serves in a task of its own, until this is stopped or dropped. It gives the handle's methods too.
#[derive(Debug)]
#[must_use = "the sandbox stops when this is dropped"]
pub struct Running {
    sandbox: Sandbox,
    stop: CancellationToken,
    task: JoinSet<Result<(), Error>>,
}

impl Running {
    /// The handle.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Resets every open connection and frees the port; [`Sandbox::start_again`] undoes it. Calls that a fault keeps
    /// underway still arrive.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

impl Deref for Running {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Starting and stopping.
impl Sandbox {
    /// Listens as the settings say, and reuses the address of a sandbox that has just stopped.
    ///
    /// # Errors
    /// [`Error::Bind`], or [`Error::TooManyKeys`].
    pub async fn bind(settings: Settings) -> Result<Bound, Error> {
        let keys = KeyRing::new(settings.keys.clone()).ok_or(Error::TooManyKeys)?;
        let (listener, address) = listen(settings.listen).await?;
        let sandbox = Self(Arc::new(Shared {
            address,
            started: Instant::now(),
            upstream: Mutex::new(Upstream::new(&settings, keys)),
            arrivals: watch::Sender::new(0),
            answers: watch::Sender::new(0),
            underway: Mutex::new(JoinSet::new()),
        }));
        Ok(Bound {
            local_addr: address,
            sandbox,
            listener,
        })
    }

    /// Binds, and serves in a task that the answer owns.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn start(settings: Settings) -> Result<Running, Error> {
        Ok(Self::bind(settings).await?.start())
    }

    /// Serves again on the same address with the same state, once the one before has stopped.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn start_again(&self) -> Result<Running, Error> {
        let (listener, local_addr) = listen(self.0.address).await?;
        let bound = Bound {
            local_addr,
            sandbox: self.clone(),
            listener,
        };
        Ok(bound.start())
    }

    /// Where it listens, as `http://host:port` without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.0.address)
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, source };
    // tokio sets SO_REUSEADDR here.
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// For the shell.
impl Sandbox {
    /// One look at the state, at one instant. The clock is read under the lock, so no instant is older than the last.
    fn with<R>(&self, look: impl FnOnce(&mut Upstream, Now) -> R) -> R {
        let shared = &self.0;
        let mut upstream = shared
            .upstream
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Now {
            mono: shared.started.elapsed(),
            wall: wall(),
        };
        look(&mut upstream, now)
    }

    /// As `with`, for what may be an arrival.
    fn arrive<R>(&self, look: impl FnOnce(&mut Upstream, Now) -> R) -> R {
        self.with(|it, now| {
            let seen = look(it, now);
            self.0.arrivals.send_replace(it.journal.arrivals());
            seen
        })
    }

    fn attend(&self) -> Attended {
        Attended(self.0.clone())
    }

    /// Carries a call that is underway to its arrival.
    fn spawn_underway(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut underway = self
            .0
            .underway
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while underway.try_join_next().is_some() {}
        underway.spawn(call);
    }

    fn knows(&self, account: &str) -> bool {
        self.with(|it, _| it.knows(account))
    }

    fn spend_header(&self, token: Option<&str>) -> Spend {
        self.with(|it, now| it.spend(now, token))
    }

    fn faults_json(&self) -> Value {
        self.with(|it, _| it.faults.to_json())
    }

    fn state(&self) -> Value {
        self.with(|it, now| {
            json!({
                "account": it.account(),
                "running_seconds": now.mono.as_secs_f64(),
                "arrivals": it.journal.arrivals(),
                "mints": it.journal.mints(),
                "live_tokens": it.tokens.live(now.mono),
                "budget": {
                    "limit": it.limit(),
                    "used": it.budget.count(now.mono),
                    "worst_window": it.budget.worst(),
                    "worst_window_of_arrivals": it.traffic.worst(),
                },
                "keys": it.keys.indexes(),
                "switches": it.switches,
                "faults": it.faults.to_json(),
                "spends": it.spends,
            })
        })
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}

/// A mint call that is being attended to; it is over when this is dropped.
struct Attended(Arc<Shared>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.answers.send_modify(|count| *count += 1);
    }
}

/// The sandbox is a peer with a clock of its own, and takes no clock from the daemon under test.
#[allow(clippy::disallowed_methods)]
fn wall() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
