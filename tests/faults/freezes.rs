//! Processes that are stopped and go on later, as by a debugger, a frozen container or a starved machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Daemon, PATIENCE, World};
use crate::interposer::{Call, Interposer, Switch};
use crate::laws::{Judge, Reader, client};
use crate::records::record;
use crate::scales::{short, without_reserve};

/// Longer than any slot of these lengths counts.
const A_PERIOD: Duration = Duration::from_millis(1_900);

/// Longer than any token of these lengths lives.
const A_LIFE: Duration = Duration::from_millis(2_500);

/// Waits until a process stands still. False if it does not within this time.
fn stops_within(daemon: &Daemon, patience: Duration) -> bool {
    let path = format!("/proc/{}/stat", daemon.pid().as_raw_nonzero());
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let stat = fs::read_to_string(&path).unwrap();
        let (_, state) = stat.rsplit_once(") ").unwrap();
        if state.starts_with('T') {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn freeze(daemon: &Daemon) {
    daemon.signal(Signal::STOP);
    assert!(stops_within(daemon, PATIENCE), "the process does not stop");
}

fn thaw(daemon: &Daemon) {
    daemon.signal(Signal::CONT);
}

/// Takes slots through one daemon for this long, as fast as it lets us.
async fn spend_through(daemon: &Daemon, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        daemon.refresh().await;
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_frozen_in_its_mint_for_longer_than_its_claim_takes_nothing_from_the_other() {
    const ROUNDS: usize = 8;
    let world = World::quiet(short()).await;
    let daemons = [world.start().await, world.start_beside("beside").await];
    daemons[0].first_token().await;
    daemons[1].first_token().await;
    let readers = [
        Reader::start(&world, &daemons[0]),
        Reader::start(&world, &daemons[1]),
    ];
    for _ in 0..ROUNDS {
        let gate = world.sandbox.hold_mints();
        gate.reached(1).await;
        let claim = record(&world.record()).unwrap()["claim"].clone();
        let holder = claim["holder"].as_str().unwrap().to_owned();
        let minting =
            |daemon: &&Daemon| holder.starts_with(&format!("{}-", daemon.pid().as_raw_nonzero()));
        let frozen = daemons.iter().find(minting).unwrap();
        let other = daemons.iter().find(|it| !minting(it)).unwrap();
        freeze(frozen);
        gate.open();
        let late = claim["attempt"].as_u64().unwrap();
        let goes_on = |status: &Value| status["token"]["generation"].as_u64() > Some(late);
        other.until("the other goes on", goes_on).await;
        thaw(frozen);
        // What comes late from it is no successor of what the other minted.
        frozen.until("the frozen one has seen it", goes_on).await;
        assert!(record(&world.record()).unwrap()["token"]["generation"].as_u64() > Some(late));
    }
    for reader in readers {
        let seen = reader.finish().await;
        println!("{seen:?}");
        assert!(seen.tokens >= 2);
    }
    for daemon in daemons {
        assert!(daemon.stop().await.success());
    }
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "{ROUNDS} freezes longer than a claim, {} arrivals, worst window {worst}",
        world.sandbox.arrivals()
    );
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_of_a_frozen_daemon_is_not_answered_with_what_has_ended_since() {
    const ROUNDS: usize = 5;
    const CALLERS: usize = 8;
    let world = World::quiet(short()).await;
    let daemon = world.start().await;
    let mut judge = Judge::new(&world);
    let mut last = 0;
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let held = daemon.first_token().await;
        assert!(held.generation() > last, "generations rise");
        last = held.generation();
        freeze(&daemon);
        // These lie in its sockets until it goes on.
        let mut asked = JoinSet::new();
        for _ in 0..CALLERS {
            let ask = client().get(format!("http://{}/v1/token", daemon.http));
            asked.spawn(async move {
                let reply = ask.send().await.unwrap();
                (reply.status().as_u16(), reply.text().await.unwrap())
            });
        }
        sleep(A_LIFE).await;
        let resumed = bearerd::clock::wall();
        thaw(&daemon);
        for (status, text) in asked.join_all().await {
            judge.answer(resumed, status, &text, bearerd::clock::wall());
            refused += usize::from(status == 503);
        }
        // And by itself it goes on with a new one.
        let next = daemon.next_token(&held).await;
        judge.answer(resumed, next.status, &next.text, bearerd::clock::wall());
    }
    assert!(daemon.stop().await.success());
    println!(
        "{ROUNDS} freezes longer than a life, {CALLERS} questions in each: {refused} answered that it has expired, none with it; \
         worst window {}",
        world.sandbox.worst_window_of_arrivals()
    );
    assert!(refused > 0, "the freeze was too short to show anything");
    world.finish();
}

/// The attempt for which this process has a claim in the record.
fn claim(path: &Path, daemon: &Daemon) -> Option<u64> {
    let record = record(path)?;
    let holder = record["claim"]["holder"].as_str()?;
    let ours = holder.starts_with(&format!("{}-", daemon.pid().as_raw_nonzero()));
    record["claim"]["attempt"].as_u64().filter(|_| ours)
}

/// Waits, without a pause, until a process has a claim.
fn spin_for_claim(path: &Path, daemon: &Daemon) {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end && claim(path, daemon).is_none() {}
}

/// What became of the attempts of two daemons, by their own metrics: how many may have reached the issuer, and how many not.
async fn attempts(daemons: &[&Daemon]) -> (usize, usize) {
    let (mut sent, mut not_sent) = (0.0, 0.0);
    for daemon in daemons {
        for line in daemon.ask_admin("/metrics").await.text.lines() {
            if let Some(labels) = line.strip_prefix("bearerd_refresh_attempts_total{") {
                let count: f64 = labels.rsplit(' ').next().unwrap().parse().unwrap();
                match labels.contains("outcome=\"not_sent\"") {
                    true => not_sent += count,
                    false => sent += count,
                }
            }
        }
    }
    (sent as usize, not_sent as usize)
}

/// Where a daemon is stopped between its reservation and its POST.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Up to four milliseconds after its claim shows.
    Random,
    /// When the slot is in its place, before the folder is synced.
    Commit,
    /// While it connects.
    Connect,
}

const MOMENTS: [Moment; 3] = [Moment::Random, Moment::Commit, Moment::Connect];

/// Sets a mint off and stops the daemon in it: the attempt, or nothing if none began or it went by.
async fn frozen_in_a_mint(
    moment: Moment,
    daemon: &Daemon,
    layer: &Interposer,
    world: &World,
) -> Option<u64> {
    match moment {
        Moment::Random => {}
        Moment::Commit => layer.stop_at(Call::Commit),
        Moment::Connect => layer.stop_at(Call::Connect),
    }
    // It may be stopped before it answers.
    let asked = timeout(Duration::from_millis(500), daemon.refresh()).await;
    let begun = asked.map_or(true, |reply| reply.status == 202);
    let stopped = begun
        && match moment {
            Moment::Random => {
                let pause = Duration::from_micros(fastrand::u64(0..4_000));
                tokio::task::block_in_place(|| spin_for_claim(&world.record(), daemon));
                std::thread::sleep(pause);
                freeze(daemon);
                true
            }
            Moment::Commit | Moment::Connect => {
                tokio::task::block_in_place(|| stops_within(daemon, Duration::from_secs(2)))
            }
        };
    layer.mend(Switch::StopAt);
    // Other writes are stopped at, too, and a mint may be over by now.
    let attempt = claim(&world.record(), daemon).filter(|_| stopped);
    if attempt.is_none() {
        thaw(daemon);
    }
    attempt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_frozen_behind_its_reservation_and_resumed_a_period_later_costs_no_mint_too_many() {
    const ROUNDS: usize = 12;
    let world = World::quiet(short()).await;
    let layer = Interposer::new();
    let toml = without_reserve(&world, "frozen");
    let daemon = layer.start_with(&world, "frozen", &toml, &[]).await;
    let settings = world.write("other.toml", &without_reserve(&world, "other"));
    let other = Daemon::start(&settings, &world.captured).await;
    daemon.first_token().await;
    other.first_token().await;
    let (mut withheld, mut left) = ([0; MOMENTS.len()], [0; MOMENTS.len()]);
    let deadline = Instant::now() + PATIENCE * 6;
    let mut round = 0;
    while round < ROUNDS {
        let kind = round % MOMENTS.len();
        // Only one of them mints now; should the other stand still within a write, this round comes to nothing.
        freeze(&other);
        let frozen = frozen_in_a_mint(MOMENTS[kind], &daemon, &layer, &world).await;
        thaw(&other);
        let Some(attempt) = frozen else {
            assert!(Instant::now() < deadline, "only {round} rounds");
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        // The other takes every slot that it gets, the frozen one's too once that is free again.
        spend_through(&other, A_PERIOD).await;
        thaw(&daemon);
        let mut outcome = Value::Null;
        let over = |status: &Value| {
            let attempts = status["attempts"].as_array().unwrap();
            let ours = attempts.iter().find(|it| it["attempt"] == attempt);
            outcome = ours.map_or(Value::Null, |it| it["outcome"].clone());
            ours.is_some()
        };
        daemon.until("the attempt is over", over).await;
        match outcome == "not_sent" {
            true => withheld[kind] += 1,
            false => left[kind] += 1,
        }
        round += 1;
    }
    let (sent, not_sent) = attempts(&[&daemon, &other]).await;
    let (arrived, worst) = (
        world.sandbox.arrivals(),
        world.sandbox.worst_window_of_arrivals(),
    );
    println!(
        "{ROUNDS} freezes of a period behind a reservation, {MOMENTS:?}: withheld {withheld:?}, sent or cut off {left:?}; \
         of {sent} attempts that may have arrived {arrived} did, {not_sent} were not sent; worst window {worst}"
    );
    assert!(arrived <= sent, "a POST has arrived that was not counted");
    let [_, at_commit, in_connect] = left;
    assert_eq!(at_commit, 0, "sent long after its reservation");
    // What a freeze at any other moment comes to is up to the moment.
    assert!(withheld[1] > 0 && in_connect > 0);
    assert_eq!(worst, world.scale.limit as usize, "the whole budget");
    for daemon in [daemon, other] {
        assert!(daemon.stop().await.success());
    }
    world.finish();
}
