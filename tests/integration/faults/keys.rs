//! Keys that the issuer refuses: the next one is tried, then the daemon is parked, and new keys or an operator free it.

use std::time::Duration;

use bearerd::sandbox::{ApiKey, Fault, Script};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{believed, between, due_at_once, long_lived, over, quick, time};
use crate::harness::{Daemon, PATIENCE, Scale, World};

/// A world with two keys, in this order.
async fn two_keys(scale: Scale) -> World {
    World::with(scale, |settings| {
        settings.keys = vec![ApiKey::random(), ApiKey::random()];
    })
    .await
}

/// The key that each attempt used, oldest first.
fn tried(status: &Value) -> Vec<u64> {
    let attempts = status["attempts"].as_array().unwrap().iter().rev();
    attempts
        .map(|attempt| attempt["key"].as_u64().unwrap())
        .collect()
}

async fn parked(daemon: &Daemon) -> Value {
    daemon
        .until("parked", |status| {
            !status["parked"].is_null() && !status["next"].is_null()
        })
        .await
}

#[tokio::test]
async fn when_the_first_key_is_refused_the_second_takes_over() {
    let world = two_keys(Scale {
        lifetime: Duration::from_secs(8),
        ..quick()
    })
    .await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    world.sandbox.regenerate_key(0).unwrap();
    let second = daemon.next_token(&first).await;
    let status = over(&daemon, 2).await;
    assert_eq!(tried(&status), [1, 1, 2]);
    let [minted, refused] = [&status["attempts"][0], &status["attempts"][1]];
    assert_eq!(
        (&refused["outcome"], &minted["outcome"]),
        (&"refused".into(), &"minted".into())
    );
    assert_eq!(
        refused["detail"],
        "401 / authorization-error / invalid api key"
    );
    for attempt in [minted, refused] {
        assert_eq!(
            (&attempt["class"], &attempt["trigger"]),
            (&"routine".into(), &"schedule".into()),
            "the second key serves the same refresh"
        );
    }
    assert!(status["parked"].is_null() && status["trouble"].is_null());
    assert_eq!(world.sandbox.spend(&second.access_token()).status(), 200);
    daemon.next_token(&second).await;
    let status = over(&daemon, 3).await;
    assert_eq!(tried(&status), [1, 1, 2, 2], "and it is used from then on");
    let keys: Vec<_> = world
        .sandbox
        .log()
        .entries
        .iter()
        .map(|it| it.key)
        .collect();
    assert_eq!(keys, [Some(0), None, Some(1), Some(1)]);
    assert_eq!(daemon.metric("bearerd_parked").await, 0.0);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_key_that_is_removed_with_its_tokens_costs_one_report() {
    let world = two_keys(Scale {
        window: Duration::from_secs(6),
        ..quick()
    })
    .await;
    world
        .sandbox
        .switch(|switches| switches.regenerate_revokes = true);
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    world.sandbox.remove_key(0).unwrap();
    assert_eq!(world.sandbox.spend(&first.access_token()).status(), 401);
    let report = format!(r#"{{"generation":{},"status":401}}"#, first.generation());
    believed(&daemon, &report).await;
    let suspect = daemon.token().await;
    let second = if suspect.generation() == first.generation() {
        assert_eq!(suspect.json()["suspect"], true);
        daemon.next_token(&suspect).await
    } else {
        suspect
    };
    assert_eq!(world.sandbox.spend(&second.access_token()).status(), 200);
    let status = over(&daemon, 2).await;
    assert_eq!(tried(&status), [1, 1, 2]);
    for attempt in &status["attempts"].as_array().unwrap()[..2] {
        assert_eq!(attempt["class"], "reported");
    }
    assert!(status["parked"].is_null());
    assert_eq!(world.sandbox.arrivals(), 3);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_key_parks_at_once_and_begins_again_with_the_next_key() {
    let world = two_keys(quick()).await;
    world.sandbox.script(Fault::status(400));
    let daemon = world.start().await;
    let status = parked(&daemon).await;
    let reason = status["parked"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("400 / invalid-input / invalid input (look at upstream.account,"),
        "{reason}"
    );
    daemon.first_token().await;
    let status = over(&daemon, 1).await;
    assert_eq!(tried(&status), [1, 2]);
    assert_eq!(status["attempts"][0]["trigger"], "parked");
    assert!(status["parked"].is_null());
    assert_eq!(world.sandbox.arrivals(), 2);
    assert!(daemon.stop().await.success());
    world.finish();
}

/// The slots of a parked daemon are half a window apart, by what the daemon wrote down of them.
fn distances(status: &Value) {
    let slots = status["budget"]["slots"].as_array().unwrap();
    assert!(slots.len() > 1, "{status}");
    for pair in slots.windows(2) {
        let apart = between(time(&pair[0]["reserved_at"]), time(&pair[1]["reserved_at"]));
        assert!(apart >= 0.98, "{apart} s");
    }
}

#[tokio::test]
async fn while_parked_there_is_one_attempt_in_half_a_window_and_none_is_urgent() {
    let world = World::with(quick(), |settings| settings.failures_count = true).await;
    world.sandbox.regenerate_key(0).unwrap();
    let daemon = world.start().await;
    world.sandbox.arrived(4).await;
    let status = over(&daemon, 3).await;
    distances(&status);
    for attempt in &status["attempts"].as_array().unwrap()[..3] {
        assert_eq!(
            (&attempt["class"], &attempt["trigger"]),
            (&"routine".into(), &"parked".into()),
            "although there is no token"
        );
    }
    assert_eq!(status["next"]["waiting_for"], "parked");
    assert_eq!(daemon.metric("bearerd_parked").await, 1.0);
    let reply = daemon.token().await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "no_token_yet")
    );
    let told = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        told.contains("the issuer refuses the keys since")
            && told.contains("401 / authorization-error / invalid api key"),
        "{told}"
    );
    // A restart forgets nothing: it neither tries at once nor is it urgent.
    let since = status["parked"]["since"].clone();
    daemon.kill();
    let daemon = world.start().await;
    let status = parked(&daemon).await;
    assert_eq!(status["parked"]["since"], since);
    world.sandbox.arrived(5).await;
    let status = daemon
        .until("the fifth attempt is over", |status| {
            !status["attempts"].as_array().unwrap().is_empty() && !status["next"].is_null()
        })
        .await;
    distances(&status);
    assert_eq!(world.sandbox.arrivals(), 5);
    assert!(daemon.stop().await.success());
    world.finish();
}

/// A world whose window is so long that no attempt of a parked daemon falls into the test.
async fn parked_while_holding() -> (World, Daemon, String, Value) {
    let world = due_at_once(long_lived(Duration::from_secs(30))).await;
    let daemon = world.start().await;
    let held = daemon.first_token().await.access_token();
    world.sandbox.regenerate_key(0).unwrap();
    let status = parked(&daemon).await;
    (world, daemon, held, status)
}

#[tokio::test]
async fn refused_keys_leave_the_held_token_and_new_key_files_free_the_daemon() {
    let (world, daemon, held, status) = parked_while_holding().await;
    assert_eq!(
        status["parked"]["reason"],
        "401 / authorization-error / invalid api key"
    );
    assert_eq!(status["next"]["waiting_for"], "parked");
    assert_eq!(daemon.metric("bearerd_parked").await, 1.0);
    assert_eq!(super::attempts(&daemon, "routine", "refused").await, 1.0);
    let still = daemon.token().await;
    assert_eq!(still.access_token(), held);
    assert_eq!(world.sandbox.spend(&held).status(), 200);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    assert!(
        ready.text.contains("parked: since ") && ready.text.contains("invalid api key"),
        "{}",
        ready.text
    );
    // A file that is only half there changes nothing, and is no reason to end.
    world.write("api_key_0", "");
    world.write_keys();
    daemon.next_token(&still).await;
    let status = over(&daemon, 2).await;
    assert_eq!(
        status["attempts"][0]["trigger"], "schedule",
        "it did not wait for the rare attempt of a parked daemon"
    );
    assert!(status["parked"].is_null() && status["trouble"].is_null());
    assert_eq!(daemon.metric("bearerd_parked").await, 0.0);
    assert_eq!(world.sandbox.arrivals(), 3, "the refusal cost one call");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_operator_frees_a_parked_daemon() {
    let world = due_at_once(long_lived(Duration::from_secs(10))).await;
    world
        .sandbox
        .script(Script::from(Fault::status(404)).after(1));
    let daemon = world.start().await;
    let held = daemon.first_token().await;
    let status = parked(&daemon).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = daemon.refresh().await;
        if reply.status == 202 {
            break;
        }
        // It keeps its distance from the refused attempt, but not that of a parked daemon.
        assert_eq!(reply.problem(), "not_now");
        assert!(!reply.text.contains("parked"), "{}", reply.text);
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20)).await;
    }
    daemon.next_token(&held).await;
    let status_after = over(&daemon, 2).await;
    let freed = &status_after["attempts"][0];
    assert_eq!(freed["trigger"], "operator");
    assert!(
        time(&freed["began_at"]) < time(&status["next"]["at"]),
        "sooner than the daemon would have tried by itself"
    );
    assert!(status_after["parked"].is_null());
    assert_eq!(world.sandbox.arrivals(), 3);
    assert!(daemon.stop().await.success());
    world.finish();
}
