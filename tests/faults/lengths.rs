//! A longer `budget.window` or `budget.in_flight` than the one that the record was written under.
//!
//! The settings were wrong and are mended: what was spent under the shorter length counts for as
//! long as the longer one says.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::counting::{CountingUpstream, Mint};
use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::records::{committed, record};
use crate::scales::without_reserve;

const LIMIT: u32 = 5;

fn scale() -> Scale {
    Scale {
        lifetime: Duration::from_secs(60),
        window: Duration::from_secs(2),
        in_flight: Duration::from_millis(400),
        timeout: Duration::from_millis(200),
        limit: LIMIT,
    }
}

/// A daemon that goes by these lengths.
async fn start(
    world: &World,
    upstream: &CountingUpstream,
    window: Duration,
    in_flight: Duration,
) -> Daemon {
    let toml = upstream.toml(&without_reserve(world, "state"), world);
    let lengths =
        |window, in_flight| format!("window = \"{window:?}\"\nin_flight = \"{in_flight:?}\"\n");
    let written = lengths(world.scale.window, world.scale.in_flight);
    assert!(toml.contains(&written), "{toml}");
    let toml = toml.replace(&written, &lengths(window, in_flight));
    Daemon::start(&world.write("state.toml", &toml), &world.captured).await
}

/// Takes slot after slot as an operator, until there is none.
async fn spend_all(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = daemon.refresh().await;
        if reply.status == 429 && reply.text.contains("budget") {
            return;
        }
        assert!(Instant::now() < deadline, "the budget is not spent");
        sleep(Duration::from_millis(10)).await;
    }
}

/// When the slots in the record free themselves, by the boot clock.
fn freeing_times(world: &World) -> Vec<u64> {
    let ledger = record(&world.record()).unwrap()["ledger"].clone();
    let frees_at = |slot: &Value| slot["frees_at"]["boot_ns"].as_u64().unwrap();
    ledger.as_array().unwrap().iter().map(frees_at).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_window_counts_what_was_spent_under_the_shorter_one() {
    let (short, long) = (scale().window, Duration::from_secs(6));
    let in_flight = scale().in_flight;
    let world = World::quiet(scale()).await;
    let upstream = CountingUpstream::start(scale().lifetime).await;
    let daemon = start(&world, &upstream, short, in_flight).await;
    // A new record's first period is spent carefully; then all slots go at once.
    daemon.first_token().await;
    let settled = |_: &Value| record(&world.record()).unwrap()["probation"].is_null();
    let all_free = |status: &Value| status["budget"]["free"]["urgent"] == LIMIT;
    let begun = Instant::now();
    daemon
        .until("every slot is free", |status| {
            let period = short + in_flight + short / 15;
            all_free(status) && (settled(status) || begun.elapsed() > period)
        })
        .await;
    let from = upstream.arrivals();
    spend_all(&daemon).await;
    daemon.kill();
    assert_eq!(upstream.arrivals() - from, LIMIT as usize, "one burst");
    let written = freeing_times(&world);

    let daemon = start(&world, &upstream, long, in_flight).await;
    spend_all(&daemon).await;
    let deadline = Instant::now() + PATIENCE;
    while upstream.arrivals() < from + 2 * LIMIT as usize {
        daemon.refresh().await;
        assert!(Instant::now() < deadline, "the slots never come back");
        sleep(Duration::from_millis(20)).await;
    }
    let longer = freeing_times(&world);
    daemon.kill();
    let worst = upstream.worst_window(long, from);
    println!("window 2 s, then 6 s: worst window of 6 s {worst}, {written:?}, then {longer:?}");
    assert!(
        worst <= LIMIT as usize,
        "law 1: {worst} in a window of {long:?}"
    );

    // A shorter one moves nothing.
    let daemon = start(&world, &upstream, short, in_flight).await;
    daemon.first_token().await;
    let last = longer.iter().max().unwrap();
    assert!(freeing_times(&world).contains(last), "not moved");
    assert!(daemon.stop().await.success());
    upstream.scan(&world.captured);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_time_in_flight_counts_what_was_sent_under_the_shorter_one() {
    let (short, long) = (scale().in_flight, Duration::from_secs(4));
    let window = scale().window;
    let world = World::quiet(scale()).await;
    let upstream = CountingUpstream::start(scale().lifetime).await;
    // No attempt is answered, and each is counted late: by more than the settings say.
    upstream.mints(|_| Mint::Close);
    upstream.count_late(Duration::from_millis(3_500));
    let daemon = start(&world, &upstream, window, short).await;
    daemon
        .until("the budget is spent", |status| {
            let slots = status["budget"]["slots"].as_array().unwrap();
            let lost = slots.iter().all(|slot| slot["outcome"] == "lost");
            lost && slots.len() == LIMIT as usize && status["next"]["waiting_for"] == "budget"
        })
        .await;
    daemon.kill();
    let from = upstream.arrivals() - LIMIT as usize;

    // The settings are mended.
    let daemon = start(&world, &upstream, window, long).await;
    upstream.count_late(Duration::ZERO);
    let deadline = Instant::now() + PATIENCE;
    while upstream.arrivals() < from + 2 * LIMIT as usize {
        assert!(Instant::now() < deadline, "the slots never come back");
        sleep(Duration::from_millis(20)).await;
    }
    daemon.kill();
    let worst = upstream.worst_window(window, from);
    println!("in flight for 400 ms, then for 4 s: worst window {worst}");
    assert!(
        worst <= LIMIT as usize,
        "law 1: {worst} in a window of {window:?}"
    );
    upstream.scan(&world.captured);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_changes_back_and_forth_moves_a_slot_once() {
    let scale = Scale::still();
    let (short, long) = (scale.window, Duration::from_secs(2_400));
    let world = World::quiet(scale).await;
    let upstream = CountingUpstream::start(scale.lifetime).await;
    let daemon = start(&world, &upstream, short, scale.in_flight).await;
    committed(&daemon).await;
    let frees_at = async |daemon: &Daemon| {
        let status = daemon.status().await;
        let slots = status["budget"]["slots"].as_array().unwrap().clone();
        assert_eq!(slots.len(), 1);
        let frees_at = slots[0]["frees_at"].as_str().unwrap();
        frees_at.parse::<jiff::Timestamp>().unwrap()
    };
    let first = frees_at(&daemon).await;
    daemon.kill();
    let mut longest = Duration::ZERO;
    for window in [long, short, long, short, long] {
        longest = longest.max(window);
        let daemon = start(&world, &upstream, window, scale.in_flight).await;
        daemon.first_token().await;
        let moved = frees_at(&daemon).await.duration_since(first);
        daemon.kill();
        println!("window {window:?}: the slot is free {moved:#} later than first written");
        // The margin is a fifteenth of the window, and times are told in milliseconds.
        let difference = longest - short;
        let [least, most] = [difference, difference + difference / 15]
            .map(|it| jiff::SignedDuration::try_from(it).unwrap());
        let blur = jiff::SignedDuration::from_secs(2);
        assert!(moved >= least - blur && moved <= most + blur, "{moved:#}");
    }
    assert_eq!(upstream.arrivals(), 1, "the token lives");
    world.finish();
}
