//! What every transport reads: the live token, the status, and a way to ask the keeper.
//!
//! Reading is one wait-free load of a snapshot that was prepared when the token was published. The snapshot is the only truth;
//! the watch channel carries a generation only to wake those who wait. Transports never reach the keeper itself: they send it
//! commands through here.

pub mod status;

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use hyper::header::HeaderValue;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

pub use status::Status;

use crate::clock::Stamp;
use crate::token::{Generation, Token, wiped};

/// A token as it is vended, with everything about it that can be prepared once for all answers.
pub struct Live {
    /// The token and its times.
    pub token: Token,
    /// A caller reported that the issuer refuses it, and its successor is not there yet.
    pub suspect: bool,
    /// The bare token.
    pub text: Bytes,
    /// The weak entity tag: `W/"<generation>-<8 hex of SHA-256>"`.
    pub etag: HeaderValue,
    json_head: Zeroizing<Vec<u8>>,
    json_tail: Box<str>,
    /// What a transport with another form made of this, once.
    message: OnceLock<Bytes>,
    /// The JSON of the second that was asked for last: `expires_in` is all that changes in it.
    json: ArcSwap<Rendered>,
}

struct Rendered {
    seconds: u64,
    json: Bytes,
}

#[derive(Serialize)]
struct Head<'a> {
    access_token: &'a str,
    token_type: &'static str,
}

#[derive(Serialize)]
struct Tail {
    expires_at: jiff::Timestamp,
    issued_at: jiff::Timestamp,
    generation: Generation,
    suspect: bool,
}

impl Live {
    /// Prepares the answers for a token.
    pub fn new(token: Token, suspect: bool) -> Self {
        let head = Head {
            access_token: token.secret.expose(),
            token_type: "Bearer",
        };
        let tail = Tail {
            expires_at: to_milliseconds(token.expires_at.wall),
            issued_at: to_milliseconds(token.issued_at.wall),
            generation: token.generation,
            suspect,
        };
        // Its escapes are those of JSON, and a token has few: what grows leaves a copy behind.
        let mut json_head = Zeroizing::new(Vec::with_capacity(64 + 2 * head.access_token.len()));
        serde_json::to_writer(&mut *json_head, &head).expect("text is JSON");
        json_head.pop();
        json_head.extend_from_slice(b",\"expires_in\":");
        let tail = serde_json::to_string(&tail).expect("times and numbers are JSON");
        let tag = format!("W/\"{}-{}\"", token.generation, token.secret.fingerprint());
        Self {
            text: wiped(token.secret.expose().into()),
            etag: HeaderValue::from_maybe_shared(Bytes::from(tag))
                .expect("numbers and hex digits make a header value"),
            json_head,
            json_tail: format!(",{}\n", tail.trim_start_matches('{')).into(),
            json: ArcSwap::from_pointee(Rendered {
                seconds: u64::MAX,
                json: Bytes::new(),
            }),
            message: OnceLock::new(),
            token,
            suspect,
        }
    }

    /// This in a transport's own form, which is made at the first question and kept. There is one such form.
    pub fn message(&self, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.message.get_or_init(|| make(self)).clone()
    }

    /// The JSON answer at `now`; `expires_in` is in whole seconds, rounded down.
    pub fn json(&self, now: Stamp) -> Bytes {
        let seconds = self.token.expires_at.left(now).as_secs();
        let held = self.json.load();
        if held.seconds == seconds {
            return held.json.clone();
        }
        let json = self.render(seconds);
        self.json.store(Arc::new(Rendered {
            seconds,
            json: json.clone(),
        }));
        json
    }

    fn render(&self, seconds: u64) -> Bytes {
        let mut answer = Vec::with_capacity(self.json_head.len() + 20 + self.json_tail.len());
        answer.extend_from_slice(&self.json_head);
        answer.extend_from_slice(seconds.to_string().as_bytes());
        answer.extend_from_slice(self.json_tail.as_bytes());
        wiped(answer)
    }
}

/// A time of the token cut to milliseconds, so that it is never shown later than it is.
fn to_milliseconds(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// Why nothing can be vended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No token has been minted or found yet.
    NoTokenYet,
    /// The last token has reached its `expires_at`.
    Expired,
}

/// What a report of a refused token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is believed, and a successor is being minted.
    Refreshing,
    /// It is about another generation than the current one.
    StaleGeneration,
    /// The token is so young that the issuer may not know it everywhere yet.
    TooYoung,
    /// It is believed, but reports are paced: a successor is minted when the pace and the budget allow.
    Paced {
        /// The earliest moment of that mint.
        until: Stamp,
    },
}

/// What an operator's wish for a refresh came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A mint is under way.
    Refreshing,
    /// Not now.
    Refused {
        /// What stands in the way, as in the status.
        waiting_for: &'static str,
        /// When it may be asked again, where that is known.
        until: Option<Stamp>,
    },
}

/// What transports may ask of the keeper.
#[derive(Debug)]
pub enum Command {
    /// The issuer refused the token of this generation.
    Report {
        /// The generation that was refused.
        generation: Generation,
        /// Where the outcome goes; whoever hangs up cancels nothing.
        reply: oneshot::Sender<ReportOutcome>,
    },
    /// An operator wants a new token.
    Refresh {
        /// Where the outcome goes.
        reply: oneshot::Sender<RefreshOutcome>,
    },
}

/// The keeper has ended; the process is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bearerd is shutting down")]
pub struct Gone;

/// The live token, the status, and the way to the keeper. One per process, shared by all transports.
pub struct Vend {
    live: ArcSwapOption<Live>,
    status: ArcSwap<Status>,
    generation: watch::Sender<Option<Generation>>,
    commands: mpsc::Sender<Command>,
}

/// So many commands may wait for the keeper; who comes later waits for a place.
const COMMANDS: usize = 64;

impl Vend {
    /// Nothing to vend yet. The receiver is the keeper's.
    pub fn new(status: Status) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let vend = Self {
            live: ArcSwapOption::empty(),
            status: ArcSwap::from_pointee(status),
            generation: watch::Sender::new(None),
            commands,
        };
        (Arc::new(vend), receiver)
    }

    /// The token that may be vended at `now`. Wait-free: one load.
    pub fn current(&self, now: Stamp) -> Result<Arc<Live>, Unavailable> {
        match self.live.load_full() {
            Some(live) if live.token.expired(now) => Err(Unavailable::Expired),
            Some(live) => Ok(live),
            None => Err(Unavailable::NoTokenYet),
        }
    }

    /// Puts a token out, if it is newer than the one that is out, or the same with another mark. Only the keeper calls this.
    pub fn publish(&self, live: Live) {
        let generation = live.token.generation;
        let live = Arc::new(live);
        let replaced = self.live.rcu(|held| match held {
            Some(held) if held.token.generation > generation => Some(Arc::clone(held)),
            _ => Some(Arc::clone(&live)),
        });
        if replaced.is_none_or(|held| held.token.generation <= generation) {
            self.generation.send_replace(Some(generation));
        }
    }

    /// Wakes whenever [`Vend::current`] may answer something new. Take it before reading, so that nothing is missed.
    pub fn watch(&self) -> watch::Receiver<Option<Generation>> {
        self.generation.subscribe()
    }

    /// How things stand, as of the keeper's last step (at most a second ago).
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Replaces the status. Only the keeper calls this.
    pub fn publish_status(&self, status: Status) {
        self.status.store(Arc::new(status));
    }

    /// Says that the issuer refused the token of this generation.
    pub async fn report(&self, generation: Generation) -> Result<ReportOutcome, Gone> {
        self.ask(|reply| Command::Report { generation, reply })
            .await
    }

    /// Asks for a new token now.
    pub async fn refresh(&self) -> Result<RefreshOutcome, Gone> {
        self.ask(|reply| Command::Refresh { reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    mod stress;

    use super::*;
    use crate::token::Secret;
    use jiff::Timestamp;
    use std::time::Duration;

    fn at(second: u64) -> Stamp {
        Stamp {
            wall: Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap(),
            boot: Duration::from_secs(second),
        }
    }

    fn live(generation: u64, expires: u64) -> Live {
        let token = Token {
            generation: Generation(generation),
            secret: Secret::new(format!("token-{generation}")),
            issued_at: at(0),
            refresh_at: at(1),
            expires_at: at(expires),
        };
        Live::new(token, false)
    }

    #[test]
    fn a_token_is_replaced_only_by_a_newer_one() {
        let (vend, _commands) = Vend::new(Status::default());
        let watch = vend.watch();
        assert_eq!(vend.current(at(0)).err(), Some(Unavailable::NoTokenYet));
        vend.publish(live(5, 100));
        vend.publish(live(4, 900));
        assert_eq!(
            vend.current(at(99)).map(|it| it.token.generation),
            Ok(Generation(5))
        );
        assert_eq!(*watch.borrow(), Some(Generation(5)));
        vend.publish(live(6, 200));
        assert_eq!(
            vend.current(at(99)).map(|it| it.token.generation),
            Ok(Generation(6))
        );
    }

    #[test]
    fn nothing_is_vended_from_its_end_on() {
        let (vend, _commands) = Vend::new(Status::default());
        vend.publish(live(5, 100));
        assert!(vend.current(at(99)).is_ok());
        assert_eq!(vend.current(at(100)).err(), Some(Unavailable::Expired));
    }

    #[test]
    fn the_prepared_answer_is_the_documented_one() {
        let answer = live(5, 100).json(at(40));
        let expected = concat!(
            r#"{"access_token":"token-5","token_type":"Bearer","expires_in":60,"expires_at":"2027-01-15T08:01:40Z","#,
            r#""issued_at":"2027-01-15T08:00:00Z","generation":5,"suspect":false}"#,
            "\n"
        );
        assert_eq!(std::str::from_utf8(&answer).unwrap(), expected);
        let token = live(5, 100);
        assert_eq!(token.json(at(40)), token.json(at(40)));
        assert_ne!(token.json(at(40)), token.json(at(41)));
        assert_eq!(&token.etag.as_bytes()[..5], b"W/\"5-");
    }

    #[test]
    fn what_was_prepared_belongs_to_an_owner_that_wipes_it() {
        let live = live(5, 100);
        let prepared = [
            live.text.clone(),
            live.json(at(40)),
            live.message(|live| wiped(live.text.to_vec())),
        ];
        drop(live);
        for bytes in prepared {
            // A plain buffer, now that nobody else holds it, would be given away to be written to.
            assert!(bytes.try_into_mut().is_err());
        }
        assert!(Bytes::from(b"plain".to_vec()).try_into_mut().is_ok());
    }

    #[tokio::test]
    async fn whoever_asks_after_the_end_is_told_so() {
        let (vend, commands) = Vend::new(Status::default());
        drop(commands);
        assert_eq!(vend.report(Generation(1)).await, Err(Gone));
        assert_eq!(vend.refresh().await, Err(Gone));
    }
}
