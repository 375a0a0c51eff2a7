//! What is in force, and how it follows the files.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::files::{Contents, Files, Identity};
use super::metrics::Metrics;
use super::problem::Problem;
use super::set::{Facts, Set, set};
use crate::clock::Clock;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long a change must have rested before it is read: whoever writes several files has written all of them by then.
const REST: Duration = Duration::from_millis(250);

/// After so many looks files that never rest are read all the same.
const RESTLESS: u32 = 20;

/// A certificate that has less than this part of its life left should have been replaced, and so should one with less than
/// [`SOON_AT_MOST`].
const SOON_PART: i32 = 10;
const SOON_AT_MOST: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The credentials of all TLS listeners.
pub struct Credentials {
    files: Files,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    http: Arc<ArcSwap<ServerConfig>>,
    grpc: Arc<ArcSwap<ServerConfig>>,
    admin: Arc<ArcSwap<ServerConfig>>,
    facts: Facts,
    /// The contents that are in force.
    taken: [u8; 32],
    on_disk: OnDisk,
    age: Age,
}

/// What is known of the files.
struct OnDisk {
    /// As they were at the last look.
    identity: Identity,
    state: State,
    /// The bad contents that were told last, until good ones come.
    told: Option<[u8; 32]>,
}

/// How far the last change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// What is there was read and is in force.
    Settled,
    /// They have changed, and changed again at so many looks.
    Changing(u32),
    /// They were bad when they were read last.
    Bad,
}

/// How near the certificate's end is, as far as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Young,
    Soon,
    Over,
}

impl Files {
    /// Reads and checks them without taking them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, clock: &Arc<dyn Clock>) -> Result<Facts, Problem> {
        set(self, &self.contents(), clock).map(|set| set.facts)
    }
}

impl Credentials {
    /// Reads and checks the files for the first time.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(files: Files, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<Self, Problem> {
        let identity = files.identity();
        let contents = files.contents();
        let set = set(&files, &contents, &clock)?;
        let shared = |config| Arc::new(ArcSwap::new(config));
        metrics.in_force(set.facts.until);
        tell("the TLS certificate is in force", &set.facts);
        Ok(Self {
            files,
            clock,
            metrics,
            http: shared(set.http),
            grpc: shared(set.grpc),
            admin: shared(set.admin),
            facts: set.facts,
            taken: contents.digest(),
            on_disk: OnDisk {
                identity,
                // Somebody may have been writing while they were read.
                state: State::Changing(0),
                told: None,
            },
            age: Age::Young,
        })
    }

    /// What listeners for callers over HTTP/1.1 go by.
    pub fn http(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.http)
    }

    /// What listeners for callers over HTTP/2 go by.
    pub fn grpc(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.grpc)
    }

    /// What listeners for operators go by: they need no certificate.
    pub fn admin(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.admin)
    }

    /// Follows the files until the drain, away from the thread that serves: they may lie on a disk that hangs.
    pub async fn keep(mut self, drain: CancellationToken) {
        let mut looking = JoinSet::new();
        loop {
            looking.spawn_blocking(move || {
                let next = self.look();
                (self, next)
            });
            let looked = tokio::select! {
                looked = looking.join_next() => looked.expect("one look is under way"),
                () = drain.cancelled() => return,
            };
            let (it, next) =
                looked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            self = it;
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = drain.cancelled() => return,
            }
        }
    }

    /// Looks at the files once, and says how long to wait before the next look.
    fn look(&mut self) -> Duration {
        self.warn_of_age();
        let identity = self.files.identity();
        let rested = identity == self.on_disk.identity;
        self.on_disk.identity = identity;
        match (self.on_disk.state, rested) {
            (State::Settled, true) => LOOK,
            (State::Changing(looks), false) if looks < RESTLESS => {
                self.on_disk.state = State::Changing(looks + 1);
                REST
            }
            (State::Settled | State::Bad, false) => {
                self.on_disk.state = State::Changing(1);
                REST
            }
            (State::Changing(_), _) | (State::Bad, true) => {
                self.read();
                LOOK
            }
        }
    }

    /// Reads the files, and takes what is new and good.
    fn read(&mut self) {
        let contents = self.files.contents();
        let digest = contents.digest();
        let good = match digest == self.taken {
            true => Ok(None),
            false => set(&self.files, &contents, &self.clock).map(Some),
        };
        match good {
            Ok(set) => self.take(set, digest),
            Err(problem) => self.refuse(&problem, &contents),
        }
    }

    fn take(&mut self, set: Option<Set>, digest: [u8; 32]) {
        if let Some(set) = set {
            self.http.store(set.http);
            self.grpc.store(set.grpc);
            self.admin.store(set.admin);
            tell("the TLS files have changed and are in force", &set.facts);
            self.metrics.in_force(set.facts.until);
            self.metrics.loaded();
            self.facts = set.facts;
            self.taken = digest;
            self.age = Age::Young;
        } else if self.on_disk.told.is_some() {
            info!("the TLS files are again those that are in force");
        }
        self.on_disk.told = None;
        self.on_disk.state = State::Settled;
        self.metrics.failing(false);
    }

    /// Bad contents are told when a second look has found them bad as well, and each only once.
    fn refuse(&mut self, problem: &Problem, contents: &Contents) {
        let again = self.on_disk.state == State::Bad;
        self.on_disk.state = State::Bad;
        let digest = contents.digest();
        if !again || self.on_disk.told == Some(digest) {
            return;
        }
        self.on_disk.told = Some(digest);
        self.metrics.refused();
        self.metrics.failing(true);
        let (setting, until) = (problem.file.setting(), self.facts.until);
        warn!(
            setting, %problem, %until,
            "the TLS files have changed and cannot be used; those before them stay in force"
        );
    }

    fn warn_of_age(&mut self) {
        let age = age(&self.facts, self.clock.now().wall);
        if age <= self.age {
            return;
        }
        self.age = age;
        let (until, fingerprint) = (self.facts.until, &self.facts.fingerprint);
        let path = self.files.certificate.display();
        match age {
            Age::Over => warn!(
                %until, fingerprint, %path,
                "the TLS certificate in force has expired, and callers will refuse it: write a new one there"
            ),
            _ => warn!(
                %until, fingerprint, %path,
                "the TLS certificate in force expires soon and has not been replaced: write a new one there"
            ),
        }
    }
}

fn age(facts: &Facts, now: Timestamp) -> Age {
    let left = facts.until.duration_since(now);
    let whole = facts.until.duration_since(facts.from);
    if left.is_negative() {
        Age::Over
    } else if left < (whole / SOON_PART).min(SOON_AT_MOST) {
        Age::Soon
    } else {
        Age::Young
    }
}

fn tell(what: &'static str, facts: &Facts) {
    let (names, fingerprint) = (facts.names.join(", "), &facts.fingerprint);
    let (until, authorities) = (facts.until, facts.authorities);
    info!(names, fingerprint, %until, authorities, "{what}");
}

#[cfg(test)]
mod tests;
