//! The Rust client: a program's own copy of the live token, kept up to date in the background.
//!
//! [`Client::connect`] begins one task that long-polls a bearerd over TCP or a Unix socket. Reading the token is then one load of a
//! snapshot: it waits for nobody, and it never gives a token that has expired. Each newer token wakes whoever [watches](Watch). While
//! the daemon is away the token at hand is kept until its end, and the task comes back to the daemon after a wait that grows up to
//! five seconds. It never asks more often than ten times a second, whatever answers there. Where the daemon's settings name callers,
//! this one needs the right to `watch`, and to `report` if it reports.
//!
//! ```no_run
//! use std::time::Duration;
//! use bearerd::client::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&"unix:/run/bearerd/http.sock".parse()?)?;
//! client.ready(Duration::from_secs(30)).await?;
//!
//! // For each call to the issuer: the token as it is now, without waiting.
//! let token = client.current()?;
//! let authorization = format!("Bearer {}", token.secret().expose());
//!
//! // The issuer said 401: tell bearerd, and wait for another token.
//! let mut watch = client.watch();
//! watch.seen(token.generation());
//! client.report(token.generation(), 401, None).await?;
//! let newer = watch.changed().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A program that needs the token once asks a [`Door`], without any task.

mod answer;
mod door;
mod failure;
mod follow;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use answer::Reported;
pub use door::{Body, Door, LONGEST_WAIT};
pub use failure::{Closed, Failure, NoToken};
pub use follow::Pace;

use crate::clock::{Clock, Stamp, SystemClock};
use crate::listener::Address;
use crate::token::{Generation, Secret};

/// A token as this process got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    secret: Secret,
    etag: String,
    generation: Generation,
    issued_at: Timestamp,
    expires_at: Stamp,
}

impl Token {
    /// What is sent to the issuer's endpoints behind `Authorization: Bearer`.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Its number: a later token has a higher one.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// When the request that minted it was sent, on the daemon's wall clock.
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// Its end: the daemon's `expires_at` on the wall clock, and on the boot clock as far ahead as the daemon said when its answer
    /// arrived. Whichever comes first ends it.
    pub fn expires_at(&self) -> Stamp {
        self.expires_at
    }

    /// True from its end on.
    pub fn expired(&self, now: Stamp) -> bool {
        self.expires_at.reached(now)
    }
}

/// What the task knows. It is replaced whole.
#[derive(Debug, Default)]
struct Snapshot {
    token: Option<Arc<Token>>,
    /// Why there is no newer one, until something goes right.
    trouble: Option<Arc<str>>,
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn current(&self) -> Result<Arc<Token>, NoToken> {
        let snapshot = self.snapshot.load();
        let why = || match &snapshot.trouble {
            Some(trouble) => trouble.to_string(),
            None => "the daemon has not answered yet".to_owned(),
        };
        let now = self.clock.now();
        match &snapshot.token {
            Some(token) if !token.expired(now) => Ok(Arc::clone(token)),
            Some(token) => Err(NoToken::Expired {
                generation: token.generation,
                at: token.expires_at.shown_expiry(now),
                why: why(),
            }),
            None => Err(NoToken::NotYet { why: why() }),
        }
    }
}

/// A connection to one bearerd, with the newest token at hand. Clones are cheap and share everything; the last one to be dropped
/// ends the task.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    door: Door,
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    /// Aborts the task when it is dropped.
    _task: JoinSet<()>,
}

impl Client {
    /// Begins to follow the daemon at this address, which need not be there yet. Call it inside a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The HTTP client cannot be made on this machine.
    pub fn connect(address: &Address) -> Result<Self, Failure> {
        Self::connect_with(address, Pace::default(), Arc::new(SystemClock::new()))
    }

    /// The same, at another pace or by another clock. The runtime's own timers are not the clock's matter.
    ///
    /// # Errors
    /// The HTTP client cannot be made on this machine.
    pub fn connect_with(
        address: &Address,
        pace: Pace,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let door = Door::new(address)?;
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::default(),
            clock,
        });
        let (changed, changes) = watch::channel(());
        let mut task = JoinSet::new();
        task.spawn(follow::follow(
            door.clone(),
            Arc::clone(&shared),
            changed,
            pace,
        ));
        Ok(Self(Arc::new(Inner {
            door,
            shared,
            changes,
            _task: task,
        })))
    }

    /// The newest token that this process knows: one load of a snapshot, without waiting.
    ///
    /// # Errors
    /// None has come yet, or the newest has expired; the error says why there is no newer one.
    pub fn current(&self) -> Result<Arc<Token>, NoToken> {
        self.0.shared.current()
    }

    /// Waits until there is a live token.
    ///
    /// # Errors
    /// There is none after this long; the error says why.
    pub async fn ready(&self, patience: Duration) -> Result<Arc<Token>, NoToken> {
        let mut watch = self.watch();
        match tokio::time::timeout(patience, watch.changed()).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(Closed)) | Err(_) => self.current(),
        }
    }

    /// Tells of the token at hand, if there is one, and then of each newer one.
    pub fn watch(&self) -> Watch {
        Watch {
            changes: self.0.changes.clone(),
            shared: Arc::clone(&self.0.shared),
            seen: None,
        }
    }

    /// Tells the daemon that the issuer answered this token with this status, and perhaps with this message. The daemon judges
    /// whether that is a refusal, and mints a successor if it is; the message must not contain the token.
    ///
    /// # Errors
    /// The daemon cannot be asked now, or does not take the report.
    pub async fn report(
        &self,
        generation: Generation,
        status: u16,
        message: Option<&str>,
    ) -> Result<Reported, Failure> {
        self.0.door.report(generation, status, message).await
    }
}

/// Wakes for newer tokens. A slow watcher skips to the newest.
#[derive(Clone)]
pub struct Watch {
    changes: watch::Receiver<()>,
    shared: Arc<Shared>,
    seen: Option<Generation>,
}

impl Watch {
    /// Takes this generation for one that was told already.
    pub fn seen(&mut self, generation: Generation) {
        self.seen = Some(generation);
    }

    /// The first live token that this watch has not told yet. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// The last [`Client`] is gone, so that no newer token can come.
    pub async fn changed(&mut self) -> Result<Arc<Token>, Closed> {
        loop {
            self.changes.borrow_and_update();
            if let Ok(token) = self.shared.current()
                && self.seen != Some(token.generation)
            {
                self.seen = Some(token.generation);
                return Ok(token);
            }
            self.changes.changed().await.map_err(|_| Closed)?;
        }
    }
}

#[cfg(test)]
mod tests;
