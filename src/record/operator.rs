//! What an operator may do to a record by hand, in an emergency. Each is a new record, which the register takes or refuses whole.

use super::{KeyTrial, Lengths, Outcome, Record, Rules, Slot, Streak, Trigger, slot};
use crate::budget::Class;
use crate::clock::Stamp;

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
}
