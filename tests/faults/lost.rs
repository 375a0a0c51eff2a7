//! A record that is deleted, spoilt or replaced by an older copy while daemons go by it: they bring back what they hold.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, Scale, World};
use crate::laws::Reader;
use crate::scales::without_reserve;

/// A record that was lost is written again within half a second, and the quarantine behind it lasts longer than that.
fn scale() -> Scale {
    Scale {
        lifetime: Duration::from_millis(3_200),
        window: Duration::from_millis(1_000),
        in_flight: Duration::from_millis(1_200),
        timeout: Duration::from_millis(600),
        limit: 3,
    }
}

/// What somebody does to the record.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Delete,
    Spoil,
    PutBack,
    DeleteAll,
}

const DEEDS: [Deed; 4] = [Deed::Delete, Deed::Spoil, Deed::PutBack, Deed::DeleteAll];

fn commit(deed: Deed, world: &World, copies: &[PathBuf], dice: &mut fastrand::Rng) {
    match deed {
        Deed::Delete => fs::remove_file(world.record()).unwrap_or_default(),
        Deed::Spoil => fs::write(world.record(), "{\"format\": \"1.0\",").unwrap(),
        Deed::PutBack => {
            // Whole and at once, as a restore would.
            let copy = &copies[dice.usize(0..copies.len())];
            let fresh = world.state().join("record.json.restored");
            fs::copy(copy, &fresh).unwrap();
            fs::rename(fresh, world.record()).unwrap();
        }
        Deed::DeleteAll => {
            for file in fs::read_dir(world.state()).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap_or_default();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_lost_under_two_daemons_costs_no_mint_too_many() {
    const LOSSES: usize = 16;
    let world = World::quiet(scale()).await;
    let settings = ["one", "other"]
        .map(|name| world.write(&format!("{name}.toml"), &without_reserve(&world, name)));
    let daemons = [
        Daemon::start(&settings[0], &world.captured).await,
        Daemon::start(&settings[1], &world.captured).await,
    ];
    daemons[0].first_token().await;
    daemons[1].first_token().await;
    let readers = [
        Reader::start(&world, &daemons[0]),
        Reader::start(&world, &daemons[1]),
    ];
    let seed = fastrand::u64(..);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut copies = Vec::new();
    let mut done = [0; DEEDS.len()];
    for loss in 0..LOSSES {
        let copy = world.path(&format!("copy-{loss}"));
        if fs::copy(world.record(), &copy).is_ok() {
            copies.push(copy);
        }
        let pause = Instant::now() + Duration::from_millis(dice.u64(0..2_600));
        while Instant::now() < pause {
            for daemon in &daemons {
                daemon.refresh().await;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let deed = dice.usize(0..DEEDS.len());
        done[deed] += 1;
        commit(DEEDS[deed], &world, &copies, &mut dice);
    }
    for daemon in &daemons {
        let token = daemon.first_token().await.access_token();
        assert_eq!(world.sandbox.spend(&token).status(), 200);
    }
    for reader in readers {
        println!("{:?}", reader.finish().await);
    }
    for daemon in daemons {
        assert!(daemon.stop().await.success());
    }
    let worst = world.sandbox.worst_window_of_arrivals();
    println!(
        "seed {seed}: {LOSSES} losses of the record, {DEEDS:?} {done:?}, {} arrivals, worst window {worst}",
        world.sandbox.arrivals()
    );
    assert!(worst >= 2, "the budget was never strained");
    world.finish();
}
