//! What a world is like before anything goes wrong in it.

use std::num::NonZeroU32;
use std::time::Duration;

use bearerd::record::{Absent, Rules, Wanted};

use crate::clocks::{Nanos, nanos};
use crate::faults::Kind;

/// Where the record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// On a disk that all nodes share, with one machine's clocks.
    File,
    /// In a register that nodes on machines of their own reach over a network.
    Remote,
    /// In the process.
    Memory,
}

/// A rule that is broken outside of the product: at an edge that this simulation models itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Nothing is broken.
    Sound,
    /// The request leaves before its slot is written.
    PostBeforeSlot,
    /// What was written survives no loss of power.
    NoSync,
    /// Boot times are wall times.
    WallClockOnly,
    /// A process that finds the record lost forgets what it held.
    NoMerge,
    /// Nothing is broken, but the budget is so small that operators can spend all of it.
    SmallBudget,
    /// So small a budget, and a lead that is shorter than the window.
    ShortLead,
}

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All of them, and crashes everywhere.
    Everything,
    /// Only what burns slots.
    Burning,
}

impl Mix {
    pub fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Everything => true,
            Self::Burning => kind.only_burns(),
        }
    }
}

/// What a world is about, where few kinds of faults happen in it, and often. What needs several of
/// them at once, or one again and again, comes too rarely where everything happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Processes start in other time namespaces again and again, and all other clocks are right.
    Namespaces,
    /// Each process starts with a boot clock a little further ahead than the last one's.
    Creeping,
    /// The way is cut for long, and our own kernel goes on sending what was given up.
    Retransmitted,
    /// The window turns out to be longer.
    LongerWindow,
}

impl Theme {
    const ALL: [Self; 4] = [
        Self::Namespaces,
        Self::Creeping,
        Self::Retransmitted,
        Self::LongerWindow,
    ];

    /// One world in so many has a theme.
    const ONE_IN: u64 = 16;

    /// The theme of a world, if it has one.
    pub fn of(seed: u64) -> Option<Self> {
        let mut dice = fastrand::Rng::with_seed(!seed);
        let themed = dice.u64(0..Self::ONE_IN) == 0;
        themed.then(|| Self::ALL[dice.usize(0..Self::ALL.len())])
    }

    fn allows(self, kind: Kind) -> bool {
        let also: &[Kind] = match self {
            Self::Namespaces => &[Kind::Namespaces, Kind::Unreachable, Kind::Conflict],
            Self::Creeping => &[Kind::Namespaces],
            Self::Retransmitted => &[Kind::Retransmitted],
            // Its namesake comes once, in the middle.
            Self::LongerWindow => &[],
        };
        also.contains(&kind) || (self.spends_everything() && kind == Kind::Flood)
    }

    /// So many windows such a world lasts.
    pub fn windows(self) -> u64 {
        match self {
            Self::Namespaces => 6,
            Self::LongerWindow => 10,
            _ => 40,
        }
    }

    /// Operators may take the last slot, and do.
    pub fn spends_everything(self) -> bool {
        self != Self::Namespaces
    }
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Setting {
    pub store: Store,
    pub nodes: usize,
    pub rules: Rules,
    pub absent: Absent,
    pub mix: Mix,
    pub edge: Edge,
    pub theme: Option<Theme>,
    /// How long a request is on its way, there and back.
    pub latency: Nanos,
}

impl Setting {
    pub fn period(&self) -> Nanos {
        nanos(self.rules.budget.period())
    }

    pub fn window(&self) -> Nanos {
        nanos(self.rules.budget.window)
    }

    pub fn allows(&self, kind: Kind) -> bool {
        self.mix.allows(kind) && self.theme.is_none_or(|theme| theme.allows(kind))
    }

    pub fn skew(&self) -> Nanos {
        nanos(self.rules.skew)
    }
}

/// How an account's lengths compare to the real one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 60 minutes and ten in 30 minutes.
    Real,
    /// A day, and ten in half a day: many more faults in the life of a token, and years that go by faster.
    Slow,
    /// Anything.
    Odd,
}

pub fn rules(scale: Scale, edge: Edge, theme: Option<Theme>, dice: &mut fastrand::Rng) -> Rules {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let ten = NonZeroU32::new(10).expect("ten is not zero");
    let mut wanted = match scale {
        Scale::Real => Wanted::new(minutes(60), minutes(30), ten),
        Scale::Slow => Wanted::new(minutes(24 * 60), minutes(12 * 60), ten),
        Scale::Odd => {
            // Half of them are so short that a request may take longer than the wait after a loss: only the claim holds others back then.
            let longest = if dice.bool() { 2_000 } else { 40_000 };
            let window = Duration::from_secs(dice.u64(600..longest));
            let limit = NonZeroU32::new(dice.u32(1..13)).expect("it is at least one");
            let lifetime = (window + window / 10) * dice.u32(11..40) / 10;
            let mut odd = Wanted::new(lifetime, window, limit);
            odd.reserve = Some(dice.u32(0..6));
            if dice.bool() {
                odd.timeout = Some(Rules::new(&odd).budget.in_flight / 2);
            }
            odd
        }
    };
    wanted.revokes_previous = dice.u8(0..6) == 0;
    if matches!(edge, Edge::SmallBudget | Edge::ShortLead) {
        wanted.limit = NonZeroU32::new(4).expect("four is not zero");
        wanted.reserve = Some(0);
    }
    if theme.is_some_and(Theme::spends_everything) {
        wanted.reserve = Some(0);
    }
    if edge == Edge::ShortLead {
        wanted.lead = Some(wanted.window / 6);
    }
    Rules::new(&wanted)
}

/// A random world.
pub fn random(
    scale: Scale,
    mix: Mix,
    edge: Edge,
    theme: Option<Theme>,
    dice: &mut fastrand::Rng,
) -> Setting {
    let store = match dice.u8(0..16) {
        0 => Store::Memory,
        1..9 => Store::File,
        _ => Store::Remote,
    };
    // A theme is about what a record carries from one process to the next.
    let store = match store {
        Store::Memory if theme.is_some() => Store::File,
        store => store,
    };
    let nodes = match store {
        Store::Memory => 1,
        _ if theme == Some(Theme::Creeping) => 1,
        Store::File => dice.usize(1..7),
        Store::Remote => dice.usize(2..9),
    };
    let rules = rules(scale, edge, theme, dice);
    let longest = nanos(rules.timeout) / 3;
    Setting {
        store,
        nodes,
        absent: match store {
            Store::Memory => Absent::Forgetful,
            _ if dice.bool() => Absent::New,
            _ => Absent::Wait,
        },
        mix,
        edge,
        theme,
        latency: dice.u64(longest / 100..longest),
        rules,
    }
}
