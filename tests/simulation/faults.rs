//! What goes wrong, and when: a plan that is drawn up before the world begins, so that it can be cut down afterwards.

use std::fmt;

use crate::clocks::{DAY, HOUR, Nanos, SECOND, moment};
use crate::setting::{Setting, Store, Theme};

/// Every kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The issuer counts, and its answer never comes.
    AnswerLost,
    /// The issuer counts long after it was asked, and nobody hears of it.
    CountedLate,
    /// 5xx, and counted.
    ServerError,
    /// 2xx that cannot be read, and counted.
    Garbled,
    /// Something before the issuer answers; what was asked for is counted later, or never.
    Intermediary,
    /// 429.
    Throttled,
    /// 401 for the first of the keys.
    KeyRefused,
    /// 400, whatever the key.
    AllRefused,
    /// No byte leaves.
    Unreachable,
    /// Answers come just before, or just after, the time-out.
    Slow,
    /// The way is cut, and our own kernel goes on sending what was given up.
    Retransmitted,
    /// Interim answers come without end, and keep the process busy; the final one never comes.
    Interim,
    /// The token of the mint before is given again.
    Repeated,
    /// The token is older than the request.
    Aged,
    /// The request is delivered twice; the second copy counts for the issuer's own limit.
    Duplicated,
    /// Every token given so far is revoked.
    Revoked,
    /// One node cannot reach the register.
    Partition,
    /// Nobody can.
    RegisterDown,
    /// The register answers late, and tells of changes late.
    Lag,
    /// A write is answered with nothing known of it: done, not done, or done later.
    UnknownWrite,
    /// Somebody else writes the same record again.
    Conflict,
    /// The record is gone.
    Lost,
    /// An older copy of the record comes back.
    Stale,
    /// Nothing can be written, and all can be read.
    Full,
    /// The record is cut off in the middle.
    Torn,
    /// The machine loses its power; what was not synced is lost.
    PowerLoss,
    /// The wall clock is set ahead.
    StepForward,
    /// The wall clock is set back.
    StepBack,
    /// The boot clock begins to run up to 500 ppm off.
    Drift,
    /// The machine is suspended, its clocks going on.
    Suspend,
    /// The machine reboots, its wall clock within the skew of before or far behind.
    Reboot,
    /// A process stands still.
    Freeze,
    /// A process dies again and again, a few moments after each start.
    CrashLoop,
    /// A caller reports the token.
    Report,
    /// Callers report everything, and operators refresh, without end.
    Flood,
    /// The keys are replaced.
    NewKeys,
    /// A process starts again and again, each time in another time namespace.
    Namespaces,
    /// A process starts with another boot clock, and the kernel's files say nothing of it.
    Checkpoint,
    /// An older build takes a node over, or the newer one comes back.
    OtherVersion,
    /// The issuer's window turns out to be longer, and every process starts with the new settings.
    LongerWindow,
    /// Somebody writes an expiry into the record that cannot be true on one of its clocks.
    Impossible,
}

impl Kind {
    pub const ALL: [Self; 41] = [
        Self::AnswerLost,
        Self::CountedLate,
        Self::ServerError,
        Self::Garbled,
        Self::Intermediary,
        Self::Throttled,
        Self::KeyRefused,
        Self::AllRefused,
        Self::Unreachable,
        Self::Slow,
        Self::Retransmitted,
        Self::Interim,
        Self::Repeated,
        Self::Aged,
        Self::Duplicated,
        Self::Revoked,
        Self::Partition,
        Self::RegisterDown,
        Self::Lag,
        Self::UnknownWrite,
        Self::Conflict,
        Self::Lost,
        Self::Stale,
        Self::Full,
        Self::Torn,
        Self::PowerLoss,
        Self::StepForward,
        Self::StepBack,
        Self::Drift,
        Self::Suspend,
        Self::Reboot,
        Self::Freeze,
        Self::CrashLoop,
        Self::Report,
        Self::Flood,
        Self::NewKeys,
        Self::Namespaces,
        Self::Checkpoint,
        Self::OtherVersion,
        Self::LongerWindow,
        Self::Impossible,
    ];

    /// What the issuer does to requests.
    pub fn is_weather(self) -> bool {
        (self as usize) <= (Self::Duplicated as usize)
    }

    /// True if law 7 must hold beside it: it burns slots, and nothing else.
    pub fn only_burns(self) -> bool {
        matches!(
            self,
            Self::CrashLoop | Self::Report | Self::Flood | Self::Conflict
        )
    }

    /// True if it may end a token before its time, or let it be replaced before it is due, at some node.
    pub fn cuts_tokens_short(self) -> bool {
        matches!(
            self,
            Self::StepForward
                | Self::StepBack
                | Self::Drift
                | Self::Reboot
                | Self::PowerLoss
                | Self::Checkpoint
                | Self::OtherVersion
                | Self::LongerWindow
                | Self::Impossible
                | Self::Lost
                | Self::Stale
                | Self::Torn
                | Self::Full
                | Self::RegisterDown
                | Self::Partition
        )
    }

    fn happens_to(self, store: Store) -> bool {
        match self {
            Self::Partition => store == Store::Remote,
            Self::Full | Self::Torn => store == Store::File,
            Self::RegisterDown | Self::Lag | Self::UnknownWrite | Self::Conflict => {
                store != Store::Memory
            }
            Self::Lost
            | Self::Stale
            | Self::Checkpoint
            | Self::OtherVersion
            | Self::LongerWindow
            | Self::Impossible => store != Store::Memory,
            _ => true,
        }
    }
}

/// Where a process can die: between two outputs, and on either side of what they set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    Loading,
    BeforeStore,
    StoreSent,
    StoreDone,
    BeforeReserve,
    ReserveSent,
    ReserveDone,
    BeforePost,
    PostSent,
    Counted,
    BeforeSettle,
    SettleSent,
    SettleDone,
    BeforePublish,
}

impl Boundary {
    pub const ALL: [Self; 14] = [
        Self::Loading,
        Self::BeforeStore,
        Self::StoreSent,
        Self::StoreDone,
        Self::BeforeReserve,
        Self::ReserveSent,
        Self::ReserveDone,
        Self::BeforePost,
        Self::PostSent,
        Self::Counted,
        Self::BeforeSettle,
        Self::SettleSent,
        Self::SettleDone,
        Self::BeforePublish,
    ];

    /// The column's head.
    pub fn short(self) -> &'static str {
        match self {
            Self::Loading => "load",
            Self::BeforeStore => "store?",
            Self::StoreSent => "store…",
            Self::StoreDone => "store!",
            Self::BeforeReserve => "slot?",
            Self::ReserveSent => "slot…",
            Self::ReserveDone => "slot!",
            Self::BeforePost => "post?",
            Self::PostSent => "post…",
            Self::Counted => "counted",
            Self::BeforeSettle => "settle?",
            Self::SettleSent => "settle…",
            Self::SettleDone => "settle!",
            Self::BeforePublish => "publish?",
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: Nanos,
    pub kind: Kind,
    /// Whom it befalls, modulo the number of nodes.
    pub node: usize,
    /// How long it is at work.
    pub length: Nanos,
    /// Whatever else is to be decided about it.
    pub extra: u64,
    /// Where that node is to die next, too.
    pub doom: Option<Boundary>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.length / SECOND;
        write!(
            f,
            "{}  {:?} at node {} for {seconds} s",
            moment(self.at),
            self.kind,
            self.node
        )?;
        if let Some(boundary) = self.doom {
            write!(f, ", and it is to die at {boundary:?}")?;
        }
        Ok(())
    }
}

/// So many faults a day, in the mean.
pub const FAULTS_A_DAY: f64 = 24.0;

/// So many a window, in a world that has a theme.
const FAULTS_A_WINDOW: f64 = 8.0;

/// The faults of one world, in their order.
pub fn plan(setting: &Setting, length: Nanos, dice: &mut fastrand::Rng) -> Vec<Fault> {
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.happens_to(setting.store))
        .filter(|kind| setting.allows(*kind))
        .collect();
    let mut plan = Vec::new();
    let mut at = 0;
    let mean = match setting.theme {
        Some(_) => setting.window() as f64 / FAULTS_A_WINDOW,
        None => DAY as f64 / FAULTS_A_DAY,
    };
    loop {
        at += (-dice.f64().max(1e-12).ln() * mean) as Nanos;
        if at >= length || kinds.is_empty() {
            break;
        }
        let kind = kinds[dice.usize(0..kinds.len())];
        plan.push(fault(setting, at, kind, dice));
    }
    if setting.theme == Some(Theme::LongerWindow) {
        let at = dice.u64(length / 4..length * 3 / 4);
        plan.push(fault(setting, at, Kind::LongerWindow, dice));
        plan.sort_by_key(|fault| fault.at);
    }
    plan
}

fn fault(setting: &Setting, at: Nanos, kind: Kind, dice: &mut fastrand::Rng) -> Fault {
    Fault {
        at,
        kind,
        node: dice.usize(0..setting.nodes),
        length: match setting.theme {
            Some(_) => dice.u64(setting.window() / 8..setting.window() / 2),
            None => fault_length(setting, kind, dice),
        },
        extra: dice.u64(..),
        // Those who die soon spend little.
        doom: (dice.bool() && (setting.theme.is_none() || dice.u8(0..8) == 0))
            .then(|| Boundary::ALL[dice.usize(0..Boundary::ALL.len())]),
    }
}

/// From a thousandth of a period to two of them, each order of magnitude as likely as the next; but no longer than two hours, and where
/// everybody tries again every few seconds, than a quarter of one.
fn fault_length(setting: &Setting, kind: Kind, dice: &mut fastrand::Rng) -> Nanos {
    let period = setting.period() as f64;
    let length = (period / 1000.0 * 2000_f64.powf(dice.f64())) as Nanos;
    let retried = matches!(
        kind,
        Kind::Unreachable | Kind::RegisterDown | Kind::Full | Kind::Partition
    );
    length.min(if retried { HOUR / 4 } else { 2 * HOUR })
}
