//! How many lines of the audit each caller may fill, so that the flood of one hides nothing that others do, and no disk is filled.
//!
//! A caller of the settings has bounds of its own. Whoever has no name, and whoever is on an admin listener, is bounded by the user or
//! the network it comes from and all of them together, in tables that never grow beyond a bound. What is left out is counted.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::MonotonicClock;

use super::limit::{Pace, Peers};
use super::rule::Rate;
use crate::listener::{Network, Owner, Peer};

/// Lines about refusals, which anybody can cause.
const REFUSALS: Rate = rate(1, 100);

/// Lines about watches, reports, and what operators do. The burst covers a start or an end of many at once.
const ACTIONS: Rate = rate(1, 1000);

/// All lines about refusals of those who have no bounds of their own.
const ALL_REFUSALS: Rate = rate(10, 1000);

/// All lines about what they do. One of them alone must not take the whole burst.
const ALL_ACTIONS: Rate = rate(10, 4000);

const fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: NonZeroU32::new(per_second).expect("it is not zero"),
        burst: NonZeroU32::new(burst).expect("it is not zero"),
    }
}

/// What a line is about, as far as it decides how many of them there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There are as many as callers and generations.
    FirstVend,
    Operator,
    Refusal,
    Report,
    StreamOpened,
    /// There are as many as those of streams that were opened.
    StreamClosed,
}

/// The bounds of one caller, or of all who have no name, and how many lines were left out since that was last told.
pub(super) struct Share {
    /// None for those who have no name.
    pub(super) caller: Option<Arc<str>>,
    bounds: Bounds,
    left_out: AtomicU64,
}

enum Bounds {
    Own {
        refusals: Pace,
        reports: Pace,
        streams: Pace,
    },
    ByPlace {
        refusals: Places,
        actions: Places,
    },
}

impl Share {
    /// That of a caller of the settings.
    pub(super) fn of(caller: Arc<str>) -> Self {
        let bounds = Bounds::Own {
            refusals: Pace::new(REFUSALS),
            reports: Pace::new(ACTIONS),
            streams: Pace::new(ACTIONS),
        };
        Self::new(Some(caller), bounds)
    }

    /// That of all whom this name stands for, or who have none. They are told apart by where they come from.
    pub(super) fn of_many(caller: Option<&str>) -> Self {
        let bounds = Bounds::ByPlace {
            refusals: Places::new(REFUSALS, ALL_REFUSALS),
            actions: Places::new(ACTIONS, ALL_ACTIONS),
        };
        Self::new(caller.map(Into::into), bounds)
    }

    fn new(caller: Option<Arc<str>>, bounds: Bounds) -> Self {
        Self {
            caller,
            bounds,
            left_out: AtomicU64::new(0),
        }
    }

    /// True if there is room for one more line of this kind.
    pub(super) fn admits(&self, kind: Kind, from: Option<Peer>) -> bool {
        match (&self.bounds, kind) {
            (_, Kind::FirstVend | Kind::StreamClosed) => true,
            (Bounds::Own { refusals, .. }, Kind::Refusal) => refusals.ask().is_ok(),
            (Bounds::Own { reports, .. }, Kind::Report | Kind::Operator) => reports.ask().is_ok(),
            (Bounds::Own { streams, .. }, Kind::StreamOpened) => streams.ask().is_ok(),
            (Bounds::ByPlace { refusals, .. }, Kind::Refusal) => refusals.admit(from),
            (Bounds::ByPlace { actions, .. }, _) => actions.admit(from),
        }
    }

    /// One more line was left out.
    pub(super) fn leave_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were left out since this was last asked.
    pub(super) fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

/// Bounds for each place, and for all of them together.
struct Places {
    each: Peers<MonotonicClock, Place>,
    all: Pace,
}

/// Where somebody comes from, as far as it can be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Here,
    User(u32),
    Machine(Network),
}

impl From<Option<Peer>> for Place {
    fn from(peer: Option<Peer>) -> Self {
        match peer {
            None | Some(Peer::Loopback(_)) => Self::Here,
            Some(Peer::Unix(Owner { uid, .. })) => Self::User(uid),
            Some(Peer::Other(address)) => Self::Machine(address.ip().into()),
        }
    }
}

impl Places {
    fn new(each: Rate, all: Rate) -> Self {
        Self {
            each: Peers::new(each),
            all: Pace::new(all),
        }
    }

    /// The narrow bound is asked first: what it refuses costs the others nothing.
    fn admit(&self, from: Option<Peer>) -> bool {
        self.each.ask_by(&from.into()).is_ok() && self.all.ask().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::listener::testing::{LOOPBACK, UNIX};

    fn admitted(share: &Share, kind: Kind, from: Option<Peer>) -> usize {
        (0..3_000).filter(|_| share.admits(kind, from)).count()
    }

    #[test]
    fn each_kind_has_its_own_bound_and_what_cannot_flood_has_none() {
        let share = Share::of("orders".into());
        // A slow machine gives back one a second.
        for (kind, burst) in [
            (Kind::Refusal, 100),
            (Kind::StreamOpened, 1000),
            (Kind::Report, 1000),
        ] {
            let count = admitted(&share, kind, None);
            assert!((burst..burst + 500).contains(&count), "{kind:?}: {count}");
        }
        for kind in [Kind::FirstVend, Kind::StreamClosed] {
            assert_eq!(admitted(&share, kind, None), 3_000);
        }
    }

    #[test]
    fn the_flood_of_one_stranger_leaves_room_for_others() {
        let share = Share::of_many(None);
        let other = |last: u8| Some(Peer::Other(([10, 0, 0, last], 1).into()));
        for from in [other(1), other(2), Some(UNIX), Some(LOOPBACK)] {
            let count = admitted(&share, Kind::Refusal, from);
            assert!((100..600).contains(&count), "{from:?}: {count}");
        }
        // All together have a bound, too.
        let all: usize = (3..50)
            .map(|it| admitted(&share, Kind::Refusal, other(it)))
            .sum();
        assert!((500..3_000).contains(&all), "{all}");
        assert!(share.admits(Kind::Operator, Some(LOOPBACK)));
    }
}
