//! The keeper and its register: what was found there, what is written there, and what a failed write leaves behind.

use super::{End, Keeper, Note, Output, Phase, Seen, Settings};
use crate::clock::Stamp;
use crate::record::{
    FORMAT, Failure, Loaded, Outcome, Reader, Record, RegisterError, Swapped, Version, Writer,
};

impl Keeper {
    pub(super) fn swap(&mut self, mut next: Record, now: Stamp, outputs: &mut Vec<Output>) {
        if self.seen.as_ref().is_some_and(|seen| seen.owed) {
            // Others can bring back what they hold only once this is written.
            next.quarantine(now, &self.settings.rules);
        }
        self.written_offset = Some(now.offset());
        next.revision += 1;
        next.format = next.format.max(FORMAT);
        next.prune_carried();
        next.written = self.writer(now);
        let next = Box::new(next);
        self.busy = Some(Some(next.clone()));
        let seen = self.seen.as_ref().and_then(|seen| seen.version.clone());
        outputs.push(Output::Swap { seen, next });
    }

    pub(super) fn writer(&self, at: Stamp) -> Writer {
        Writer {
            holder: self.settings.holder.clone(),
            boot_id: self.settings.boot_id.clone(),
            at,
        }
    }

    pub(super) fn loaded(
        &mut self,
        result: Result<Loaded, RegisterError>,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) {
        self.busy = None;
        let mut loaded = match result {
            Ok(loaded) => loaded,
            Err(error) => return self.register_failed(&error.to_string(), now, outputs),
        };
        if let Some(told) = loaded.moved_aside.take() {
            self.moved_aside = Some(told.clone());
            outputs.push(Output::Note(Note::MovedAside(told)));
        }
        let adopts = match self.adopt(&mut loaded, outputs) {
            Ok(adopts) => adopts,
            Err(told) => return self.register_failed(&told, now, outputs),
        };
        // That it can be read says nothing of the writes that failed.
        if !self.unwritable {
            self.register_serves(outputs);
        }
        let unsure = self.unsure.take();
        let seen = match loaded.found {
            Some((record, version))
                if unsure.is_some_and(|it| {
                    it.written == record.written && it.revision == record.revision
                }) =>
            {
                let phase = std::mem::replace(&mut self.phase, Phase::Idle);
                self.phase = self.after_swap(&phase, now, outputs);
                Seen {
                    record,
                    version: Some(version),
                    dirty: false,
                    owed: false,
                }
            }
            found => {
                // A write of unknown outcome that is not there did not happen.
                self.phase = only_settling(std::mem::replace(&mut self.phase, Phase::Idle));
                match found {
                    Some((record, version)) => self.found(record, version, now, outputs),
                    None => self.nothing_found(now, outputs),
                }
            }
        };
        let seen = Seen {
            dirty: seen.dirty || adopts,
            ..seen
        };
        self.see(seen, now, outputs);
    }

    /// Takes over the record of another account that never got a token, at the start alone: two daemons of two accounts would take
    /// it from each other. True if it did.
    fn adopt(&self, loaded: &mut Loaded, outputs: &mut Vec<Output>) -> Result<bool, String> {
        let ours = &self.settings.account;
        let Some((record, _)) = &mut loaded.found else {
            return Ok(false);
        };
        if record.account == *ours {
            return Ok(false);
        }
        let adopted = record.adopted_by(ours).filter(|_| self.seen.is_none());
        let from = record.account.clone();
        *record = adopted.ok_or_else(|| {
            format!("the record there belongs to account {from}, and upstream.account is {ours}")
        })?;
        outputs.push(Output::Note(Note::Adopted { from }));
        Ok(true)
    }

    /// What the last attempt came to that the record knows of, if it gave nothing, no token lives, and this process has made none.
    pub(super) fn failure_before(&self, now: Stamp) -> Option<Outcome> {
        let live = self
            .held
            .as_ref()
            .is_some_and(|it| !it.expires_at.reached(now));
        let record = &self.seen.as_ref()?.record;
        let last = record.ledger.iter().max_by_key(|slot| slot.attempt)?;
        let failed = [Outcome::Lost, Outcome::Intermediary, Outcome::Throttled];
        let tells = !live && self.attempts.is_empty() && failed.contains(&last.outcome);
        tells.then_some(last.outcome)
    }

    /// Says once, as soon as record and keys are known, how attempts ended before.
    pub(super) fn tell_of_the_start(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        if self.began {
            return;
        }
        let Some(situation) = self.situation(now) else {
            return;
        };
        if let Some(refusal) = situation.refusal() {
            outputs.push(Output::Note(Note::StillParked {
                reason: refusal.reason.to_owned(),
                next: refusal.retry_at.shown(now),
            }));
        } else if let Some(failure) = self.failure_before(now) {
            outputs.push(Output::Note(Note::StillFailing(failure.name())));
        }
        self.began = true;
    }

    /// A record was found: is it the next one, one from another boot, or one that lost what we still hold?
    pub(super) fn found(
        &mut self,
        record: Record,
        version: Version,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) -> Seen {
        let rules = &self.settings.rules;
        let reader = Reader {
            holder: &self.settings.holder,
            boot_id: &self.settings.boot_id,
            offsets: &self.offsets,
        };
        // A build of 1.0 frees what was counted up to the time in flight earlier than is assumed of slots without lengths.
        let by_older = record.ledger.iter().any(|slot| slot.lengths.is_none());
        let other_boot = record.written.boot_id != self.settings.boot_id;
        // And by the worse of two clocks that disagree, slots count here for longer than to their writer.
        let other_clock = !other_boot && record.is_of_another_clock(&reader, rules);
        let free_by = match (other_clock, by_older) {
            (true, _) => now.plus(rules.budget.period()),
            (false, true) => now.plus(rules.budget.in_flight),
            (false, false) => now,
        };
        let moved = record.read_by(&reader, now, rules);
        // Once: where two boots share a record, they would otherwise write in turns for ever.
        let first = self.seen.as_ref().is_none_or(|seen| seen.dirty);
        let mut dirty = moved.is_some() && first;
        if dirty && other_boot {
            outputs.push(Output::Note(Note::OtherBoot));
        } else if dirty && other_clock {
            outputs.push(Output::Note(Note::OtherClock));
        }
        let mut record = moved.unwrap_or(record);
        if let Some(clamped) = record.clamped(now, rules) {
            (record, dirty) = (clamped, true);
        }
        // What was never written was lost by nobody.
        let held = self
            .seen
            .as_ref()
            .map(|seen| &seen.record)
            .filter(|held| held.revision > 0);
        let mut owed = self.seen.as_ref().is_some_and(|seen| seen.owed);
        if let Some(held) = held
            && (owed || !record.follows(held, &self.settings.boot_id, free_by, rules))
        {
            if !owed {
                outputs.push(Output::Note(Note::RecordLost));
            }
            let older_copy = record.lineage == held.lineage;
            record = record.merged_with(held, now, rules);
            if older_copy {
                record.lineage = lineage(&mut self.dice);
            }
            (dirty, owed) = (true, true);
        }
        Seen {
            record,
            version: Some(version),
            dirty,
            owed,
        }
    }

    pub(super) fn nothing_found(&mut self, now: Stamp, outputs: &mut Vec<Output>) -> Seen {
        if let Some(Seen {
            record,
            version,
            owed,
            ..
        }) = &self.seen
        {
            let mut record = record.clone();
            if version.is_some() {
                outputs.push(Output::Note(Note::RecordLost));
                record = record.merged_with(&record, now, &self.settings.rules);
                record.lineage = lineage(&mut self.dice);
            }
            return Seen {
                record,
                version: None,
                dirty: true,
                owed: *owed || version.is_some(),
            };
        }
        outputs.push(Output::Note(Note::NewRecord));
        let Settings {
            account,
            absent,
            rules,
            ..
        } = &self.settings;
        let lineage = lineage(&mut self.dice);
        let record = Record::new(account, lineage, *absent, self.writer(now), rules);
        Seen {
            record,
            version: None,
            dirty: true,
            owed: false,
        }
    }

    /// Takes a record as the register's, and a newer token from it.
    pub(super) fn see(&mut self, seen: Seen, now: Stamp, outputs: &mut Vec<Output>) {
        let token = seen
            .record
            .token
            .clone()
            .filter(|token| self.is_newest(token));
        self.seen = Some(seen);
        if let Some(token) = token {
            outputs.push(Output::Note(Note::Found(token.generation)));
            self.held = Some(token);
            // Whoever wished for a new token has one.
            self.wishes.operator = false;
            self.publish(now, outputs);
        }
    }

    pub(super) fn swapped(&mut self, outcome: Swapped, now: Stamp, outputs: &mut Vec<Output>) {
        let written = self.busy.take().flatten();
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        match outcome {
            Swapped::Done(version) => {
                self.unwritable = false;
                self.register_serves(outputs);
                if let Some(record) = written {
                    self.seen = Some(Seen {
                        record: *record,
                        version: Some(version),
                        dirty: false,
                        owed: false,
                    });
                }
                self.phase = self.after_swap(&phase, now, outputs);
            }
            Swapped::Conflict => {
                self.stale = true;
                self.phase = only_settling(phase);
            }
            Swapped::Unavailable(error) => {
                self.unwritable = true;
                self.stale = true;
                self.phase = only_settling(phase);
                self.register_failed(&error.to_string(), now, outputs);
            }
            Swapped::Unknown(error) => {
                self.unwritable = true;
                self.stale = true;
                self.phase = match phase {
                    // A slot that is not known to be durable is not spent: it is given back, should it be there.
                    Phase::Reserving(attempt) => {
                        Phase::Settling(attempt, End::Failed(Failure::NotSent))
                    }
                    phase => {
                        self.unsure = written;
                        phase
                    }
                };
                self.register_failed(&error.to_string(), now, outputs);
            }
        }
    }

    pub(super) fn after_swap(
        &mut self,
        phase: &Phase,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) -> Phase {
        match phase {
            Phase::Reserving(attempt) => {
                // Only now is the wish served: until its slot was written, the attempt could come to nothing.
                self.wishes.operator = false;
                let send_by = attempt.reserved_at.boot + self.settings.rules.timeout;
                outputs.push(Output::Mint {
                    key: attempt.key,
                    send_by,
                });
                Phase::Minting(attempt.clone())
            }
            Phase::Settling(_, End::Minted { .. }) => {
                self.publish(now, outputs);
                Phase::Idle
            }
            Phase::Settling(_, End::Failed(_)) | Phase::Storing | Phase::Idle => Phase::Idle,
            Phase::Minting(attempt) => Phase::Minting(attempt.clone()),
        }
    }

    pub(super) fn register_failed(&mut self, why: &str, now: Stamp, outputs: &mut Vec<Output>) {
        self.stale = true;
        self.register_failures = self.register_failures.saturating_add(1);
        let wait = self.settings.rules.unsent.after(self.register_failures);
        self.register_retry = Some(now.boot + wait);
        self.register_trouble = Some(why.to_owned());
        outputs.push(Output::Note(Note::RegisterDown(why.to_owned())));
    }

    pub(super) fn register_serves(&mut self, outputs: &mut Vec<Output>) {
        self.register_failures = 0;
        if self.register_trouble.take().is_some() {
            outputs.push(Output::Note(Note::RegisterUp));
        }
    }
}

/// A new name for a record. One that was lost and brought back gets one too: its revisions begin anew behind those of whoever wrote
/// last, who would take it for a successor that knows their slots.
fn lineage(dice: &mut fastrand::Rng) -> String {
    format!("{:016x}", dice.u64(..))
}

/// What remains of a phase whose swap did not happen: an end is written again, everything else is decided anew.
fn only_settling(phase: Phase) -> Phase {
    match phase {
        Phase::Settling(..) | Phase::Minting(_) => phase,
        Phase::Idle | Phase::Storing | Phase::Reserving(_) => Phase::Idle,
    }
}
