//! How an attempt ends: what the issuer's answer means for the record, the token and people.

use super::{ATTEMPTS_SHOWN, COMMIT_PATIENCE, End, Keeper, Note, Output, Phase};
use crate::clock::Stamp;
use crate::issuer::Answer;
use crate::record::{Attempt, Failure};
use crate::token::Token;
use crate::vend::status::{AttemptStatus, Trouble};

impl Keeper {
    pub(super) fn minted(&mut self, answer: Answer, now: Stamp, outputs: &mut Vec<Output>) {
        let attempt = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Minting(attempt) => attempt,
            other => {
                self.phase = other;
                return;
            }
        };
        let (end, outcome, detail) = self.ended(&attempt, answer, now, outputs);
        let duration = attempt.reserved_at.age(now);
        outputs.push(Output::Attempted {
            class: attempt.class,
            outcome,
            duration,
        });
        self.attempts.truncate(ATTEMPTS_SHOWN - 1);
        let key_number = self
            .keys
            .as_ref()
            .map_or(0, |(_, count)| attempt.key % count.max(&1))
            + 1;
        self.attempts.push_front(AttemptStatus {
            attempt: attempt.generation,
            class: attempt.class.name(),
            trigger: attempt.trigger.name(),
            key: key_number,
            began_at: attempt.reserved_at,
            duration,
            outcome,
            detail: detail.clone(),
        });
        match &end {
            End::Minted { token, .. } => {
                self.trouble = None;
                outputs.push(Output::Note(Note::Minted(token.generation)));
                if self.is_newest(token) {
                    self.held = Some(token.clone());
                }
            }
            End::Failed(_) => {
                let trouble = Trouble {
                    code: outcome,
                    detail: detail.unwrap_or_default(),
                };
                self.trouble = Some(trouble.clone());
                outputs.push(Output::Note(Note::Failed(trouble)));
            }
        }
        self.phase = Phase::Settling(attempt, end);
    }

    /// What an answer means for the record, and how it is called.
    pub(super) fn ended(
        &self,
        attempt: &Attempt,
        answer: Answer,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) -> (End, &'static str, Option<String>) {
        let failed = |failure, name, detail| (End::Failed(failure), name, Some(detail));
        match answer {
            Answer::Minted(minted)
                if self
                    .held
                    .as_ref()
                    .is_some_and(|held| held.secret == minted.secret) =>
            {
                let told = "the issuer gave the token that we hold already".to_owned();
                failed(Failure::Lost { answered: true }, "repeated", told)
            }
            Answer::Minted(minted) => {
                if let Some(note) = &minted.note {
                    outputs.push(Output::Note(Note::Odd(note.clone())));
                }
                let rules = &self.settings.rules;
                let expires_at = minted
                    .sent_at
                    .plus(rules.lifetime.saturating_sub(minted.aged));
                let token = Token {
                    generation: attempt.generation,
                    secret: minted.secret,
                    issued_at: minted.sent_at,
                    refresh_at: expires_at.minus(rules.lead),
                    expires_at,
                };
                if token.expired(now) {
                    let told = "the token had ended when it came".to_owned();
                    return failed(Failure::Lost { answered: true }, "lost", told);
                }
                let publish_by = now.boot + COMMIT_PATIENCE;
                (
                    End::Minted {
                        token,
                        answered_at: now,
                        publish_by,
                    },
                    "minted",
                    minted.note,
                )
            }
            Answer::NotSent { detail } => failed(Failure::NotSent, "not_sent", detail),
            Answer::Lost { answered, detail } => failed(Failure::Lost { answered }, "lost", detail),
            Answer::Intermediary { detail } => {
                failed(Failure::Intermediary, "intermediary", detail)
            }
            Answer::Throttled {
                retry_after,
                detail,
            } => failed(Failure::Throttled { retry_after }, "throttled", detail),
            Answer::Refused {
                key_at_fault,
                detail,
            } => {
                let keys = self.keys.as_ref().map_or(1, |(_, count)| *count);
                if !key_at_fault || self.refusals() + 1 >= keys {
                    outputs.push(Output::Note(Note::Parked(detail.clone())));
                }
                failed(
                    Failure::Refused {
                        key_at_fault,
                        keys,
                        reason: detail.clone(),
                    },
                    "refused",
                    detail,
                )
            }
        }
    }

    pub(super) fn refusals(&self) -> u32 {
        self.seen
            .as_ref()
            .map_or(0, |seen| seen.record.keys.refused)
    }
}
