//! What callers and operators ask of the keeper: a report is believed once, a refresh is paced.

use super::schedule::Wishes;
use super::{Keeper, Note, Output};
use crate::clock::Stamp;
use crate::token::Generation;
use crate::vend::{RefreshOutcome, ReportOutcome};

impl Keeper {
    pub(super) fn report(&mut self, generation: Generation, now: Stamp, outputs: &mut Vec<Output>) {
        let outcome = self.judge_report(generation, now);
        if matches!(
            outcome,
            ReportOutcome::Refreshing | ReportOutcome::Paced { .. }
        ) {
            if self.wishes.reported != Some(generation) {
                outputs.push(Output::Note(Note::Suspect(generation)));
            }
            self.wishes.reported = Some(generation);
            self.publish(now, outputs);
        }
        outputs.push(Output::Reported(outcome));
    }

    pub(super) fn judge_report(&self, generation: Generation, now: Stamp) -> ReportOutcome {
        let current = self
            .held
            .as_ref()
            .filter(|token| token.generation == generation && !token.expired(now));
        let Some(token) = current.filter(|_| self.published.is_some_and(|it| it.0 == generation))
        else {
            return ReportOutcome::StaleGeneration;
        };
        if token.issued_at.age(now) < self.settings.rules.too_young {
            return ReportOutcome::TooYoung;
        }
        if self.attempt_under_way() {
            return ReportOutcome::Refreshing;
        }
        let wishes = Wishes {
            reported: Some(generation),
            ..self.wishes
        };
        match self.situation(now).map(|situation| situation.plan(wishes)) {
            Some(plan) if plan.at <= now.boot && self.register_trouble.is_none() => {
                ReportOutcome::Refreshing
            }
            Some(plan) => ReportOutcome::Paced {
                until: Stamp::at_boot(now, plan.at.max(self.register_retry.unwrap_or_default())),
            },
            None => ReportOutcome::Paced {
                until: now.plus(self.settings.rules.unsent.first),
            },
        }
    }

    pub(super) fn refresh(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        let outcome = self.judge_refresh(now);
        if outcome == RefreshOutcome::Refreshing && !self.attempt_under_way() {
            self.wishes.operator = true;
        }
        outputs.push(Output::Refreshed(outcome));
    }

    /// What an operator's refresh would come to at `now`.
    pub(super) fn judge_refresh(&self, now: Stamp) -> RefreshOutcome {
        let refused = |waiting_for, until| RefreshOutcome::Refused { waiting_for, until };
        if self.attempt_under_way() {
            RefreshOutcome::Refreshing
        } else if self.register_trouble.is_some() {
            refused(
                "register",
                self.register_retry.map(|at| Stamp::at_boot(now, at)),
            )
        } else {
            match self.situation(now).map(|situation| situation.operators()) {
                Some(plan) if plan.at <= now.boot => RefreshOutcome::Refreshing,
                Some(plan) => refused(plan.waiting_for.name(), Some(Stamp::at_boot(now, plan.at))),
                None => refused("register", None),
            }
        }
    }
}
