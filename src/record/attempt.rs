//! The life of an attempt to mint: begun, then committed or aborted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::slot;
use super::{Claim, KeyTrial, Lengths, Outcome, Parked, Record, Rules, Slot, Trigger};
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
    /// The fingerprint of the keys at hand.
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
        if next.keys.fingerprint != reservation.keys {
            next.keys = KeyTrial {
                fingerprint: reservation.keys.to_owned(),
                ..KeyTrial::default()
            };
            next.parked = None;
        }
        if reservation.trigger == Trigger::Operator {
            next.parked = None;
        }
        if let Some(parked) = &mut next.parked {
            parked.retry_at = now.plus(rules.parked_retry);
        }
        let attempt = Attempt {
            generation: next.generation,
            holder: reservation.holder.to_owned(),
            class: reservation.class,
            trigger: reservation.trigger,
            key: next.keys.cursor,
            reserved_at: now,
            jitter: reservation.jitter,
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
            }
        }
        if self.is_newest(attempt) {
            next.parked = None;
            next.keys.refused = 0;
            next.streak.unsent = 0;
        }
        // A fresh token sets off nothing by itself, and a believed report need not wait.
        let pause = match next.streak.lost {
            0 => Duration::ZERO,
            failures => rules.backoff.after(failures),
        };
        next.wait(attempt, now.plus(pause));
        next.keep_distance(now, rules);
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
            Failure::NotSent => {
                let mut next = self.settle(attempt, Outcome::Lost, None, now, rules);
                next.ledger.retain(|slot| !attempt.took(slot));
                next.streak.lost = self.streak.lost.saturating_sub(1);
                next.streak.unsent = self.streak.unsent.saturating_add(1);
                next.wait(attempt, now.plus(rules.unsent.after(next.streak.unsent)));
                next
            }
            Failure::Lost { answered } => {
                let mut next =
                    self.settle(attempt, Outcome::Lost, answered.then_some(now), now, rules);
                next.wait(attempt, next.after_a_loss(attempt.jitter, now, rules));
                next.keep_distance(now, rules);
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
                next.keep_distance(now, rules);
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
                next.keep_distance(now, rules);
                if !*key_at_fault || next.keys.refused >= *keys || self.parked.is_some() {
                    let before = self.parked.clone();
                    let (since, newer) = before.map_or_else(
                        || (now, BTreeMap::new()),
                        |parked| (parked.since, parked.newer),
                    );
                    next.parked = Some(Parked {
                        since,
                        retry_at: now.plus(rules.parked_retry),
                        reason: reason.clone(),
                        newer,
                    });
                }
                next
            }
        }
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
    fn is_newest(&self, attempt: &Attempt) -> bool {
        self.generation <= attempt.generation
    }

    /// Lets the next attempt wait until then; only the newest attempt may shorten a wait that is there.
    fn wait(&mut self, attempt: &Attempt, until: Stamp) {
        let longer = self.not_before.filter(|at| at.boot > until.boot);
        self.not_before = longer.filter(|_| !self.is_newest(attempt)).or(Some(until));
    }

    /// Lets no attempt begin sooner than `budget.spacing` after one that may have arrived until `now`.
    fn keep_distance(&mut self, now: Stamp, rules: &Rules) {
        let at = now.plus(rules.spacing);
        if self.not_before.is_none_or(|before| before.boot < at.boot) {
            self.not_before = Some(at);
        }
    }

    /// How long to wait after a 429 that does not say: until the oldest slot frees, since more may be counted than we know of. But
    /// strangers' slots free when they will, so once the token has ended, or is believed to be refused, the issuer is asked now and
    /// then; not more often, since it may count what it refuses.
    fn after_a_throttle(&self, attempt: &Attempt, now: Stamp, rules: &Rules) -> Duration {
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

    /// When the next attempt may follow one that may have been counted: the back-off, or the time left shared out among the slots
    /// that are free by its end, whichever is longer. No share reaches past the end of the token, nor counts one that the lost mint
    /// may have revoked.
    fn after_a_loss(&self, jitter: u32, now: Stamp, rules: &Rules) -> Stamp {
        let held = self.token.as_ref().filter(|_| !rules.revokes_previous);
        let left = held.map_or(Duration::ZERO, |token| token.expires_at.left(now));
        // A slot that frees itself before the token ends is as good as one that is free now.
        let end = (now.boot + left).saturating_sub(Duration::from_nanos(1));
        let slots = rules
            .budget
            .free(&self.spent(), Class::Urgent, end.max(now.boot));
        let spread = |wait: Duration| wait * jitter / 1000;
        let backoff = spread(rules.backoff.after(self.streak.lost));
        let share = spread(left / slots.saturating_add(1)).min(left);
        now.plus(backoff.max(share).min(rules.budget.period()))
    }
}
