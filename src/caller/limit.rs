//! How fast somebody may ask: a limiter for each caller that the settings bound, and one for the machines that ask, by address.
//!
//! Nobody is made to wait: a request too many is refused, and told when to come again. A table of addresses never holds more than
//! [`MOST`]: those that have been quiet are forgotten, and who comes while it is full shares one place with all others that do.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::{HashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};

use super::rule::Rate;
use crate::listener::Network;

/// The most addresses that are known apart.
const MOST: usize = 16_384;

/// How often those that have been quiet are forgotten.
const PRUNING: Duration = Duration::from_secs(10);

/// No more now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFast {
    /// After so many seconds one more is let through, if nobody else takes its place. At least one.
    pub(super) retry_after: u64,
}

impl TooFast {
    fn new<C: Clock>(until: &NotUntil<C::Instant>, clock: &C) -> Self {
        let left = until.wait_time_from(clock.now());
        let begun = u64::from(left.subsec_nanos() > 0);
        Self {
            retry_after: left.as_secs().saturating_add(begun).max(1),
        }
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// How fast one caller may ask, over all its connections.
pub(super) struct Pace<C: Clock = MonotonicClock>(
    RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
);

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self::by(rate, MonotonicClock)
    }
}

impl<C: Clock> Pace<C> {
    fn by(rate: Rate, clock: C) -> Self {
        Self(RateLimiter::direct_with_clock(quota(rate), clock))
    }

    pub(super) fn ask(&self) -> Result<(), TooFast> {
        let asked = self.0.check();
        asked.map_err(|until| TooFast::new(&until, self.0.clock()))
    }
}

/// How fast each of many may ask, by default each other machine.
pub(super) struct Peers<C: Clock = MonotonicClock, K: Eq + Hash + Clone = Network> {
    limiter: RateLimiter<K, Places<K>, C, NoOpMiddleware<C::Instant>>,
    pruned: Mutex<C::Instant>,
}

impl<K: Eq + Hash + Clone> Peers<MonotonicClock, K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self::by(rate, MonotonicClock)
    }
}

impl<C: Clock, K: Eq + Hash + Clone> Peers<C, K> {
    fn by(rate: Rate, clock: C) -> Self {
        Self {
            pruned: Mutex::new(clock.now()),
            limiter: RateLimiter::new(quota(rate), Places::default(), clock),
        }
    }

    pub(super) fn ask_by(&self, key: &K) -> Result<(), TooFast> {
        self.prune();
        let asked = self.limiter.check_key(key);
        asked.map_err(|until| TooFast::new(&until, self.limiter.clock()))
    }

    /// Whoever has had a full burst again is as good as unknown.
    fn prune(&self) {
        let now = self.limiter.clock().now();
        let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*pruned) < Nanos::from(PRUNING) {
            return;
        }
        *pruned = now;
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl<C: Clock> Peers<C> {
    pub(super) fn ask(&self, from: IpAddr) -> Result<(), TooFast> {
        self.ask_by(&from.into())
    }
}

/// Addresses up to [`MOST`], and one place for all others.
struct Places<K: Eq + Hash + Clone> {
    known: HashMapStateStore<K>,
    others: InMemoryState,
}

impl<K: Eq + Hash + Clone> Default for Places<K> {
    fn default() -> Self {
        Self {
            known: HashMapStateStore::new(HashMap::default()),
            others: InMemoryState::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> StateStore for Places<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, place: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let has_room = {
            let known = self.known.lock();
            known.len() < MOST || known.contains_key(place)
        };
        match has_room {
            true => self.known.measure_and_replace(place, measure),
            false => self.others.measure_and_replace(&NotKeyed::NonKey, measure),
        }
    }
}

impl<K: Eq + Hash + Clone> ShrinkableKeyedStateStore<K> for Places<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.known.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.known.shrink_to_fit();
    }

    fn len(&self) -> usize {
        ShrinkableKeyedStateStore::len(&self.known)
    }

    fn is_empty(&self) -> bool {
        ShrinkableKeyedStateStore::is_empty(&self.known)
    }
}

/// Which of the two limits a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// That of the machine it came from.
    Peer(TooFast),
    /// That of its caller.
    Caller(TooFast),
}

/// Asks the limit of one machine before the one that its caller's machines share: what the first refuses costs the second nothing.
pub(super) fn ask<C: Clock>(
    peer: Option<(&Peers<C>, IpAddr)>,
    caller: Option<&Pace<C>>,
) -> Result<(), Met> {
    if let Some((peers, from)) = peer {
        peers.ask(from).map_err(Met::Peer)?;
    }
    if let Some(pace) = caller {
        pace.ask().map_err(Met::Caller)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let clock = FakeRelativeClock::default();
        let pace = Pace::by(rate(2, 3), clock.clone());
        let refused = Err(TooFast { retry_after: 1 });
        let asked: Vec<_> = (0..4).map(|_| pace.ask()).collect();
        assert_eq!(asked, [Ok(()), Ok(()), Ok(()), refused]);
        clock.advance(Duration::from_millis(500));
        assert_eq!((pace.ask(), pace.ask()), (Ok(()), refused));
        clock.advance(Duration::from_secs(3600));
        let asked: Vec<_> = (0..4).map(|_| pace.ask()).collect();
        assert_eq!(asked, [Ok(()), Ok(()), Ok(()), refused]);
    }

    #[test]
    fn the_narrow_limit_is_met_first_and_costs_the_shared_one_nothing() {
        let clock = FakeRelativeClock::default();
        let peers = Peers::by(rate(1, 2), clock.clone());
        let shared = Pace::by(rate(1, 5), clock);
        let ask = |from| ask(Some((&peers, v4(from))), Some(&shared));
        assert_eq!((ask(1), ask(1)), (Ok(()), Ok(())));
        for _ in 0..100 {
            assert_eq!(ask(1), Err(Met::Peer(TooFast { retry_after: 1 })));
        }
        // Three of the five are left for the others.
        let others: Vec<_> = (2..6).map(ask).collect();
        let met = Err(Met::Caller(TooFast { retry_after: 1 }));
        assert_eq!(others, [Ok(()), Ok(()), Ok(()), met]);
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_some_thousand() {
        let clock = FakeRelativeClock::default();
        let peers = Peers::by(rate(1, 1), clock.clone());
        let mut refused = 0;
        for number in 0..1_000_000 {
            refused += u32::from(peers.ask(v4(number)).is_err());
        }
        assert_eq!(peers.limiter.len(), MOST);
        assert_eq!(refused, 1_000_000 - u32::try_from(MOST).unwrap() - 1);
        // Whoever was known before the flood is judged alone all through it.
        assert!(peers.ask(v4(7)).is_err());
        clock.advance(PRUNING);
        assert_eq!(peers.ask(v4(7)), Ok(()));
        assert_eq!(peers.limiter.len(), 1, "the quiet ones are forgotten");
    }

    proptest! {
        /// Over any stretch of time no more pass than the burst and what the rate gives in it, and whoever comes when it was told to
        /// is let through.
        #[test]
        fn no_more_pass_than_the_settings_say(
            per_second in 1_u32..50,
            burst in 1_u32..50,
            rests in proptest::collection::vec(0_u64..400, 1..200),
        ) {
            let clock = FakeRelativeClock::default();
            let pace = Pace::by(rate(per_second, burst), clock.clone());
            let (mut now, mut passed) = (0_u64, 0_u64);
            for rest in rests {
                clock.advance(Duration::from_millis(rest));
                now += rest;
                match pace.ask() {
                    Ok(()) => passed += 1,
                    Err(TooFast { retry_after }) => {
                        prop_assert!(retry_after >= 1);
                        clock.advance(Duration::from_secs(retry_after));
                        now += retry_after * 1000;
                        prop_assert_eq!(pace.ask(), Ok(()));
                        passed += 1;
                    }
                }
                let most = u64::from(burst) + now * u64::from(per_second) / 1000;
                prop_assert!(passed <= most, "{passed} of {most}");
            }
        }
    }
}
