//! Bringing a record back into the present: from another boot, or after it was lost while we still held it.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::SignedDuration;

use super::{Outcome, Probation, Record, Rules, Slot};
use crate::clock::{BootId, Stamp};

/// So many slots are kept of a ledger that nobody can have filled.
const MOST_SLOTS: usize = 1000;

impl Record {
    /// The record with its boot times on this boot's clock; `None` where they are already.
    ///
    /// The writer's stamp is the bridge: what was left when it wrote, less what went by on the wall clock since. That is believed
    /// but for `skew`; a wall clock that is earlier than the writer's by more is not believed at all: then every slot counts as
    /// spent now, and the token as expired. No wait gets longer than it was: that much is sure without any wall clock. Steps of the
    /// wall clock before the last write do not matter.
    #[must_use]
    pub fn on_boot(&self, boot_id: &BootId, now: Stamp, rules: &Rules) -> Option<Self> {
        if self.written.boot_id == *boot_id {
            return None;
        }
        let period = rules.budget.period();
        let written = self.written.at;
        let since = now.wall.duration_since(written.wall);
        let stepped_back = since.saturating_add(signed(rules.skew)).is_negative();
        let since = Duration::try_from(since).unwrap_or_default();
        // How much longer something that must not end too early, or too late, has to run.
        let at_least = |at: Stamp| match at.boot.saturating_sub(written.boot) {
            Duration::ZERO => Duration::ZERO,
            _ if stepped_back => period,
            left => left
                .saturating_add(rules.skew)
                .saturating_sub(since)
                .min(period),
        };
        let wait = |at: Stamp| now.plus(at_least(at).min(at.boot.saturating_sub(written.boot)));
        let at_most = |at: Stamp| {
            let left = at
                .left(written)
                .saturating_sub(since.saturating_add(rules.skew));
            let left = if stepped_back { Duration::ZERO } else { left };
            now.plus(left.min(rules.lifetime))
        };
        // How long ago something surely was.
        let age = |at: Stamp| at.age(written) + since.saturating_sub(rules.skew);
        let mut next = self.clone();
        next.ledger
            .retain(|slot| at_least(slot.frees_at) > Duration::ZERO);
        for slot in &mut next.ledger {
            slot.frees_at = now.plus(at_least(slot.frees_at));
            slot.reserved_at = now.minus(age(slot.reserved_at));
        }
        if let Some(token) = &mut next.token {
            token.expires_at = at_most(token.expires_at);
            token.refresh_at = at_most(token.refresh_at);
            token.issued_at = token.expires_at.minus(rules.lifetime);
        }
        next.not_before = self.not_before.map(wait);
        if let Some(parked) = &mut next.parked {
            parked.retry_at = wait(parked.retry_at);
        }
        if let Some(until) = next
            .probation
            .as_mut()
            .and_then(|probation| probation.until.as_mut())
        {
            *until = wait(*until);
        }
        // The process that held the claim is gone with its boot, or runs on a machine whose boot time means nothing here.
        if let Some(claim) = &mut next.claim {
            claim.until = now.plus(rules.claim());
        }
        Some(next)
    }

    /// The record without what cannot be true of it at `now`, on this boot's clock; `None` where there is no such thing.
    ///
    /// A moment further ahead than a period would never come for as long as anybody waits: it counts from now on.
    #[must_use]
    pub fn clamped(&self, now: Stamp, rules: &Rules) -> Option<Self> {
        let mut next = self.clone();
        let period = now.plus(rules.budget.period());
        let end = now.plus(rules.lifetime);
        let lower = |at: &mut Stamp, most: Stamp| {
            if at.boot > most.boot {
                *at = most;
            }
        };
        for slot in &mut next.ledger {
            lower(&mut slot.frees_at, period);
            lower(&mut slot.reserved_at, now);
        }
        let most = MOST_SLOTS.max(rules.budget.limit.get() as usize);
        if next.ledger.len() > most {
            // The guard looks at the newest few alone.
            next.ledger
                .sort_by_key(|slot| std::cmp::Reverse(slot.frees_at.boot));
            next.ledger.truncate(most);
        }
        if let Some(token) = &mut next.token {
            lower(&mut token.issued_at, now);
            lower(&mut token.refresh_at, end);
            lower(&mut token.expires_at, end);
        }
        let until = next.probation.as_mut().and_then(|it| it.until.as_mut());
        let claim = next.claim.as_mut().map(|claim| &mut claim.until);
        let parked = next.parked.as_mut().map(|parked| &mut parked.retry_at);
        for at in [until, claim, parked, next.not_before.as_mut()]
            .into_iter()
            .flatten()
        {
            lower(at, period);
        }
        (next != *self).then_some(next)
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
        // An attempt that is under way is late from now on, so that its end cannot shorten the quarantine.
        next.generation = self.generation.max(held.generation).next();
        if held.token_generation() > self.token_generation() {
            next.token.clone_from(&held.token);
        }
        next.streak.lost = self.streak.lost.max(held.streak.lost);
        next.streak.unsent = self.streak.unsent.max(held.streak.unsent);
        let latest = [self.not_before, held.not_before].into_iter().flatten();
        next.not_before = latest.max_by_key(|at| at.boot);
        next.quarantine(now, rules);
        if self.tried_before(held) {
            next.keys.clone_from(&held.keys);
            next.parked.clone_from(&held.parked);
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

    /// True if the keys that `held` tried are what is to be remembered: those that are refused for longer, or else those that were tried
    /// later. What is known of keys goes with them: to be parked means nothing beside another set.
    fn tried_before(&self, held: &Self) -> bool {
        let parked_until = |record: &Self| record.parked.as_ref().map(|it| it.retry_at.boot);
        match parked_until(self).cmp(&parked_until(held)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal if self.keys.fingerprint == held.keys.fingerprint => {
                self.keys.refused < held.keys.refused
            }
            // A record that was just made has tried none.
            Ordering::Equal => {
                self.keys.fingerprint.is_empty() || self.generation < held.generation
            }
        }
    }

    /// Lets no attempt begin before others have had the time to bring back what they hold.
    pub fn quarantine(&mut self, now: Stamp, rules: &Rules) {
        let ends = now.plus(rules.claim());
        let later = self.not_before.filter(|at| at.boot > ends.boot);
        self.not_before = later.or(Some(ends));
    }

    /// True if this record, found in the register, can follow `held`: the same lineage, no count of it lower, and no slot missing
    /// that still counts at `now`. Both are on the clock of `boot_id`.
    ///
    /// The revision alone does not tell: an older copy that came back and was written since has caught up with it. Only the slot of
    /// an attempt under way may go, given back by whoever took it. To a writer on another boot a slot may have been free earlier,
    /// by the skew that its wall clock differs by and the skew that was added to be safe; what it lacks then lies behind the window.
    pub fn follows(&self, held: &Self, boot_id: &BootId, now: Stamp, rules: &Rules) -> bool {
        let of_this_boot = |record: &Self| record.written.boot_id == *boot_id;
        let blur = if of_this_boot(self) && of_this_boot(held) {
            Duration::ZERO
        } else {
            (rules.skew * 3).min(rules.budget.margin)
        };
        let free_by = now.boot + blur;
        let counts = |slot: &&Slot| slot.outcome != Outcome::Begun && slot.frees_at.boot > free_by;
        let mut settled = held.ledger.iter().filter(counts);
        // Of one number, and another's: that number was allotted twice, once by whoever wrote on from an older copy.
        let strange = |slot: &Slot| {
            let taken = |it: &Slot| it.attempt == slot.attempt && it.holder != slot.holder;
            self.ledger.iter().any(taken) && !held.ledger.iter().any(taken)
        };
        self.lineage == held.lineage
            && !held.ledger.iter().any(strange)
            && self.revision >= held.revision
            && self.generation >= held.generation
            && self.token_generation() >= held.token_generation()
            && settled.all(|slot| self.ledger.iter().any(|it| it.is_of(slot)))
    }

    /// The generation of the newest token, for comparing.
    fn token_generation(&self) -> Option<crate::token::Generation> {
        self.token.as_ref().map(|token| token.generation)
    }

    fn merge_slot(&mut self, held: &Slot) {
        match self.ledger.iter_mut().find(|slot| slot.is_of(held)) {
            Some(slot) if slot.frees_at.boot < held.frees_at.boot => *slot = held.clone(),
            Some(_) => {}
            None => self.ledger.push(held.clone()),
        }
    }
}

impl Slot {
    /// True if both were taken by the same attempt.
    fn is_of(&self, other: &Self) -> bool {
        self.attempt == other.attempt && self.holder == other.holder
    }
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}
