//! `kill -9`, again and again, at random and at chosen moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bearerd::record::Record;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::durable::DURABLE;
use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::interposer::{Interposer, Switch, serve};
use crate::records::{committed, record};
use crate::scales::{short, without_reserve};

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

/// How long a daemon lives at the most.
const LIFE: Duration = Duration::from_secs(1);

/// Looks until the record shows something else than `before`, without a pause: these moments are short.
fn spin(path: &Path, before: Option<u64>, what: fn(&Value) -> Option<u64>) -> bool {
    let end = Instant::now() + LIFE;
    while Instant::now() < end {
        let shown = record(path).and_then(|record| what(&record));
        if shown.is_some() && shown != before {
            return true;
        }
    }
    false
}

fn claim(record: &Value) -> Option<u64> {
    record["claim"]["attempt"].as_u64()
}

fn token(record: &Value) -> Option<u64> {
    record["token"]["generation"].as_u64()
}

/// Starts a daemon, lets it live until the moment, and kills it. False if the moment did not come in this life.
async fn live_and_die(moment: Moment, world: &World, dice: &mut fastrand::Rng) -> bool {
    let gate = world.sandbox.hold_mints();
    if !matches!(moment, Moment::Underway) {
        gate.open();
    }
    let before = record(&world.record());
    let arrived = world.sandbox.arrivals() as u64;
    let daemon = world.start().await;
    let looking = |what: fn(&Value) -> Option<u64>| {
        let (path, before) = (world.record(), before.as_ref().and_then(what));
        spawn_blocking(move || spin(&path, before, what))
    };
    let came = match moment {
        Moment::Random => {
            sleep(Duration::from_millis(dice.u64(0..60))).await;
            true
        }
        Moment::Reserved => looking(claim).await.unwrap(),
        Moment::Underway => timeout(LIFE, world.sandbox.arrived(arrived + 1))
            .await
            .is_ok(),
        Moment::Answered => timeout(LIFE, world.sandbox.answered(arrived + 1))
            .await
            .is_ok(),
        Moment::Committed => looking(token).await.unwrap(),
    };
    daemon.kill();
    gate.open();
    came
}

/// When the slots in the record were taken.
fn slots(world: &World) -> Vec<Timestamp> {
    let record = record(&world.record()).unwrap_or_default();
    let ledger = record["ledger"].as_array().cloned().unwrap_or_default();
    let taken = |slot: &Value| slot["reserved_at"]["wall"].as_str()?.parse().ok();
    ledger.iter().filter_map(taken).collect()
}

/// The longest time from the taking of a slot to an arrival that no later slot stands for. What exceeds `in_flight` says that this
/// machine is too busy for the law to hold on it.
fn latest(world: &World, reserved: &BTreeSet<Timestamp>) -> Duration {
    let log = world.sandbox.log();
    let late = log.entries.iter().filter_map(|entry| {
        let slot = reserved.range(..entry.wall).next_back()?;
        Duration::try_from(entry.wall.duration_since(*slot)).ok()
    });
    late.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_kills_never_cost_a_mint_too_many() {
    // So few that the budget stands in the way again and again.
    let scale = Scale {
        limit: 4,
        ..short()
    };
    let world = World::quiet(scale).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut came = [0; MOMENTS.len()];
    let mut reserved = BTreeSet::new();
    let mut order: Vec<usize> = (0..MOMENTS.len()).collect();
    for round in 0..120 {
        // Shuffled, so that each moment comes after each other one.
        if round % MOMENTS.len() == 0 {
            dice.shuffle(&mut order);
        }
        let index = order[round % MOMENTS.len()];
        came[index] += i32::from(live_and_die(MOMENTS[index], &world, &mut dice).await);
        reserved.extend(slots(&world));
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
    let late = latest(&world, &reserved);
    println!("worst window: {worst}; latest arrival: {late:.0?} after its slot was taken");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_live_token_on_disk_mints_nothing() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = committed(&daemon).await.access_token();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_with_a_spent_budget_mint_nothing_until_a_slot_is_free() {
    const KILLS: usize = 20;
    let world = World::quiet(short()).await;
    let settings = world.write("state.toml", &without_reserve(&world, "state"));
    let mut daemon = Daemon::start(&settings, &world.captured).await;
    daemon.first_token().await;
    let (mut last, mut spent) = (0, 0);
    for _ in 0..KILLS {
        // An operator takes slot after slot, until there is none.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = daemon.refresh().await;
            if reply.status == 429 && reply.text.contains("budget") {
                break;
            }
            assert!(Instant::now() < deadline, "the budget is not spent");
            sleep(Duration::from_millis(5)).await;
        }
        let status = daemon.status().await;
        spent += usize::from(status["budget"]["free"]["urgent"] == 0);
        daemon.kill();
        daemon = Daemon::start(&settings, &world.captured).await;
        let token = daemon.first_token().await;
        assert!(token.generation() >= last, "generations never fall");
        last = token.generation();
        assert_eq!(world.sandbox.spend(&token.access_token()).status(), 200);
    }
    assert!(daemon.stop().await.success());
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "{KILLS} kills with a spent budget ({spent} with no slot at all), {} arrivals, worst window {worst}",
        world.sandbox.arrivals()
    );
    assert_eq!(worst, world.scale.limit as usize, "the whole budget");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_on_one_folder_killed_in_turns_keep_one_budget() {
    const KILLS: usize = 60;
    let world = World::quiet(short()).await;
    let settings = ["one", "other"]
        .map(|name| world.write(&format!("{name}.toml"), &without_reserve(&world, name)));
    let start = async |which: usize| Daemon::start(&settings[which], &world.captured).await;
    let (mut stays, mut goes) = (start(0).await, start(1).await);
    let seed = fastrand::u64(..);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut newest = 0;
    for kill in 0..KILLS {
        let life = Instant::now() + Duration::from_millis(dice.u64(0..150));
        while Instant::now() < life {
            stays.refresh().await;
            goes.refresh().await;
        }
        goes.kill();
        let alive = stays.first_token().await;
        assert!(alive.generation() >= newest, "law 3");
        assert_eq!(world.sandbox.spend(&alive.access_token()).status(), 200);
        newest = alive.generation();
        // The one that stayed is the next to go.
        (goes, stays) = (stays, start(usize::from(kill % 2 == 0)).await);
    }
    assert!(stays.first_token().await.generation() >= newest, "law 3");
    for daemon in [stays, goes] {
        assert!(daemon.stop().await.success());
    }
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "seed {seed}: {KILLS} kills in turns, {} arrivals, worst window {worst}",
        world.sandbox.arrivals()
    );
    assert_eq!(worst, world.scale.limit as usize, "the whole budget");
    world.finish();
}

/// Lives until it kills itself at this call, or for two seconds. The last call that it made, if it did.
async fn dies_at(call: i64, world: &World) -> Option<String> {
    let layer = Interposer::new();
    layer.set(Switch::DieAt, call);
    let settings = world.write("state.toml", &without_reserve(world, "state"));
    let mut command = serve(&settings);
    command.envs(layer.environment());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let died = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.signal() == Some(9),
            None if Instant::now() > end => break false,
            None => sleep(Duration::from_millis(2)).await,
        }
    };
    let _ended_already = child.kill();
    let said = child.wait_with_output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    world.captured.add("stderr", &said);
    layer.calls().pop().filter(|_| died)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_behind_every_call_of_a_mint_it_never_mints_too_much() {
    const LIVES: usize = 48;
    let world = World::quiet(short()).await;
    let mut died = BTreeMap::new();
    for life in 0..LIVES {
        // Its start makes two calls or six, a mint ten more.
        let call = i64::try_from(life % 16).unwrap() + 1;
        let Some(last) = dies_at(call, &world).await else {
            continue;
        };
        *died.entry(last).or_insert(0) += 1;
        // Whatever it was doing: what is there is whole, or nothing is there yet.
        let text = fs::read(world.record()).ok();
        assert!(text.is_none_or(|text| Record::parse(&text).is_ok()));
    }
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert!(daemon.stop().await.success());
    let (worst, all) = (
        world.sandbox.worst_window_of_arrivals(),
        died.values().sum::<i32>(),
    );
    println!(
        "{all} kills behind a call, {died:?}; {} arrivals, worst window {worst}",
        world.sandbox.arrivals()
    );
    for call in DURABLE.into_iter().chain(["connect", "send POST"]) {
        assert!(died.get(call).is_some_and(|times| *times >= 2), "{call}");
    }
    assert!(worst >= 2, "the budget was never strained");
    world.finish();
}
