//! The brain: it decides when to mint, what to write and what to vend, and does none of it.
//!
//! A state machine without a clock, a runtime, randomness of its own or I/O. Whoever drives it feeds it [`Input`]s with the moment
//! they came, and carries out the [`Output`]s in their order. At most one register operation and one mint are under way at a time.

pub mod driver;
mod metrics;
pub mod schedule;
mod status;

use std::collections::VecDeque;
use std::time::Duration;

use crate::budget::Class;
use crate::clock::{BootId, Stamp};
use crate::issuer::Answer;
use crate::record::{
    Absent, Attempt, Failure, Loaded, Record, RegisterError, Reservation, Rules, Swapped, Trigger,
    Version, Writer,
};
use crate::token::{Generation, Token};
use crate::vend::status::{AttemptStatus, Trouble};
use crate::vend::{RefreshOutcome, ReportOutcome};
use schedule::{Plan, Situation, Wishes};

/// How long a minted token waits for its record before it is published without.
const COMMIT_PATIENCE: Duration = Duration::from_millis(250);

/// So many attempts are kept for people to look at.
const ATTEMPTS_SHOWN: usize = 50;

/// What the keeper goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account whose token this is.
    pub account: String,
    /// The lengths in force.
    pub rules: Rules,
    /// What a missing record means.
    pub absent: Absent,
    /// Names this process among those that share the record; unique to it.
    pub holder: String,
    /// The boot that its boot times belong to.
    pub boot_id: BootId,
    /// The lead is shorter than the window, by the operator's wish; shown in the status.
    pub short_lead: bool,
}

/// What happened.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is moved once"
)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// The register may hold something new.
    Changed,
    /// The answer to [`Output::Load`].
    Loaded(Result<Loaded, RegisterError>),
    /// The answer to [`Output::Swap`].
    Swapped(Swapped),
    /// The answer to [`Output::Mint`].
    Minted(Answer),
    /// A caller says that the token of this generation was refused.
    Report(Generation),
    /// An operator wants a new token.
    Refresh,
    /// The keys at hand, told at the start and whenever they change.
    Keys {
        /// The fingerprint of the set.
        fingerprint: String,
        /// How many there are.
        count: u32,
    },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Load the record.
    Load,
    /// Write this record over the version that was seen.
    Swap {
        /// What was seen.
        seen: Option<Version>,
        /// What is to be written.
        next: Box<Record>,
    },
    /// Mint, if the request can begin by then.
    Mint {
        /// The index of the key.
        key: u32,
        /// The boot time after which nothing is sent.
        send_by: Duration,
    },
    /// Vend this token from now on.
    Publish {
        /// The token.
        token: Token,
        /// It was reported refused.
        suspect: bool,
    },
    /// The answer to [`Input::Report`].
    Reported(ReportOutcome),
    /// The answer to [`Input::Refresh`].
    Refreshed(RefreshOutcome),
    /// An attempt has ended.
    Attempted {
        /// What it could spend.
        class: Class,
        /// The outcome's label.
        outcome: &'static str,
        /// From its reservation to its end.
        duration: Duration,
    },
    /// Something that people should read.
    Note(Note),
}

/// What people should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// There was no record, and a new one is made.
    NewRecord,
    /// The record was lost or replaced by an older copy while we held it; ours is merged back.
    RecordLost,
    /// The record comes from another boot or machine.
    OtherBoot,
    /// A file that is no record was moved aside.
    MovedAside(String),
    /// The register does not serve.
    RegisterDown(String),
    /// It serves again.
    RegisterUp,
    /// A token was minted.
    Minted(Generation),
    /// Another process minted a token.
    Found(Generation),
    /// An attempt failed.
    Failed(Trouble),
    /// The issuer refuses our keys.
    Parked(String),
    /// An answer was odd, though not fatal.
    Odd(String),
    /// A report is believed.
    Suspect(Generation),
}

/// What is under way.
#[derive(Debug)]
enum Phase {
    /// Nothing.
    Idle,
    /// A record is written that is not part of an attempt: a new, a merged or a re-stamped one.
    Storing,
    /// The slot and claim of an attempt are being written.
    Reserving(Attempt),
    /// The request is out.
    Minting(Attempt),
    /// The end of an attempt is being written, again and again until it is.
    Settling(Attempt, End),
}

/// How an attempt ended.
#[derive(Debug)]
enum End {
    /// With a token, which is published once it is written, or at the latest at `publish_by`.
    Minted {
        token: Token,
        answered_at: Stamp,
        publish_by: Duration,
    },
    /// With a failure.
    Failed(Failure),
}

/// What the register held when it was last looked at, brought up to date.
#[derive(Debug)]
struct Seen {
    record: Record,
    version: Option<Version>,
    /// The record differs from what the register holds, and is to be written.
    dirty: bool,
}

/// The keeper of one account's token.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    seen: Option<Seen>,
    phase: Phase,
    /// A load or swap is under way; for a swap, what is being written.
    busy: Option<Option<Box<Record>>>,
    /// What a swap of unknown outcome would have written.
    unsure: Option<Box<Record>>,
    /// The register must be loaded before anything else is written.
    stale: bool,
    /// The register failed, and is left alone until then.
    register_retry: Option<Duration>,
    register_failures: u32,
    register_trouble: Option<String>,
    moved_aside: Option<String>,
    keys: Option<(String, u32)>,
    held: Option<Token>,
    published: Option<(Generation, bool)>,
    wishes: Wishes,
    trouble: Option<Trouble>,
    attempts: VecDeque<AttemptStatus>,
    first_offset: Option<i128>,
    clock_step: f64,
    dice: fastrand::Rng,
}

impl Keeper {
    /// A keeper that knows nothing yet. Its first step asks for the record; it also wants to be told the keys.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            seen: None,
            phase: Phase::Idle,
            busy: None,
            unsure: None,
            stale: true,
            register_retry: None,
            register_failures: 0,
            register_trouble: None,
            moved_aside: None,
            keys: None,
            held: None,
            published: None,
            wishes: Wishes::default(),
            trouble: None,
            attempts: VecDeque::new(),
            first_offset: None,
            clock_step: 0.0,
            dice: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes one input in and says what is to be done.
    pub fn step(&mut self, now: Stamp, input: Input, outputs: &mut Vec<Output>) {
        self.notice_clock(now);
        match input {
            Input::Tick => {}
            Input::Changed => self.stale = true,
            Input::Loaded(result) => self.loaded(result, now, outputs),
            Input::Swapped(outcome) => self.swapped(outcome, now, outputs),
            Input::Minted(answer) => self.minted(answer, now, outputs),
            Input::Report(generation) => self.report(generation, now, outputs),
            Input::Refresh => self.refresh(now, outputs),
            Input::Keys { fingerprint, count } => self.keys = Some((fingerprint, count)),
        }
        self.advance(now, outputs);
    }

    /// The boot time by which the keeper wants another step, whatever happens; `None` if only an answer can bring it further.
    pub fn next_wake(&self, now: Stamp) -> Option<Duration> {
        let commit = match &self.phase {
            Phase::Settling(
                _,
                End::Minted {
                    token, publish_by, ..
                },
            ) if self.is_news(token) => Some(*publish_by),
            _ => None,
        };
        let idle = self.busy.is_none() && matches!(self.phase, Phase::Idle);
        let attempt = if idle {
            self.plan(now).map(|plan| plan.at)
        } else {
            None
        };
        let register = if self.busy.is_none() {
            self.register_retry
        } else {
            None
        };
        [commit, register.or(attempt)].into_iter().flatten().min()
    }

    /// The next attempt, unless one is under way or nothing is known yet.
    fn plan(&self, now: Stamp) -> Option<Plan> {
        Some(self.situation(now)?.plan(self.wishes))
    }

    fn situation(&self, now: Stamp) -> Option<Situation<'_>> {
        Some(Situation {
            record: &self.seen.as_ref()?.record,
            token: self.held.as_ref(),
            keys: &self.keys.as_ref()?.0,
            rules: &self.settings.rules,
            now,
        })
    }

    /// Does whatever can be done now.
    fn advance(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        if let Phase::Settling(_, End::Minted { publish_by, .. }) = &self.phase
            && *publish_by <= now.boot
        {
            self.publish(outputs);
        }
        if self.busy.is_some() || self.register_retry.is_some_and(|at| at > now.boot) {
            return;
        }
        self.register_retry = None;
        if self.stale && !matches!(self.phase, Phase::Minting(_)) {
            self.stale = false;
            self.busy = Some(None);
            outputs.push(Output::Load);
            return;
        }
        let Some(seen) = &self.seen else { return };
        match &self.phase {
            Phase::Idle if seen.dirty => {
                let next = seen.record.clone();
                self.phase = Phase::Storing;
                self.swap(next, now, outputs);
            }
            Phase::Idle => self.begin_if_due(now, outputs),
            Phase::Settling(attempt, end) => {
                let rules = &self.settings.rules;
                let next = match end {
                    End::Minted {
                        token, answered_at, ..
                    } => seen.record.commit(attempt, token, *answered_at, now, rules),
                    End::Failed(failure) => seen.record.abort(attempt, failure, now, rules),
                };
                self.swap(next, now, outputs);
            }
            Phase::Storing | Phase::Reserving(_) | Phase::Minting(_) => {}
        }
    }

    fn begin_if_due(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        let jitter = self.dice.u32(800..=1200);
        let Some(situation) = self.situation(now) else {
            return;
        };
        let plan = situation.plan(self.wishes);
        if plan.at > now.boot {
            return;
        }
        let above_all = [
            self.held.as_ref().map(|token| token.generation),
            self.published.map(|it| it.0),
        ];
        let reservation = Reservation {
            class: plan.class,
            trigger: plan.trigger,
            holder: &self.settings.holder,
            keys: situation.keys,
            at_least: above_all
                .into_iter()
                .flatten()
                .max()
                .map_or(Generation(1), Generation::next),
            jitter,
        };
        let (next, attempt) = situation.record.begin(&reservation, now, situation.rules);
        self.wishes.operator = false;
        self.phase = Phase::Reserving(attempt);
        self.swap(next, now, outputs);
    }

    fn swap(&mut self, mut next: Record, now: Stamp, outputs: &mut Vec<Output>) {
        next.revision += 1;
        next.written = self.writer(now);
        let next = Box::new(next);
        self.busy = Some(Some(next.clone()));
        let seen = self.seen.as_ref().and_then(|seen| seen.version.clone());
        outputs.push(Output::Swap { seen, next });
    }

    fn writer(&self, at: Stamp) -> Writer {
        Writer {
            holder: self.settings.holder.clone(),
            boot_id: self.settings.boot_id.clone(),
            at,
        }
    }

    fn loaded(
        &mut self,
        result: Result<Loaded, RegisterError>,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) {
        self.busy = None;
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(error) => return self.register_failed(&error.to_string(), now, outputs),
        };
        if let Some(told) = loaded.moved_aside {
            self.moved_aside = Some(told.clone());
            outputs.push(Output::Note(Note::MovedAside(told)));
        }
        if let Some((record, _)) = &loaded.found
            && record.account != self.settings.account
        {
            let told = format!("the record there belongs to account {}", record.account);
            return self.register_failed(&told, now, outputs);
        }
        self.register_serves(outputs);
        let unsure = self.unsure.take();
        let seen = match loaded.found {
            Some((record, version))
                if unsure.is_some_and(|it| {
                    it.written == record.written && it.revision == record.revision
                }) =>
            {
                let phase = std::mem::replace(&mut self.phase, Phase::Idle);
                self.phase = self.after_swap(&phase, outputs);
                Seen {
                    record,
                    version: Some(version),
                    dirty: false,
                }
            }
            Some((record, version)) => self.found(record, version, now, outputs),
            None => self.nothing_found(now, outputs),
        };
        self.see(seen, outputs);
    }

    /// A record was found: is it the next one, one from another boot, or one that lost what we still hold?
    fn found(
        &self,
        record: Record,
        version: Version,
        now: Stamp,
        outputs: &mut Vec<Output>,
    ) -> Seen {
        let rules = &self.settings.rules;
        let moved = record.on_boot(&self.settings.boot_id, now, rules);
        if moved.is_some() {
            outputs.push(Output::Note(Note::OtherBoot));
        }
        let mut dirty = moved.is_some();
        let mut record = moved.unwrap_or(record);
        // What was never written was lost by nobody.
        let held = self
            .seen
            .as_ref()
            .map(|seen| &seen.record)
            .filter(|held| held.revision > 0);
        if let Some(held) = held
            && !record.follows(held)
        {
            outputs.push(Output::Note(Note::RecordLost));
            record = record.merged_with(held, now, rules);
            dirty = true;
        }
        Seen {
            record,
            version: Some(version),
            dirty,
        }
    }

    fn nothing_found(&mut self, now: Stamp, outputs: &mut Vec<Output>) -> Seen {
        if let Some(Seen {
            record, version, ..
        }) = &self.seen
        {
            let mut record = record.clone();
            if version.is_some() {
                outputs.push(Output::Note(Note::RecordLost));
                record = record.merged_with(&record, now, &self.settings.rules);
            }
            return Seen {
                record,
                version: None,
                dirty: true,
            };
        }
        outputs.push(Output::Note(Note::NewRecord));
        let Settings {
            account,
            absent,
            rules,
            ..
        } = &self.settings;
        let lineage = format!("{:016x}", self.dice.u64(..));
        let record = Record::new(account, lineage, *absent, self.writer(now), rules);
        Seen {
            record,
            version: None,
            dirty: true,
        }
    }

    /// Takes a record as the register's, and a newer token from it.
    fn see(&mut self, seen: Seen, outputs: &mut Vec<Output>) {
        let token = seen
            .record
            .token
            .clone()
            .filter(|token| self.is_newest(token));
        self.seen = Some(seen);
        if let Some(token) = token {
            outputs.push(Output::Note(Note::Found(token.generation)));
            self.held = Some(token);
            self.publish(outputs);
        }
    }

    fn swapped(&mut self, outcome: Swapped, now: Stamp, outputs: &mut Vec<Output>) {
        let written = self.busy.take().flatten();
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        match outcome {
            Swapped::Done(version) => {
                self.register_serves(outputs);
                if let Some(record) = written {
                    self.seen = Some(Seen {
                        record: *record,
                        version: Some(version),
                        dirty: false,
                    });
                }
                self.phase = self.after_swap(&phase, outputs);
            }
            Swapped::Conflict => {
                self.stale = true;
                self.phase = only_settling(phase);
            }
            Swapped::Unavailable(error) => {
                self.stale = true;
                self.phase = only_settling(phase);
                self.register_failed(&error.to_string(), now, outputs);
            }
            Swapped::Unknown(error) => {
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

    fn after_swap(&mut self, phase: &Phase, outputs: &mut Vec<Output>) -> Phase {
        match phase {
            Phase::Reserving(attempt) => {
                let send_by = attempt.reserved_at.boot + self.settings.rules.timeout;
                outputs.push(Output::Mint {
                    key: attempt.key,
                    send_by,
                });
                Phase::Minting(*attempt)
            }
            Phase::Settling(_, End::Minted { .. }) => {
                self.publish(outputs);
                Phase::Idle
            }
            Phase::Settling(_, End::Failed(_)) | Phase::Storing | Phase::Idle => Phase::Idle,
            Phase::Minting(attempt) => Phase::Minting(*attempt),
        }
    }

    fn minted(&mut self, answer: Answer, now: Stamp, outputs: &mut Vec<Output>) {
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
            began_at: attempt.reserved_at.wall,
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
    fn ended(
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

    fn refusals(&self) -> u32 {
        self.seen
            .as_ref()
            .map_or(0, |seen| seen.record.keys.refused)
    }

    fn report(&mut self, generation: Generation, now: Stamp, outputs: &mut Vec<Output>) {
        let outcome = self.judge_report(generation, now);
        if matches!(
            outcome,
            ReportOutcome::Refreshing | ReportOutcome::Paced { .. }
        ) {
            if self.wishes.reported != Some(generation) {
                outputs.push(Output::Note(Note::Suspect(generation)));
            }
            self.wishes.reported = Some(generation);
            self.publish(outputs);
        }
        outputs.push(Output::Reported(outcome));
    }

    fn judge_report(&self, generation: Generation, now: Stamp) -> ReportOutcome {
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
                until: Stamp::at_boot(now, plan.at),
            },
            None => ReportOutcome::Paced {
                until: now.plus(self.settings.rules.unsent.first),
            },
        }
    }

    fn refresh(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        let refused = |waiting_for, until| RefreshOutcome::Refused { waiting_for, until };
        let outcome = if self.attempt_under_way() {
            RefreshOutcome::Refreshing
        } else if self.register_trouble.is_some() {
            refused(
                "register",
                self.register_retry.map(|at| Stamp::at_boot(now, at)),
            )
        } else {
            match self.situation(now).map(|situation| situation.operators()) {
                Some(plan) if plan.at <= now.boot => {
                    self.wishes.operator = true;
                    RefreshOutcome::Refreshing
                }
                Some(plan) => refused(plan.waiting_for.name(), Some(Stamp::at_boot(now, plan.at))),
                None => refused("register", None),
            }
        };
        outputs.push(Output::Refreshed(outcome));
    }

    fn attempt_under_way(&self) -> bool {
        match &self.phase {
            Phase::Reserving(_) | Phase::Minting(_) => true,
            Phase::Settling(_, end) => matches!(end, End::Minted { .. }),
            Phase::Idle | Phase::Storing => false,
        }
    }

    /// Puts the newest token out, unless it is out already in the same way.
    fn publish(&mut self, outputs: &mut Vec<Output>) {
        let Some(token) = &self.held else { return };
        let suspect = self.wishes.reported == Some(token.generation);
        if self.published == Some((token.generation, suspect)) {
            return;
        }
        self.published = Some((token.generation, suspect));
        outputs.push(Output::Publish {
            token: token.clone(),
            suspect,
        });
    }

    fn is_newest(&self, token: &Token) -> bool {
        self.held
            .as_ref()
            .is_none_or(|held| held.generation < token.generation)
    }

    /// True if this token is not out yet.
    fn is_news(&self, token: &Token) -> bool {
        self.published
            .is_none_or(|(generation, _)| generation < token.generation)
    }

    fn register_failed(&mut self, why: &str, now: Stamp, outputs: &mut Vec<Output>) {
        self.stale = true;
        self.register_failures = self.register_failures.saturating_add(1);
        let wait = self.settings.rules.unsent.after(self.register_failures);
        self.register_retry = Some(now.boot + wait);
        self.register_trouble = Some(why.to_owned());
        outputs.push(Output::Note(Note::RegisterDown(why.to_owned())));
    }

    fn register_serves(&mut self, outputs: &mut Vec<Output>) {
        self.register_failures = 0;
        if self.register_trouble.take().is_some() {
            outputs.push(Output::Note(Note::RegisterUp));
        }
    }

    /// Keeps the largest distance that the wall clock has moved against the boot clock.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a step is shown in seconds, not counted"
    )]
    fn notice_clock(&mut self, now: Stamp) {
        let offset =
            now.wall.as_nanosecond() - i128::try_from(now.boot.as_nanos()).unwrap_or_default();
        let first = *self.first_offset.get_or_insert(offset);
        let step = (offset - first) as f64 / 1e9;
        if step.abs() > self.clock_step.abs() {
            self.clock_step = step;
        }
    }
}

/// What remains of a phase whose swap did not happen: an end is written again, everything else is decided anew.
fn only_settling(phase: Phase) -> Phase {
    match phase {
        Phase::Settling(..) | Phase::Minting(_) => phase,
        Phase::Idle | Phase::Storing | Phase::Reserving(_) => Phase::Idle,
    }
}

impl Trigger {
    /// The word in the status and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token",
            Self::Schedule => "schedule",
            Self::Expiry => "expiry",
            Self::Report => "report",
            Self::Operator => "operator",
            Self::Parked => "parked",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests;
