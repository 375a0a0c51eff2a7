//! `kill -9`, again and again, at random and at chosen moments.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use bearerd::sandbox::Gate;

use crate::harness::{Daemon, PATIENCE, Scale, World};

/// When a daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Whenever.
    Random,
    /// The slot is written, and the POST has not arrived.
    Reserved,
    /// The POST has arrived, and is not answered.
    Underway,
    /// The POST was answered.
    Answered,
    /// The token is in the record.
    Committed,
}

const MOMENTS: [Moment; 5] = [
    Moment::Random,
    Moment::Reserved,
    Moment::Underway,
    Moment::Answered,
    Moment::Committed,
];

/// The record as it is on the disk, if it is there.
fn record(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Waits until the record shows something that it did not show at first.
async fn record_shows<T: PartialEq>(path: &Path, what: impl Fn(&Value) -> Option<T>) {
    let at_first = record(path).and_then(|record| what(&record));
    loop {
        let now = record(path).and_then(|record| what(&record));
        if now.is_some() && now != at_first {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Lets a daemon live until the moment, or until it is clear that the moment does not come in this life.
async fn live_until(moment: Moment, gate: &Gate, world: &World, dice: &mut fastrand::Rng) -> bool {
    let path = world.record();
    let arrived = world.sandbox.arrivals() as u64;
    let claim = |record: &Value| record["claim"]["attempt"].as_u64();
    let token = |record: &Value| record["token"]["generation"].as_u64();
    if !matches!(moment, Moment::Underway) {
        gate.open();
    }
    let come = async {
        match moment {
            Moment::Random => sleep(Duration::from_millis(dice.u64(0..60))).await,
            Moment::Reserved => record_shows(&path, claim).await,
            Moment::Underway => world.sandbox.arrived(arrived + 1).await,
            Moment::Answered => world.sandbox.answered(arrived + 1).await,
            Moment::Committed => record_shows(&path, token).await,
        }
    };
    timeout(Duration::from_millis(700), come).await.is_ok()
}

#[tokio::test]
async fn a_hundred_and_twenty_kills_never_cost_a_mint_too_many() {
    let scale = Scale {
        lifetime: Duration::from_millis(2_400),
        window: Duration::from_millis(1_200),
        in_flight: Duration::from_millis(300),
        timeout: Duration::from_millis(140),
        // So few that the budget stands in the way again and again.
        limit: 4,
    };
    let world = World::quiet(scale).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut came = [0; MOMENTS.len()];
    for round in 0..120 {
        let index = round % MOMENTS.len();
        let gate = world.sandbox.hold_mints();
        let daemon = world.start().await;
        came[index] += i32::from(live_until(MOMENTS[index], &gate, &world, &mut dice).await);
        daemon.kill();
        gate.open();
    }
    println!(
        "{:?} came {came:?} times in {} mints",
        MOMENTS,
        world.sandbox.mints()
    );
    assert!(
        came.iter().all(|times| *times >= 2),
        "{MOMENTS:?} came only {came:?} times"
    );
    let worst = world.sandbox.worst_window_of_arrivals();
    println!("worst window: {worst}");
    assert!(worst <= 4);
    assert!(
        worst >= 2,
        "the budget was never strained, so this shows nothing"
    );
    // After all of this a daemon that is left alone recovers by itself.
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_restart_with_a_live_token_on_disk_mints_nothing() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    daemon.kill();
    for _ in 0..20 {
        let began = Instant::now();
        let daemon: Daemon = world.start().await;
        assert_eq!(daemon.first_token().await.access_token(), token);
        assert!(began.elapsed() < PATIENCE);
        daemon.kill();
    }
    assert_eq!(world.sandbox.mints(), 1);
    world.finish();
}
