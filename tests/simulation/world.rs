//! A world in a box: true time, machines whose clocks lie, a register, an issuer that counts, and the real keepers in it.
//!
//! It is deterministic: a setting, a plan and a seed always give the same history. The laws are asserted at every event.

mod befall;
pub mod watch;
mod wire;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bearerd::clock::{BootId, Stamp};
use bearerd::keeper::{Input, Note, Output};
use bearerd::record::{Record, Swapped, Version};
use bearerd::token::Token;

use crate::clocks::{MILLI, Machine, Nanos, SECOND, moment, nanos};
use crate::coverage::Coverage;
use crate::faults::{Boundary, Fault};
use crate::laws::Laws;
use crate::node::{Life, Node, Open, Vended, Write};
use crate::register::{Register, down};
use crate::setting::{Edge, Setting, Store};
use crate::upstream::{Upstream, index_of};
use watch::Watch;
use wire::{Request, Swap};

/// How long the driver waits for its register.
const PATIENCE: Nanos = 5 * SECOND;

/// So many lines of the trace are kept.
const LINES: usize = 100_000;

/// What happens at a moment.
enum What {
    Start(usize),
    Wake(usize, u32, u32),
    Give(usize, u32, Box<Input>),
    Load(usize, u32),
    Swap(Box<Swap>),
    Post(usize, u32, Duration, u32),
    Arrive(Box<Request>),
    Fault(usize),
    Ask(usize, Ask),
}

struct Event {
    at: Nanos,
    count: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.count).cmp(&(self.at, self.count))
    }
}

/// What callers, operators and time ask of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Report,
    /// A report of another generation than the one that is vended.
    StaleReport,
    Refresh,
    Keys,
    Tick,
    /// A use of the token, and a report if it is refused; and again until then.
    Call(Nanos),
}

/// A box with everything in it.
pub struct World {
    pub now: Nanos,
    pub setting: Setting,
    plan: Vec<Fault>,
    machines: Vec<Machine>,
    pub nodes: Vec<Node>,
    register: Register,
    pub upstream: Upstream,
    pub laws: Laws,
    pub coverage: Coverage,
    events: BinaryHeap<Event>,
    count: u64,
    lives: u32,
    pub steps: u64,
    dice: fastrand::Rng,
    /// Nobody dies, freezes or is cut off until then.
    quiet_until: Nanos,
    /// The last fault that does more than burn slots is over since then.
    trouble_until: Nanos,
    last_death: Nanos,
    /// The record has been lost, or an older copy of it came back.
    ever_lost: bool,
    outputs: Vec<Output>,
    trace: Option<VecDeque<String>>,
    /// Measures what callers have.
    pub watch: Option<Watch>,
}

impl World {
    pub fn new(setting: Setting, plan: Vec<Fault>, seed: u64, traced: bool) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let wall_only = setting.edge == Edge::WallClockOnly;
        let skew = i64::try_from(setting.skew()).expect("a skew is short");
        let own_machines = setting.store == Store::Remote;
        let machines = if own_machines { setting.nodes } else { 1 };
        let ahead = |dice: &mut fastrand::Rng| {
            if own_machines {
                dice.i64(-skew / 2..=skew / 2)
            } else {
                0
            }
        };
        let machines = (0..machines)
            .map(|_| Machine::new(ahead(&mut dice), wall_only))
            .collect();
        let node = |node| Node {
            machine: if own_machines { node } else { 0 },
            life: None,
            keys: (0, 2),
            frozen_until: 0,
            halts: None,
            cut_until: 0,
            doom: None,
            loops: 0,
            died_at: 0,
        };
        let nodes = (0..setting.nodes).map(node).collect();
        let rules = &setting.rules;
        let upstream = Upstream::new(
            nanos(rules.lifetime),
            nanos(rules.budget.window),
            rules.budget.limit.get() as usize,
            rules.revokes_previous,
        );
        let mut world = Self {
            now: 0,
            laws: Laws::new(rules.clone()),
            setting,
            plan,
            machines,
            nodes,
            register: Register::new(),
            upstream,
            coverage: Coverage::new(),
            events: BinaryHeap::new(),
            count: 0,
            lives: 0,
            steps: 0,
            dice,
            quiet_until: 0,
            trouble_until: 0,
            last_death: 0,
            ever_lost: false,
            outputs: Vec::new(),
            trace: traced.then(VecDeque::new),
            watch: None,
        };
        for node in 0..world.nodes.len() {
            let after = world.dice.u64(0..SECOND);
            world.push(after, What::Start(node));
        }
        for index in 0..world.plan.len() {
            world.push(world.plan[index].at, What::Fault(index));
        }
        world
    }

    /// What was traced, the latest last.
    pub fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() == LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{}  {}", moment(now), line()));
        }
    }

    fn push(&mut self, after: Nanos, what: What) {
        self.count += 1;
        self.events.push(Event {
            at: self.now + after,
            count: self.count,
            what,
        });
    }

    /// Lets the world go on until then.
    pub fn run(&mut self, until: Nanos) {
        while let Some(event) = self.events.peek()
            && event.at <= until
        {
            let event = self.events.pop().expect("it was peeked at");
            self.pass(event.at);
            self.now = event.at;
            self.happen(event.what);
        }
        self.pass(until);
        self.now = until;
    }

    fn stamp(&self, node: usize) -> Stamp {
        self.machines[self.nodes[node].machine].stamp(self.now)
    }

    fn boot_id(&self, node: usize) -> BootId {
        let machine = self.nodes[node].machine;
        BootId::new(format!("{machine}-{}", self.machines[machine].boots))
    }

    fn alive(&self, node: usize, number: u32) -> bool {
        let life = self.nodes[node].life.as_ref();
        life.is_some_and(|life| life.number == number)
    }

    /// When a node that stands still goes on, if it does now.
    fn stopped(&self, node: usize) -> Option<Nanos> {
        let node = &self.nodes[node];
        let until = node
            .frozen_until
            .max(self.machines[node.machine].stopped_until);
        (until > self.now).then_some(until)
    }

    fn happen(&mut self, what: What) {
        let of = match &what {
            What::Start(node)
            | What::Wake(node, ..)
            | What::Give(node, ..)
            | What::Load(node, _)
            | What::Post(node, ..)
            | What::Ask(node, _) => Some(*node),
            What::Swap(swap) => Some(swap.node),
            What::Arrive(_) | What::Fault(_) => None,
        };
        if let Some(until) = of.and_then(|node| self.stopped(node)) {
            // Timers that ran out meanwhile do so in no particular order.
            let after = until - self.now + self.dice.u64(0..10 * MILLI);
            return self.push(after, what);
        }
        match what {
            What::Start(node) => self.start(node),
            What::Wake(node, number, turn) => {
                let life = self.nodes[node].life.as_ref();
                if life.is_some_and(|life| life.number == number && life.turn == turn) {
                    self.give(node, Input::Tick);
                }
            }
            What::Give(node, number, input) => {
                if self.alive(node, number) {
                    self.give(node, *input);
                }
            }
            What::Load(node, number) => self.load(node, number),
            What::Swap(swap) => self.swap(*swap),
            What::Post(node, number, send_by, key) => {
                if self.alive(node, number) {
                    self.post(node, number, send_by, key);
                }
            }
            What::Arrive(request) => self.arrive(&request),
            What::Fault(index) => self.befall(index),
            What::Ask(node, ask) => self.ask(node, ask),
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].life.is_some() {
            return;
        }
        if self.setting.store == Store::Memory {
            self.register = Register::new();
            self.laws.forget_the_record();
            if self.machines[self.nodes[node].machine].wall_ahead < 0 {
                self.laws.generations_may_repeat();
            }
        }
        self.lives += 1;
        let number = self.lives;
        let seed = self.dice.u64(..);
        self.nodes[node].life = Some(Life::new(number, &self.setting, self.boot_id(node), seed));
        self.tell(|| format!("node {node} starts as holder-{number}"));
        self.give_keys(node);
        if self.nodes[node].loops > 0 && self.now >= self.quiet_until {
            self.nodes[node].loops -= 1;
            let doom = Boundary::ALL[self.dice.usize(0..Boundary::ALL.len())];
            self.nodes[node].doom = Some(doom);
        }
    }

    pub fn give_keys(&mut self, node: usize) {
        let (set, count) = self.nodes[node].keys;
        let fingerprint = format!("keys-{set}");
        self.give(node, Input::Keys { fingerprint, count });
    }

    fn kill(&mut self, node: usize) {
        if self.nodes[node].life.take().is_none() {
            return;
        }
        self.tell(|| format!("node {node} dies"));
        self.last_death = self.now;
        self.nodes[node].died_at = self.now;
        self.nodes[node].doom = None;
        let down = match self.dice.u8(0..8) {
            0 => self.dice.u64(0..self.setting.period()),
            1..4 => self.dice.u64(0..20 * SECOND),
            _ => self.dice.u64(20 * MILLI..SECOND),
        };
        self.push(down, What::Start(node));
    }

    /// Kills a node if this is where it was to die.
    fn dies(&mut self, node: usize, boundary: Boundary) -> bool {
        if self.nodes[node].doom != Some(boundary) || self.now < self.quiet_until {
            return false;
        }
        self.tell(|| format!("node {node} comes to {boundary:?}"));
        self.coverage.crash(boundary, self.now);
        self.kill(node);
        true
    }

    /// One step of a keeper, with everything that must hold after it.
    pub fn give(&mut self, node: usize, input: Input) {
        let now = self.stamp(node);
        let Some(life) = self.nodes[node].life.as_mut() else {
            return;
        };
        self.steps += 1;
        match &input {
            Input::Loaded(_) | Input::Swapped(_) => life.busy = false,
            Input::Changed => life.told = false,
            Input::Keys { count, .. } => life.keys = *count,
            Input::Minted(_) => {
                if let Some(open) = &mut life.open {
                    open.answered = true;
                }
            }
            _ => {}
        }
        if self.trace.is_some() {
            let said = brief_input(&input);
            self.tell(|| format!("node {node} ◂ {said}"));
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        let life = self.nodes[node].life.as_mut().expect("it lives");
        life.step(now, input, &mut outputs);
        for output in outputs.drain(..) {
            if self.nodes[node].life.is_none() {
                break;
            }
            self.carry_out(node, output);
        }
        self.outputs = outputs;
        let Some(life) = self.nodes[node].life.as_mut() else {
            return;
        };
        life.turn += 1;
        let (number, turn) = (life.number, life.turn);
        if let Some(wake) = life.wake(now).filter(|at| *at < Duration::MAX / 4) {
            let machine = &self.machines[self.nodes[node].machine];
            let at = machine.when(wake, self.now);
            self.push(at - self.now, What::Wake(node, number, turn));
        }
        self.look(node);
    }

    /// What callers see at this node now: laws 4 and 7.
    pub fn look(&mut self, node: usize) {
        let now = self.stamp(node);
        let Some(vended) = self.nodes[node]
            .life
            .as_ref()
            .and_then(|life| life.vended.as_ref())
        else {
            return;
        };
        let issued = self.upstream.tokens[usize::try_from(vended.index).expect("an index")];
        if !vended.token.expired(now) {
            if !issued.revoked {
                self.laws.read(self.now, issued.end);
            }
            return;
        }
        let rules = &self.setting.rules;
        let due = issued.end.saturating_sub(nanos(rules.lead));
        // A clock that is set may end a token long before it is due; and each writer on another machine takes the skew off it.
        let shares_a_clock = self.setting.store != Store::Remote;
        let calm = self.trouble_until + 2 * self.setting.period() <= due && self.last_death <= due;
        assert!(
            self.now < due
                || !calm
                || !shares_a_clock
                || rules.revokes_previous
                || rules.budget.limit.get() < 4,
            "law 7: a token expired, though nothing but spent slots was in the way since it was due"
        );
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Load => {
                let after = self.way();
                let life = self.nodes[node].life.as_mut().expect("it lives");
                life.busy = true;
                let number = life.number;
                self.push(after, What::Load(node, number));
                self.dies(node, Boundary::Loading);
            }
            Output::Swap { seen, next } => self.write(node, seen, next),
            Output::Mint { key, send_by } => {
                if self.dies(node, Boundary::BeforePost)
                    || self.setting.edge == Edge::PostBeforeSlot
                {
                    return;
                }
                self.send(node, key, send_by);
            }
            Output::Publish { token, suspect } => {
                if !self.dies(node, Boundary::BeforePublish) {
                    self.publish(node, token, suspect);
                }
            }
            Output::Reported(outcome) => {
                self.nodes[node].life.as_mut().expect("it lives").answer = Some(outcome);
            }
            Output::Note(note) => {
                assert!(
                    self.ever_lost
                        || note != Note::RecordLost
                        || self.setting.store == Store::Memory,
                    "false alarm: a record is taken for lost that never was"
                );
                self.tell(|| format!("node {node} says {note:?}"));
            }
            Output::Refreshed(_) | Output::Attempted { .. } => {}
        }
    }

    /// How long the way to the register takes.
    fn way(&mut self) -> Nanos {
        if self.register.lag_until > self.now {
            return self.dice.u64(0..8 * SECOND);
        }
        self.dice.u64(MILLI / 10..20 * MILLI)
    }

    fn write(&mut self, node: usize, seen: Option<Version>, next: Box<Record>) {
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let write = life.write_of(&next);
        if self.dies(node, write.before()) {
            return;
        }
        let epoch = self.laws.epoch;
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let number = life.number;
        let ended = life.open.filter(|_| write == Write::Settle);
        let ends = ended.map(|open| (open.attempt, life.keys));
        life.busy = true;
        if write == Write::Reserve {
            life.open = Some(Open {
                attempt: next.generation,
                epoch,
                begun: self.now,
                reserved: None,
                posted: false,
                answered: false,
            });
        }
        if write == Write::Reserve && self.setting.edge == Edge::PostBeforeSlot {
            let send_by = next.written.at.boot + self.setting.rules.timeout;
            self.send(node, 0, send_by);
        }
        let after = self.way();
        let awaited = after < PATIENCE;
        if !awaited {
            let unknown = Input::Swapped(Swapped::Unknown(down()));
            self.push(PATIENCE, What::Give(node, number, Box::new(unknown)));
        }
        let swap = Swap {
            node,
            life: number,
            at: self.now,
            seen,
            next,
            write,
            ends,
            orphan: self.dice.bool() && self.setting.store != Store::Memory,
            awaited,
        };
        self.push(after, What::Swap(Box::new(swap)));
        self.dies(node, write.sent());
    }

    /// A request leaves the keeper's hands.
    fn send(&mut self, node: usize, key: u32, send_by: Duration) {
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let open = life.open.as_mut().expect("an attempt is open");
        open.posted = true;
        let number = life.number;
        if let Some(length) = self.nodes[node].halts.take()
            && self.now >= self.quiet_until
        {
            self.tell(|| format!("node {node} stands still before it posts"));
            let until = self.now + length;
            self.nodes[node].frozen_until = until;
            self.trouble_until = self.trouble_until.max(until);
        }
        let after = self.dice.u64(MILLI / 10..20 * MILLI);
        self.push(after, What::Post(node, number, send_by, key));
    }

    fn publish(&mut self, node: usize, token: Token, suspect: bool) {
        let index = index_of(&token.secret);
        self.tell(|| {
            format!(
                "node {node} vends {} (token {index}{})",
                token.generation,
                if suspect { ", suspect" } else { "" }
            )
        });
        assert!(
            !token.expired(self.stamp(node)),
            "law 4: published after its end"
        );
        if self.machines[self.nodes[node].machine].ppm == 0 {
            let left = nanos(token.expires_at.left(self.stamp(node)));
            let end = self.upstream.tokens[usize::try_from(index).expect("an index")].end;
            self.laws.promised(self.now, left, end);
        }
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let before = life.vended.as_ref().map(|it| (&it.token, it.suspect));
        self.laws.published(before, &token, suspect, index);
        life.vended = Some(Vended {
            token,
            suspect,
            index,
        });
    }

    fn answer(&mut self, node: usize, number: u32, input: Input) {
        let after = self.dice.u64(MILLI / 10..5 * MILLI);
        self.push(after, What::Give(node, number, Box::new(input)));
    }
}

/// An input in a few words.
fn brief_input(input: &Input) -> String {
    match input {
        Input::Loaded(Ok(loaded)) => match &loaded.found {
            Some((record, _)) => format!(
                "loaded generation {}, revision {}",
                record.generation, record.revision
            ),
            None => "loaded nothing".into(),
        },
        Input::Swapped(Swapped::Done(_)) => "written".into(),
        Input::Swapped(outcome) => format!("not written: {outcome:?}"),
        other => format!("{other:?}"),
    }
}
