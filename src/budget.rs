//! The guard of law 1: at most `limit` mints arrive in any closed window at the issuer.
//!
//! A single GCRA limiter of burst B and period T lets `B + floor(W / T)` through in a closed window W: burst 10 with three-minute
//! cells gives 20. So the guard is `limit` limiters of burst one, each with a period a little longer than the window. Together
//! they are a sliding-window log: `limit` timestamps, all usable in a burst, never one more.
//!
//! Everything here is a pure function of what was spent and of `now`, both on the boot clock.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};

/// Why a slot may be taken; it decides how many slots must stay free behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The scheduled refresh, or an operator's.
    Routine,
    /// A caller said that the token was refused.
    Reported,
    /// There is no live token, or hardly any of it left.
    Urgent,
}

impl Class {
    /// Every class, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Routine, Self::Reported, Self::Urgent];

    /// The name used in records, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routine => "routine",
            Self::Reported => "reported",
            Self::Urgent => "urgent",
        }
    }
}

/// A slot that was taken, as the guard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What it was taken for.
    pub class: Class,
    /// The boot time from which it no longer counts.
    pub frees_at: Duration,
}

/// How many mints may be spent, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most mints in any closed window; the issuer's rule is ten.
    pub limit: NonZeroU32,
    /// Slots that a routine mint leaves free; less than `limit`.
    pub reserve: u32,
    /// The issuer's window; the rule is 30 minutes.
    pub window: Duration,
    /// The longest time between reserving a slot and the issuer counting the mint.
    pub in_flight: Duration,
    /// What is added against drifting clocks.
    pub margin: Duration,
}

/// The most reported mints in one period, whatever else is free.
const REPORTED_PER_PERIOD: u32 = 3;

impl Budget {
    /// How long a slot counts after it was reserved: window + in flight + margin.
    pub fn period(&self) -> Duration {
        self.window + self.in_flight + self.margin
    }

    /// How long a slot counts after the issuer is known to have counted it: window + margin.
    pub fn period_once_counted(&self) -> Duration {
        self.window + self.margin
    }

    /// The distance between mints that keeps the budget with no memory of earlier ones: period ÷ limit, and a nanosecond so that
    /// it is more than that.
    pub fn blind_pace(&self) -> Duration {
        self.period() / self.limit.get() + Duration::from_nanos(1)
    }

    /// How many slots of the period mints of this class may fill, counting everybody's.
    pub fn cap(&self, class: Class) -> NonZeroU32 {
        let limit = self.limit.get();
        let kept_free = match class {
            Class::Routine => self.reserve,
            Class::Reported => 2,
            Class::Urgent => 0,
        };
        NonZeroU32::new(limit - kept_free.min(limit - 1)).unwrap_or(NonZeroU32::MIN)
    }

    /// The earliest boot time, not before `now`, at which a mint of this class may be reserved.
    pub fn earliest(&self, spent: &[Spent], class: Class, now: Duration) -> Duration {
        let of_all = self.guard(self.cap(class), spent.iter().map(|slot| slot.frees_at), now);
        if class != Class::Reported {
            return of_all;
        }
        let reported = spent.iter().filter(|slot| slot.class == Class::Reported);
        let own = NonZeroU32::new(REPORTED_PER_PERIOD).unwrap_or(NonZeroU32::MIN);
        of_all.max(self.guard(own, reported.map(|slot| slot.frees_at), now))
    }

    /// The most slots of a period that a run of answers may take which are not the issuer's: half of the limit, rounded up.
    pub fn intermediary_cap(&self) -> NonZeroU32 {
        NonZeroU32::new(self.limit.get().div_ceil(2)).unwrap_or(NonZeroU32::MIN)
    }

    /// The earliest boot time, not before `now`, at which such a run may go on; `frees_at` are the instants of the slots it took.
    pub fn earliest_in_a_run(
        &self,
        frees_at: impl Iterator<Item = Duration>,
        now: Duration,
    ) -> Duration {
        self.guard(self.intermediary_cap(), frees_at, now)
    }

    /// How many mints of this class could be reserved at once at `now`.
    pub fn free(&self, spent: &[Spent], class: Class, now: Duration) -> u32 {
        let count = |slots: &mut dyn Iterator<Item = &Spent>| {
            u32::try_from(slots.filter(|slot| slot.frees_at > now).count()).unwrap_or(u32::MAX)
        };
        let of_all = self
            .cap(class)
            .get()
            .saturating_sub(count(&mut spent.iter()));
        if class != Class::Reported {
            return of_all;
        }
        let own = count(&mut spent.iter().filter(|slot| slot.class == Class::Reported));
        of_all.min(REPORTED_PER_PERIOD.saturating_sub(own))
    }

    /// Asks `slots` limiters of burst one, seeded with the newest instants, when one of them lets a mint through.
    ///
    /// The axis is shifted by one period: a slot that frees at `f` was taken at `f − period`, which may lie before the boot, so
    /// it is seeded at `f` and asked at `now + period`.
    fn guard(
        &self,
        slots: NonZeroU32,
        frees_at: impl Iterator<Item = Duration>,
        now: Duration,
    ) -> Duration {
        let period = self.period();
        let asked_at = now + period;
        // An instant further ahead than a whole period cannot be true; it counts as spent now.
        let counting = frees_at.filter(|at| *at > now);
        let mut instants: Vec<Duration> = counting.map(|at| at.min(asked_at)).collect();
        if instants.len() < slots.get() as usize {
            // A limiter is left that nothing counts against.
            return now;
        }
        instants.sort_unstable();
        let newest = &instants[instants.len().saturating_sub(slots.get() as usize)..];

        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(period).expect("the period of a budget is longer than zero");
        let limiter: RateLimiter<
            usize,
            HashMapStateStore<usize>,
            FakeRelativeClock,
            NoOpMiddleware<_>,
        > = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        let zero = newest[0];
        let mut at = zero;
        for (cell, &instant) in newest.iter().enumerate() {
            clock.advance(instant - at);
            at = instant;
            limiter
                .check_key(&cell)
                .expect("a cell that was never used lets its first mint through");
        }
        clock.advance(asked_at - at);
        let waits = (0..slots.get() as usize).map(|cell| {
            let asked = limiter.check_key(&cell);
            asked.map_or_else(
                |until| until.wait_time_from(clock.now()),
                |()| Duration::ZERO,
            )
        });
        now + waits.min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
