//! What an operator may do to a record by hand, in an emergency. Each is a new record, which the register takes or refuses whole.

use std::path::Path;
use std::time::Duration;

use super::{KeyTrial, Lengths, Outcome, Record, Rules, Slot, Streak, Trigger, slot};
use crate::budget::Class;
use crate::clock::Stamp;

/// The command that sets a record aside, so that the next start begins a new one. Every bearerd on it must be stopped before.
pub fn set_aside(place: &Path) -> String {
    let place = place.display();
    format!("mv '{place}' '{place}.aside'")
}

/// Why a record of another account, which has held a token, is not used, and what to do.
pub fn of_another_account(place: &Path, theirs: &str, ours: &str) -> String {
    let (shown, command) = (place.display(), set_aside(place));
    format!(
        "the record at {shown} belongs to account {theirs:?} and has held its token, and upstream.account is {ours:?}; mend \
         upstream.account, or name another record.file.folder; to begin anew here, stop every bearerd on this folder and run: {command}"
    )
}

impl Record {
    /// Takes `count` slots of this instant for mints that were, or may have been, made elsewhere.
    ///
    /// Each has a generation of its own, as if an attempt had been begun and lost, so that no later attempt can be taken for it. An
    /// attempt that is under way ends as a late one: its token is kept, and it shortens no wait.
    #[must_use]
    pub fn spent_by_hand(&self, count: u32, holder: &str, now: Stamp, rules: &Rules) -> Self {
        let mut next = self.clone();
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        for _ in 0..count {
            next.generation = next.generation.next();
            next.ledger.push(Slot {
                attempt: next.generation,
                holder: holder.to_owned(),
                class: Class::Routine,
                trigger: Trigger::Operator,
                reserved_at: now,
                frees_at: now.plus(rules.budget.period()),
                outcome: Outcome::Lost,
                lengths: Some(Lengths::of(&rules.budget)),
                carried: false,
                newer: slot::Newer::default(),
            });
        }
        next
    }

    /// Forgets what was spent, who is minting, and every wait but that of a parked record.
    ///
    /// Whoever still holds the ledger takes this for a loss and brings its slots back.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self {
            ledger: Vec::new(),
            claim: None,
            streak: Streak::default(),
            not_before: None,
            probation: None,
            tried: Vec::new(),
            hold_until: None,
            keys: KeyTrial {
                retry_at: None,
                ..self.keys.clone()
            },
            // An attempt that was under way is late from now on.
            generation: self.generation.next(),
            ..self.clone()
        }
    }

    /// The record with every set to be tried anew; `None` where none is parked. A wait that the issuer asked for stays.
    #[must_use]
    pub fn unparked(&self) -> Option<Self> {
        if self.parked.is_none() && self.refused.is_empty() {
            return None;
        }
        let mut next = self.clone();
        next.parked = None;
        next.refused.clear();
        next.keys.refused = 0;
        Some(next)
    }

    /// The record as another account's; `None` if it held, or may have held, a token. No slot is forgotten.
    #[must_use]
    pub fn adopted_by(&self, account: &str) -> Option<Self> {
        let gave_none = |slot: &Slot| !matches!(slot.outcome, Outcome::Minted | Outcome::Other);
        let never = self.token.is_none() && self.ledger.iter().all(gave_none);
        never.then(|| Self {
            account: account.to_owned(),
            ..self.clone()
        })
    }

    /// What holds the next attempt up beside its schedule, and until when; `None` if it may be made now. `set`: the one at hand.
    pub fn waits(
        &self,
        set: Option<&str>,
        now: Stamp,
        rules: &Rules,
    ) -> Option<(Stamp, &'static str)> {
        let untried = set.is_some_and(|set| self.is_untried(set));
        let failed = self.not_before.filter(|_| !untried);
        let boot = |at: Option<Stamp>| at.map_or(Duration::ZERO, |at| at.boot);
        let unknown = self.probation_allows(untried, now.boot, rules);
        let claim = self.claim.as_ref().map(|claim| claim.until);
        let free = rules
            .budget
            .earliest(&self.spent(), Class::Urgent, now.boot);
        let reasons = [
            (boot(failed), "the wait after the last failure"),
            (boot(self.held_until()), "a wait that holds for every set"),
            (unknown, "the unknown time before the record"),
            (boot(claim), "another process that mints"),
            (free, "the budget"),
        ];
        let (until, why) = reasons.into_iter().max_by_key(|(until, _)| *until)?;
        (until > now.boot).then(|| (Stamp::at_boot(now, until), why))
    }
}
