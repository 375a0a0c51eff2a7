//! What every transport reads: the live token, the status, and a way to ask the keeper.
//!
//! Reading is one wait-free load of a snapshot that was prepared when the token was published. The snapshot is the only truth;
//! the watch channel carries a generation only to wake those who wait. Transports never reach the keeper itself: they send it
//! commands through here.

pub mod status;

use std::sync::Arc;
use std::time::Duration;

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
    json: Rendering,
    message: Rendering,
}

/// What a caller is told about a token at one moment. All of it follows from the token and the
/// clocks, so that every transport says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Times {
    /// The whole seconds until its end, rounded down.
    pub expires_in: u64,
    /// Its end by the wall clock as it is now, cut to milliseconds.
    pub expires_at: jiff::Timestamp,
    /// When the request that minted it was sent, likewise.
    pub issued_at: jiff::Timestamp,
}

impl Times {
    fn new(token: &Token, now: Stamp) -> Self {
        Self {
            expires_in: token.expires_at.left(now).as_secs(),
            expires_at: to_milliseconds(token.expires_at.shown_expiry(now)),
            issued_at: to_milliseconds(token.issued_at.shown_beside(token.expires_at, now)),
        }
    }
}

/// One form of an answer, rendered for the second that was asked for last.
struct Rendering(ArcSwap<Rendered>);

struct Rendered {
    /// The [`Times::expires_in`] that it says.
    seconds: u64,
    /// When it was made, on the boot clock.
    at: Duration,
    /// The distance of the clocks at that moment.
    offset: i64,
    bytes: Bytes,
}

impl Rendered {
    /// True if a rendering at `now` would say the same: the seconds are the same, no clock was set,
    /// and by less than [`MIN_STEP`] not since a second ago.
    fn is_current(&self, seconds: u64, now: Stamp) -> bool {
        self.seconds == seconds
            && now.boot.saturating_sub(self.at) < MAX_RENDERED_AGE
            && offset(now).abs_diff(self.offset) < MIN_STEP
    }
}

impl Rendering {
    fn new() -> Self {
        Self(ArcSwap::from_pointee(Rendered {
            seconds: u64::MAX,
            at: Duration::ZERO,
            offset: 0,
            bytes: Bytes::new(),
        }))
    }

    /// What is held, if it is current; otherwise it is made anew.
    fn get(&self, token: &Token, now: Stamp, make: impl FnOnce(Times) -> Bytes) -> Bytes {
        let seconds = token.expires_at.left(now).as_secs();
        let held = self.0.load();
        if held.is_current(seconds, now) {
            return held.bytes.clone();
        }
        let bytes = make(Times::new(token, now));
        self.0.store(Arc::new(Rendered {
            seconds,
            at: now.boot,
            offset: offset(now),
            bytes: bytes.clone(),
        }));
        bytes
    }
}

/// A second is also how often the number of seconds changes, so this costs no rendering of its own.
const MAX_RENDERED_AGE: Duration = Duration::from_secs(1);

/// In seconds. By one alone [`offset`] differs without a step, since both clocks are cut to seconds.
const MIN_STEP: u64 = 2;

/// The wall clock's distance from the boot clock in seconds: cheap, as it is asked for at each read.
fn offset(at: Stamp) -> i64 {
    at.wall.as_second().wrapping_sub_unsigned(at.boot.as_secs())
}

#[derive(Serialize)]
struct Head<'a> {
    access_token: &'a str,
    token_type: &'static str,
}

#[derive(Serialize)]
struct Tail {
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
            generation: token.generation,
            suspect,
        };
        // Its escapes are those of JSON, and a token has few: what grows leaves a copy behind.
        let mut json_head = Zeroizing::new(Vec::with_capacity(64 + 2 * head.access_token.len()));
        serde_json::to_writer(&mut *json_head, &head).expect("text is JSON");
        json_head.pop();
        let tail = serde_json::to_string(&tail).expect("numbers are JSON");
        let tag = format!("W/\"{}-{}\"", token.generation, token.secret.fingerprint());
        Self {
            text: wiped(token.secret.expose().into()),
            etag: HeaderValue::from_maybe_shared(Bytes::from(tag))
                .expect("numbers and hex digits make a header value"),
            json_head,
            json_tail: format!(",{}\n", tail.trim_start_matches('{')).into(),
            json: Rendering::new(),
            message: Rendering::new(),
            token,
            suspect,
        }
    }

    /// This in a transport's own form at `now`, made at most about once a second. There is one such
    /// form.
    pub fn message(&self, now: Stamp, make: impl FnOnce(&Self, Times) -> Bytes) -> Bytes {
        self.message
            .get(&self.token, now, |times| make(self, times))
    }

    /// The JSON answer at `now`.
    pub fn json(&self, now: Stamp) -> Bytes {
        self.json.get(&self.token, now, |times| self.render(times))
    }

    fn render(&self, times: Times) -> Bytes {
        let times = serde_json::to_string(&times).expect("times and numbers are JSON");
        let times = times.trim_matches(['{', '}']);
        let length = self.json_head.len() + 1 + times.len() + self.json_tail.len();
        let mut answer = Vec::with_capacity(length);
        answer.extend_from_slice(&self.json_head);
        answer.push(b',');
        answer.extend_from_slice(times.as_bytes());
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
    use jiff::{SignedDuration, Timestamp};

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
    fn an_answer_is_rendered_once_a_second_and_anew_after_a_step() {
        let live = live(5, 3600);
        let milliseconds = |boot, wall| Stamp {
            wall: at(0).wall + SignedDuration::from_millis(wall),
            boot: Duration::from_millis(boot),
        };
        let rendered = std::cell::Cell::new(0);
        let ask = |boot, wall| {
            live.message(milliseconds(boot, wall), |_, times| {
                rendered.set(rendered.get() + 1);
                wiped(times.expires_at.to_string().into())
            })
        };
        let first = ask(100, 100);
        assert_eq!(
            ask(999, 999).as_ptr(),
            first.as_ptr(),
            "it costs nothing anew"
        );
        assert_eq!(rendered.get(), 1);
        assert_eq!(first, "2027-01-15T09:00:00Z");
        // Seconds change at their own moment, and nothing else is rendered.
        for boot in (1_100..60_000).step_by(100) {
            ask(boot, i64::try_from(boot).unwrap());
        }
        assert_eq!(rendered.get(), 60);
        // Set back by five hours, and forward: the text is true at once.
        ask(60_100, 60_100);
        let after = ask(60_200, 60_200 - 18_000_000);
        assert_eq!(after, "2027-01-15T04:00:00Z");
        let after = ask(60_300, 60_300 + 600_000);
        assert_eq!(after, "2027-01-15T09:00:00Z");
        // Set back by less than two seconds: a second later at the latest.
        ask(70_100, 70_100);
        ask(70_200, 69_700);
        let after = ask(71_100, 70_600);
        assert_eq!(after, "2027-01-15T08:59:59.5Z");
        // Here the wall clock ends the token; it goes back by one second, and the number stays the same.
        ask(80_100, 1_080_100);
        let before = rendered.get();
        ask(80_200, 1_080_200);
        assert_eq!(rendered.get(), before);
        ask(81_200, 1_080_200);
        assert_eq!(
            rendered.get(),
            before + 1,
            "what is a second old is made anew"
        );
        // The same number of seconds again, long after it was rendered.
        ask(100_500, 3_000_500);
        let after = ask(3_000_600, 3_000_100);
        assert_eq!(after, "2027-01-15T08:59:59.5Z");
    }

    #[test]
    fn what_was_prepared_belongs_to_an_owner_that_wipes_it() {
        let live = live(5, 100);
        let prepared = [
            live.text.clone(),
            live.json(at(40)),
            live.message(at(40), |live, _| wiped(live.text.to_vec())),
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
