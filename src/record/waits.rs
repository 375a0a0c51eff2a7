//! How long the next attempt waits after one that failed.

use std::time::Duration;

use super::{Attempt, Outcome, Record, Rules, Slot};
use crate::budget::Class;
use crate::clock::Stamp;

/// So many answers of intermediaries in a row are taken for a short disturbance.
const FEW: u32 = 3;

impl Record {
    /// Lets the next attempt wait until then; only the newest attempt may shorten a wait that is
    /// there.
    pub(super) fn wait(&mut self, attempt: &Attempt, until: Stamp) {
        let longer = self.not_before.filter(|at| at.boot > until.boot);
        self.not_before = longer.filter(|_| !self.is_newest(attempt)).or(Some(until));
    }

    /// Lets no attempt begin sooner than `budget.spacing` after one that may have arrived until
    /// `now`.
    pub(super) fn keep_distance(&mut self, now: Stamp, rules: &Rules) {
        let at = now.plus(rules.spacing);
        if self.not_before.is_none_or(|before| before.boot < at.boot) {
            self.not_before = Some(at);
        }
    }

    /// The same after an end, for whatever set comes next. What is begun keeps that distance by its
    /// slot.
    pub(super) fn keep_distance_after_an_end(&mut self, now: Stamp, rules: &Rules) {
        self.keep_distance(now, rules);
        if !rules.spacing.is_zero() {
            self.hold(now.plus(rules.spacing));
        }
    }

    /// How long to wait after a 429 that does not say: until the oldest slot frees, since more may
    /// be counted than we know of. But strangers' slots free when they will, so once the token has
    /// ended, or is believed to be refused, the issuer is asked now and then; not more often, since
    /// it may count what it refuses.
    pub(super) fn after_a_throttle(
        &self,
        attempt: &Attempt,
        now: Stamp,
        rules: &Rules,
    ) -> Duration {
        let slots = self.ledger.iter();
        let oldest_frees = slots
            .map(|slot| slot.frees_at.boot.saturating_sub(now.boot))
            .filter(|left| !left.is_zero())
            .min()
            .unwrap_or_default();
        let held = self.token.as_ref();
        let believed = held.filter(|_| attempt.class != Class::Reported);
        let left = believed.map_or(Duration::ZERO, |token| token.expires_at.left(now));
        oldest_frees.min(left.max(rules.throttled))
    }

    /// When the next attempt may follow one that may have been counted: the back-off, or the time
    /// left shared out among the slots that are free by its end, whichever is longer. No share
    /// reaches past the end of the token, nor counts one that the lost mint may have revoked.
    pub(super) fn after_a_loss(&self, jitter: u32, now: Stamp, rules: &Rules) -> Stamp {
        self.after_a_failure(u32::MAX, jitter, now, rules)
    }

    /// The same where an intermediary answered, which may take half of the slots.
    pub(super) fn after_an_intermediary(&self, jitter: u32, now: Stamp, rules: &Rules) -> Stamp {
        let most = rules.budget.intermediary_cap().get();
        self.after_a_failure(most, jitter, now, rules)
    }

    /// The earliest boot time, not before `now`, at which an attempt may be made while nothing but
    /// intermediaries answer.
    ///
    /// They may take half of the slots. In a long row these are spread evenly; in its first period
    /// the last of them is kept for the middle of the time until another frees.
    pub fn intermediaries_allow(&self, now: Duration, rules: &Rules) -> Duration {
        if !self.is_behind_an_intermediary() {
            return now;
        }
        let most = rules.budget.intermediary_cap().get();
        let taken: Vec<Duration> = self.intermediaries().filter(|at| *at > now).collect();
        let last = self.ledger.iter().map(|slot| slot.reserved_at.boot).max();
        let last = last.unwrap_or_default();
        let distance = match self.streak.lost {
            0..=FEW => Duration::ZERO,
            row if row >= most => rules.budget.period() / most,
            _ if taken.len() + 1 == most as usize => {
                let frees = taken.iter().min().copied().unwrap_or_default();
                frees.saturating_sub(last) / 2
            }
            _ => Duration::ZERO,
        };
        let free = rules.budget.earliest_in_a_run(taken.into_iter(), now);
        free.max(last + distance)
    }

    /// `most`: how many slots intermediaries may take.
    fn after_a_failure(&self, most: u32, jitter: u32, now: Stamp, rules: &Rules) -> Stamp {
        if self.may_be_retried() {
            return now.plus(rules.first_retry);
        }
        let held = self.token.as_ref().filter(|_| !rules.revokes_previous);
        let left = held.map_or(Duration::ZERO, |token| token.expires_at.left(now));
        // A slot that frees itself before the token ends is as good as one that is free now.
        let end = (now.boot + left)
            .saturating_sub(Duration::from_nanos(1))
            .max(now.boot);
        let taken = self.intermediaries().filter(|at| *at > end).count();
        let left_to_them = most.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        let slots = rules
            .budget
            .free(&self.spent(), Class::Urgent, end)
            .min(left_to_them);
        let spread = |wait: Duration| wait * jitter / 1000;
        let backoff = spread(rules.backoff.after(self.streak.lost));
        let share = spread(left / slots.saturating_add(1)).min(left);
        now.plus(backoff.max(share).min(rules.budget.period()))
    }

    /// When the slots free that intermediaries took.
    fn intermediaries(&self) -> impl Iterator<Item = Duration> {
        let theirs = |slot: &&Slot| slot.outcome == Outcome::Intermediary;
        self.ledger
            .iter()
            .filter(theirs)
            .map(|slot| slot.frees_at.boot)
    }

    /// True while nothing but intermediaries answer: the newest attempt whose end is known says so.
    pub(super) fn is_behind_an_intermediary(&self) -> bool {
        let ended = self
            .ledger
            .iter()
            .filter(|slot| slot.outcome != Outcome::Begun);
        let last = ended.max_by_key(|slot| slot.reserved_at.boot);
        last.is_some_and(|slot| slot.outcome == Outcome::Intermediary)
    }
}
