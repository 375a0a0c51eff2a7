//! A disk that is full, that does not sync, that cannot rename or cannot be written any more.

use rustix::io::Errno;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::durable::each_post_is_covered;
use crate::harness::{Scale, World};
use crate::interposer::{Call, Interposer, Switch};
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

static FAULTS: [Fault; 7] = [
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
    Fault {
        name: "the disk hangs",
        begin: |it| it.set(Switch::Hang, 1),
        end: |it| it.mend(Switch::Hang),
        told: "no answer within 5s",
    },
];

fn is_down(status: &Value) -> bool {
    !status["register"]["up"].as_bool().unwrap()
}

/// True from the end of the newest token on.
fn token_has_ended(status: &Value) -> bool {
    let end = status["token"]["expires_at"].as_str().unwrap();
    bearerd::clock::wall() >= end.parse().unwrap()
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
    assert!(told.contains(fault.told), "{told}");
    assert_eq!(daemon.metric("bearerd_record_up").await, 0.0);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert!(ready.text.contains(fault.told), "{}", ready.text);
    daemon.until("the token has expired", token_has_ended).await;
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
    // Not even one that began in the moment of the fault.
    assert_eq!(
        each_post_is_covered(&interposer.calls()),
        world.sandbox.arrivals()
    );
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

#[tokio::test]
async fn a_daemon_frozen_within_a_write_keeps_others_from_writing_and_from_nothing_else() {
    let world = World::new(brisk()).await;
    let layer = Interposer::new();
    let frozen = layer.start(&world, "state").await;
    let other = world.start_beside("other").await;
    frozen.first_token().await;
    other.first_token().await;
    let reader = Reader::start(&world, &other);
    // The next write of its own stops it, with the folder's lock in its hands.
    layer.stop_at(Call::Commit);
    let status = other.until("the register is down", is_down).await;
    let told = status["register"]["detail"].as_str().unwrap();
    assert!(
        told.contains("another process has held it for a second"),
        "{told}"
    );
    let arrived = world.sandbox.arrivals();
    other.until("the token has expired", token_has_ended).await;
    assert_eq!(world.sandbox.arrivals(), arrived, "law 2");
    frozen.signal(rustix::process::Signal::CONT);
    for daemon in [&other, &frozen] {
        let token = daemon.first_token().await.access_token();
        assert_eq!(world.sandbox.spend(&token).status(), 200);
    }
    println!("{:?}", reader.finish().await);
    for daemon in [frozen, other] {
        assert!(daemon.stop().await.success());
    }
    world.finish();
}
