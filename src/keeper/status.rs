//! The keeper's view of itself, for people. Its times are converted when they are shown; only those
//! from before this boot, which need another one beside them, are brought up to date here.

use super::log::{Next, Outlook};
use super::{Keeper, Phase, Situation};
use crate::budget::Class;
use crate::clock::Stamp;
use crate::record::Record;
use crate::vend::RefreshOutcome;
use crate::vend::status::{
    BudgetStatus, FreeStatus, NextStatus, ParkedStatus, RefreshStatus, RegisterStatus, SlotStatus,
    Status, TokenStatus, Trouble, UnknownStatus,
};

impl Keeper {
    /// How things stand at `now`. `kind` names the register.
    pub fn status(&self, now: Stamp, kind: &'static str) -> Status {
        let record = self.seen.as_ref().map(|seen| &seen.record);
        let situation = self.situation(now);
        let refusal = situation.as_ref().and_then(Situation::refusal);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            account: self.settings.account.clone(),
            at: Some(now),
            token: self.token_status(now),
            budget: self.budget_status(record, now),
            minting: match &self.phase {
                Phase::Minting(attempt) => Some(attempt.generation),
                _ => None,
            },
            next: self.next_status(now),
            refresh: Some(self.refresh_status(now)),
            unknown_history: record.and_then(|record| self.unknown_status(record, now)),
            attempts: self.attempts.iter().cloned().collect(),
            register: RegisterStatus {
                kind,
                up: self.register_trouble.is_none() && self.seen.is_some(),
                detail: self.register_trouble.clone(),
                moved_aside: self.moved_aside.clone(),
            },
            parked: refusal.map(|refusal| ParkedStatus {
                since: beside(refusal.since, refusal.retry_at, now),
                reason: refusal.reason.to_owned(),
            }),
            // After a restart the record alone says why there is no attempt.
            trouble: self.trouble.clone().or_else(|| match refusal {
                Some(refusal) => Some(Trouble {
                    code: "refused",
                    detail: refusal.reason.to_owned(),
                }),
                None => self.failure_before(now).map(|outcome| Trouble {
                    code: outcome.name(),
                    detail: "an attempt that this process did not make; the log of then says why"
                        .into(),
                }),
            }),
            clock_step_seconds: self.clock_step,
            short_lead: self.settings.short_lead,
        }
    }

    /// The same for the log.
    pub(super) fn outlook(&self, now: Stamp) -> Outlook {
        let under_way = matches!(self.phase, Phase::Reserving(_) | Phase::Minting(_));
        let up = self.register_trouble.is_none();
        let settling = up && matches!(self.phase, Phase::Settling(..));
        let (at, waiting_for) = match self.next_status(now) {
            _ if under_way => (now, "answer"),
            _ if settling => (now, "record"),
            Some(next) if up || next.at.boot > now.boot => (next.at, next.waiting_for),
            _ => {
                let retry = self.register_retry.unwrap_or_default().max(now.boot);
                (Stamp::at_boot(now, retry), "register")
            }
        };
        Outlook {
            token: self.held.as_ref().map(|it| (it.generation, it.expires_at)),
            lead: self.settings.rules.lead,
            next: Next { at, waiting_for },
            settling,
        }
    }

    fn token_status(&self, now: Stamp) -> Option<TokenStatus> {
        let token = self.held.as_ref()?;
        Some(TokenStatus {
            generation: token.generation,
            fingerprint: token.secret.fingerprint(),
            issued_at: beside(token.issued_at, token.expires_at, now),
            refresh_at: token.refresh_at,
            expires_at: token.expires_at,
            suspect: self.wishes.reported == Some(token.generation),
        })
    }

    fn budget_status(&self, record: Option<&Record>, now: Stamp) -> BudgetStatus {
        let budget = &self.settings.rules.budget;
        // Without a record nothing can begin, whatever may be free.
        let spent = record.map(Record::spent);
        let free = |class| {
            let spent = spent.as_ref();
            spent.map_or(0, |spent| budget.free(spent, class, now.boot))
        };
        let taken = record
            .map(|record| record.ledger.as_slice())
            .unwrap_or_default();
        let slot = |slot: &crate::record::Slot| SlotStatus {
            attempt: slot.attempt,
            class: slot.class.name(),
            trigger: slot.trigger.name(),
            outcome: slot.outcome_shown(),
            reserved_at: beside(slot.reserved_at, slot.frees_at, now),
            frees_at: slot.frees_at,
        };
        BudgetStatus {
            limit: budget.limit.get(),
            reserve: budget.reserve,
            window: budget.window,
            period: budget.period(),
            free: FreeStatus {
                routine: free(Class::Routine),
                reported: free(Class::Reported),
                urgent: free(Class::Urgent),
            },
            slots: taken
                .iter()
                .filter(|slot| slot.frees_at.boot > now.boot)
                .map(slot)
                .collect(),
        }
    }

    fn refresh_status(&self, now: Stamp) -> RefreshStatus {
        match self.judge_refresh(now) {
            RefreshOutcome::Refreshing => RefreshStatus {
                at: Some(now),
                waiting_for: "nothing",
            },
            RefreshOutcome::Refused { waiting_for, until } => RefreshStatus {
                at: until,
                waiting_for,
            },
        }
    }

    fn unknown_status(&self, record: &Record, now: Stamp) -> Option<UnknownStatus> {
        let unknown = record.probation.as_ref()?;
        let over = unknown.until.is_some_and(|until| until.boot <= now.boot);
        (!over).then(|| UnknownStatus {
            until: unknown.until,
            pace: self.settings.rules.budget.blind_pace(),
        })
    }

    fn next_status(&self, now: Stamp) -> Option<NextStatus> {
        if self.attempt_under_way() {
            return None;
        }
        let plan = self.plan(now)?;
        let register = self
            .register_retry
            .filter(|_| self.register_trouble.is_some());
        let (at, waiting_for) = match register {
            Some(retry) if retry > plan.at => (retry, "register"),
            _ => (plan.at, plan.waiting_for.name()),
        };
        let at = Stamp::at_boot(now, at.max(now.boot));
        Some(NextStatus {
            at,
            class: plan.class.name(),
            trigger: plan.trigger.name(),
            waiting_for,
        })
    }
}

/// A moment that may lie before this boot, with its wall time as of `now`.
fn beside(at: Stamp, anchor: Stamp, now: Stamp) -> Stamp {
    let wall = at.shown_beside(anchor, now);
    Stamp { wall, ..at }
}
