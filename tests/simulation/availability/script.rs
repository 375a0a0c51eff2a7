//! Draws up what befalls a world, and when it counts.

use crate::clocks::{Nanos, SECOND};
use crate::faults::{Fault, Kind};
use crate::upstream::RetryAfter;
use crate::world::watch::Stretch;

/// A plan that is being drawn up.
pub struct Script {
    pub at: Nanos,
    pub dice: fastrand::Rng,
    pub plan: Vec<Fault>,
    pub strangers: Vec<Nanos>,
    pub retry_after: RetryAfter,
    /// From each fault's start to its end.
    pub counts: Vec<Stretch>,
    key_sets: u64,
}

impl Script {
    pub fn new(at: Nanos, seed: u64) -> Self {
        Self {
            at,
            dice: fastrand::Rng::with_seed(seed),
            plan: Vec::new(),
            strangers: Vec::new(),
            retry_after: RetryAfter::Any,
            counts: Vec::new(),
            key_sets: 0,
        }
    }

    /// A fault from now on.
    pub fn fault(&mut self, kind: Kind, length: Nanos) {
        let extra = self.dice.u64(..);
        self.fault_with(kind, length, extra);
    }

    pub fn fault_with(&mut self, kind: Kind, length: Nanos, extra: u64) {
        // Weather that lasts, and is not for the next request alone.
        let extra = if kind.is_weather() { extra | 1 } else { extra };
        self.plan.push(Fault {
            at: self.at,
            kind,
            node: self.dice.usize(0..8),
            length,
            extra,
            doom: None,
        });
        self.counts.push((self.at, self.at + length));
    }

    /// A fault from now on, and time passes until its end.
    pub fn then(&mut self, kind: Kind, length: Nanos) {
        self.fault(kind, length);
        self.at += length;
    }

    /// 429 for whoever asks.
    pub fn throttled(&mut self, length: Nanos, retry_after: RetryAfter) {
        self.retry_after = retry_after;
        self.then(Kind::Throttled, length);
    }

    /// Other keys are put in the place of those that there are.
    pub fn new_keys(&mut self) {
        self.key_sets += 1;
        let two_keys = 3;
        self.fault_with(Kind::NewKeys, 10 * SECOND, self.key_sets % 3 + two_keys);
    }

    /// Strangers spend from our account for so long, one request every so often.
    pub fn strangers(&mut self, every: Nanos, length: Nanos, retry_after: RetryAfter) {
        self.retry_after = retry_after;
        let until = self.at + length;
        self.counts.push((self.at, until));
        while self.at < until {
            self.strangers.push(self.at);
            self.at += self.dice.u64(every / 2..every * 3 / 2);
        }
    }
}
