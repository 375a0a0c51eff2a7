//! The brain: it decides when to mint, what to write and what to vend, and does none of it.
//!
//! A state machine without a clock, a runtime, randomness of its own or I/O. Whoever drives it feeds it [`Input`]s with the moment
//! they came, and carries out the [`Output`]s in their order. At most one register operation and one mint are under way at a time.

mod asked;
pub mod driver;
mod ending;
mod inputs;
mod log;
mod metrics;
mod remembering;
pub mod schedule;
mod status;

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{BootId, Stamp};
use crate::record::{Absent, Attempt, Failure, Record, Reservation, Rules, Version};
use crate::token::{Generation, Token};
use crate::vend::status::{AttemptStatus, Trouble};
pub use inputs::{Input, Note, Output};
use schedule::{Plan, Situation, Wishes};

/// How long a minted token waits for its record before it is published without.
const COMMIT_PATIENCE: Duration = Duration::from_millis(250);

/// So many steps of the wall clock are remembered; what another process wrote before them is not doubted.
const OFFSETS_KEPT: usize = 16;

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
    /// It holds what the register has lost; until it is written, whatever is found there lacks it.
    owed: bool,
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
    /// The last swap failed: a load that succeeds since does not mean that the register serves.
    unwritable: bool,
    register_trouble: Option<String>,
    moved_aside: Option<String>,
    keys: Option<(String, u32)>,
    held: Option<Token>,
    published: Option<(Generation, bool)>,
    wishes: Wishes,
    trouble: Option<Trouble>,
    attempts: VecDeque<AttemptStatus>,
    /// What was found at the start has been told.
    began: bool,
    /// The wall clock's distances from the boot clock that were seen, each at least half the skew from the others.
    offsets: Vec<i128>,
    /// The wall clock's distance from the boot clock when we last wrote.
    written_offset: Option<i128>,
    clock_step: f64,
    dice: fastrand::Rng,
    retired: bool,
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
            unwritable: false,
            register_trouble: None,
            moved_aside: None,
            keys: None,
            held: None,
            published: None,
            wishes: Wishes::default(),
            trouble: None,
            attempts: VecDeque::new(),
            began: false,
            offsets: Vec::new(),
            written_offset: None,
            clock_step: 0.0,
            dice: fastrand::Rng::with_seed(seed),
            retired: false,
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
        self.tell_of_the_start(now, outputs);
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
            ) if self.is_news(token) && !token.expired(now) => Some(*publish_by),
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

    /// Begins no attempt from here on.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// True if nothing is under way: ending now loses nothing.
    pub fn at_rest(&self) -> bool {
        self.busy.is_none() && matches!(self.phase, Phase::Idle)
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
            self.publish(now, outputs);
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
            // After a failed write the same record is written again, to learn whether the register serves.
            Phase::Idle if seen.dirty || self.unwritable || self.wall_moved(seen, now) => {
                let next = seen.record.clone();
                self.phase = Phase::Storing;
                self.swap(next, now, outputs);
            }
            Phase::Idle if self.retired => {}
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
        self.phase = Phase::Reserving(attempt);
        self.swap(next, now, outputs);
    }

    fn attempt_under_way(&self) -> bool {
        match &self.phase {
            Phase::Reserving(_) | Phase::Minting(_) => true,
            Phase::Settling(_, end) => matches!(end, End::Minted { .. }),
            Phase::Idle | Phase::Storing => false,
        }
    }

    /// Puts the newest token out, unless it has ended or is out already in the same way.
    fn publish(&mut self, now: Stamp, outputs: &mut Vec<Output>) {
        let Some(token) = self.held.as_ref().filter(|token| !token.expired(now)) else {
            return;
        };
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

    /// True if the wall clock has been set since the last write, by which another boot would reckon. Where two daemons of one boot
    /// see different wall clocks, each writes once, and not in turns.
    fn wall_moved(&self, seen: &Seen, now: Stamp) -> bool {
        let written = &seen.record.written;
        let ours = written.boot_id == self.settings.boot_id && seen.version.is_some();
        let skew = i128::try_from(self.settings.rules.skew.as_nanos()).unwrap_or(i128::MAX);
        let differs = |other: i128| (now.offset() - other).abs() > skew;
        ours && differs(written.at.offset()) && self.written_offset.is_none_or(differs)
    }

    /// Keeps how the wall clock stood against the boot clock, and the largest distance that it has moved.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a step is shown in seconds, not counted"
    )]
    fn notice_clock(&mut self, now: Stamp) {
        let offset = now.offset();
        let first = *self.offsets.first().unwrap_or(&offset);
        let step = (offset - first) as f64 / 1e9;
        if step.abs() > self.clock_step.abs() {
            self.clock_step = step;
        }
        let skew = self.settings.rules.skew.as_nanos();
        let known = |seen: &i128| (offset - seen).unsigned_abs() <= skew / 2;
        if !self.offsets.iter().any(known) {
            // The first one stays: steps are measured from there.
            if self.offsets.len() == OFFSETS_KEPT {
                self.offsets.remove(1);
            }
            self.offsets.push(offset);
        }
    }
}

#[cfg(test)]
mod tests;
