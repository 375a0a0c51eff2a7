//! A wall clock that was stepped: a second, just less and just more than `clock.skew`, and hours;
//! both ways, while the daemon runs and across a restart.
//!
//! The boot clock is the true one throughout, so a step back costs no token, and a step forward one
//! mint at most. The lengths are those of the real account.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Daemon, Reply, Scale, World};
use crate::interposer::Interposer;
use crate::laws::every;
use crate::records::{committed, record};

/// In seconds. The skew of the real account is 30 s, and a token lives for an hour.
const STEPS: [i64; 8] = [1, 29, 31, 18_000, -1, -29, -31, -18_000];

/// window + in flight + window / 15, as for the real account.
const PERIOD: Duration = Duration::from_secs(33 * 60);

/// So many slots that a second mint on a new record need not wait for minutes.
fn scale() -> Scale {
    Scale {
        limit: 900,
        ..Scale::still()
    }
}

/// A daemon's world, and the layer that moves its wall clock.
struct Machine {
    world: World,
    layer: Interposer,
    step: i64,
    token: String,
    /// The end of the first token, by the wall clock of this process.
    ends: Timestamp,
    /// When the first slot frees itself, by the boot clock.
    frees_at: u64,
}

/// The slots in the record: the attempt, and when it frees itself by the boot clock.
fn slots(world: &World) -> Vec<(u64, u64)> {
    let ledger = record(&world.record()).unwrap()["ledger"].clone();
    let slot = |it: &Value| {
        let frees_at = it["frees_at"]["boot_ns"].as_u64();
        (it["attempt"].as_u64().unwrap(), frees_at.unwrap())
    };
    ledger.as_array().unwrap().iter().map(slot).collect()
}

fn boot_now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(Duration::try_from(now).unwrap().as_nanos()).unwrap()
}

impl Machine {
    async fn new(step: i64) -> (Self, Daemon) {
        let world = World::quiet(scale()).await;
        let layer = Interposer::new();
        let daemon = layer.start(&world, "state").await;
        let token = committed(&daemon).await.access_token();
        let minted = world.sandbox.log().entries[0].wall;
        let frees_at = slots(&world)[0].1;
        let machine = Self {
            ends: minted + SignedDuration::try_from(world.scale.lifetime).unwrap(),
            world,
            layer,
            step,
            token,
            frees_at,
        };
        (machine, daemon)
    }

    /// Does a step of this many seconds end a token by the wall clock?
    fn outlasts_the_token(&self) -> bool {
        self.step > 3600
    }

    /// What holds after the step, whether the daemon saw it or not.
    async fn look(&self, daemon: &Daemon, after: &str) -> SignedDuration {
        let reply = daemon.first_token().await;
        let step = self.step;
        let mints = self.world.sandbox.mints();
        if self.outlasts_the_token() {
            assert!(mints <= 2, "{step} s {after}: {mints} mints");
        } else {
            assert_eq!(reply.access_token(), self.token, "{step} s {after}");
            assert_eq!(mints, 1, "{step} s {after}");
        }
        let status = daemon.status().await;
        let beyond = self.told_beyond_the_truth(&reply, &status);
        println!("{step} s {after}: the end is told {beyond:#} later than it comes");
        let latest = boot_now() + u64::try_from(PERIOD.as_nanos()).unwrap();
        let ledger = slots(&self.world);
        assert_eq!(ledger.len(), mints, "{step} s {after}: {ledger:?}");
        assert!(ledger[0].1 >= self.frees_at, "law 1: {step} s {after}");
        let bounded = ledger.iter().all(|slot| slot.1 <= latest);
        assert!(bounded, "{step} s {after}: more than a period: {ledger:?}");
        beyond
    }

    /// How much later than the truth the end of the token is told, where the wall clock is the
    /// daemon's.
    fn told_beyond_the_truth(&self, reply: &Reply, status: &Value) -> SignedDuration {
        let left = if reply.access_token() == self.token {
            self.ends.duration_since(bearerd::clock::wall())
        } else {
            // As old as this test.
            SignedDuration::try_from(self.world.scale.lifetime).unwrap()
        };
        let truth = bearerd::clock::wall() + SignedDuration::from_secs(self.step) + left;
        [&reply.json(), &status["token"]]
            .map(|it| it["expires_at"].as_str().unwrap().parse::<Timestamp>())
            .map(|told| told.unwrap().duration_since(truth))
            .into_iter()
            .max()
            .unwrap()
    }

    async fn start(&self) -> Daemon {
        self.layer.start(&self.world, "state").await
    }
}

/// The daemon is killed, the wall clock stepped, and the daemon started again; and then back.
async fn across_restarts(step: i64) {
    let (machine, daemon) = Machine::new(step).await;
    daemon.kill();
    machine.layer.set_wall(step);
    let mut seen = None;
    for after in ["across a restart", "across another"] {
        let daemon = machine.start().await;
        machine.look(&daemon, after).await;
        daemon.kill();
        // What the step moved it moved once.
        let ledger = slots(&machine.world);
        assert_eq!(*seen.get_or_insert_with(|| ledger.clone()), ledger);
    }
    machine.layer.set_wall(0);
    let daemon = machine.start().await;
    daemon.first_token().await;
    // The way back from a step back is a step forward.
    assert!(machine.world.sandbox.mints() <= 2, "{step} s and back");
    assert!(daemon.stop().await.success());
    machine.world.finish();
}

/// The wall clock is stepped under the running daemon; then the daemon is started again.
async fn while_it_runs(step: i64) {
    let (machine, daemon) = Machine::new(step).await;
    let before = slots(&machine.world);
    machine.layer.set_wall(step);
    let noticed = |status: &Value| {
        let seen = status["clock_step_seconds"].as_f64().unwrap();
        (seen.abs() - step.abs() as f64).abs() < 0.5
    };
    daemon.until("the step is noticed", noticed).await;
    machine.look(&daemon, "while it runs").await;
    assert!(slots(&machine.world).starts_with(&before), "{step} s");
    daemon.kill();
    let daemon = machine.start().await;
    machine.look(&daemon, "and after a restart").await;
    machine.layer.set_wall(0);
    daemon.first_token().await;
    assert!(machine.world.sandbox.mints() <= 2, "{step} s and back");
    assert!(daemon.stop().await.success());
    machine.world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stepped_wall_clock_across_a_restart_costs_one_mint_at_most() {
    let mut running = JoinSet::new();
    for step in STEPS {
        running.spawn(across_restarts(step));
    }
    every(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stepped_wall_clock_under_a_running_daemon_moves_no_slot() {
    let mut running = JoinSet::new();
    for step in STEPS {
        running.spawn(while_it_runs(step));
    }
    every(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_step_back_no_end_is_told_later_than_it_comes() {
    for step in [-31, -18_000] {
        let (machine, daemon) = Machine::new(step).await;
        machine.layer.set_wall(step);
        let running = machine.look(&daemon, "while it runs").await;
        daemon.kill();
        let daemon = machine.start().await;
        let restarted = machine.look(&daemon, "and after a restart").await;
        assert!(daemon.stop().await.success());
        for beyond in [running, restarted] {
            // Times are told in milliseconds.
            let tolerance = SignedDuration::from_millis(100);
            assert!(beyond <= tolerance, "law 4: {step} s: {beyond:#} later");
        }
        machine.world.finish();
    }
}
