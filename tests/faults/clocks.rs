//! Wall clocks that step by hours, and two daemons of one machine that disagree about the time.
//!
//! The layer beneath the daemon moves its wall clock; its boot clock stays true. One test does the same with Debian's libfaketime.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::interposer::{Interposer, serve};
use crate::laws::{Judge, Reader};
use crate::records::{committed, record};
use crate::scales::{minutes, without_reserve};

const HOUR: i64 = 3600;

/// Tokens live for four seconds, so that a step of an hour is far beyond any of them.
fn brisk() -> Scale {
    Scale {
        limit: 3,
        ..Scale::brisk()
    }
}

/// What the daemon shows as the token's end, by its own wall clock.
async fn end_of_token(daemon: &Daemon) -> Timestamp {
    let status = daemon.status().await;
    status["token"]["expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn revision(world: &World) -> u64 {
    record(&world.record()).unwrap()["revision"]
        .as_u64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_forward_ends_the_token_at_once_and_costs_one_mint() {
    for hours in [1, 26] {
        let world = World::new(minutes()).await;
        let layer = Interposer::new();
        let daemon = layer.start(&world, "state").await;
        let token = daemon.first_token().await;
        layer.set_wall(hours * HOUR);
        // The very next answer: by the daemon's wall clock the token has ended.
        let reply = daemon.token().await;
        let fresh = match reply.status {
            503 => {
                assert_eq!(reply.problem(), "expired");
                daemon.first_token().await
            }
            // Its tick was faster than this question.
            _ => reply,
        };
        assert!(fresh.generation() > token.generation());
        assert_eq!(world.sandbox.spend(&fresh.access_token()).status(), 200);
        let now = bearerd::clock::wall() + SignedDuration::from_hours(hours);
        let left = end_of_token(&daemon).await.duration_since(now);
        assert!(left <= SignedDuration::from_secs(60) && left > SignedDuration::from_secs(30));
        let step = daemon.metric("bearerd_clock_step_seconds").await;
        assert!((step - (hours * HOUR) as f64).abs() < 5.0, "{step}");
        // And back: the boot clock alone says how much is left, and nothing is minted.
        layer.set_wall(0);
        assert_eq!(daemon.token().await.access_token(), fresh.access_token());
        assert_eq!(world.sandbox.mints(), 2);
        assert!(daemon.stop().await.success());
        world.finish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_back_changes_nothing_but_what_is_written() {
    let world = World::new(Scale::still()).await;
    let layer = Interposer::new();
    let daemon = layer.start(&world, "state").await;
    let token = committed(&daemon).await;
    let before = revision(&world);
    layer.set_wall(-5 * HOUR);
    let deadline = Instant::now() + PATIENCE;
    while revision(&world) == before {
        assert!(
            Instant::now() < deadline,
            "the new wall clock is not written"
        );
        sleep(Duration::from_millis(20)).await;
    }
    // Long enough for several ticks and looks at the file.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(revision(&world), before + 1, "once");
    assert_eq!(daemon.token().await.access_token(), token.access_token());
    assert_eq!(world.sandbox.mints(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_back_gives_an_ended_token_no_second_life() {
    let world = World::new(brisk()).await;
    let layer = Interposer::new();
    let daemon = layer.start(&world, "state").await;
    daemon.first_token().await;
    world.sandbox.set_down(true);
    layer.set_wall(-5 * HOUR);
    let mut judge = Judge::stepping(&world);
    let deadline = Instant::now() + PATIENCE;
    while judge.seen.unavailable < 50 {
        let asked = bearerd::clock::wall();
        let reply = daemon.token().await;
        judge.answer(asked, reply.status, &reply.text, bearerd::clock::wall());
        assert!(Instant::now() < deadline, "it does not end");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(judge.seen.vended > 0);
    world.sandbox.set_down(false);
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_starts_in_1970_and_learns_the_time_later_loses_one_mint() {
    let world = World::new(minutes()).await;
    let layer = Interposer::new();
    let half_a_minute = 30;
    layer.set_wall(half_a_minute - bearerd::clock::wall().as_second());
    let daemon = layer.start(&world, "state").await;
    let token = daemon.first_token().await;
    assert!(
        token.json()["expires_at"]
            .as_str()
            .unwrap()
            .starts_with("1970")
    );
    layer.set_wall(0);
    let later = |status: &Value| status["token"]["generation"].as_u64() > Some(token.generation());
    daemon.until("there is a new token", later).await;
    let fresh = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&fresh).status(), 200);
    assert_eq!(world.sandbox.mints(), 2);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_hours_both_ways_break_no_law() {
    let world = World::quiet(brisk()).await;
    let layer = Interposer::new();
    let toml = without_reserve(&world, "state");
    let daemon = layer.start_with(&world, "state", &toml, &[]).await;
    daemon.first_token().await;
    let mut judge = Judge::stepping(&world);
    let seed = fastrand::u64(..);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut steps = 0;
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        if dice.u32(0..8) == 0 {
            layer.set_wall(dice.i64(-30 * HOUR..30 * HOUR));
            steps += 1;
        }
        // So that the budget is spent, too.
        daemon.refresh().await;
        for _ in 0..8 {
            let asked = bearerd::clock::wall();
            let reply = daemon.token().await;
            judge.answer(asked, reply.status, &reply.text, bearerd::clock::wall());
            sleep(Duration::from_millis(4)).await;
        }
    }
    // Left alone it is as good as new, even with a wall clock that is wrong by hours.
    daemon.first_token().await;
    let mut last = daemon.token().await;
    for _ in 0..2 {
        last = daemon.next_token(&last).await;
        assert_eq!(world.sandbox.spend(&last.access_token()).status(), 200);
    }
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "seed {seed}: {steps} steps of the wall clock, {:?}, worst window {worst}",
        judge.seen
    );
    assert_eq!(worst, 3, "the whole budget");
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Two daemons whose clocks differ, on one folder.
///
/// By the clock of the one ahead, a token of the one behind has ended long ago, so it mints a successor; that one both of them vend.
pub async fn share(world: &World, daemons: [Daemon; 2]) {
    let readers = [
        Reader::stepping(world, &daemons[0]),
        Reader::stepping(world, &daemons[1]),
    ];
    agreed(&daemons, 0).await;
    let (began, minted) = (revision(world), world.sandbox.arrivals() as u64);
    let mut last = 0;
    const TOKENS: u64 = 5;
    for _ in 0..TOKENS {
        last = agreed(&daemons, last).await;
    }
    let (writes, mints) = (
        revision(world) - began,
        world.sandbox.arrivals() as u64 - minted,
    );
    for reader in readers {
        println!("{:?}", reader.finish().await);
    }
    for daemon in daemons {
        assert!(daemon.stop().await.success());
    }
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "{mints} mints and {writes} writes for {TOKENS} tokens that both vended; worst window {worst}"
    );
    assert!(mints <= 2 * TOKENS + 1, "{mints} mints");
    // Two for each mint, and some for attempts that a slow machine gave up. Who writes in turns writes at each look.
    assert!(writes <= 3 * mints + 8, "{writes} writes: they take turns");
}

/// Waits until both daemons vend one token that is newer than this, and that the issuer takes.
async fn agreed(daemons: &[Daemon; 2], newer_than: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let both = [
            daemons[0].first_token().await,
            daemons[1].first_token().await,
        ];
        let same = both[0].access_token() == both[1].access_token();
        if same && both[0].generation() > newer_than {
            return both[0].generation();
        }
        assert!(Instant::now() < deadline, "they do not agree");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_with_different_wall_clocks_share_one_token_and_one_budget() {
    let world = World::new(brisk()).await;
    let (true_clock, ahead) = (Interposer::new(), Interposer::new());
    ahead.set_wall(3 * HOUR);
    let daemons = [
        true_clock.start(&world, "state").await,
        ahead.start(&world, "ahead").await,
    ];
    share(&world, daemons).await;
    world.finish();
}

/// Debian's libfaketime, as the `faketime` command finds it.
fn libfaketime() -> PathBuf {
    let found = std::process::Command::new("faketime")
        .args(["-f", "+0", "sh", "-c", "echo $LD_PRELOAD"])
        .output()
        .expect("the package faketime is installed");
    let path = String::from_utf8(found.stdout).unwrap();
    PathBuf::from(path.trim().rsplit([':', ' ']).next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_with_different_wall_clocks_by_libfaketime_share_too() {
    let world = World::new(brisk()).await;
    let library = libfaketime();
    let start = async |name: &str, offset: &str| {
        let toml = world.toml(&world.state(), name);
        let mut command = serve(&world.write(&format!("{name}.toml"), &toml));
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Daemon::spawn(command, &world.captured).await
    };
    let daemons = [start("ahead", "+3h").await, start("behind", "-2d").await];
    let now = bearerd::clock::wall();
    for (daemon, hours) in daemons.iter().zip([3, -48]) {
        let status = daemon.status().await;
        let shown: Timestamp = status["at"].as_str().unwrap().parse().unwrap();
        let off = shown.duration_since(now) - SignedDuration::from_hours(hours);
        assert!(off.abs() < SignedDuration::from_secs(60), "{off:#}");
    }
    // Their boot clock is out of its reach.
    let written = record(&world.record()).unwrap()["written"]["at"]["boot_ns"]
        .as_u64()
        .unwrap();
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    assert!(boot.abs_diff(i64::try_from(written / 1_000_000_000).unwrap()) < 60);
    share(&world, daemons).await;
    world.finish();
}
