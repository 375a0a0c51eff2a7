//! Another boot, as a record meets it: another boot id, under which the boot clock of before means nothing.
//!
//! The layer beneath the daemon shows it another boot id. That its boot clock begins anew as well is `suspend.rs`' matter.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use crate::clocks::share;
use crate::harness::{Daemon, Scale, World};
use crate::interposer::Interposer;
use crate::records::committed;
use crate::scales::{short, without_reserve};

const HOUR: i64 = 3600;

/// A machine that can be rebooted: each boot has an id of its own.
struct Machine<'a> {
    world: &'a World,
    layer: Interposer,
    toml: String,
    boots: u32,
}

impl<'a> Machine<'a> {
    fn new(world: &'a World) -> Self {
        Self {
            world,
            layer: Interposer::new(),
            toml: without_reserve(world, "state"),
            boots: 0,
        }
    }

    fn boot_id(&self) -> PathBuf {
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.boots);
        self.world.write("boot_id", &id)
    }

    /// Starts the daemon on the boot that lasts.
    async fn start(&self) -> Daemon {
        let more = [("INTERPOSER_BOOT_ID", self.boot_id())];
        let more = more.each_ref().map(|(name, path)| (*name, path.as_path()));
        self.layer
            .start_with(self.world, "state", &self.toml, &more)
            .await
    }

    /// Starts the daemon on another boot.
    async fn reboot(&mut self) -> Daemon {
        self.boots += 1;
        self.start().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_token_and_its_slot_outlive_a_reboot() {
    let world = World::new(Scale::still()).await;
    let mut machine = Machine::new(&world);
    let daemon = machine.start().await;
    let token = committed(&daemon).await;
    let slot = daemon.status().await["budget"]["slots"][0].clone();
    daemon.kill();
    for _ in 0..3 {
        let daemon = machine.reboot().await;
        let again = daemon.first_token().await;
        assert_eq!(again.access_token(), token.access_token());
        let status = daemon.status().await;
        let slots = status["budget"]["slots"].as_array().unwrap();
        assert_eq!(slots.len(), 1);
        assert_eq!(slots[0]["attempt"], slot["attempt"]);
        daemon.kill();
    }
    assert_eq!(world.sandbox.mints(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_the_same_boot_goes_by_the_boot_clock_however_far_back_the_wall_clock_went() {
    let world = World::new(Scale::still()).await;
    let machine = Machine::new(&world);
    let daemon = machine.start().await;
    let token = committed(&daemon).await;
    daemon.kill();
    // A step forward may cost the token: `steps.rs` has it.
    for hours in [-1, -30] {
        machine.layer.set_wall(hours * HOUR);
        let daemon = machine.start().await;
        assert_eq!(
            daemon.first_token().await.access_token(),
            token.access_token()
        );
        daemon.kill();
    }
    assert_eq!(world.sandbox.mints(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_into_the_past_believes_no_token_and_forgets_no_slot() {
    let world = World::new(Scale {
        limit: 1,
        ..Scale::still()
    })
    .await;
    let mut machine = Machine::new(&world);
    let daemon = machine.start().await;
    committed(&daemon).await;
    daemon.kill();
    machine.layer.set_wall(-5 * HOUR);
    let daemon = machine.reboot().await;
    let reply = daemon.token().await;
    assert_eq!((reply.status, world.sandbox.arrivals()), (503, 1));
    let status = daemon.status().await;
    assert_eq!(status["next"]["waiting_for"], "budget", "{status:#}");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_reboots_cost_no_mint_too_many() {
    const BOOTS: usize = 30;
    let world = World::quiet(short()).await;
    let mut machine = Machine::new(&world);
    let seed = fastrand::u64(..);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut back = 0;
    for boot in 0..BOOTS {
        // A battery that is empty loses hours; that a clock runs ahead of the true one is beyond what is promised.
        if boot % 3 == 2 {
            back -= dice.i64(1..5) * HOUR;
            machine.layer.set_wall(back);
        }
        let daemon = machine.reboot().await;
        let life = Duration::from_millis(dice.u64(0..900));
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < life {
            daemon.refresh().await;
            sleep(Duration::from_millis(10)).await;
        }
        daemon.kill();
    }
    let daemon = machine.reboot().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert!(daemon.stop().await.success());
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "seed {seed}: {BOOTS} reboots, {} hours back in all, {} arrivals, worst window {worst}",
        -back / HOUR,
        world.sandbox.arrivals()
    );
    assert!(worst >= 2, "the budget was never strained");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_boots_that_share_a_folder_share_one_token_and_one_budget() {
    // As two machines on one network disk do: what the other wrote is read by the wall clock alone.
    let world = World::new(Scale {
        limit: 3,
        ..Scale::brisk()
    })
    .await;
    let layer = Interposer::new();
    let start = async |name: &str| {
        let id = world.write(&format!("{name}.id"), &format!("{name}\n"));
        let toml = world.toml(&world.state(), name);
        let more = [("INTERPOSER_BOOT_ID", id.as_path())];
        layer.start_with(&world, name, &toml, &more).await
    };
    let daemons = [start("one").await, start("other").await];
    share(&world, daemons).await;
    world.finish();
}
