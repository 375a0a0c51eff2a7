//! The ledger, in the record and before the guard, against a plain list of instants at the issuer.
//!
//! The model knows true time and nothing of boots, limiters or records. It says both ways what the guard must say: never a mint
//! too many in a closed window at the issuer, and to the nanosecond the first moment at which there is room again.

use super::machine::{Seen, histories, is_a_whole_run, run};
use super::*;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

/// One mint as the issuer and the rules see it, in nanoseconds of true time.
#[derive(Clone, Debug)]
struct Mint {
    number: usize,
    class: Class,
    reserved: u64,
    /// When the issuer counts it; `None` once it is known that it was never sent.
    arrives: Option<u64>,
    /// When its slot no longer counts.
    frees: u64,
    /// The process that makes it still lives.
    pending: bool,
    /// When it frees by a wall clock with the skew added, and that clock's error, if it was carried to another boot.
    origin: Option<(u64, i64)>,
}

#[derive(Clone, Debug)]
struct Model {
    limit: u32,
    reserve: u32,
    window: u64,
    in_flight: u64,
    margin: u64,
    skew: u64,
    now: u64,
    /// How far the wall clock is ahead of the truth.
    wall_error: i64,
    /// The true time of the last write, and the wall clock's error then.
    written: (u64, i64),
    /// The same for when the slots were carried to this boot.
    carried: (u64, i64),
    mints: Vec<Mint>,
    /// The mint that the last step was about.
    about: Option<usize>,
    granted: bool,
    /// When the answer that was written last came.
    answered: u64,
}

#[derive(Clone, Debug)]
enum Gap {
    Nanoseconds(u64),
    /// Thousandths of a period.
    Share(u64),
    /// To the moment at which a slot frees, or a nanosecond beside it.
    ToFree(usize, i64),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Minted,
    Silence,
    Broken,
    Throttled,
    Refused,
}

#[derive(Clone, Debug)]
enum Step {
    /// Asks for a slot; a mint that gets one is counted so many thousandths of the time in flight later.
    Reserve(Class, u64),
    /// The attempt's answer comes, and is written so many nanoseconds later.
    Answered(usize, How, u64),
    /// Nothing of the attempt was sent.
    GiveBack(usize),
    Pass(Gap),
    /// Another process, with other settings, reads what the last one wrote.
    Restart(u32, u32),
    /// The same on another boot, with a wall clock that differs by so much from the one before.
    Reboot(u64, i64),
    /// Somebody sets the wall clock, and the record is written again.
    SetWall(i64),
}

impl Model {
    fn period(&self) -> u64 {
        self.window + self.in_flight + self.margin
    }

    fn cap(&self, class: Class) -> usize {
        let free = match class {
            Class::Routine => self.reserve,
            Class::Reported => 2,
            Class::Urgent => 0,
        };
        self.limit.saturating_sub(free).max(1) as usize
    }

    /// How many mints of this class there is room for at a moment.
    fn room(&self, class: Class, at: u64) -> usize {
        let count = |of: &dyn Fn(&&Mint) -> bool| {
            let counted = self.mints.iter().filter(|mint| mint.frees > at);
            counted.filter(of).count()
        };
        let room = self.cap(class).saturating_sub(count(&|_| true));
        let reported = count(&|mint| mint.class == Class::Reported);
        match class {
            Class::Reported => room.min(3_usize.saturating_sub(reported)),
            _ => room,
        }
    }

    /// The first moment with room: now, or one at which something frees.
    fn earliest(&self, class: Class) -> u64 {
        let frees = self.mints.iter().map(|mint| mint.frees);
        let moments = frees.filter(|at| *at > self.now).chain([self.now]);
        let with_room = moments.filter(|at| self.room(class, *at) > 0);
        with_room.min().expect("everything frees at last")
    }

    fn pending(&self, which: usize) -> Option<usize> {
        let pending: Vec<usize> = (0..self.mints.len())
            .filter(|at| self.mints[*at].pending)
            .collect();
        pending
            .get(which % pending.len().max(1))
            .map(|at| self.mints[*at].number)
    }

    fn mint(&mut self, number: usize) -> &mut Mint {
        let mut mints = self.mints.iter_mut();
        mints
            .find(|mint| mint.number == number)
            .expect("it is pending")
    }

    fn wrote(&mut self) {
        self.written = (self.now, self.wall_error);
    }

    /// The most that any closed window holds which the last mint falls into.
    fn worst_window_around(&self, arrival: u64) -> usize {
        let arrivals: Vec<u64> = self.mints.iter().filter_map(|mint| mint.arrives).collect();
        let around = |start: &u64| *start <= arrival && arrival - start <= self.window;
        let held_from = |start: &u64| {
            let held = |at: &&u64| *at >= start && **at - start <= self.window;
            arrivals.iter().filter(held).count()
        };
        let starts = arrivals.iter().filter(|at| around(at));
        starts.map(held_from).max().unwrap_or(0)
    }

    fn reserve(&mut self, class: Class, late: u64) {
        self.granted = self.room(class, self.now) > 0;
        if self.granted {
            let number = self.mints.len();
            self.mints.push(Mint {
                number,
                class,
                reserved: self.now,
                arrives: Some(self.now + self.in_flight * late / 1000),
                frees: self.now + self.period(),
                pending: true,
                origin: None,
            });
            self.about = Some(number);
            self.wrote();
        }
    }

    fn answered(&mut self, number: usize, how: How, later: u64) {
        let (window, margin) = (self.window, self.margin);
        if !matches!(how, How::Silence) {
            let arrives = self.mint(number).arrives.expect("it was sent");
            self.now = self.now.max(arrives);
        }
        self.answered = self.now;
        self.now += later;
        let counted_by = match how {
            How::Silence => u64::MAX / 2,
            How::Minted => self.answered,
            How::Broken | How::Throttled | How::Refused => self.now,
        };
        let period = self.period();
        let mint = self.mint(number);
        mint.frees = (mint.reserved + period).min(counted_by + window + margin);
        mint.pending = false;
        self.wrote();
    }

    /// When a slot frees by a wall clock with the skew added once, and that clock's error; anew if the wall clock was stepped since.
    fn origin(&self, mint: &Mint) -> (u64, i64) {
        let stepped = (self.written.1 - self.carried.1).unsigned_abs() > self.skew;
        let error = self.written.1;
        let anew = (
            mint.frees.checked_add_signed(error).unwrap() + self.skew,
            error,
        );
        mint.origin.filter(|_| !stepped).unwrap_or(anew)
    }

    /// The wall clock of another boot: it is ahead of those that slots are reckoned by for the skew at most, the assumption of law 1.
    fn allowed(&self, wall_error: i64) -> i64 {
        let skew = i64::try_from(self.skew).unwrap();
        let counted = self.mints.iter().filter(|mint| mint.frees > self.written.0);
        let errors = counted.map(|mint| self.origin(mint).1);
        errors.fold(wall_error, |allowed, error| allowed.min(error + skew))
    }

    /// What another boot may believe of the slots: the wall clock's word, less the skew, and nothing of a wall that went back.
    fn reboot(&mut self, off: u64, wall_error: i64) {
        self.now += off;
        self.wall_error = self.allowed(wall_error);
        let (wrote, error_then) = self.written;
        let since = i128::from(self.now - wrote) + i128::from(self.wall_error - error_then);
        let believed = since >= -i128::from(self.skew);
        let wall = self.now.checked_add_signed(self.wall_error).unwrap();
        let period = self.period();
        let carried = |mint: &Mint| {
            let origin = self.origin(mint);
            let left = match mint.frees.saturating_sub(wrote) {
                0 => 0,
                _ if !believed => period,
                written => origin
                    .0
                    .saturating_sub(wall)
                    .min(written + self.skew)
                    .min(period),
            };
            let anew = (wall + left + self.skew, self.wall_error);
            Mint {
                frees: self.now + left,
                origin: Some(if believed { origin } else { anew }),
                ..mint.clone()
            }
        };
        self.mints = self.mints.iter().map(carried).collect();
        self.carried = (self.now, self.wall_error);
        self.forget_processes();
    }

    fn forget_processes(&mut self) {
        for mint in &mut self.mints {
            mint.pending = false;
        }
        self.wrote();
    }

    fn rules(&self) -> Rules {
        let limit = NonZeroU32::new(self.limit).unwrap();
        let window = Duration::from_nanos(self.window);
        Rules::new(&Wanted {
            reserve: Some(self.reserve),
            in_flight: Some(Duration::from_nanos(self.in_flight)),
            skew: Some(Duration::from_nanos(self.skew)),
            ..Wanted::new(2 * window + MINUTE, window, limit)
        })
    }
}

fn settings() -> impl Strategy<Value = (u32, u32)> {
    (1u32..12).prop_flat_map(|limit| (Just(limit), 0..limit))
}

struct Histories;

impl ReferenceStateMachine for Histories {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let scales = prop_oneof![
            2 => Just((1_800_000_000_000, 60_000_000_000)),
            1 => Just((30_000_000_000, 1_000_000_000)),
            1 => (1_000u64..100_000_000_007, 0u64..3_000_000_000),
        ];
        let model = |((limit, reserve), (window, in_flight))| Model {
            limit,
            reserve,
            window,
            in_flight,
            margin: window / 15,
            skew: window / 60,
            now: 50_000_000_000_000,
            wall_error: 0,
            written: (50_000_000_000_000, 0),
            carried: (50_000_000_000_000, 0),
            mints: Vec::new(),
            about: None,
            granted: false,
            answered: 0,
        };
        (settings(), scales).prop_map(model).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let class = prop_oneof![
            2 => Just(Class::Routine),
            2 => Just(Class::Reported),
            5 => Just(Class::Urgent),
        ];
        let how = prop_oneof![
            4 => Just(How::Minted),
            2 => Just(How::Silence),
            1 => Just(How::Broken),
            1 => Just(How::Throttled),
            1 => Just(How::Refused),
        ];
        let gap = prop_oneof![
            2 => (0u64..2_000_000_000).prop_map(Gap::Nanoseconds),
            3 => (0u64..300).prop_map(Gap::Share),
            1 => (0u64..2_500).prop_map(Gap::Share),
            5 => (any::<usize>(), -1i64..2).prop_map(|(slot, beside)| Gap::ToFree(slot, beside)),
        ];
        let late = prop_oneof![Just(0u64), Just(1000u64), 0u64..=1000];
        let period = model.period();
        let skew = i64::try_from(model.skew).unwrap();
        // Backwards as far as it likes; forwards no more than the skew, which is the assumption of law 1.
        let wall = prop_oneof![
            3 => -skew..=skew,
            1 => Just(skew),
            1 => Just(-skew - 1),
            1 => (-100 * skew - 100)..0,
        ];
        prop_oneof![
            12 => (class, late).prop_map(|(class, late)| Step::Reserve(class, late)),
            5 => (any::<usize>(), how, prop_oneof![Just(0), 0..period / 30])
                .prop_map(|(which, how, later)| Step::Answered(which, how, later)),
            1 => any::<usize>().prop_map(Step::GiveBack),
            7 => gap.prop_map(Step::Pass),
            1 => settings().prop_map(|(limit, reserve)| Step::Restart(limit, reserve)),
            1 => (0..period, wall).prop_map(|(off, wall)| Step::Reboot(off, wall)),
            1 => (-1_000_000_000_000i64..1_000_000_000_000).prop_map(Step::SetWall),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        match step {
            Step::Answered(which, ..) | Step::GiveBack(which) => model.pending(*which).is_some(),
            _ => true,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        model.about = None;
        match *step {
            Step::Reserve(class, late) => model.reserve(class, late),
            Step::Answered(which, how, later) => {
                let number = model.pending(which).unwrap();
                model.answered(number, how, later);
                model.about = Some(number);
            }
            Step::GiveBack(which) => {
                let number = model.pending(which).unwrap();
                let now = model.now;
                let mint = model.mint(number);
                (mint.arrives, mint.frees, mint.pending) = (None, now, false);
                model.about = Some(number);
                model.wrote();
            }
            Step::Pass(Gap::Nanoseconds(length)) => model.now += length,
            Step::Pass(Gap::Share(thousandths)) => model.now += model.period() * thousandths / 1000,
            Step::Pass(Gap::ToFree(which, beside)) => {
                let counted = model.mints.iter().map(|mint| mint.frees);
                let mut frees: Vec<u64> = counted.filter(|at| *at > model.now).collect();
                frees.sort_unstable();
                if let Some(at) = frees.get(which % frees.len().max(1)) {
                    model.now = model.now.max(at.checked_add_signed(beside).unwrap());
                }
            }
            Step::Restart(limit, reserve) => {
                (model.limit, model.reserve) = (limit, reserve);
                model.forget_processes();
            }
            Step::Reboot(off, wall) => model.reboot(off, model.written.1 + wall),
            Step::SetWall(error) => {
                model.wall_error = error;
                model.wrote();
            }
        }
        model
    }
}

/// The record, and the processes that write it.
struct Real {
    record: Record,
    under_way: Vec<(usize, Attempt)>,
    boots: u32,
    /// The true time at which the boot clock showed zero.
    booted: u64,
}

impl Real {
    fn at(&self, model: &Model, moment: u64) -> Stamp {
        let wall = i64::try_from(moment).unwrap() + model.wall_error;
        Stamp {
            wall: super::at(0).wall + SignedDuration::from_nanos(wall),
            boot: Duration::from_nanos(moment - self.booted),
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::new(format!("boot-{}", self.boots))
    }

    fn write(&mut self, model: &Model, next: Record) {
        let written = Writer {
            holder: "me".into(),
            boot_id: self.boot_id(),
            at: self.at(model, model.now),
        };
        let next = Record { written, ..next };
        self.record = Record::parse(&next.to_text()).expect("what is written is read back");
        assert_eq!(self.record, next);
    }

    fn finished(&mut self, number: usize) -> Attempt {
        let at = self.under_way.iter().position(|(of, _)| *of == number);
        self.under_way.remove(at.expect("it is under way")).1
    }
}

struct Guard;

impl StateMachineTest for Guard {
    type SystemUnderTest = Real;
    type Reference = Histories;

    fn init_test(model: &Model) -> Real {
        let mut real = Real {
            record: known(),
            under_way: Vec::new(),
            boots: 1,
            booted: 7_000_000_000,
        };
        real.write(model, known());
        real
    }

    fn apply(mut real: Real, model: &Model, step: Step) -> Real {
        let rules = model.rules();
        let now = real.at(model, model.now);
        match step {
            Step::Reserve(class, _) => {
                let spent = real.record.spent();
                let allowed = rules.budget.earliest(&spent, class, now.boot) == now.boot;
                assert_eq!(allowed, model.granted, "{class:?}");
                SEEN.count((class.name(), allowed));
                if allowed {
                    let asked = reservation(class, Trigger::Schedule);
                    let (next, attempt) = real.record.begin(&asked, now, &rules);
                    real.under_way.push((model.about.unwrap(), attempt));
                    real.write(model, next);
                }
            }
            Step::Answered(_, how, _) => {
                let attempt = real.finished(model.about.unwrap());
                let next = answered(&real, model, &attempt, how);
                real.write(model, next);
            }
            Step::GiveBack(_) => {
                let attempt = real.finished(model.about.unwrap());
                let next = real.record.abort(&attempt, &Failure::NotSent, now, &rules);
                real.write(model, next);
            }
            Step::Pass(_) => {}
            Step::Restart(..) | Step::SetWall(_) => {
                if matches!(step, Step::Restart(..)) {
                    real.under_way.clear();
                }
                real.write(model, real.record.clone());
            }
            Step::Reboot(..) => {
                real.under_way.clear();
                real.boots += 1;
                real.booted = model.now - 3_600_000_000_000;
                let now = real.at(model, model.now);
                let moved = real.record.on_boot(&real.boot_id(), now, &rules);
                real.write(model, moved.expect("it comes from another boot"));
            }
        }
        real
    }

    fn check_invariants(real: &Real, model: &Model) {
        let (rules, now) = (model.rules(), real.at(model, model.now));
        let spent = real.record.spent();
        for class in Class::ALL {
            let told = rules.budget.earliest(&spent, class, now.boot);
            let told = real.booted + u64::try_from(told.as_nanos()).unwrap();
            assert_eq!(told, model.earliest(class), "{class:?} at {}", model.now);
            let free = rules.budget.free(&spent, class, now.boot) as usize;
            assert_eq!(free, model.room(class, model.now), "{class:?}");
        }
        assert_eq!(real.record.clamped(now, &rules), None, "nothing is absurd");
        let granted = model.about.map(|number| &model.mints[number]);
        if let Some(arrival) = granted
            .filter(|mint| mint.pending)
            .and_then(|it| it.arrives)
        {
            let worst = model.worst_window_around(arrival);
            assert!(worst <= model.limit as usize, "{worst} in one window");
        }
    }
}

fn answered(real: &Real, model: &Model, attempt: &Attempt, how: How) -> Record {
    let (rules, now) = (model.rules(), real.at(model, model.now));
    let failure = match how {
        How::Minted => {
            let token = Token {
                issued_at: attempt.reserved_at,
                refresh_at: attempt.reserved_at,
                expires_at: attempt.reserved_at.plus(rules.lifetime),
                ..token(attempt, 0)
            };
            let answered_at = real.at(model, model.answered);
            return real
                .record
                .commit(attempt, &token, answered_at, now, &rules);
        }
        How::Silence => Failure::Lost { answered: false },
        How::Broken => Failure::Lost { answered: true },
        How::Throttled => Failure::Throttled { retry_after: None },
        How::Refused => Failure::Refused {
            key_at_fault: true,
            keys: 2,
            reason: "no".into(),
        },
    };
    real.record.abort(attempt, &failure, now, &rules)
}

static SEEN: Seen<(&str, bool)> = Seen::new();

#[test]
fn the_guard_says_what_a_plain_list_of_instants_says() {
    run::<Guard>(&histories(3), 1..120);
    if !is_a_whole_run() {
        return;
    }
    for class in Class::ALL {
        for granted in [true, false] {
            let times = SEEN.times(&(class.name(), granted));
            assert!(times > 0, "{}: never {granted}", class.name());
        }
    }
}
