//! The keeper's log: an outage is visible in it, and never floods it.
//!
//! [`LogThrottle`] decides which lines are due, from values and the time alone. Here they are
//! written.

mod line;
mod throttle;
mod trouble;

use tracing::{debug, error, info, warn};

use super::Note;
use crate::clock::Stamp;
use crate::token::Generation;
use line::{Fields, Line, Severity};
use throttle::LogThrottle;

/// Something that people should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The keeper says so.
    Note(Note),
    /// Other keys are at hand now.
    KeysChanged {
        /// How many pairs there are.
        count: u32,
        /// The indexes of the pairs that were not there before.
        added: Vec<usize>,
        /// The indexes of the pairs that are not there any more.
        removed: Vec<usize>,
    },
    /// The key files cannot be read, and why.
    KeysUnreadable(String),
    /// They can be read again.
    KeysReadable,
}

/// How the keeper stands at one moment, as far as the log needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The newest token, live or not: its number and its end.
    pub(super) token: Option<(Generation, Stamp)>,
    /// How long before its end a token is due for a refresh.
    pub(super) lead: std::time::Duration,
    /// The next attempt.
    pub(super) next: Next,
    /// The end of an attempt is being written: until it is, the next attempt is not known.
    pub(super) settling: bool,
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// The earliest moment; now if nothing but what it waits for can tell.
    pub(super) at: Stamp,
    /// The word of the status; `answer` if it is under way, `record` while one before it is
    /// written.
    pub(super) waiting_for: &'static str,
}

/// Collects what happens in a step of the keeper, and writes what is due.
#[derive(Default)]
pub(super) struct KeeperLog {
    throttle: LogThrottle,
    events: Vec<Event>,
}

impl KeeperLog {
    /// Takes in what happened; at `debug` it is logged at once.
    pub(super) fn add(&mut self, event: Event) {
        debug!(?event, "noted");
        self.events.push(event);
    }

    /// Writes what is due after a step.
    pub(super) fn write(&mut self, now: Stamp, outlook: &Outlook) {
        let lines = self.throttle.step(now, outlook, self.events.drain(..));
        lines.iter().for_each(|line| write(line, now));
    }

    /// Writes what waited for its turn: the process ends.
    pub(super) fn finish(&mut self, now: Stamp, outlook: &Outlook) {
        self.write(now, outlook);
        let lines = self.throttle.finish(now, outlook);
        lines.iter().for_each(|line| write(line, now));
    }
}

macro_rules! event {
    ($level:ident, $message:ident, $fields:ident) => {
        $level!(
            times = $fields.times,
            generation = $fields.generation,
            keys = $fields.keys,
            added = $fields.added,
            removed = $fields.removed,
            outcome = $fields.outcome,
            said = $fields.said,
            failed = $fields.failed,
            since = $fields.since,
            until = $fields.until,
            lasted = $fields.lasted,
            refused_for = $fields.refused_for,
            register = $fields.register,
            token_until = $fields.token_until,
            token_left = $fields.token_left,
            next = $fields.next,
            next_in = $fields.next_in,
            waiting_for = $fields.waiting_for,
            "{}",
            $message
        )
    };
}

fn write(line: &Line, now: Stamp) {
    let fields = Fields::new(line, now);
    match line.message.text() {
        (Severity::Info, message) => event!(info, message, fields),
        (Severity::Warn, message) => event!(warn, message, fields),
        (Severity::Error, message) => event!(error, message, fields),
    }
}
