//! A world in a box: true time, machines whose clocks may lie, one register, one issuer that counts, and the real keepers.
//!
//! It is deterministic, and it asserts the laws at every event.

mod peers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::{BootId, Stamp};
use crate::keeper::{Input, Keeper, Note, Output, Phase, Settings};
use crate::record::{Absent, Record, Rules, Version, Wanted};
use crate::token::{Generation, Token};
use crate::vend::{RefreshOutcome, ReportOutcome};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
const MILLI: Duration = Duration::from_millis(1);

/// What the next swap comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Served,
    Unavailable,
    UnknownAndDone,
    UnknownAndNotDone,
}

/// What the issuer does with the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Token,
    /// Created this long before it was asked for.
    Aged(Duration),
    /// The token of the request before.
    Repeated,
    /// Counted this long after it was sent; nobody hears of it.
    Lost(Duration),
    Broken,
    NotSent,
    Throttled(Option<Duration>),
    Refused(bool),
    /// This answer, judged by the real client.
    Http(u16, Option<&'static str>, &'static str),
}

pub(super) struct Machine {
    pub(super) boots: u32,
    /// Another machine whose boot this one shares; only their wall clocks differ.
    twin: Option<usize>,
    booted: Duration,
    wall_ahead: SignedDuration,
    frozen_until: Duration,
}

/// One run of the daemon.
pub(super) struct Life {
    pub(super) keeper: Keeper,
    number: u64,
    wake: u64,
    pub(super) vended: Option<(Token, bool)>,
    pub(super) notes: Vec<Note>,
    pub(super) reported: Vec<ReportOutcome>,
    pub(super) refreshed: Vec<RefreshOutcome>,
}

pub(super) struct Daemon {
    pub(super) machine: usize,
    pub(super) life: Option<Life>,
    pub(super) keys: (String, u32),
    /// It dies before it carries out the output after so many.
    pub(super) dies_after: Option<u32>,
    pub(super) deaths: u32,
}

enum Event {
    Wake(usize, u64, u64),
    Give(usize, u64, Box<Input>),
    Load(usize, u64),
    Swap(usize, u64, Option<Version>, Box<Record>),
    Post(usize, u64, Duration, u32),
    Arrive(usize, u64, Stamp, Reply),
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) rules: Rules,
    pub(super) absent: Absent,
    pub(super) account: String,
    pub(super) machines: Vec<Machine>,
    pub(super) daemons: Vec<Daemon>,
    pub(super) cell: Option<(Record, u64)>,
    writes: u64,
    pub(super) register_down: bool,
    pub(super) fates: VecDeque<Fate>,
    pub(super) replies: VecDeque<Reply>,
    pub(super) otherwise: Reply,
    pub(super) latency: Duration,
    pub(super) arrivals: Vec<Duration>,
    /// When the keys that are used at the issuer were picked.
    pub(super) keys_used: Vec<u32>,
    ends: BTreeMap<String, Duration>,
    minted: u64,
    reserved: HashSet<(String, Generation)>,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    what: BTreeMap<u64, Event>,
    count: u64,
    pub(super) steps: u64,
    pub(super) dice: fastrand::Rng,
    /// The writer's wall error at the last write: what a reboot may differ from by the skew.
    pub(super) wall_ahead_when_written: SignedDuration,
}

pub(super) fn the_real_account() -> Rules {
    let limit = NonZeroU32::new(10).unwrap();
    Rules::new(&Wanted::new(60 * MINUTE, 30 * MINUTE, limit))
}

impl World {
    /// One machine with so many daemons on one register, none of them running yet.
    pub(super) fn new(rules: Rules, daemons: usize) -> Self {
        let machine = Machine {
            boots: 1,
            twin: None,
            booted: 90_000 * SECOND,
            wall_ahead: SignedDuration::ZERO,
            frozen_until: Duration::ZERO,
        };
        let daemon = |_| Daemon {
            machine: 0,
            life: None,
            keys: ("keys-1".into(), 1),
            dies_after: None,
            deaths: 0,
        };
        Self {
            now: 100_000 * SECOND,
            rules,
            absent: Absent::New,
            account: "account".into(),
            machines: vec![machine],
            daemons: (0..daemons).map(daemon).collect(),
            cell: None,
            writes: 0,
            register_down: false,
            fates: VecDeque::new(),
            replies: VecDeque::new(),
            otherwise: Reply::Token,
            latency: 200 * MILLI,
            arrivals: Vec::new(),
            keys_used: Vec::new(),
            ends: BTreeMap::new(),
            minted: 0,
            reserved: HashSet::new(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            count: 0,
            steps: 0,
            dice: fastrand::Rng::with_seed(1),
            wall_ahead_when_written: SignedDuration::ZERO,
        }
    }

    /// One daemon of the real account, running.
    pub(super) fn running(daemons: usize) -> Self {
        let mut world = Self::new(the_real_account(), daemons);
        (0..daemons).for_each(|daemon| world.start(daemon));
        world
    }

    /// Puts a daemon on a machine of its own.
    pub(super) fn own_machine(&mut self, daemon: usize, wall_ahead: SignedDuration) {
        self.daemons[daemon].machine = self.machines.len();
        self.machines.push(Machine {
            boots: 1,
            twin: None,
            booted: 12_345 * SECOND,
            wall_ahead,
            frozen_until: Duration::ZERO,
        });
    }

    /// Shows a daemon another wall clock on the machine that it is on.
    pub(super) fn own_wall(&mut self, daemon: usize, wall_ahead: SignedDuration) {
        let twin = self.daemons[daemon].machine;
        let Machine { boots, booted, .. } = self.machines[twin];
        self.own_machine(daemon, wall_ahead);
        let machine = self.machines.last_mut().unwrap();
        (machine.boots, machine.booted, machine.twin) = (boots, booted, Some(twin));
    }

    pub(super) fn stamp(&self, machine: usize) -> Stamp {
        let machine = &self.machines[machine];
        let epoch = Timestamp::from_second(1_800_000_000).unwrap();
        let wall = epoch + SignedDuration::try_from(self.now).unwrap() + machine.wall_ahead;
        Stamp {
            wall,
            boot: self.now - machine.booted,
        }
    }

    pub(super) fn boot_id(&self, machine: usize) -> BootId {
        let boots = self.machines[machine].boots;
        let machine = self.machines[machine].twin.unwrap_or(machine);
        BootId::new(format!("machine-{machine}-boot-{boots}"))
    }

    pub(super) fn start(&mut self, daemon: usize) {
        self.count += 1;
        let number = self.count;
        let machine = self.daemons[daemon].machine;
        let settings = Settings {
            account: self.account.clone(),
            rules: self.rules.clone(),
            absent: self.absent,
            holder: format!("holder-{number}"),
            boot_id: self.boot_id(machine),
            short_lead: false,
        };
        let seed = self.dice.u64(..);
        self.daemons[daemon].life = Some(Life {
            keeper: Keeper::new(settings, seed),
            number,
            wake: 0,
            vended: None,
            notes: Vec::new(),
            reported: Vec::new(),
            refreshed: Vec::new(),
        });
        let (fingerprint, count) = self.daemons[daemon].keys.clone();
        self.give(daemon, Input::Keys { fingerprint, count });
    }

    pub(super) fn kill(&mut self, daemon: usize) {
        if self.daemons[daemon].life.take().is_some() {
            self.daemons[daemon].deaths += 1;
        }
    }

    pub(super) fn life(&self, daemon: usize) -> &Life {
        self.daemons[daemon].life.as_ref().expect("it lives")
    }

    /// What the daemon vends now: the newest published token until its end.
    pub(super) fn vends(&self, daemon: usize) -> Option<&Token> {
        let now = self.stamp(self.daemons[daemon].machine);
        let (token, _) = self.daemons[daemon].life.as_ref()?.vended.as_ref()?;
        (!token.expired(now)).then_some(token)
    }

    pub(super) fn set_keys(&mut self, daemon: usize, fingerprint: &str, count: u32) {
        self.daemons[daemon].keys = (fingerprint.to_owned(), count);
        let fingerprint = fingerprint.to_owned();
        self.give(daemon, Input::Keys { fingerprint, count });
    }

    pub(super) fn report(&mut self, daemon: usize, generation: Generation) -> ReportOutcome {
        self.give(daemon, Input::Report(generation));
        *self.life(daemon).reported.last().expect("it was answered")
    }

    pub(super) fn refresh(&mut self, daemon: usize) -> RefreshOutcome {
        let now = self.stamp(self.daemons[daemon].machine);
        let told = self.life(daemon).keeper.status(now, "test").refresh;
        self.give(daemon, Input::Refresh);
        let answered = self.life(daemon).refreshed.last();
        let outcome = answered.expect("it was answered").clone();
        let told = told.expect("it is always told");
        let same = match &outcome {
            RefreshOutcome::Refreshing => told.waiting_for == "nothing",
            RefreshOutcome::Refused { waiting_for, until } => {
                told.waiting_for == *waiting_for && told.at == *until
            }
        };
        assert!(
            same,
            "the status said {told:?}, and the refresh came to {outcome:?}"
        );
        outcome
    }

    /// The register's record is changed behind everybody's back.
    pub(super) fn replace_record(&mut self, record: Option<Record>) {
        self.writes += 1;
        self.cell = record.map(|record| (record, self.writes));
        self.tell_others(usize::MAX);
    }

    pub(super) fn reboot(
        &mut self,
        machine: usize,
        down_for: Duration,
        wall_ahead: SignedDuration,
    ) {
        for daemon in 0..self.daemons.len() {
            if self.daemons[daemon].machine == machine {
                self.kill(daemon);
            }
        }
        let machine = &mut self.machines[machine];
        machine.boots += 1;
        machine.booted = self.now + down_for;
        machine.wall_ahead = wall_ahead;
    }

    /// The wall clock is set; a tick later everybody there notices.
    pub(super) fn set_wall(&mut self, machine: usize, ahead: SignedDuration) {
        self.machines[machine].wall_ahead = ahead;
        for daemon in 0..self.daemons.len() {
            if self.daemons[daemon].machine == machine
                && let Some(life) = &self.daemons[daemon].life
            {
                let tick = Event::Give(daemon, life.number, Box::new(Input::Tick));
                self.push(5 * SECOND, tick);
            }
        }
    }

    pub(super) fn freeze(&mut self, machine: usize, length: Duration) {
        self.machines[machine].frozen_until = self.now + length;
    }

    /// Lets the world go on for this long.
    pub(super) fn run(&mut self, length: Duration) {
        let until = self.now + length;
        while let Some(Reverse((at, _))) = self.events.peek()
            && *at <= until
        {
            let Reverse((at, count)) = self.events.pop().expect("it was peeked at");
            self.now = self.now.max(at);
            let event = self
                .what
                .remove(&count)
                .expect("every event has its matter");
            self.happen(event);
        }
        self.now = until;
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + after, self.count)));
        self.what.insert(self.count, event);
    }

    fn alive(&self, daemon: usize, number: u64) -> bool {
        let life = self.daemons[daemon].life.as_ref();
        life.is_some_and(|life| life.number == number)
    }

    fn happen(&mut self, event: Event) {
        let of = match &event {
            Event::Wake(daemon, ..)
            | Event::Give(daemon, ..)
            | Event::Load(daemon, ..)
            | Event::Swap(daemon, ..)
            | Event::Post(daemon, ..) => Some(*daemon),
            Event::Arrive(..) => None,
        };
        let frozen = of.map(|daemon| self.machines[self.daemons[daemon].machine].frozen_until);
        if let Some(until) = frozen
            && until > self.now
        {
            return self.push(until - self.now, event);
        }
        match event {
            Event::Wake(daemon, number, wake) => {
                if self.alive(daemon, number) && self.life(daemon).wake == wake {
                    self.give(daemon, Input::Tick);
                }
            }
            Event::Give(daemon, number, input) => {
                if self.alive(daemon, number) {
                    self.give(daemon, *input);
                }
            }
            Event::Load(daemon, number) => self.load(daemon, number),
            Event::Swap(daemon, number, seen, next) => {
                self.swap(daemon, number, seen.as_ref(), *next);
            }
            Event::Post(daemon, number, send_by, boots) => {
                // A process that dies now may have sent it already.
                if self.machines[self.daemons[daemon].machine].boots == boots {
                    self.post(daemon, number, send_by);
                }
            }
            Event::Arrive(daemon, number, sent_at, reply) => {
                self.arrive(daemon, number, sent_at, &reply);
            }
        }
    }

    /// One step of a keeper, with everything that must hold after it.
    pub(super) fn give(&mut self, daemon: usize, input: Input) {
        self.steps += 1;
        let now = self.stamp(self.daemons[daemon].machine);
        let Some(life) = self.daemons[daemon].life.as_mut() else {
            return;
        };
        let mut outputs = Vec::new();
        life.keeper.step(now, input, &mut outputs);
        for output in outputs {
            if let Some(left) = self.daemons[daemon].dies_after.as_mut() {
                if *left == 0 {
                    self.daemons[daemon].dies_after = None;
                    return self.kill(daemon);
                }
                *left -= 1;
            }
            self.carry_out(daemon, output, now);
        }
        let life = self.daemons[daemon].life.as_mut().expect("it lives");
        let wake = life.keeper.next_wake(now);
        assert!(
            wake.is_none_or(|at| at > now.boot),
            "the keeper wants to be woken now, and would do nothing: {:?}",
            life.keeper
        );
        life.wake += 1;
        let (number, turn) = (life.number, life.wake);
        if let Some(at) = wake.filter(|at| *at < Duration::MAX / 2) {
            self.push(at - now.boot, Event::Wake(daemon, number, turn));
        }
    }

    fn carry_out(&mut self, daemon: usize, output: Output, now: Stamp) {
        let delay = Duration::from_micros(self.dice.u64(100..3000));
        let number = self.life(daemon).number;
        match output {
            Output::Load => self.push(delay, Event::Load(daemon, number)),
            Output::Swap { seen, next } => {
                self.push(delay, Event::Swap(daemon, number, seen, next));
            }
            Output::Mint { key, send_by } => {
                let Phase::Minting(attempt) = &self.life(daemon).keeper.phase else {
                    panic!("a mint without an attempt");
                };
                let holder = self.life(daemon).keeper.settings.holder.clone();
                assert!(
                    self.reserved.contains(&(holder, attempt.generation)),
                    "law 2: a request leaves without a durable slot"
                );
                for other in (0..self.daemons.len()).filter(|other| *other != daemon) {
                    let claimed = self.claimed_until(other);
                    assert!(claimed <= self.now, "two mint at a time");
                }
                self.keys_used.push(key);
                let boots = self.machines[self.daemons[daemon].machine].boots;
                self.push(delay, Event::Post(daemon, number, send_by, boots));
            }
            Output::Publish { token, suspect } => self.publish(daemon, token, suspect, now),
            other => {
                let life = self.daemons[daemon].life.as_mut().expect("it lives");
                match other {
                    Output::Reported(outcome) => life.reported.push(outcome),
                    Output::Refreshed(outcome) => life.refreshed.push(outcome),
                    Output::Note(note) => life.notes.push(note),
                    _ => {}
                }
            }
        }
    }

    /// Until when a daemon that is minting has the right to be the only one.
    fn claimed_until(&self, daemon: usize) -> Duration {
        let life = self.daemons[daemon].life.as_ref();
        let Some(Phase::Minting(attempt)) = life.map(|life| &life.keeper.phase) else {
            return Duration::ZERO;
        };
        let booted = self.machines[self.daemons[daemon].machine].booted;
        booted + attempt.reserved_at.boot + self.rules.claim()
    }

    fn publish(&mut self, daemon: usize, token: Token, suspect: bool, now: Stamp) {
        assert!(!token.expired(now), "law 4: published after its end");
        let end = self.ends[token.secret.expose()];
        let booted = self.machines[self.daemons[daemon].machine].booted;
        assert!(
            booted + token.expires_at.boot <= end,
            "law 4: published to live longer than it does"
        );
        let life = self.daemons[daemon].life.as_mut().expect("it lives");
        if let Some((before, was_suspect)) = &life.vended {
            let same = before.generation == token.generation && suspect && !was_suspect;
            assert!(
                before.generation < token.generation || same,
                "law 3: {} after {}",
                token.generation,
                before.generation
            );
        }
        life.vended = Some((token, suspect));
    }

    fn answer(&mut self, daemon: usize, number: u64, input: Input) {
        let delay = Duration::from_micros(self.dice.u64(100..3000));
        self.push(delay, Event::Give(daemon, number, Box::new(input)));
    }
}
