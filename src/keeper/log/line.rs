//! One line of the keeper's log: what it says, and its fields as they are written.

use std::time::Duration;

use jiff::{Timestamp, TimestampRound, Unit};

use super::Next;
use super::trouble::{Failure, Open, Over};
use crate::clock::Stamp;
use crate::token::Generation;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Failed,
    Parked,
    StillParked,
    StillFailing,
    HalfLead,
    NoToken,
    GoesOn,
    Recovered,
    RecoveredByOther,
    LivesAgain,
    RegisterDown,
    RegisterStillDown,
    RegisterUp,
    KeysUnreadable,
    KeysReadable,
    KeysChanged,
    Minted,
    MintedOddly,
    Odd,
    Found,
    Suspect,
    NewRecord,
    RecordLost,
    OtherBoot,
    OtherClock,
    MovedAside,
    Adopted,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Info,
    Warn,
    Error,
}

impl Message {
    /// The line's level and its constant text. One row per message.
    #[rustfmt::skip]
    pub(super) fn text(self) -> (Severity, &'static str) {
        use Severity::{Error, Info, Warn};
        match self {
            Self::Failed => (Warn, "an attempt to mint failed"),
            Self::Parked => (Warn, "the issuer refuses our keys or settings: attempts are rare until they change or an operator unparks"),
            Self::StillParked => (Warn, "the issuer refused these keys or settings before this start: they are tried again at the moment of next, or at once when they change or an operator unparks"),
            Self::StillFailing => (Warn, "the attempts before this start have failed, and the next one waits for its moment; the log of then says why"),
            Self::HalfLead => (Warn, "half of the time to replace the token is over, and no refresh has succeeded"),
            Self::NoToken => (Error, "there is no live token: every caller is refused until an attempt succeeds"),
            Self::GoesOn => (Warn, "the outage goes on: no attempt has succeeded"),
            Self::Recovered => (Info, "a token was minted: the outage is over"),
            Self::RecoveredByOther => (Info, "a token was found in the record: the outage is over"),
            Self::LivesAgain => (Info, "the clock was set and the token lives: the outage is over"),
            Self::RegisterDown => (Warn, "the register does not serve; nothing is minted until it does"),
            Self::RegisterStillDown => (Warn, "the register still does not serve; nothing is minted until it does"),
            Self::RegisterUp => (Info, "the register serves again"),
            Self::KeysUnreadable => (Warn, "the keys cannot be read again; those at hand are kept"),
            Self::KeysReadable => (Info, "the keys can be read again"),
            Self::KeysChanged => (Info, "the keys have changed"),
            Self::Minted => (Info, "a token was minted"),
            Self::MintedOddly => (Warn, "a token was minted, and the issuer's answer was odd"),
            Self::Odd => (Warn, "the issuer's answer was odd"),
            Self::Found => (Info, "a token was found in the record"),
            Self::Suspect => (Warn, "a caller reported that the token is refused"),
            Self::NewRecord => (Info, "no record was found; a new one begins, and its past counts as unknown"),
            Self::RecordLost => (Warn, "the record was lost or replaced by an older copy; what is held is merged back"),
            Self::OtherBoot => (Info, "the record comes from another boot; its times are carried over"),
            Self::OtherClock => (Warn, "the clocks have moved apart since the record was written; its times are taken for the worse of both"),
            Self::Adopted => (Warn, "the record was another account's, which never got a token; it is this account's from now on, and no slot is forgotten"),
            Self::MovedAside => (Warn, "a file that is no record was moved aside"),
        }
    }
}

/// A line that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) message: Message,
    /// How many of its kind it stands for.
    pub(super) times: u32,
    pub(super) generation: Option<Generation>,
    pub(super) keys: Option<Keys>,
    pub(super) failure: Failure,
    /// How many attempts, or operations of the register, have failed.
    pub(super) failed: Option<u32>,
    pub(super) since: Option<Stamp>,
    pub(super) until: Option<Stamp>,
    pub(super) lasted: Option<Duration>,
    /// For how long callers were refused.
    pub(super) refused_for: Option<Duration>,
    /// Why the register does not serve, beside another trouble.
    pub(super) register: Option<String>,
    /// The end of the live token; `Some(None)` if there is none.
    pub(super) token: Option<Option<Stamp>>,
    pub(super) next: Option<Next>,
}

/// Keys that have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) count: u32,
    pub(super) added: Vec<usize>,
    pub(super) removed: Vec<usize>,
}

impl Keys {
    /// This change behind an earlier one that was not told.
    pub(super) fn after(mut self, before: Option<Self>) -> Self {
        let before = before.unwrap_or(Self {
            count: 0,
            added: Vec::new(),
            removed: Vec::new(),
        });
        let kept = |pairs: Vec<usize>, undone: &[usize]| {
            pairs
                .into_iter()
                .filter(|pair| !undone.contains(pair))
                .collect()
        };
        let added: Vec<usize> = kept(before.added, &self.removed);
        let removed: Vec<usize> = kept(before.removed, &self.added);
        self.added.extend(added);
        self.removed.extend(removed);
        self
    }
}

impl Line {
    pub(super) fn new(message: Message) -> Self {
        Self {
            message,
            times: 1,
            generation: None,
            keys: None,
            failure: Failure::default(),
            failed: None,
            since: None,
            until: None,
            lasted: None,
            refused_for: None,
            register: None,
            token: None,
            next: None,
        }
    }

    /// The same with how long a trouble has gone on.
    pub(super) fn with_open(mut self, open: &Open, now: Stamp) -> Self {
        if self.failure == Failure::default() {
            self.failure = open.last.clone();
        }
        self.failed = Some(open.failed);
        self.since = Some(open.since);
        self.lasted = Some(open.since.age(now));
        self
    }

    /// The same with what troubles that are over came to.
    pub(super) fn with_over(mut self, over: &Over) -> Self {
        self.times = over.times;
        self.failed = Some(over.failed);
        self.since = Some(over.since);
        self.until = Some(over.until);
        self.lasted = Some(over.lasted);
        self
    }
}

/// The fields of a line. Times are of the wall clock as it is now; lengths are for people.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) times: Option<u32>,
    pub(super) generation: Option<u64>,
    pub(super) keys: Option<u32>,
    pub(super) added: Option<String>,
    pub(super) removed: Option<String>,
    pub(super) outcome: Option<&'a str>,
    pub(super) said: Option<&'a str>,
    pub(super) failed: Option<u32>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) lasted: Option<String>,
    pub(super) refused_for: Option<String>,
    pub(super) register: Option<&'a str>,
    pub(super) token_until: Option<String>,
    pub(super) token_left: Option<String>,
    pub(super) next: Option<String>,
    pub(super) next_in: Option<String>,
    pub(super) waiting_for: Option<&'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(line: &'a Line, now: Stamp) -> Self {
        let at = |at: Stamp| time(at.shown(now));
        let keys = line.keys.as_ref();
        let next = line.next.map(|next| next.at);
        let mut fields = Self {
            times: (line.times > 1).then_some(line.times),
            generation: line.generation.map(|generation| generation.0),
            keys: keys.map(|keys| keys.count),
            added: keys.and_then(|keys| indexes(&keys.added)),
            removed: keys.and_then(|keys| indexes(&keys.removed)),
            outcome: line.failure.outcome,
            said: line.failure.said.as_deref(),
            failed: line.failed,
            since: line.since.map(at),
            until: line.until.map(at),
            lasted: line.lasted.map(length),
            refused_for: line.refused_for.map(length),
            register: line.register.as_deref(),
            next: next.map(at),
            next_in: next.map(|next| length(next.boot.saturating_sub(now.boot))),
            waiting_for: line.next.map(|next| next.waiting_for),
            ..Self::default()
        };
        match line.token {
            Some(Some(end)) => {
                // Never later than the truth, on either clock.
                let left = Duration::from_secs(end.left(now).as_secs());
                fields.token_until = Some(whole(end.shown_expiry(now)));
                fields.token_left = Some(length(left));
            }
            Some(None) => fields.token_left = Some("none".into()),
            None => {}
        }
        fields
    }
}

/// RFC 3339, to the nearest second.
fn time(at: Timestamp) -> String {
    at.round(TimestampRound::new().smallest(Unit::Second))
        .unwrap_or(at)
        .to_string()
}

/// The same, rounded down.
fn whole(at: Timestamp) -> String {
    Timestamp::from_second(at.as_millisecond().div_euclid(1000))
        .unwrap_or(at)
        .to_string()
}

/// As in `3m 12s`, to the nearest second.
fn length(length: Duration) -> String {
    let seconds = length.saturating_add(Duration::from_millis(500)).as_secs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn indexes(pairs: &[usize]) -> Option<String> {
    let texts: Vec<String> = pairs.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}
