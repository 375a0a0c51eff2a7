//! Bringing a record back into the present: from another boot, or after it was lost while we still held it.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Probation, Record, Rules, Slot};
use crate::clock::{BootId, Stamp};

impl Record {
    /// The record with its boot times on this boot's clock; `None` where they are already.
    ///
    /// What the wall clock says about the time between is believed but for `skew`; a wall clock that is earlier than the last
    /// writer's is not believed at all: then every slot counts as spent now, and the token as expired.
    #[must_use]
    pub fn on_boot(&self, boot_id: &BootId, now: Stamp, rules: &Rules) -> Option<Self> {
        if self.written.boot_id == *boot_id {
            return None;
        }
        let stepped_back = now.wall < self.written.at.wall;
        let period = rules.budget.period();
        // How much longer something that must not end too early, or too late, has to run.
        let at_least = |at: Stamp| {
            if stepped_back {
                period
            } else {
                remaining(at, now, signed(rules.skew)).min(period)
            }
        };
        let at_most = |at: Stamp| {
            let left = if stepped_back {
                Duration::ZERO
            } else {
                remaining(at, now, -signed(rules.skew))
            };
            now.plus(left.min(rules.lifetime))
        };
        let mut next = self.clone();
        next.ledger
            .retain(|slot| at_least(slot.frees_at) > Duration::ZERO);
        for slot in &mut next.ledger {
            let age = Duration::try_from(now.wall.duration_since(slot.reserved_at.wall))
                .unwrap_or_default();
            slot.frees_at = now.plus(at_least(slot.frees_at));
            slot.reserved_at = now.minus(age);
        }
        if let Some(token) = &mut next.token {
            token.expires_at = at_most(token.expires_at);
            token.refresh_at = at_most(token.refresh_at);
            token.issued_at = token.expires_at.minus(rules.lifetime);
        }
        next.not_before = self.not_before.map(|at| now.plus(at_least(at)));
        if let Some(until) = next
            .probation
            .as_mut()
            .and_then(|probation| probation.until.as_mut())
        {
            *until = now.plus(at_least(*until));
        }
        // The process that held the claim is gone with its boot, or runs on a machine whose boot time means nothing here.
        if let Some(claim) = &mut next.claim {
            claim.until = now.plus(rules.claim());
        }
        Some(next)
    }

    /// The record found in the register after it lost what this process still holds: the later time wins everywhere.
    ///
    /// A quarantine precedes the next mint, so that others can bring back what they hold.
    #[must_use]
    pub fn merged_with(&self, held: &Self, now: Stamp, rules: &Rules) -> Self {
        let mut next = self.clone();
        for slot in &held.ledger {
            next.merge_slot(slot);
        }
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        next.ledger.sort_by_key(|slot| slot.reserved_at.boot);
        next.generation = self.generation.max(held.generation);
        if held.token_generation() > self.token_generation() {
            next.token.clone_from(&held.token);
        }
        next.streak.lost = self.streak.lost.max(held.streak.lost);
        next.streak.unsent = self.streak.unsent.max(held.streak.unsent);
        let quarantine = now.plus(rules.claim());
        let latest = [self.not_before, held.not_before].into_iter().flatten();
        next.not_before = latest.chain([quarantine]).max_by_key(|at| at.boot);
        next.parked = self.parked.clone().or_else(|| held.parked.clone());
        if self.keys.fingerprint != held.keys.fingerprint || self.keys.refused < held.keys.refused {
            next.keys.clone_from(&held.keys);
        }
        let ends =
            |probation: &Probation| probation.until.map_or(Duration::MAX, |until| until.boot);
        let longest = [&self.probation, &held.probation]
            .into_iter()
            .flatten()
            .max_by_key(|it| ends(it));
        next.probation = longest.cloned();
        if self.lineage == held.lineage {
            next.revision = self.revision.max(held.revision);
        }
        next
    }

    /// True if this record, found in the register, can follow `held`: the same lineage, and no older copy of it.
    pub fn follows(&self, held: &Self) -> bool {
        self.lineage == held.lineage && self.revision >= held.revision
    }

    /// The generation of the newest token, for comparing.
    fn token_generation(&self) -> Option<crate::token::Generation> {
        self.token.as_ref().map(|token| token.generation)
    }

    fn merge_slot(&mut self, held: &Slot) {
        match self
            .ledger
            .iter_mut()
            .find(|slot| slot.attempt == held.attempt)
        {
            Some(slot) if slot.frees_at.boot < held.frees_at.boot => *slot = held.clone(),
            Some(_) => {}
            None => self.ledger.push(held.clone()),
        }
    }
}

/// How much is left by the wall clock until a moment that is moved by `by`.
fn remaining(at: Stamp, now: Stamp, by: SignedDuration) -> Duration {
    Duration::try_from(at.wall.duration_since(now.wall).saturating_add(by)).unwrap_or_default()
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}
