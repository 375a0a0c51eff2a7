//! When the next attempt may be made, computed from the record and never from memory, so that a crash loop can forget nothing.

use std::time::Duration;

use crate::budget::Class;
use crate::clock::Stamp;
use crate::record::{Outcome, Record, Refusal, Rules, Slot, Trigger};
use crate::token::{Generation, Token};

/// What was asked for beyond the schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A caller reported that this generation is refused.
    pub reported: Option<Generation>,
    /// An operator asked for a new token.
    pub operator: bool,
}

/// What an attempt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingFor {
    /// Nothing: it may be made now.
    Nothing,
    /// The token is not due yet.
    Schedule,
    /// The distance from an earlier attempt of its kind.
    Pace,
    /// The wait after a failure, or one that the issuer asked for.
    Backoff,
    /// The issuer refuses our keys.
    Parked,
    /// Something before the issuer answers in its place, and has taken its share of the slots.
    Intermediary,
    /// A slot.
    Budget,
    /// The distance that is safe after an unknown past.
    Probation,
    /// Another process is minting.
    Claim,
}

impl WaitingFor {
    /// The word in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Schedule => "schedule",
            Self::Pace => "pace",
            Self::Backoff => "backoff",
            Self::Parked => "parked",
            Self::Intermediary => "intermediary",
            Self::Budget => "budget",
            Self::Probation => "probation",
            Self::Claim => "claim",
        }
    }
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The earliest boot time at which it may begin.
    pub at: Duration,
    /// What it may spend.
    pub class: Class,
    /// What sets it off.
    pub trigger: Trigger,
    /// What it waits for until then.
    pub waiting_for: WaitingFor,
}

/// What the planning goes by.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The record as it is.
    pub record: &'a Record,
    /// The newest token that this process knows.
    pub token: Option<&'a Token>,
    /// The fingerprint of the set at hand: the keys, and the address that they are sent to.
    pub keys: &'a str,
    /// The lengths in force.
    pub rules: &'a Rules,
    /// The moment of the question.
    pub now: Stamp,
}

impl Situation<'_> {
    /// The first attempt that anything calls for.
    pub fn plan(&self, wishes: Wishes) -> Plan {
        let asked = wishes.operator.then(|| self.operators());
        let reported = self
            .token
            .filter(|token| wishes.reported == Some(token.generation))
            .map(|_| self.reported());
        let due = if self.parked() {
            self.while_parked()
        } else {
            self.scheduled()
        };
        let reported = reported.filter(|_| !self.parked());
        [asked, reported]
            .into_iter()
            .flatten()
            .chain([due])
            .min_by_key(|plan| plan.at)
            .unwrap_or(due)
    }

    /// The attempt that an operator's wish would lead to.
    pub fn operators(&self) -> Plan {
        self.earliest(Class::Routine, Trigger::Operator, self.now.boot)
    }

    /// The attempt that a believed report would lead to.
    pub fn reported(&self) -> Plan {
        self.earliest(Class::Reported, Trigger::Report, self.now.boot)
    }

    /// Why the set at hand is parked; `None` if it is not.
    pub fn refusal(&self) -> Option<Refusal<'_>> {
        self.record.refusal_of(self.keys)
    }

    /// True while the issuer refuses the very set that we have.
    pub fn parked(&self) -> bool {
        self.refusal().is_some()
    }

    /// A routine refresh once the token is due; an urgent one where there is hardly any of it left, or none.
    fn scheduled(&self) -> Plan {
        let now = self.now.boot;
        let Some(token) = self.token else {
            return self.earliest(Class::Urgent, Trigger::FirstToken, now);
        };
        let urgent_in = token
            .expires_at
            .left(self.now)
            .saturating_sub(self.rules.urgent_mark);
        let lost_both = self.rules.revokes_previous && self.record.streak.lost > 0;
        if urgent_in.is_zero() || lost_both {
            return self.earliest(Class::Urgent, Trigger::Expiry, now);
        }
        let routine = self.earliest(
            Class::Routine,
            Trigger::Schedule,
            now + token.refresh_at.left(self.now),
        );
        let urgent = self.earliest(Class::Urgent, Trigger::Expiry, now + urgent_in);
        if urgent.at < routine.at {
            urgent
        } else {
            routine
        }
    }

    fn while_parked(&self) -> Plan {
        let others = self.record.keys.fingerprint != self.keys;
        // Where others hold a good set, a refused one need not be tried while their token is fresh.
        let fresh = self.token.filter(|_| others);
        let until_due = fresh.map_or(Duration::ZERO, |token| token.refresh_at.left(self.now));
        self.earliest(Class::Routine, Trigger::Parked, self.now.boot + until_due)
    }

    /// Raises `base` over everything that stands in the way of an attempt.
    fn earliest(&self, class: Class, trigger: Trigger, base: Duration) -> Plan {
        let now = self.now.boot;
        let start = if base > now {
            WaitingFor::Schedule
        } else {
            WaitingFor::Nothing
        };
        let mut plan = Plan {
            at: base.max(now),
            class,
            trigger,
            waiting_for: start,
        };
        let mut raise = |at: Duration, reason: WaitingFor| {
            if at > plan.at {
                (plan.at, plan.waiting_for) = (at, reason);
            }
        };
        // A set that was not tried yet need not wait for what went wrong with others.
        let untried = self.record.is_untried(self.keys);
        let own = &self.record.keys;
        let failed = self.record.not_before.filter(|_| !untried);
        let unsent = own.retry_at.filter(|_| own.fingerprint == self.keys);
        for wait in [failed, unsent, self.record.held_until()] {
            raise(
                wait.map_or(Duration::ZERO, |at| at.boot),
                WaitingFor::Backoff,
            );
        }
        let by_operator = trigger == Trigger::Operator;
        if let Some(refusal) = self.refusal().filter(|_| !by_operator) {
            raise(refusal.retry_at.boot, WaitingFor::Parked);
        }
        if !untried && !by_operator {
            let allowed = self.record.intermediaries_allow(now, self.rules);
            raise(allowed, WaitingFor::Intermediary);
        }
        raise(self.pace(class, trigger), WaitingFor::Pace);
        raise(
            self.after_last(self.rules.spacing, |_| true),
            WaitingFor::Pace,
        );
        raise(
            self.record.probation_allows(untried, now, self.rules),
            WaitingFor::Probation,
        );
        if let Some(claim) = &self.record.claim {
            raise(claim.until.boot, WaitingFor::Claim);
        }
        let spent = self.record.spent();
        let free = self.rules.budget.earliest(&spent, class, plan.at);
        if free > plan.at {
            (plan.at, plan.waiting_for) = (free, WaitingFor::Budget);
        }
        plan
    }

    /// The end of the distance that an attempt of this kind keeps from earlier ones.
    fn pace(&self, class: Class, trigger: Trigger) -> Duration {
        match (class, trigger) {
            (Class::Routine, Trigger::Operator) => {
                self.after_last(self.rules.routine_pace, |_| true)
            }
            // After a refused key the next one is tried at once.
            (Class::Routine, _) => self.after_last(self.rules.routine_pace, |slot| {
                slot.outcome != Outcome::Refused
            }),
            (Class::Reported, _) => self.after_last(self.rules.report_pace, |slot| {
                slot.class == Class::Reported && slot.outcome != Outcome::Refused
            }),
            (Class::Urgent, _) => Duration::ZERO,
        }
    }

    /// `distance` after the last attempt of a kind was reserved; zero where there was none.
    fn after_last(&self, distance: Duration, of_kind: impl Fn(&Slot) -> bool) -> Duration {
        let of_kind = self.record.ledger.iter().filter(|slot| of_kind(slot));
        of_kind
            .map(|slot| slot.reserved_at.boot + distance)
            .max()
            .unwrap_or_default()
    }
}
