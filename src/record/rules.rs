//! How fast, how long and how often: every length of time that the keeper and the record go by.
//!
//! All of them scale from the token's lifetime and the issuer's window, and each may be set.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::budget::Budget;

/// A wait that doubles with each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Backoff {
    /// The wait after this many failures in a row.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        (self.first * (1 << doublings)).min(self.most)
    }
}

/// What was asked for; what is `None` scales from the lifetime and the window.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How long a token lives.
    pub lifetime: Duration,
    /// The issuer's window.
    pub window: Duration,
    /// The most mints in a closed window.
    pub limit: NonZeroU32,
    /// Slots that routine mints leave free; at most `limit − 1`. Default 3.
    pub reserve: Option<u32>,
    /// The longest time between reserving and the issuer counting.
    pub in_flight: Option<Duration>,
    /// The least distance between any two mints. Default none.
    pub spacing: Option<Duration>,
    /// How long before expiry a refresh is due.
    pub lead: Option<Duration>,
    /// How long one request to the issuer may take.
    pub timeout: Option<Duration>,
    /// How far wall clocks may disagree across boots and machines.
    pub skew: Option<Duration>,
    /// A new token ends the life of the one before it.
    pub revokes_previous: bool,
}

impl Wanted {
    /// Everything by default for this lifetime, window and limit.
    pub fn new(lifetime: Duration, window: Duration, limit: NonZeroU32) -> Self {
        Self {
            lifetime,
            window,
            limit,
            reserve: None,
            in_flight: None,
            spacing: None,
            lead: None,
            timeout: None,
            skew: None,
            revokes_previous: false,
        }
    }
}

/// The lengths in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The budget, with its own lengths.
    pub budget: Budget,
    /// How long a token lives after the request that minted it was sent.
    pub lifetime: Duration,
    /// How long before expiry a refresh is due: window + in flight + margin, so that slots burnt before the refresh are free again
    /// before expiry.
    pub lead: Duration,
    /// With less than this left, a mint is urgent: lead ÷ 6.
    pub urgent_mark: Duration,
    /// The least distance between any two mints, whatever they are for.
    pub spacing: Duration,
    /// The distance of a routine mint from the attempt before it: window ÷ 15.
    pub routine_pace: Duration,
    /// The distance between reported mints: window ÷ 6.
    pub report_pace: Duration,
    /// The wait after an attempt that may have been counted: window ÷ 60, doubling to window ÷ 8.
    pub backoff: Backoff,
    /// The wait after an attempt that surely never left: 1 s, doubling to 15 s (shorter when the window is).
    pub unsent: Backoff,
    /// How long one request to the issuer may take, and how long after its reservation it may still begin.
    pub timeout: Duration,
    /// How far wall clocks may disagree across boots and machines: min(30 s, lifetime ÷ 60).
    pub skew: Duration,
    /// A token younger than this is not believed to be refused: min(20 s, lifetime ÷ 180).
    pub too_young: Duration,
    /// The wait before the one retry of a first mint on unknown history: window ÷ 360.
    pub first_retry: Duration,
    /// The distance between attempts with a set that is parked: window ÷ 2.
    pub parked_retry: Duration,
    /// The longest wait after a 429 that does not say how long, once there is no live token: window ÷ 4.
    pub throttled: Duration,
    /// A new token ends the life of the one before it.
    pub revokes_previous: bool,
}

impl Rules {
    /// Fills in what was not asked for.
    pub fn new(wanted: &Wanted) -> Self {
        let Wanted {
            lifetime,
            window,
            limit,
            ..
        } = *wanted;
        let in_flight = wanted
            .in_flight
            .unwrap_or(Duration::from_secs(60).min(window / 30));
        let budget = Budget {
            limit,
            reserve: wanted.reserve.unwrap_or(3).min(limit.get() - 1),
            window,
            in_flight,
            margin: window / 15,
        };
        let lead = wanted.lead.unwrap_or(budget.period());
        let first_unsent = (window / 1800).clamp(Duration::from_millis(50), Duration::from_secs(1));
        Self {
            lifetime,
            lead,
            urgent_mark: lead / 6,
            spacing: wanted.spacing.unwrap_or_default(),
            routine_pace: window / 15,
            report_pace: window / 6,
            backoff: Backoff {
                first: window / 60,
                most: window / 8,
            },
            unsent: Backoff {
                first: first_unsent,
                most: first_unsent * 15,
            },
            timeout: wanted
                .timeout
                .unwrap_or(Duration::from_secs(10).min(in_flight / 3)),
            skew: wanted
                .skew
                .unwrap_or(Duration::from_secs(30).min(lifetime / 60)),
            too_young: Duration::from_secs(20).min(lifetime / 180),
            first_retry: window / 360,
            parked_retry: window / 2,
            throttled: window / 4,
            revokes_previous: wanted.revokes_previous,
            budget,
        }
    }

    /// How long a claim lasts: as long as a request may wait to begin and then take, and a little more for its commit.
    pub fn claim(&self) -> Duration {
        self.timeout * 2 + self.timeout / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_real_account_gets_the_documented_lengths() {
        let rules = Rules::new(&Wanted::new(
            60 * MINUTE,
            30 * MINUTE,
            NonZeroU32::new(10).unwrap(),
        ));
        assert_eq!(rules.budget.margin, 2 * MINUTE);
        assert_eq!(rules.budget.in_flight, MINUTE);
        assert_eq!(rules.lead, 33 * MINUTE);
        assert_eq!(rules.budget.reserve, 3);
        assert_eq!(rules.urgent_mark, 330 * SECOND);
        assert_eq!(rules.routine_pace, 2 * MINUTE);
        assert_eq!(rules.report_pace, 5 * MINUTE);
        assert_eq!(
            rules.backoff,
            Backoff {
                first: 30 * SECOND,
                most: 225 * SECOND
            }
        );
        assert_eq!(
            rules.unsent,
            Backoff {
                first: SECOND,
                most: 15 * SECOND
            }
        );
        assert_eq!(
            (rules.timeout, rules.skew, rules.too_young),
            (10 * SECOND, 30 * SECOND, 20 * SECOND)
        );
        assert_eq!(rules.parked_retry, 15 * MINUTE);
        assert_eq!(rules.first_retry, 5 * SECOND);
        assert_eq!(rules.throttled, 450 * SECOND);
        assert_eq!(rules.claim(), 22 * SECOND);
    }

    #[test]
    fn a_wait_doubles_until_its_most() {
        let backoff = Backoff {
            first: SECOND,
            most: 15 * SECOND,
        };
        let waits: Vec<u64> = (0..7)
            .map(|failures| backoff.after(failures).as_secs())
            .collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 15, 15]);
        assert_eq!(backoff.after(u32::MAX), 15 * SECOND);
    }
}
