//! Random histories of a record that several processes write, some of them late, one after the other, against a plain model.

use super::machine::{Seen, histories, is_a_whole_run, run};
use super::*;
use crate::token::Freshness;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

/// Nanoseconds of true time.
type Moment = u64;

fn nanoseconds(length: Duration) -> Moment {
    u64::try_from(length.as_nanos()).unwrap()
}

fn period() -> Moment {
    nanoseconds(rules().budget.period())
}

/// What a record must hold, as plainly as can be said.
#[derive(Clone, Debug)]
struct Document {
    lineage: usize,
    revision: u64,
    generation: u64,
    token: Option<u64>,
    claim: Option<usize>,
    /// Attempts that hold a slot, and when each frees.
    slots: Vec<(usize, Moment)>,
    /// Those of them that come from another boot, and when they free with the skew added once.
    carried: Vec<(usize, Moment)>,
    /// Attempts of which the record knows nothing but that they were begun.
    open: Vec<usize>,
}

impl Document {
    /// True if this cannot have come from `held`: its counts are lower, or it knows less of what was spent. A slot whose attempt is
    /// open may have been given back.
    fn lacks(&self, held: &Self, now: Moment) -> bool {
        let here = |number: &usize| self.slots.iter().any(|(at, _)| at == number);
        let counts = |(_, frees): &&(usize, Moment)| *frees > now;
        let mut settled = held.slots.iter().filter(counts).map(|(number, _)| number);
        self.revision < held.revision
            || self.generation < held.generation
            || self.token < held.token
            || settled.any(|number| !held.open.contains(number) && !here(number))
    }
}

#[derive(Clone, Debug)]
struct Begun {
    holder: String,
    generation: u64,
    reserved: Moment,
    /// Whether its beginning ever came into the record.
    written: bool,
    end: Option<How>,
    /// When its answer came.
    answered: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum How {
    Minted { fresh: bool },
    NotSent,
    Silence,
    Broken,
    Intermediary,
    Throttled(Option<u64>),
    Refused { key_at_fault: bool },
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Minted { .. } => "minted",
            Self::NotSent => "not sent",
            Self::Silence => "silence",
            Self::Broken => "broken",
            Self::Intermediary => "intermediary",
            Self::Throttled(_) => "throttled",
            Self::Refused { .. } => "refused",
        }
    }
}

#[derive(Clone, Debug)]
struct Model {
    now: Moment,
    /// The moment of the last write.
    wrote: Moment,
    document: Document,
    attempts: Vec<Begun>,
    /// For each process its name, and the attempt that it has under way.
    processes: Vec<(String, Option<usize>)>,
    /// Copies that may come back.
    older: Vec<Document>,
    /// What was lost and is still held by somebody.
    owed: Option<Document>,
    names: usize,
    /// So many attempts were of earlier boots; nobody is left who could end them.
    gone: usize,
    /// What the last step was about.
    about: Option<usize>,
    /// The attempt whose end was the last that was written.
    last_end: Option<usize>,
    /// What was brought back was not in the register any more.
    lacked: bool,
    /// The end that was written now had been written before, and nothing since.
    repeated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Absurd {
    Slot,
    Wait,
    Claim,
    Token,
}

#[derive(Clone, Debug)]
enum Step {
    Begin {
        process: usize,
        class: Class,
        trigger: Trigger,
        keys: &'static str,
        jitter: u32,
        written: bool,
    },
    /// An attempt ends; one that has ended ends once more, in the same way.
    End {
        which: usize,
        how: How,
        ago: u64,
    },
    Die(usize),
    Pass(u64),
    Reboot(u64),
    /// Somebody wrote a moment that cannot be.
    Absurd(Absurd),
    Copy,
    /// A copy, or an empty record, takes the record's place.
    Lose(Option<usize>),
    Merge,
}

impl Model {
    /// Those that may end: under way, or ended. While something is owed, only what began on the copy.
    fn may_end(&self) -> Vec<usize> {
        let known = |at: &usize| match self.attempts[*at].end {
            Some(_) => true,
            None => self.processes.iter().any(|it| it.1 == Some(*at)),
        };
        let on_copy =
            |at: &usize| self.owed.is_none() || self.attempts[*at].holder.starts_with("new");
        let all = self.gone..self.attempts.len();
        all.filter(known).filter(on_copy).collect()
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    fn begin(&mut self, process: usize, written: bool) {
        let attempt = Begun {
            holder: self.processes[process].0.clone(),
            generation: self.document.generation + 1,
            reserved: self.now,
            written,
            end: None,
            answered: self.now,
        };
        let number = self.attempts.len();
        if written {
            let now = self.now;
            self.document.slots.retain(|(_, frees)| *frees > now);
            self.document.slots.push((number, now + period()));
            self.document.open.push(number);
            self.document.generation = attempt.generation;
            self.document.claim = Some(number);
        }
        self.processes[process].1 = Some(number);
        self.attempts.push(attempt);
        self.about = Some(number);
    }

    /// How an attempt ends really: as before, and never sent if its slot was not written.
    fn ends(&self, number: usize, how: How) -> How {
        let attempt = &self.attempts[number];
        match attempt.end {
            Some(before) => before,
            None if attempt.written => how,
            None => How::NotSent,
        }
    }

    fn end(&mut self, number: usize, how: How, ago: u64) {
        let how = self.ends(number, how);
        self.repeated = self.last_end == Some(number);
        let attempt = &mut self.attempts[number];
        if attempt.end.is_none() {
            attempt.answered = self.now.saturating_sub(ago).max(attempt.reserved);
        }
        attempt.end = Some(how);
        let answered = attempt.answered;
        let (generation, reserved) = (attempt.generation, attempt.reserved);
        for process in &mut self.processes {
            process.1 = process.1.filter(|at| *at != number);
        }
        let document = &mut self.document;
        let open = document.open.contains(&number);
        document.open.retain(|at| *at != number);
        document.claim = document.claim.filter(|at| *at != number);
        document.generation = document.generation.max(generation);
        if how == How::NotSent {
            if open {
                document.slots.retain(|(at, _)| *at != number);
            }
            return;
        }
        let counted_by = match how {
            How::Silence | How::Intermediary | How::NotSent => Moment::MAX / 2,
            How::Minted { .. } => answered,
            _ => self.now,
        };
        let counted = counted_by + nanoseconds(rules().budget.period_once_counted());
        let frees = counted.min(reserved + period());
        document.slots.retain(|(at, _)| *at != number);
        document.slots.push((number, frees));
        document.carried.retain(|(at, _)| *at != number);
        if matches!(how, How::Minted { .. }) {
            document.token = document.token.max(Some(generation));
        }
    }

    fn reboot(&mut self, off: u64) {
        self.now += off;
        let wrote = self.wrote;
        let skew = nanoseconds(rules().skew);
        let Document { slots, carried, .. } = &mut self.document;
        for (number, frees) in slots {
            let known = carried.iter().find(|(at, _)| at == number);
            let end = known.map_or(*frees + skew, |(_, end)| *end);
            let left = match frees.saturating_sub(wrote) {
                0 => 0,
                left => (end.saturating_sub(self.now))
                    .min(left + skew)
                    .min(period()),
            };
            *frees = self.now + left;
            carried.retain(|(at, _)| at != number);
            carried.push((*number, end));
        }
        self.all_die();
        self.older.clear();
    }

    /// Nobody is left who could end what was begun.
    fn all_die(&mut self) {
        for at in 0..self.processes.len() {
            self.processes[at] = (self.name("process"), None);
        }
        self.gone = self.attempts.len();
    }

    fn lose(&mut self, copy: Option<usize>) {
        let older = copy.and_then(|at| self.older.get(at).cloned());
        let same_lineage = older.as_ref().map(|it| it.lineage);
        let empty = Document {
            lineage: self.names + 1000,
            revision: 0,
            generation: birth(self.now),
            token: None,
            claim: None,
            slots: Vec::new(),
            carried: Vec::new(),
            open: Vec::new(),
        };
        let lost = std::mem::replace(&mut self.document, older.unwrap_or(empty));
        debug_assert!(same_lineage.is_none_or(|it| it == self.document.lineage));
        self.owed = Some(lost);
        // Whoever knows what was lost brings it back before anything else; only a stranger begins on the copy.
        let stranger = self.name("new");
        self.processes.push((stranger, None));
    }

    fn merge(&mut self) {
        let held = self.owed.take().unwrap();
        let now = self.now;
        self.lacked = self.document.lacks(&held, now);
        let found = &mut self.document;
        // Only a copy was carried here at the same moment.
        let copy = found.lineage == held.lineage;
        for (number, frees) in held.slots {
            let carried = held.carried.iter().find(|(at, _)| copy && *at == number);
            match found.slots.iter_mut().find(|(at, _)| *at == number) {
                Some((_, later)) if *later < frees => {
                    *later = frees;
                    found.carried.retain(|(at, _)| *at != number);
                    found.carried.extend(carried);
                    found.open.retain(|at| *at != number);
                    if held.open.contains(&number) {
                        found.open.push(number);
                    }
                }
                Some(_) => {}
                None => {
                    found.slots.push((number, frees));
                    found.carried.extend(carried);
                    if held.open.contains(&number) {
                        found.open.push(number);
                    }
                }
            }
        }
        found.slots.retain(|(_, frees)| *frees > now);
        let kept: Vec<usize> = found.slots.iter().map(|(at, _)| *at).collect();
        found.open.retain(|at| kept.contains(at));
        // Beyond what anybody whose clock is right but for the skew can have begun to count from.
        let beyond = birth(now) + rules().skew.as_secs() + 1;
        found.generation = (found.generation.max(held.generation) + 1).max(beyond);
        found.token = found.token.max(held.token);
        if found.lineage == held.lineage {
            found.revision = found.revision.max(held.revision);
        }
        self.names += 1;
        found.lineage = self.names;
        self.older.clear();
    }
}

/// What a record that is born at a moment starts to count from.
fn birth(now: Moment) -> u64 {
    u64::try_from(stamp(now, 0).wall.as_second()).unwrap()
}

fn stamp(moment: Moment, booted: Moment) -> Stamp {
    Stamp {
        wall: super::at(0).wall + SignedDuration::from_nanos(i64::try_from(moment).unwrap()),
        boot: Duration::from_nanos(moment - booted),
    }
}

/// More sets than are remembered.
fn any_of_sets() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"])
}

/// What holds of a record's sets whatever was done to it.
fn sets_are_told_apart(record: &Record) {
    let Record { refused, tried, .. } = record;
    let mut names: Vec<&str> = refused.iter().map(|it| it.fingerprint.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == refused.len() && names.len() <= 8);
    let mut names = tried.clone();
    names.sort();
    names.dedup();
    assert!(names.len() == tried.len() && names.len() <= 8);
    // Older builds read of the set that was tried last alone.
    let last = &record.keys.fingerprint;
    let entry = refused.iter().find(|it| it.fingerprint == *last);
    let entry = entry.map(|it| (it.since, it.retry_at, it.reason.as_str()));
    let parked = record.parked.as_ref();
    assert_eq!(
        entry,
        parked.map(|it| (it.since, it.retry_at, it.reason.as_str()))
    );
}

struct Histories;

impl ReferenceStateMachine for Histories {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let now = 100_000_000_000_000;
        let processes = (0..3).map(|at| (format!("process-{at}"), None)).collect();
        Just(Model {
            now,
            wrote: now,
            document: Document {
                lineage: 1,
                revision: 1,
                generation: birth(now),
                token: None,
                claim: None,
                slots: Vec::new(),
                carried: Vec::new(),
                open: Vec::new(),
            },
            attempts: Vec::new(),
            processes,
            older: Vec::new(),
            owed: None,
            names: 10,
            gone: 0,
            about: None,
            last_end: None,
            lacked: false,
            repeated: false,
        })
        .boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let any_of = |from: &'static [Trigger]| proptest::sample::select(from);
        let trigger = any_of(&[
            Trigger::Schedule,
            Trigger::Operator,
            Trigger::Parked,
            Trigger::Expiry,
        ]);
        // While something is owed, the stranger alone begins.
        let stranger = model.processes.len() - 1;
        let process = match model.owed {
            Some(_) => (stranger..=stranger).boxed(),
            None => any::<usize>().boxed(),
        };
        let begin = (
            process,
            proptest::sample::select(Class::ALL.to_vec()),
            trigger,
            prop_oneof![9 => Just(KEYS), 3 => any_of_sets()],
            800u32..=1200,
            proptest::bool::weighted(0.9),
        );
        let begin =
            begin.prop_map(
                |(process, class, trigger, keys, jitter, written)| Step::Begin {
                    process,
                    class,
                    trigger,
                    keys,
                    jitter,
                    written,
                },
            );
        let how = prop_oneof![
            4 => any::<bool>().prop_map(|fresh| How::Minted { fresh }),
            3 => Just(How::NotSent),
            2 => Just(How::Silence),
            2 => Just(How::Broken),
            2 => Just(How::Intermediary),
            1 => proptest::option::of(0u64..5_000).prop_map(How::Throttled),
            3 => any::<bool>().prop_map(|key_at_fault| How::Refused { key_at_fault }),
        ];
        let absurd = proptest::sample::select(vec![
            Absurd::Slot,
            Absurd::Wait,
            Absurd::Claim,
            Absurd::Token,
        ]);
        let length = prop_oneof![
            1 => Just(0u64),
            4 => 0u64..40_000_000_000,
            2 => 0u64..1_000_000_000_000,
            1 => 0u64..3 * period(),
        ];
        prop_oneof![
            8 => begin,
            10 => (any::<usize>(), how, 0u64..20_000_000_000)
                .prop_map(|(which, how, ago)| Step::End { which, how, ago }),
            1 => (0usize..3).prop_map(Step::Die),
            5 => length.clone().prop_map(Step::Pass),
            1 => length.prop_map(Step::Reboot),
            1 => absurd.prop_map(Step::Absurd),
            1 => Just(Step::Copy),
            1 => proptest::option::weighted(0.8, any::<usize>()).prop_map(Step::Lose),
            2 => Just(Step::Merge),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        let whole = model.owed.is_none();
        match step {
            Step::Begin { process, .. } => {
                let (name, under_way) = &model.processes[*process % model.processes.len()];
                under_way.is_none() && (whole || name.starts_with("new"))
            }
            Step::End { .. } => !model.may_end().is_empty(),
            Step::Pass(_) => true,
            Step::Merge => !whole,
            Step::Lose(Some(_)) => whole && !model.older.is_empty(),
            Step::Absurd(Absurd::Slot) => {
                let first = model.document.slots.first();
                whole && first.is_some_and(|(_, frees)| *frees > model.now)
            }
            Step::Absurd(Absurd::Claim) => whole && model.document.claim.is_some(),
            Step::Absurd(Absurd::Token) => whole && model.document.token.is_some(),
            Step::Absurd(Absurd::Wait)
            | Step::Lose(None)
            | Step::Die(_)
            | Step::Reboot(_)
            | Step::Copy => whole,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        (model.about, model.repeated) = (None, false);
        let writes = !matches!(step, Step::Pass(_) | Step::Die(_) | Step::Copy);
        let mut last_end = model.last_end.filter(|_| !writes);
        match *step {
            Step::Begin {
                process, written, ..
            } => {
                let process = process % model.processes.len();
                model.begin(process, written);
            }
            Step::End { which, how, ago } => {
                let may = model.may_end();
                let number = may[which % may.len()];
                model.end(number, how, ago);
                model.about = Some(number);
                last_end = Some(number);
            }
            Step::Die(process) => {
                let name = model.name("process");
                model.processes[process] = (name, None);
            }
            Step::Pass(length) => model.now += length,
            Step::Reboot(off) => model.reboot(off),
            Step::Absurd(Absurd::Slot) => {
                let now = model.now;
                let document = &mut model.document;
                let slot = &mut document.slots[0];
                slot.1 = now + period();
                document.carried.retain(|(at, _)| *at != slot.0);
                model.all_die();
            }
            Step::Absurd(_) => {}
            Step::Copy => model.older.push(model.document.clone()),
            Step::Lose(copy) => {
                let copies = model.older.len().max(1);
                model.lose(copy.map(|at| at % copies));
            }
            Step::Merge => model.merge(),
        }
        model.last_end = last_end;
        if writes {
            model.document.revision += 1;
            model.wrote = model.now;
        }
        model
    }
}

struct Real {
    record: Record,
    attempts: Vec<Attempt>,
    ends: Vec<Option<(How, Stamp)>>,
    older: Vec<Record>,
    owed: Option<Record>,
    boots: u32,
    booted: Moment,
}

impl Real {
    fn boot_id(&self) -> BootId {
        BootId::new(format!("boot-{}", self.boots))
    }

    /// What a keeper does with every record that it writes.
    fn write(&mut self, mut next: Record, now: Stamp) {
        next.revision += 1;
        next.written = Writer {
            holder: "whoever".into(),
            boot_id: self.boot_id(),
            at: now,
        };
        self.record = Record::parse(&next.to_text()).expect("what is written is read back");
        assert_eq!(self.record, next);
    }

    fn slots(&self, now: Stamp) -> Vec<(String, u64, Duration)> {
        let taken = |slot: &&Slot| slot.frees_at.boot > now.boot;
        let name = |slot: &Slot| (slot.holder.clone(), slot.attempt.0, slot.frees_at.boot);
        let mut slots: Vec<_> = self.record.ledger.iter().filter(taken).map(name).collect();
        slots.sort();
        slots
    }

    fn begin(&mut self, model: &Model, step: &Step, now: Stamp) {
        let Step::Begin {
            class,
            trigger,
            keys,
            jitter,
            written,
            ..
        } = *step
        else {
            return;
        };
        let before = &self.record;
        let expected = &model.attempts[model.about.unwrap()];
        let asked = Reservation {
            class,
            trigger,
            holder: &expected.holder,
            keys,
            at_least: Generation(1),
            jitter,
        };
        let (next, attempt) = before.begin(&asked, now, &rules());
        assert_eq!(attempt.generation.0, expected.generation);
        assert!(attempt.generation > before.generation, "they rise strictly");
        assert_eq!(
            (next.streak.lost, &next.token),
            (before.streak.lost + 1, &before.token)
        );
        let refused = before.refusal_of(keys).is_some() && trigger != Trigger::Operator;
        assert_eq!(next.parked.is_some(), refused, "parking belongs to a set");
        let known = before.tried.iter().any(|it| it == keys);
        let first = before.tried.len() < 8 && !known;
        assert_eq!(attempt.taken.first_of_set, first);
        assert!(!next.is_untried(keys), "once");
        let wait = next.not_before.expect("as if it were lost already");
        assert!(wait.boot >= now.boot && wait.boot <= now.boot + rules().budget.period());
        self.attempts.push(attempt);
        self.ends.push(None);
        if written {
            self.write(next, now);
        } else {
            self.write(self.record.clone(), now);
        }
    }

    fn end(&mut self, model: &Model, now: Stamp) {
        let number = model.about.unwrap();
        let (before, attempt) = (self.record.clone(), self.attempts[number].clone());
        let how = model.attempts[number].end.expect("it has ended");
        let answered = stamp(model.attempts[number].answered, self.booted);
        let written = |record: &Record| ended(record, &attempt, how, answered, now);
        let next = written(&before);
        assert_eq!(
            written(&next),
            next,
            "written twice it counts once: {how:?}"
        );
        let newest = before.generation <= attempt.generation;
        if !newest {
            assert_eq!((&next.keys, &next.parked), (&before.keys, &before.parked));
            assert_eq!(next.refused, before.refused);
            assert!(
                wait(&next) >= wait(&before),
                "a late writer shortens no wait"
            );
        }
        let theirs = |record: &Record| {
            let mut ledger = record.ledger.clone();
            ledger.retain(|slot| {
                !(slot.attempt == attempt.generation && slot.holder == attempt.holder)
            });
            ledger
        };
        assert_eq!(
            theirs(&next),
            theirs(&before),
            "nobody else's slot is touched"
        );
        if model.repeated {
            assert_eq!(next.streak, before.streak, "{how:?}");
            assert_eq!((&next.keys, &next.parked), (&before.keys, &before.parked));
        }
        if newest && matches!(how, How::Minted { .. }) {
            assert_eq!((&next.parked, next.keys.refused), (&None, 0));
        }
        let news = next.token.as_ref().filter(|_| next.token != before.token);
        if news.is_some_and(|token| token.freshness(now) == Freshness::Fresh) {
            assert!(next.tried.is_empty());
        } else if how != How::NotSent {
            assert_eq!(next.tried, before.tried, "only a fresh token forgets them");
        }
        assert!(
            next.hold_until.map(|at| at.boot) >= before.hold_until.map(|at| at.boot),
            "an end shortens no hold"
        );
        SEEN.count((how.name(), newest, model.repeated));
        self.ends[number] = Some((how, now));
        self.write(next, now);
    }

    fn clamp(&mut self, absurd: Absurd, model: &Model, now: Stamp) {
        let mut record = self.record.clone();
        let far = now.plus(10 * rules().budget.period());
        match absurd {
            Absurd::Slot => {
                // Which slot the model calls its first.
                let name = &self.attempts[model.document.slots[0].0];
                let mut slots = record.ledger.iter_mut();
                let slot =
                    slots.find(|it| it.attempt == name.generation && it.holder == name.holder);
                slot.expect("it is in the record").frees_at = far;
            }
            Absurd::Wait => record.not_before = Some(far),
            Absurd::Claim => record.claim.as_mut().unwrap().until = far,
            Absurd::Token => record.token.as_mut().unwrap().expires_at = far,
        }
        let clamped = record.clamped(now, &rules()).expect("it is absurd");
        assert_eq!(clamped.clamped(now, &rules()), None, "once");
        let period = now.plus(rules().budget.period());
        match absurd {
            Absurd::Slot => {}
            Absurd::Wait => assert_eq!(clamped.not_before, Some(period)),
            Absurd::Claim => assert_eq!(clamped.claim.as_ref().unwrap().until, period),
            // An end that cannot be true is taken for one that has come.
            Absurd::Token => assert!(clamped.token.as_ref().unwrap().expired(now)),
        }
        self.write(clamped, now);
    }

    fn reboot(&mut self, model: &Model) {
        let before = (self.record.clone(), self.booted);
        self.boots += 1;
        self.booted = model.now - 50_000_000_000_000;
        let now = stamp(model.now, self.booted);
        let next = before.0.on_boot(&self.boot_id(), now, &rules()).unwrap();
        let true_wait = |record: &Record, booted| wait(record).map(|at| nanoseconds(at) + booted);
        let (earlier, later) = (
            true_wait(&before.0, before.1),
            true_wait(&next, self.booted),
        );
        assert!(
            later >= earlier.map(|at| at.min(model.now)),
            "no wait is shortened"
        );
        let end = |record: &Record| record.token.as_ref().map(|it| it.expires_at.wall);
        assert!(
            end(&next) <= end(&before.0).max(Some(now.wall)),
            "no token lives longer"
        );
        self.write(next, now);
        assert_eq!(self.record.on_boot(&self.boot_id(), now, &rules()), None);
        self.older.clear();
    }

    fn merge(&mut self, model: &Model, now: Stamp) {
        let (found, held) = (self.record.clone(), self.owed.take().unwrap());
        if model.lacked {
            SEEN.count((
                "lost, and written since",
                false,
                found.revision >= held.revision,
            ));
            assert!(
                !found.follows(&held, &found.written.boot_id, now, &rules()),
                "it lacks what is held"
            );
        }
        let mut next = found.merged_with(&held, now, &rules());
        let longest = wait(&found).max(wait(&held));
        let quarantine = now.boot + rules().claim();
        assert_eq!(wait(&next), longest.max(Some(quarantine)));
        let lost = held.streak.lost.max(found.streak.lost);
        assert_eq!(next.streak.lost, lost);
        assert!(next.revision >= found.revision);
        let held_until = next.hold_until.map(|at| at.boot);
        assert!(
            held_until >= Some(quarantine),
            "no set may pass a quarantine"
        );
        let at_once = next.probation.as_ref().map(|it| it.at_once);
        assert!(at_once.unwrap_or(0) == 0, "nothing at once after a merge");
        for set in found.refused.iter().chain(&held.refused) {
            let of = |it: &&RefusedSet| it.fingerprint == set.fingerprint;
            let kept = next.refused.iter().find(of);
            let last = set.fingerprint == next.keys.fingerprint;
            let full = next.refused.len() == 8;
            assert!(
                last || full || kept.is_some_and(|it| it.retry_at.boot >= set.retry_at.boot),
                "no refusal is forgotten"
            );
        }
        assert_eq!(
            next.parked.is_some(),
            found.parked.is_some() || held.parked.is_some()
        );
        next.lineage = format!("{}-merged", next.lineage);
        self.write(next, now);
        self.older.clear();
    }
}

fn wait(record: &Record) -> Option<Duration> {
    record.not_before.map(|at| at.boot)
}

/// The record with this end of an attempt written into it.
fn ended(record: &Record, attempt: &Attempt, how: How, answered: Stamp, now: Stamp) -> Record {
    let failure = match how {
        How::Minted { fresh } => {
            let due = attempt.reserved_at.plus(rules().lifetime - rules().lead);
            let token = Token {
                issued_at: attempt.reserved_at,
                refresh_at: if fresh { due } else { attempt.reserved_at },
                expires_at: attempt.reserved_at.plus(rules().lifetime),
                ..token(attempt, 0)
            };
            return record.commit(attempt, &token, answered, now, &rules());
        }
        How::NotSent => Failure::NotSent,
        How::Silence => Failure::Lost { answered: false },
        How::Broken => Failure::Lost { answered: true },
        How::Intermediary => Failure::Intermediary,
        How::Throttled(seconds) => Failure::Throttled {
            retry_after: seconds.map(Duration::from_secs),
        },
        How::Refused { key_at_fault } => Failure::Refused {
            key_at_fault,
            keys: 2,
            reason: "no".into(),
        },
    };
    record.abort(attempt, &failure, now, &rules())
}

struct Transitions;

impl StateMachineTest for Transitions {
    type SystemUnderTest = Real;
    type Reference = Histories;

    fn init_test(model: &Model) -> Real {
        let mut real = Real {
            record: known(),
            attempts: Vec::new(),
            ends: Vec::new(),
            older: Vec::new(),
            owed: None,
            boots: 1,
            booted: 7_000_000_000,
        };
        let now = stamp(model.now, real.booted);
        let writer = Writer {
            at: now,
            ..writer(0)
        };
        let mut record = Record::new("account", "l".into(), Absent::New, writer, &rules());
        record.probation = None;
        real.write(record, now);
        real
    }

    fn apply(mut real: Real, model: &Model, step: Step) -> Real {
        let now = stamp(model.now, real.booted);
        match step {
            Step::Begin { .. } => real.begin(model, &step, now),
            Step::End { .. } => real.end(model, now),
            Step::Die(_) | Step::Pass(_) => {}
            Step::Reboot(_) => real.reboot(model),
            Step::Absurd(absurd) => real.clamp(absurd, model, now),
            Step::Copy => real.older.push(real.record.clone()),
            Step::Lose(copy) => {
                let writer = Writer {
                    at: now,
                    ..writer(0)
                };
                let copy = copy.and_then(|at| real.older.get(at % real.older.len()).cloned());
                let empty =
                    || Record::new("account", "fresh".into(), Absent::New, writer, &rules());
                let found = copy.unwrap_or_else(empty);
                real.owed = Some(std::mem::replace(&mut real.record, found.clone()));
                // Whoever found the copy wrote it.
                real.write(found, now);
            }
            Step::Merge => real.merge(model, now),
        }
        let copies = real.older.iter().filter(|_| real.owed.is_none());
        for copy in copies {
            assert!(
                real.record
                    .follows(copy, &real.record.written.boot_id, now, &rules()),
                "it was written after that copy"
            );
            let older = copy.revision < real.record.revision;
            assert_eq!(
                copy.follows(&real.record, &real.record.written.boot_id, now, &rules()),
                !older
            );
        }
        real
    }

    fn check_invariants(real: &Real, model: &Model) {
        let now = stamp(model.now, real.booted);
        let document = &model.document;
        let record = &real.record;
        assert_eq!(record.generation.0, document.generation);
        assert_eq!(record.revision, document.revision);
        sets_are_told_apart(record);
        let token = record.token.as_ref().map(|it| it.generation.0);
        assert_eq!(token, document.token, "only a newer token takes its place");
        let claim = record
            .claim
            .as_ref()
            .map(|it| (it.attempt.0, it.holder.as_str()));
        let expected = document.claim.map(|at| &model.attempts[at]);
        assert_eq!(
            claim,
            expected.map(|it| (it.generation, it.holder.as_str()))
        );
        let expected = document.slots.iter().filter(|(_, at)| *at > model.now);
        let named = |(number, frees): &(usize, Moment)| {
            let attempt = &model.attempts[*number];
            let frees = Duration::from_nanos(frees - real.booted);
            (attempt.holder.clone(), attempt.generation, frees)
        };
        let mut expected: Vec<_> = expected.map(named).collect();
        expected.sort();
        assert_eq!(real.slots(now), expected, "a slot stays until it frees");
    }
}

static SEEN: Seen<(&str, bool, bool)> = Seen::new();

#[test]
fn a_record_keeps_its_promises_whoever_writes_it_and_however_late() {
    run::<Transitions>(&histories(2), 1..100);
    if !is_a_whole_run() {
        return;
    }
    for since in [false, true] {
        let times = SEEN.times(&("lost, and written since", false, since));
        assert!(times > 0, "never lost and written since: {since}");
    }
    let ends = [
        "minted",
        "not sent",
        "silence",
        "broken",
        "intermediary",
        "throttled",
        "refused",
    ];
    for how in ends {
        for (newest, repeated) in [(true, false), (false, false), (true, true), (false, true)] {
            let times = SEEN.times(&(how, newest, repeated));
            assert!(times > 0, "{how}, newest: {newest}, repeated: {repeated}");
        }
    }
}
