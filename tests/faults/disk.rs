//! A disk that is full, that does not sync, that cannot rename or cannot be written any more.

use jiff::Timestamp;
use rustix::io::Errno;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Scale, World};
use crate::interposer::{Interposer, Switch};
use crate::laws::Reader;

fn brisk() -> Scale {
    Scale {
        limit: 4,
        ..Scale::brisk()
    }
}

/// What goes wrong, and what an operator reads of it.
struct Fault {
    name: &'static str,
    begin: fn(&Interposer),
    end: fn(&Interposer),
    told: &'static str,
}

static FAULTS: [Fault; 6] = [
    Fault {
        name: "the disk is full",
        begin: |it| it.set(Switch::Room, 0),
        end: |it| it.set(Switch::Room, -1),
        told: "No space left on device",
    },
    Fault {
        name: "the disk is full in the middle of the file",
        begin: |it| it.set(Switch::Room, 100),
        end: |it| it.set(Switch::Room, -1),
        told: "No space left on device",
    },
    Fault {
        name: "the file is not synced",
        begin: |it| it.fail(Switch::FileSync, Errno::IO),
        end: |it| it.mend(Switch::FileSync),
        told: "Input/output error",
    },
    Fault {
        name: "the folder is not synced",
        begin: |it| it.fail(Switch::FolderSync, Errno::IO),
        end: |it| it.mend(Switch::FolderSync),
        told: "Input/output error",
    },
    Fault {
        name: "the file is not renamed",
        begin: |it| it.fail(Switch::Rename, Errno::NOSPC),
        end: |it| it.mend(Switch::Rename),
        told: "No space left on device",
    },
    Fault {
        name: "the folder has become read-only",
        begin: |it| it.fail(Switch::ReadOnly, Errno::ROFS),
        end: |it| it.mend(Switch::ReadOnly),
        told: "Read-only file system",
    },
];

fn is_down(status: &Value) -> bool {
    !status["register"]["up"].as_bool().unwrap()
}

/// The world with one fault from a live token to its end and beyond.
async fn outlast(fault: &'static Fault) {
    let world = World::new(brisk()).await;
    let interposer = Interposer::new();
    let daemon = interposer.start(&world, "state").await;
    daemon.first_token().await;
    let reader = Reader::start(&world, &daemon);

    (fault.begin)(&interposer);
    let status = daemon.until("the register is down", is_down).await;
    let arrived = world.sandbox.arrivals();
    let told = status["register"]["detail"].as_str().unwrap();
    assert!(
        told.contains(fault.told) && told.contains(world.state().to_str().unwrap()),
        "{told}"
    );
    assert_eq!(daemon.metric("bearerd_record_up").await, 0.0);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert!(ready.text.contains(fault.told), "{}", ready.text);
    let ended = |status: &Value| {
        let end: Timestamp = status["token"]["expires_at"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        Timestamp::now() >= end
    };
    daemon.until("the token has expired", ended).await;
    assert_eq!(
        world.sandbox.arrivals(),
        arrived,
        "law 2: minted without a record"
    );
    let reply = daemon.token().await;
    assert_eq!((reply.status, reply.problem().as_str()), (503, "expired"));

    (fault.end)(&interposer);
    daemon.first_token().await;
    daemon
        .until("the register serves", |status| !is_down(status))
        .await;
    daemon.until_metric("bearerd_record_up", 1.0).await;
    let seen = reader.finish().await;
    assert!(daemon.stop().await.success());
    assert!(
        !world.state().join("record.json.new").exists(),
        "a half-written file is left"
    );
    println!(
        "{}: {} mints, worst window {}, {seen:?}",
        fault.name,
        world.sandbox.mints(),
        world.sandbox.worst_window_of_arrivals()
    );
    world.finish();
}

#[tokio::test]
async fn without_a_disk_nothing_is_minted_and_what_is_held_is_vended_to_its_end() {
    let mut worlds = JoinSet::new();
    for fault in &FAULTS {
        worlds.spawn(outlast(fault));
    }
    worlds.join_all().await;
}
