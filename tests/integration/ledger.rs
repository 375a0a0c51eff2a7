//! The record changed by hand, under a running daemon and without one.

use std::fs;
use std::process::Command;

use bearerd::sandbox::Fault;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Daemon, Scale, World};
use crate::terminal::{Said, run};

/// Runs a command on the world's own settings; nothing that it says may be a secret.
fn by_hand(world: &World, command: &str) -> Said {
    by_hand_with(world, command, &[])
}

/// The same, with more settings in the environment.
fn by_hand_with(world: &World, command: &str, environment: &[(&str, &str)]) -> Said {
    let file = world.write("by-hand.toml", &world.toml(&world.state(), "state"));
    let words = command
        .split(' ')
        .chain(["--config", file.to_str().unwrap()]);
    let said = run(&words.collect::<Vec<_>>(), environment);
    world.captured.add(command, &(said.out.clone() + &said.err));
    said
}

fn record(world: &World) -> Value {
    serde_json::from_slice(&fs::read(world.record()).unwrap()).unwrap()
}

fn slots(status: &Value) -> Vec<&str> {
    let slots = status["budget"]["slots"].as_array().unwrap();
    slots
        .iter()
        .map(|slot| slot["trigger"].as_str().unwrap())
        .collect()
}

/// The state of a world in which one mint was made and its past is known.
async fn one_mint(world: &World) -> Daemon {
    assert_eq!(by_hand(world, "init").code, Some(0));
    assert_eq!(by_hand(world, "ledger reset --yes").code, Some(0));
    let daemon = world.start().await;
    daemon.first_token().await;
    daemon
        .until("its slot is settled", |status| {
            status["budget"]["slots"][0]["outcome"] == "minted"
        })
        .await;
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spent_by_hand_counts_at_once_and_after_a_restart() {
    let scale = Scale {
        limit: 4,
        ..Scale::still()
    };
    let world = World::new(scale).await;
    let daemon = one_mint(&world).await;
    let lineage = record(&world)["lineage"].clone();
    let said = by_hand(&world, "ledger spend 3");
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(
        said.err.contains("4 slots are taken, and 4 may be"),
        "{}",
        said.err
    );
    let status = daemon
        .until("the slots are seen", |status| slots(status).len() == 4)
        .await;
    assert_eq!(slots(&status)[1..], ["operator"; 3]);
    assert_eq!(status["budget"]["free"]["urgent"], 0);
    // Nothing is left for a refresh, and nothing was taken for a loss.
    assert_eq!(daemon.refresh().await.problem(), "not_now");
    assert_eq!(record(&world)["lineage"], lineage);
    assert!(daemon.stop().await.success());

    let daemon = world.start().await;
    let status = daemon
        .until("the slots are seen", |status| slots(status).len() == 4)
        .await;
    assert_eq!(slots(&status)[1..], ["operator"; 3]);
    assert_eq!(world.sandbox.arrivals(), 1);
    let shown = by_hand(&world, "ledger show --format json");
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["slots"].as_array().unwrap().len(), 4);
    let spent = &shown["slots"][3];
    assert!(
        spent["holder"].as_str().unwrap().starts_with("operator-"),
        "{spent}"
    );
    let text = by_hand(&world, "ledger show").out;
    for word in [
        "slots     4 of 4 taken",
        "operator",
        "first token",
        "generation ",
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_slot_frees_sooner_because_a_command_has_a_shorter_window() {
    let world = World::new(Scale::still()).await;
    let daemon = one_mint(&world).await;
    assert!(daemon.stop().await.success());
    let minted = |record: Value| record["ledger"][0].clone();
    let before = minted(record(&world));
    let shorter = [("BEARERD_BUDGET__WINDOW", "2m")];
    assert_eq!(
        by_hand_with(&world, "ledger spend 1", &shorter).code,
        Some(0)
    );
    assert_eq!(minted(record(&world)), before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spent_while_an_attempt_is_under_way_stays_spent() {
    let world = World::new(Scale::still()).await;
    assert_eq!(by_hand(&world, "init").code, Some(0));
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    assert_eq!(by_hand(&world, "ledger spend 2").code, Some(0));
    gate.open();
    let token = daemon.first_token().await;
    assert_eq!(world.sandbox.spend(&token.access_token()).status(), 200);
    let status = daemon
        .until("all slots are seen", |status| {
            slots(status).len() == 3 && status["minting"].is_null()
        })
        .await;
    assert_eq!(slots(&status), ["first_token", "operator", "operator"]);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_refused_while_a_daemon_answers_and_holds_when_none_runs() {
    let world = World::new(Scale::still()).await;
    let daemon = one_mint(&world).await;
    by_hand(&world, "ledger spend 2");
    let before = fs::read(world.record()).unwrap();
    let said = by_hand(&world, "ledger reset");
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(
        said.err.contains("the token stays") && said.err.contains("--yes"),
        "{}",
        said.err
    );
    let said = by_hand(&world, "ledger reset --yes");
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("a daemon answers at unix:"),
        "{}",
        said.err
    );
    // One that is frozen runs, too.
    daemon
        .until("the slots are seen", |status| slots(status).len() == 3)
        .await;
    daemon.signal(rustix::process::Signal::STOP);
    assert_eq!(by_hand(&world, "ledger reset --yes").code, Some(1));
    daemon.signal(rustix::process::Signal::CONT);
    assert_eq!(
        fs::read(world.record()).unwrap(),
        before,
        "nothing was written"
    );
    let token = daemon.token().await.access_token();
    assert!(daemon.stop().await.success());

    let said = by_hand(&world, "ledger reset --yes");
    assert_eq!(said.code, Some(0));
    assert!(
        said.err
            .contains("3 slots, the claim and the waits are forgotten"),
        "{}",
        said.err
    );
    let daemon = world.start().await;
    assert_eq!(
        daemon.first_token().await.access_token(),
        token,
        "the token stays"
    );
    assert_eq!(slots(&daemon.status().await), [""; 0]);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_brings_back_what_a_reset_forgot() {
    let world = World::new(Scale::still()).await;
    let daemon = one_mint(&world).await;
    by_hand(&world, "ledger spend 2");
    daemon
        .until("the slots are seen", |status| slots(status).len() == 3)
        .await;
    // These settings name addresses at which nobody answers.
    let text = world.toml(&world.state(), "elsewhere");
    let file = world.write("elsewhere.toml", &text).display().to_string();
    let said = run(&["ledger", "reset", "--yes", "--config", &file], &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    daemon
        .until("the slots are back", |status| {
            slots(status).len() == 3 && record(&world)["ledger"].as_array().unwrap().len() == 3
        })
        .await;
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_that_is_unparked_tries_its_keys_again() {
    // Parked, the next attempt comes in a quarter of an hour.
    let world = World::new(Scale::still()).await;
    assert_eq!(by_hand(&world, "init").code, Some(0));
    assert_eq!(by_hand(&world, "ledger reset --yes").code, Some(0));
    world.sandbox.script(Fault::status(401));
    let daemon = world.start().await;
    daemon
        .until("parked", |status| {
            !status["parked"].is_null() && !status["next"].is_null()
        })
        .await;
    let shown = by_hand(&world, "ledger show").out;
    assert!(shown.contains("PARKED    since"), "{shown}");
    let lineage = record(&world)["lineage"].clone();
    assert_eq!(world.sandbox.arrivals(), 1);

    let said = by_hand(&world, "unpark");
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.starts_with("unparked: "), "{}", said.err);
    let token = daemon.first_token().await;
    assert_eq!(world.sandbox.spend(&token.access_token()).status(), 200);
    let status = daemon
        .until("settled", |status| {
            status["minting"].is_null() && status["parked"].is_null()
        })
        .await;
    assert_eq!(
        slots(&status),
        ["first_token", "first_token"],
        "neither slot is given back"
    );
    assert_eq!(status["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(record(&world)["lineage"], lineage, "it is no lost record");
    assert_eq!(
        by_hand(&world, "unpark").err,
        "it is not parked; nothing was changed\n"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

/// A daemon of this world that answers operators on a Unix socket too, and the socket.
async fn start_with_admin_socket(world: &World) -> (Daemon, String) {
    let socket = format!("unix:{}", world.path("admin.sock").display());
    // Others are named: our own user may change the record all the same.
    let listen = format!("[admin]\nuids = [54321]\nlisten = [\"127.0.0.1:0\", {socket:?}]");
    let text = world.toml(&world.state(), "state");
    let text = text.replace("[admin]\nlisten = [\"127.0.0.1:0\"]", &listen);
    let settings = world.write("with-socket.toml", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .args(["serve", "--config"])
        .arg(settings)
        .env_clear();
    (Daemon::spawn(command, &world.captured).await, socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_out_of_reach_is_changed_through_the_daemon() {
    let scale = Scale {
        limit: 6,
        ..Scale::still()
    };
    let world = World::new(scale).await;
    drop(one_mint(&world).await);
    let (daemon, socket) = start_with_admin_socket(&world).await;
    let lineage = record(&world)["lineage"].clone();
    // The keys are out of this user's reach, as credentials are.
    let command = |command: &str| {
        let file = world.path("with-socket.toml").display().to_string();
        let words: Vec<&str> = command.split(' ').chain(["--config", &file]).collect();
        let said = run(
            &words,
            &[("BEARERD_UPSTREAM__KEYS__0__API_KEY_FILE", "/nowhere/key")],
        );
        world.captured.add(command, &(said.out.clone() + &said.err));
        said
    };
    let said = command("ledger spend 2");
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), ""),
        "{}",
        said.err
    );
    let asked = format!("asking the daemon at {socket}\n2 spent, until ");
    assert!(said.err.contains(&asked), "{}", said.err);
    assert!(
        said.err.contains("3 slots are taken, and 6 may be"),
        "{}",
        said.err
    );
    let status = daemon
        .until("the slots are seen", |status| slots(status).len() == 3)
        .await;
    assert_eq!(slots(&status)[1..], ["operator"; 2]);
    assert_eq!(record(&world)["lineage"], lineage, "it is no lost record");

    // Asked by name, whatever is in reach.
    let said = command(&format!("ledger spend 1 --admin {socket}"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!said.err.contains("out of reach"), "{}", said.err);
    let said = command(&format!("ledger spend 7 --admin {socket}"));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("with N from 1 to 6"), "{}", said.err);
    let said = command("unpark");
    assert_eq!(said.code, Some(0));
    assert!(
        said.err
            .ends_with("it is not parked; nothing was changed\n"),
        "{}",
        said.err
    );
    // On a port nobody knows who asks.
    for path in ["/spend?count=1", "/unpark"] {
        let refused = daemon.send(Method::POST, &daemon.admin, path, &[], None);
        let refused = refused.await.unwrap();
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (403, "socket_only")
        );
    }
    // Whoever names a folder means that one.
    let said = command("ledger spend 1 --state-folder /nowhere");
    assert_eq!(said.code, Some(78), "{}", said.err);
    daemon
        .until("four slots", |status| slots(status).len() == 4)
        .await;
    assert!(daemon.stop().await.success());
    for line in [
        ["action=\"spend\"", "outcome=\"spent\""],
        ["action=\"spend\"", "outcome=\"bad_count\""],
        ["action=\"spend\"", "outcome=\"socket_only\""],
        ["action=\"unpark\"", "outcome=\"not_parked\""],
    ] {
        let told = world.captured.lines("stderr");
        assert!(
            told.iter()
                .any(|it| line.iter().all(|part| it.contains(part))),
            "{line:?}"
        );
    }
    // With nobody there either, both are told.
    let said = command("ledger spend 1");
    assert_eq!(said.code, Some(75));
    for part in ["/nowhere/key cannot be read", "no daemon answers at unix:"] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_record_is_told_and_left_where_it_is() {
    let world = World::new(Scale::still()).await;
    assert_eq!(by_hand(&world, "init").code, Some(0));
    fs::write(world.record(), "{").unwrap();
    for command in [
        "ledger show",
        "ledger spend 1",
        "ledger reset --yes",
        "unpark",
    ] {
        let said = by_hand(&world, command);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{command}");
        assert!(
            said.err.contains("it is not a whole record"),
            "{}",
            said.err
        );
        assert_eq!(fs::read_to_string(world.record()).unwrap(), "{");
    }
    world.finish();
}
