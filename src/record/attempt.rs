//! The life of an attempt to mint: begun, then committed or aborted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::slot;
use super::{Claim, Lengths, Outcome, Record, Rules, Slot, Trigger};
use crate::budget::Class;
use crate::clock::Stamp;
use crate::token::{Freshness, Generation, Token};

/// What an attempt is begun for, and by whom.
#[derive(Clone, Debug)]
pub struct Reservation<'a> {
    /// What it may spend.
    pub class: Class,
    /// What set it off.
    pub trigger: Trigger,
    /// The process that makes it.
    pub holder: &'a str,
    /// The fingerprint of the set at hand: the keys, and the address that they are sent to.
    pub keys: &'a str,
    /// The lowest generation that this process may allot: one above any it has seen.
    pub at_least: Generation,
    /// Scales the wait after a lost attempt, in thousandths: 800 to 1200.
    pub jitter: u32,
}

/// An attempt that holds a slot and a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, which its token will carry.
    pub generation: Generation,
    /// The process that makes it.
    pub holder: String,
    /// What it may spend.
    pub class: Class,
    /// What set it off.
    pub trigger: Trigger,
    /// The index of the key to use, modulo the number of keys.
    pub key: u32,
    /// When it was reserved. A request that is not asked for by `timeout` after this, or has no connection within another
    /// `timeout`, is not sent.
    pub reserved_at: Stamp,
    /// Scales the wait after it, should it be lost, in thousandths.
    pub jitter: u32,
    /// What is given back if it does not leave.
    pub taken: Taken,
}

/// What an attempt takes besides its slot. It is given back with the slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// One of the requests that an unknown history may cost before the blind pace.
    pub at_once: bool,
    /// The right of its set to be tried at once.
    pub first_of_set: bool,
    /// The wait after earlier failures, which it needed not wait for; it holds for other sets.
    pub passed: Option<Stamp>,
}

/// How an attempt failed, as far as the record must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No byte of the request left: the slot is given back.
    NotSent,
    /// It may have been counted. `answered`: the issuer did answer, so that it is counted by now if ever.
    Lost {
        /// Whether an answer came.
        answered: bool,
    },
    /// Something that stands before the issuer answered in its place: it may have been counted, and may be yet.
    Intermediary,
    /// The issuer counts too many; it may say how long to wait.
    Throttled {
        /// The issuer's wish.
        retry_after: Option<Duration>,
    },
    /// The issuer refused. With `key_at_fault` another key may do better; without, none will.
    Refused {
        /// Whether the refusal was about the key.
        key_at_fault: bool,
        /// How many keys there are.
        keys: u32,
        /// What the issuer said.
        reason: String,
    },
}

impl Attempt {
    fn took(&self, slot: &Slot) -> bool {
        slot.attempt == self.generation && slot.holder == self.holder
    }
}

impl Record {
    /// Takes a slot and the claim for a new attempt. The caller has checked that it may.
    ///
    /// The attempt is written as if it were already lost, back-off and all, so that a process that dies now leaves the truth behind.
    pub fn begin(
        &self,
        reservation: &Reservation<'_>,
        now: Stamp,
        rules: &Rules,
    ) -> (Self, Attempt) {
        let mut next = self.clone();
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        next.generation = self.generation.next().max(reservation.at_least);
        let taken = Taken {
            at_once: next.count_at_once(now, rules),
            first_of_set: next.take_up(reservation.keys),
            passed: self.not_before.filter(|at| at.boot > now.boot),
        };
        if reservation.trigger == Trigger::Operator {
            next.free_set();
        }
        next.put_off(now, rules);
        next.hold_until = self.hold_until.filter(|at| at.boot > now.boot);
        let attempt = Attempt {
            generation: next.generation,
            holder: reservation.holder.to_owned(),
            class: reservation.class,
            trigger: reservation.trigger,
            key: next.keys.cursor,
            reserved_at: now,
            jitter: reservation.jitter,
            taken,
        };
        next.ledger.push(Slot {
            attempt: attempt.generation,
            holder: attempt.holder.clone(),
            class: attempt.class,
            trigger: attempt.trigger,
            reserved_at: now,
            frees_at: now.plus(rules.budget.period()),
            outcome: Outcome::Begun,
            lengths: Some(Lengths::of(&rules.budget)),
            carried: false,
            newer: slot::Newer::default(),
        });
        next.claim = Some(Claim {
            attempt: attempt.generation,
            holder: attempt.holder.clone(),
            until: now.plus(rules.claim()),
            newer: BTreeMap::new(),
        });
        next.streak.lost = next.streak.lost.saturating_add(1);
        next.not_before = Some(next.after_a_loss(attempt.jitter, now, rules));
        next.keep_distance(now, rules);
        if next
            .probation
            .as_ref()
            .is_some_and(|it| it.until.is_some_and(|until| until.boot <= now.boot))
        {
            next.probation = None;
        }
        (next, attempt)
    }

    /// Puts the token in that an attempt gave, unless a later attempt's is there already.
    ///
    /// The issuer counted the attempt before `answered_at`, so its slot may free earlier than was reserved for.
    pub fn commit(
        &self,
        attempt: &Attempt,
        token: &Token,
        answered_at: Stamp,
        now: Stamp,
        rules: &Rules,
    ) -> Self {
        let mut next = self.settle(attempt, Outcome::Minted, Some(answered_at), now, rules);
        let news = |held: &Token| held.generation < token.generation;
        if self.token.as_ref().is_none_or(news) {
            next.token = Some(token.clone());
            // A token that is due at birth must not set off the next mint at once, nor make its failures forgotten.
            if token.freshness(now) == Freshness::Fresh {
                next.streak.lost = 0;
                next.tried.clear();
            }
        }
        // What may be made at once is for who has no token.
        next.nothing_at_once();
        if self.is_newest(attempt) {
            next.free_set();
            next.keys.refused = 0;
            next.keys.retry_at = None;
            next.streak.unsent = 0;
        }
        // A fresh token sets off nothing by itself, and a believed report need not wait.
        let pause = match next.streak.lost {
            0 => Duration::ZERO,
            failures => rules.backoff.after(failures),
        };
        next.wait(attempt, now.plus(pause));
        next.keep_distance_after_an_end(now, rules);
        next
    }

    /// Writes down how an attempt failed and when the next may be made.
    ///
    /// Written twice it counts once, and a late writer can take nothing from a later attempt: neither its wait nor its keys.
    pub fn abort(&self, attempt: &Attempt, failure: &Failure, now: Stamp, rules: &Rules) -> Self {
        let mut slots = self.ledger.iter();
        let open = slots.any(|slot| attempt.took(slot) && slot.outcome == Outcome::Begun);
        match failure {
            Failure::NotSent if !open => self.settle_claim(attempt),
            Failure::NotSent => self.given_back(attempt, now, rules),
            Failure::Lost { answered } => {
                let mut next =
                    self.settle(attempt, Outcome::Lost, answered.then_some(now), now, rules);
                next.wait(attempt, next.after_a_loss(attempt.jitter, now, rules));
                next.keep_distance_after_an_end(now, rules);
                next
            }
            Failure::Intermediary => {
                // Whatever it was, it does not know whether the issuer has counted by now.
                let mut next = self.settle(attempt, Outcome::Intermediary, None, now, rules);
                next.wait(
                    attempt,
                    next.after_an_intermediary(attempt.jitter, now, rules),
                );
                next.keep_distance_after_an_end(now, rules);
                next
            }
            Failure::Throttled { retry_after } => {
                let mut next = self.settle(attempt, Outcome::Throttled, Some(now), now, rules);
                let longest = rules.budget.period();
                let shortest = Duration::from_secs(1).min(longest);
                let wait = retry_after
                    .unwrap_or_else(|| next.after_a_throttle(attempt, now, rules))
                    .clamp(shortest, longest);
                next.wait(attempt, now.plus(wait));
                next.keep_distance_after_an_end(now, rules);
                next
            }
            Failure::Refused { .. } if !open || !self.is_newest(attempt) => {
                self.settle(attempt, Outcome::Refused, Some(now), now, rules)
            }
            Failure::Refused {
                key_at_fault,
                keys,
                reason,
            } => {
                let mut next = self.settle(attempt, Outcome::Refused, Some(now), now, rules);
                next.streak.lost = self.streak.lost.saturating_sub(1);
                next.keys.refused = self.keys.refused.saturating_add(1);
                next.keys.cursor = attempt.key.wrapping_add(1) % (*keys).max(1);
                next.not_before = Some(now);
                next.keep_distance_after_an_end(now, rules);
                if !*key_at_fault || next.keys.refused >= *keys || self.parked.is_some() {
                    next.park(reason, now, rules);
                }
                next
            }
        }
    }

    /// The record without an attempt whose request did not leave, but for the wait before the next one.
    fn given_back(&self, attempt: &Attempt, now: Stamp, rules: &Rules) -> Self {
        let mut next = self.settle(attempt, Outcome::Lost, None, now, rules);
        next.ledger.retain(|slot| !attempt.took(slot));
        next.streak.lost = self.streak.lost.saturating_sub(1);
        next.streak.unsent = self.streak.unsent.saturating_add(1);
        let until = now.plus(rules.unsent.after(next.streak.unsent));
        if self.is_newest(attempt) {
            if attempt.taken.at_once {
                next.uncount_at_once();
            }
            if attempt.taken.first_of_set {
                next.untry();
            }
            next.keys.retry_at = Some(until);
        }
        let passed = attempt.taken.passed.filter(|at| at.boot > until.boot);
        next.wait(attempt, passed.unwrap_or(until));
        next
    }

    /// Gives the claim back and writes the outcome into the slot. A slot that a lost record no longer has is put back; one that is
    /// gone because it was free is not, for its number may have been allotted twice.
    fn settle(
        &self,
        attempt: &Attempt,
        outcome: Outcome,
        counted_by: Option<Stamp>,
        now: Stamp,
        rules: &Rules,
    ) -> Self {
        let mut next = self.settle_claim(attempt);
        let ours = Lengths::of(&rules.budget);
        let frees_at = |lengths: Lengths| {
            let latest = attempt.reserved_at.plus(lengths.period);
            counted_by
                .map(|by| by.plus(lengths.once_counted))
                .filter(|sooner| sooner.boot < latest.boot)
                .unwrap_or(latest)
        };
        if let Some(slot) = next.ledger.iter_mut().find(|slot| attempt.took(slot)) {
            let lengths = slot.lengths.map_or(ours, |own| own.longer(ours));
            slot.frees_at = frees_at(lengths);
            slot.lengths = Some(lengths);
            (slot.outcome, slot.carried) = (outcome, false);
        } else if frees_at(ours).boot > now.boot {
            next.ledger.push(Slot {
                attempt: attempt.generation,
                holder: attempt.holder.clone(),
                class: attempt.class,
                trigger: attempt.trigger,
                reserved_at: attempt.reserved_at,
                frees_at: frees_at(ours),
                outcome,
                lengths: Some(ours),
                carried: false,
                newer: slot::Newer::default(),
            });
        }
        next
    }

    /// Gives the claim back.
    fn settle_claim(&self, attempt: &Attempt) -> Self {
        let mut next = self.clone();
        next.claim = self
            .claim
            .clone()
            .filter(|claim| claim.attempt != attempt.generation || claim.holder != attempt.holder);
        next.generation = self.generation.max(attempt.generation);
        next
    }

    /// True unless a later attempt has been begun, or the record was lost, since.
    pub(super) fn is_newest(&self, attempt: &Attempt) -> bool {
        self.generation <= attempt.generation
    }
}
