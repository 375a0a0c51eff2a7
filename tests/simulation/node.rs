//! A node: a process that runs the real keeper, dies and comes back.

use std::time::Duration;

use bearerd::clock::{BootId, Stamp};
use bearerd::keeper::{Input, Keeper, Output, Settings};
use bearerd::record::{Record, Version};
use bearerd::token::{Generation, Token};

use crate::clocks::Nanos;
use crate::faults::Boundary;
use crate::laws::Epoch;
use crate::setting::Setting;

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Store,
    Reserve,
    Settle,
}

impl Write {
    pub fn before(self) -> Boundary {
        match self {
            Self::Store => Boundary::BeforeStore,
            Self::Reserve => Boundary::BeforeReserve,
            Self::Settle => Boundary::BeforeSettle,
        }
    }

    pub fn sent(self) -> Boundary {
        match self {
            Self::Store => Boundary::StoreSent,
            Self::Reserve => Boundary::ReserveSent,
            Self::Settle => Boundary::SettleSent,
        }
    }

    pub fn done(self) -> Boundary {
        match self {
            Self::Store => Boundary::StoreDone,
            Self::Reserve => Boundary::ReserveDone,
            Self::Settle => Boundary::SettleDone,
        }
    }
}

/// The attempt that a process has begun and not ended.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub attempt: Generation,
    pub epoch: Epoch,
    /// When it was decided; its claim and the time within which it may be sent are counted from here.
    pub begun: Nanos,
    /// When its slot was taken, if the register has it.
    pub reserved: Option<Nanos>,
    pub posted: bool,
    pub answered: bool,
}

/// What a process vends.
pub struct Vended {
    pub token: Token,
    pub suspect: bool,
    pub index: u64,
}

/// One run of the daemon.
pub struct Life {
    pub number: u32,
    pub holder: String,
    pub keeper: Keeper,
    /// Counts the wakes that were wished for: only the last one counts.
    pub turn: u32,
    /// A register operation is under way.
    pub busy: bool,
    /// The register's version as this process knows it.
    pub seen: Option<Version>,
    pub open: Option<Open>,
    /// How many keys it knows of.
    pub keys: u32,
    pub vended: Option<Vended>,
    /// When it made a record, having found none.
    pub bore: Option<Nanos>,
    /// It will be told of a change.
    pub told: bool,
    pub answer: Option<bearerd::vend::ReportOutcome>,
}

impl Life {
    pub fn new(number: u32, setting: &Setting, boot_id: BootId, seed: u64) -> Self {
        let holder = format!("holder-{number}");
        let settings = Settings {
            account: "account".into(),
            rules: setting.rules.clone(),
            absent: setting.absent,
            holder: holder.clone(),
            boot_id,
            short_lead: false,
        };
        Self {
            number,
            holder,
            keeper: Keeper::new(settings, seed),
            turn: 0,
            busy: false,
            seen: None,
            open: None,
            keys: 1,
            vended: None,
            bore: None,
            told: false,
            answer: None,
        }
    }

    /// One step of the real thing.
    pub fn step(&mut self, now: Stamp, input: Input, outputs: &mut Vec<Output>) {
        self.keeper.step(now, input, outputs);
    }

    /// When it wants to be woken. It always knows, unless an answer is on its way to it; and never at once for nothing.
    pub fn wake(&self, now: Stamp) -> Option<Duration> {
        let wake = self.keeper.next_wake(now);
        let awaits = self.busy || self.open.is_some_and(|it| it.posted && !it.answered);
        assert!(
            wake.is_some() || awaits,
            "law 6: nothing is under way, and the keeper knows no next wake: {:?}",
            self.keeper
        );
        assert!(
            wake.is_none_or(|at| at > now.boot),
            "law 6: the keeper wants to be woken now, and would do nothing: {:?}",
            self.keeper
        );
        wake
    }

    /// What a write is for, told from what it changes.
    pub fn write_of(&self, next: &Record) -> Write {
        let own = next
            .claim
            .as_ref()
            .is_some_and(|claim| claim.holder == self.holder && claim.attempt == next.generation);
        match &self.open {
            // An attempt's end always gives its claim back.
            None | Some(Open { posted: false, .. }) if own => Write::Reserve,
            Some(_) => Write::Settle,
            None => Write::Store,
        }
    }

    /// What callers get now.
    pub fn vends(&self, now: Stamp) -> Option<&Vended> {
        self.vended.as_ref().filter(|it| !it.token.expired(now))
    }
}

/// A place where processes run, one after the other.
pub struct Node {
    pub machine: usize,
    pub life: Option<Life>,
    pub keys: (u8, u32),
    /// By how much the boot clock of its time namespace is ahead of its machine's.
    pub shift: Nanos,
    /// The kernel's files say nothing of that, as after a restored checkpoint.
    pub hidden: bool,
    /// So many more starts, each in another time namespace.
    pub moves: u32,
    /// A build of format 1.0 runs here.
    pub old: bool,
    /// The process stands still until then.
    pub frozen_until: Nanos,
    /// It is to stand still for so long just before its next request leaves.
    pub halts: Option<Nanos>,
    /// The register is out of reach until then.
    pub cut_until: Nanos,
    /// Where it dies next.
    pub doom: Option<Boundary>,
    /// So many more deaths of a crash loop.
    pub loops: u32,
    pub died_at: Nanos,
}
