use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const MINUTE: Duration = Duration::from_secs(60);

fn budget(limit: u32, reserve: u32) -> Budget {
    Budget {
        limit: NonZeroU32::new(limit).unwrap(),
        reserve,
        window: 30 * MINUTE,
        in_flight: MINUTE,
        margin: 2 * MINUTE,
    }
}

fn spent(class: Class, frees_at: Duration) -> Spent {
    Spent { class, frees_at }
}

/// The most instants in any closed window: the issuer's own way of counting.
fn worst_window(instants: &[Duration], window: Duration) -> usize {
    let counted_from = |start: &Duration| {
        instants
            .iter()
            .filter(|at| *at >= start && **at - *start <= window)
            .count()
    };
    instants.iter().map(counted_from).max().unwrap_or(0)
}

/// Which asks of a history are granted, when every grant is written into the ledger.
fn grants(budget: &Budget, asks: &[Duration]) -> Vec<Duration> {
    let mut ledger = Vec::new();
    let mut granted = Vec::new();
    for &now in asks {
        if budget.earliest(&ledger, Class::Urgent, now) == now {
            ledger.push(spent(Class::Urgent, now + budget.period()));
            granted.push(now);
        }
    }
    granted
}

/// The reference: a log of grants, in which those of the last period are counted.
fn reference_grants(limit: usize, period: Duration, asks: &[Duration]) -> Vec<Duration> {
    let mut granted: Vec<Duration> = Vec::new();
    for &now in asks {
        if granted.iter().filter(|at| now - **at < period).count() < limit {
            granted.push(now);
        }
    }
    granted
}

/// The mistake this guard exists to avoid: one limiter of burst 10 with three-minute cells.
fn burst_grants(asks: &[Duration]) -> Vec<Duration> {
    let clock = FakeRelativeClock::default();
    let quota = Quota::with_period(3 * MINUTE)
        .unwrap()
        .allow_burst(NonZeroU32::new(10).unwrap());
    let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
    let mut at = Duration::ZERO;
    let mut granted = Vec::new();
    for &now in asks {
        clock.advance(now - at);
        at = now;
        if limiter.check().is_ok() {
            granted.push(now);
        }
    }
    granted
}

/// Bursts and lulls: gaps from nothing to most of a period.
fn histories() -> impl Strategy<Value = Vec<Duration>> {
    let gap = prop_oneof![
        3 => 0..1_000_000_000u64,
        3 => 0..200_000_000_000u64,
        1 => 0..2_500_000_000_000u64,
        1 => Just(33 * 60 * 1_000_000_000u64),
        1 => Just(3 * 60 * 1_000_000_000u64),
    ];
    let lull = |gaps: Vec<u64>| {
        let mut at = Duration::from_secs(5);
        gaps.into_iter()
            .map(|gap| {
                at += Duration::from_nanos(gap);
                at
            })
            .collect()
    };
    proptest::collection::vec(gap, 1..120).prop_map(lull)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grants_equal_those_of_a_sliding_window_log(asks in histories(), limit in 1u32..12) {
        let budget = budget(limit, 0);
        let granted = grants(&budget, &asks);
        prop_assert_eq!(&granted, &reference_grants(limit as usize, budget.period(), &asks));
        prop_assert!(worst_window(&granted, budget.window) <= limit as usize);
    }

    #[test]
    fn a_refused_mint_is_told_the_first_moment_that_would_be_granted(asks in histories(), limit in 1u32..12) {
        let budget = budget(limit, 0);
        let ledger: Vec<Spent> = grants(&budget, &asks).iter().map(|at| spent(Class::Urgent, *at + budget.period())).collect();
        let now = *asks.last().unwrap();
        let told = budget.earliest(&ledger, Class::Urgent, now);
        prop_assert_eq!(budget.earliest(&ledger, Class::Urgent, told), told);
        if told > now {
            let just_before = told - Duration::from_nanos(1);
            prop_assert_eq!(budget.earliest(&ledger, Class::Urgent, just_before), told);
        }
    }

    #[test]
    fn no_class_takes_what_is_kept_for_a_more_urgent_one(asks in histories(), limit in 1u32..12, reserve in 0u32..11) {
        let budget = budget(limit, reserve.min(limit - 1));
        let ledger: Vec<Spent> = grants(&budget, &asks).iter().map(|at| spent(Class::Reported, *at + budget.period())).collect();
        let now = *asks.last().unwrap();
        for class in Class::ALL {
            let free = budget.free(&ledger, class, now);
            prop_assert_eq!(free > 0, budget.earliest(&ledger, class, now) == now);
            prop_assert!(free <= budget.free(&ledger, Class::Urgent, now));
        }
    }

    /// Random restarts of a process with no record: it waits more than the blind pace before each mint, the first included.
    #[test]
    fn the_blind_pace_keeps_the_budget_over_any_restarts(lives in proptest::collection::vec(0u64..2_000, 1..60), late in 0u64..60) {
        let budget = budget(10, 3);
        let mut arrivals = Vec::new();
        let mut started = Duration::ZERO;
        for (life, seconds) in lives.into_iter().enumerate() {
            let ended = started + Duration::from_secs(seconds);
            let mut next = started + budget.blind_pace();
            while next <= ended {
                // Every other life's mints are counted as late as they may be.
                arrivals.push(next + if life % 2 == 0 { Duration::from_secs(late) } else { Duration::ZERO });
                next += budget.blind_pace();
            }
            started = ended;
        }
        prop_assert!(worst_window(&arrivals, budget.window) <= 10);
    }
}

#[test]
fn the_same_property_fails_for_burst_ten_with_three_minute_periods() {
    let runner = &mut TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let verdict = runner.run(&histories(), |asks| {
        prop_assert!(worst_window(&burst_grants(&asks), 30 * MINUTE) <= 10);
        Ok(())
    });
    assert!(
        verdict.is_err(),
        "random histories do not tell a burst limiter from a sliding window"
    );
    let every_second: Vec<Duration> = (0..3_600).map(Duration::from_secs).collect();
    assert_eq!(
        worst_window(&burst_grants(&every_second), 30 * MINUTE),
        20,
        "burst + window ÷ period"
    );
}

#[test]
fn all_slots_can_be_used_in_a_burst_and_free_one_by_one() {
    let budget = budget(10, 3);
    let asks: Vec<Duration> = (0..20).map(Duration::from_secs).collect();
    assert_eq!(grants(&budget, &asks), asks[..10]);
    let ledger: Vec<Spent> = asks[..10]
        .iter()
        .map(|at| spent(Class::Urgent, *at + budget.period()))
        .collect();
    let eleventh = budget.earliest(&ledger, Class::Urgent, Duration::from_secs(10));
    assert_eq!(eleventh, budget.period());
    assert_eq!(
        budget.earliest(&ledger[1..], Class::Urgent, eleventh),
        eleventh
    );
}

#[test]
fn each_class_stops_at_its_own_mark() {
    let budget = budget(10, 3);
    let now = Duration::from_secs(10_000);
    let free_after = |taken: usize, by: Class| {
        let ledger = vec![spent(by, now + MINUTE); taken];
        Class::ALL.map(|class| budget.free(&ledger, class, now))
    };
    assert_eq!(free_after(0, Class::Routine), [7, 3, 10]);
    assert_eq!(free_after(7, Class::Routine), [0, 1, 3]);
    assert_eq!(free_after(8, Class::Urgent), [0, 0, 2]);
    assert_eq!(
        free_after(3, Class::Reported),
        [4, 0, 7],
        "three reported mints a period at the most"
    );
    assert_eq!(free_after(10, Class::Urgent), [0, 0, 0]);
}

#[test]
fn a_small_limit_leaves_every_class_one_slot() {
    for limit in 1..=3 {
        let budget = budget(limit, limit - 1);
        for class in Class::ALL {
            assert!(budget.cap(class).get() >= 1);
        }
    }
}

#[test]
fn a_lowered_limit_counts_the_newest_slots() {
    let now = Duration::from_secs(10_000);
    let ledger: Vec<Spent> = (1..=10)
        .map(|minute| spent(Class::Urgent, now + minute * MINUTE))
        .collect();
    assert_eq!(
        budget(3, 0).earliest(&ledger, Class::Urgent, now),
        now + 8 * MINUTE
    );
}

#[test]
fn an_instant_too_far_ahead_counts_as_spent_now() {
    let budget = budget(1, 0);
    let now = Duration::from_secs(10_000);
    let ledger = [spent(Class::Urgent, now + 100 * budget.period())];
    assert_eq!(
        budget.earliest(&ledger, Class::Urgent, now),
        now + budget.period()
    );
}
