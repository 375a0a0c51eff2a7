//! A world in a box: true time, machines whose clocks lie, a register, an issuer that counts, and the real keepers in it.
//!
//! It is deterministic: a setting, a plan and a seed always give the same history. The laws are asserted at every event.

mod befall;
mod process;
pub mod watch;
mod wire;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bearerd::clock::{BootId, KernelView, Stamp, TimeNamespace};
use bearerd::keeper::{Input, Output};

use crate::clocks::{MILLI, Machine, Nanos, SECOND, moment, nanos};
use crate::coverage::Coverage;
use crate::faults::Fault;
use crate::laws::Laws;
use crate::node::Node;
use crate::register::Register;
use crate::setting::{Edge, Setting, Store};
use crate::upstream::Upstream;
use watch::Watch;
use wire::{Request, Swap};

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
    /// A node's boot clock is its machine's again.
    Unhide(usize),
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
    /// Every clock is right since then, and no token was cut short.
    clocks_right_since: Nanos,
    /// What a truthful wall clock shows on the one machine, as far as anybody there can know.
    wall_base: i64,
    lengthened: bool,
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
            shift: 0,
            hidden: false,
            moves: 0,
            old: false,
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
            laws: Laws::new(rules.clone(), setting.absent),
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
            clocks_right_since: 0,
            wall_base: 0,
            lengthened: false,
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
        let mut stamp = self.machines[self.nodes[node].machine].stamp(self.now);
        stamp.boot += Duration::from_nanos(self.nodes[node].shift);
        stamp
    }

    /// The first true moment at which a node's boot clock shows `boot`.
    fn when(&self, node: usize, boot: Duration) -> Nanos {
        let boot = boot.saturating_sub(Duration::from_nanos(self.nodes[node].shift));
        self.machines[self.nodes[node].machine].when(boot, self.now)
    }

    /// The first true moment at which either of a node's clocks has reached `end`.
    fn reaches(&self, node: usize, mut end: Stamp) -> Nanos {
        let shift = Duration::from_nanos(self.nodes[node].shift);
        end.boot = end.boot.saturating_sub(shift);
        self.machines[self.nodes[node].machine].reaches(end, self.now)
    }

    fn boot_id(&self, node: usize) -> BootId {
        let Node {
            machine,
            shift,
            hidden,
            ..
        } = self.nodes[node];
        let boots = self.machines[machine].boots;
        let (seconds, rest) = match hidden {
            true => (0, 0),
            false => (shift / SECOND, shift % SECOND),
        };
        let kernel = KernelView {
            boot_id: format!("00000000-0000-4000-8000-{machine:04}{boots:08}"),
            time_namespace: TimeNamespace::Offsets(format!("boottime {seconds} {rest}\n")),
        };
        BootId::identify(&kernel).expect("a kernel that says everything")
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
            What::Arrive(_) | What::Fault(_) | What::Unhide(_) => None,
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
            What::Unhide(node) => self.unhide(node),
            What::Ask(node, ask) => self.ask(node, ask),
        }
    }
}
