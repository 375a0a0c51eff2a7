//! The upstream is gone for longer than the lead, and comes back.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::{PATIENCE, Scale, World};

#[tokio::test]
async fn reads_go_on_to_the_true_end_then_say_why_then_recover() {
    let mut world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let expires_at: Timestamp = token.json()["expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    world.stop_sandbox().await;

    let unavailable = loop {
        let asked_at = bearerd::clock::wall();
        let reply = daemon.token().await;
        if reply.status == 503 {
            assert!(
                bearerd::clock::wall() >= expires_at,
                "the token was withheld before its end"
            );
            break reply;
        }
        // It is told cut to whole milliseconds.
        assert!(
            asked_at < expires_at + Duration::from_millis(1),
            "an expired token was vended"
        );
        assert_eq!(reply.access_token(), token.access_token());
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(unavailable.problem(), "expired");
    assert!(unavailable.header("retry-after").parse::<u64>().unwrap() >= 1);
    let detail = unavailable.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("not_sent") && detail.contains("next attempt"),
        "{detail}"
    );
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("expired"), "{}", ready.text);
    assert_eq!(
        daemon.ask_admin("/livez").await.status,
        200,
        "liveness never depends on the upstream"
    );
    // The last wait before the end may have been longer than the urgent part of a life.
    let urgent = |status: &Value| {
        let last = &status["attempts"][0];
        last["class"] == "urgent" && last["outcome"] == "not_sent"
    };
    daemon.until("an urgent attempt was made", urgent).await;
    assert!(
        daemon
            .metric("bearerd_refresh_attempts_total{class=\"urgent\",outcome=\"not_sent\"}")
            .await
            > 0.0
    );
    assert_eq!(
        world.sandbox.mints(),
        1,
        "what was never sent costs nothing"
    );

    world.start_sandbox().await;
    let back = Instant::now();
    let recovered = daemon.get("/v1/token", &[("prefer", "wait=30")]).await;
    assert_eq!(recovered.status, 200);
    assert!(
        back.elapsed() < PATIENCE / 3,
        "recovery took {:?}",
        back.elapsed()
    );
    assert_eq!(world.sandbox.spend(&recovered.access_token()).status(), 200);
    assert_eq!(world.sandbox.mints(), 2);
    assert_eq!(daemon.ask_admin("/readyz").await.status, 200);
    assert!(daemon.stop().await.success());
    let lines = world.captured.lines("stderr");
    // What waited for its turn is told at the end.
    for (level, message, fields) in [
        (
            "ERROR",
            "every caller is refused",
            ["outcome=\"not_sent\"", "refused the connection ("],
        ),
        (
            "INFO",
            "a token was minted: the outage is over",
            ["lasted=", "refused_for="],
        ),
    ] {
        let told = lines.iter().filter(|line| line.contains(message));
        let told: Vec<&String> = told.collect();
        assert_eq!(told.len(), 1, "{message}: {told:?}");
        let parts = [level, "next_in=", "waiting_for="]
            .into_iter()
            .chain(fields);
        for part in parts {
            assert!(told[0].contains(part), "{part} is not in {}", told[0]);
        }
    }
    world.finish();
}
