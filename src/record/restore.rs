//! Bringing a record back into the present: from times that cannot be true, or after it was lost while we still held it.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::SignedDuration;

use super::{Outcome, Probation, Record, Rules, Slot};
use crate::clock::{BootId, Stamp};
use crate::token::Generation;

/// So many slots are kept of a ledger that nobody can have filled.
const MOST_SLOTS: usize = 1000;

/// No settings make a slot count for longer.
const LONGEST_PERIOD: Duration = Duration::from_secs(2 * 366 * 86_400);

impl Record {
    /// The record without what cannot be true of it at `now`, on this boot's clock; `None` where there is no such thing.
    ///
    /// A moment further ahead than a period would never come for as long as anybody waits: it counts from now on. An expiry further
    /// ahead than a lifetime has ended. Each clock is lowered by itself, and none is raised.
    #[must_use]
    pub fn clamped(&self, now: Stamp, rules: &Rules) -> Option<Self> {
        let mut next = self.clone();
        let period = rules.budget.period();
        let lower = |at: &mut Stamp, most: Stamp| {
            if at.boot > most.boot {
                *at = at.sooner(most);
            }
        };
        for slot in &mut next.ledger {
            let counts = slot.lengths.map_or(period, |own| own.period.max(period));
            let times = (slot.frees_at, slot.reserved_at);
            lower(&mut slot.frees_at, now.plus(counts.min(LONGEST_PERIOD)));
            lower(&mut slot.reserved_at, now);
            slot.carried &= times == (slot.frees_at, slot.reserved_at);
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
            if token.expires_at.boot > now.plus(rules.lifetime).boot {
                lower(&mut token.expires_at, now);
            }
            let end = token.expires_at;
            lower(&mut token.refresh_at, end);
        }
        let until = next.probation.as_mut().and_then(|it| it.until.as_mut());
        let claim = next.claim.as_mut().map(|claim| &mut claim.until);
        let parked = next.parked.as_mut().map(|parked| &mut parked.retry_at);
        let waits = [
            until,
            claim,
            parked,
            next.not_before.as_mut(),
            next.hold_until.as_mut(),
            next.keys.retry_at.as_mut(),
        ];
        let refused = next.refused.iter_mut().map(|set| &mut set.retry_at);
        for at in waits.into_iter().flatten().chain(refused) {
            lower(at, now.plus(period));
        }
        next.cut_sets();
        (next != *self).then_some(next)
    }

    /// The record found in the register after it lost what this process still holds: the later time wins everywhere.
    ///
    /// A quarantine precedes the next mint, so that others can bring back what they hold.
    #[must_use]
    pub fn merged_with(&self, held: &Self, now: Stamp, rules: &Rules) -> Self {
        let mut next = self.clone();
        let same_anchor = self.carried == held.carried;
        for slot in &held.ledger {
            next.merge_slot(&Slot {
                carried: slot.carried && same_anchor,
                ..slot.clone()
            });
        }
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        next.ledger.sort_by_key(|slot| slot.reserved_at.boot);
        // An attempt that is under way is late from now on, so that its end cannot shorten the quarantine.
        let known = self.generation.max(held.generation).next();
        next.generation = known.max(beyond_any(now, rules));
        if held.token_generation() > self.token_generation() {
            next.token.clone_from(&held.token);
        }
        next.streak.lost = self.streak.lost.max(held.streak.lost);
        next.streak.unsent = self.streak.unsent.max(held.streak.unsent);
        let latest = [self.not_before, held.not_before].into_iter().flatten();
        next.not_before = latest.max_by_key(|at| at.boot);
        let held_until = [self.held_until(), held.held_until()].into_iter().flatten();
        next.hold_until = held_until.max_by_key(|at| at.boot);
        if self.tried_before(held) {
            next.keys.clone_from(&held.keys);
            next.parked.clone_from(&held.parked);
        }
        next.merge_sets(held);
        let ends =
            |probation: &Probation| probation.until.map_or(Duration::MAX, |until| until.boot);
        let longest = [&self.probation, &held.probation]
            .into_iter()
            .flatten()
            .max_by_key(|it| ends(it));
        next.probation = longest.cloned();
        next.quarantine(now, rules);
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

    /// Lets no attempt begin before others have had the time to bring back what they hold, and none sooner than the blind pace where
    /// the history is unknown.
    pub fn quarantine(&mut self, now: Stamp, rules: &Rules) {
        let ends = now.plus(rules.claim());
        let later = self.not_before.filter(|at| at.boot > ends.boot);
        self.not_before = later.or(Some(ends));
        self.hold(ends);
        self.nothing_at_once();
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
    fn token_generation(&self) -> Option<Generation> {
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

/// A generation that nobody can have allotted by now: counting begins at the Unix second of a birth, on a clock that is ahead by the
/// skew at most, and goes up more slowly than seconds.
fn beyond_any(now: Stamp, rules: &Rules) -> Generation {
    let skew = SignedDuration::try_from(rules.skew).unwrap_or_default();
    let second = now
        .wall
        .as_second()
        .saturating_add(skew.as_secs())
        .saturating_add(1);
    Generation(u64::try_from(second).unwrap_or_default())
}
