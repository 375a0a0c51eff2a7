//! Every fault of the sandbox: what callers and operators see while it lasts, what it costs, and how it ends by itself.

mod answers;
mod budget;
mod keys;
mod rows;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bearerd::sandbox::Script;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, PATIENCE, Reply, Scale, World};
use rows::{Outcome, Row, rows};

/// So many worlds of one table turn at the same time; they mostly wait.
const WORLDS: usize = 12;

/// Hours and minutes: after the first attempt nothing happens while a test looks.
fn slow() -> Scale {
    Scale {
        timeout: Duration::from_secs(5),
        ..Scale::still()
    }
}

/// Attempts follow one another within seconds, and a token lives longer than the test.
fn quick() -> Scale {
    Scale {
        lifetime: Duration::from_secs(60),
        window: Duration::from_secs(2),
        in_flight: Duration::from_secs(4),
        timeout: Duration::from_secs(2),
        limit: 10,
    }
}

/// A token lives for ten minutes, and the window is this long.
fn long_lived(window: Duration) -> Scale {
    Scale {
        lifetime: Duration::from_secs(600),
        window,
        ..quick()
    }
}

/// A world of long-lived tokens that are due after a second and a half all the same: with so much time left, an attempt to
/// replace one that fails is not soon repeated.
async fn due_at_once(scale: Scale) -> World {
    let mut world = World::new(scale).await;
    world.settings("[refresh]\nlead = \"598.5s\"");
    world
}

/// Waits until an attempt with this index, counted from zero, is over and written down, and nothing follows it yet.
async fn over(daemon: &Daemon, index: usize) -> Value {
    let what = format!("attempt {index} is over");
    daemon
        .until(&what, |status| {
            let slots = status["budget"]["slots"].as_array().unwrap();
            status["attempts"].as_array().unwrap().len() == index + 1
                && slots.iter().all(|slot| slot["outcome"] != "begun")
                && !status["next"].is_null()
        })
        .await
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// From one moment that the daemon told to another, in seconds.
fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// `bearerd_refresh_attempts_total` of a class and an outcome.
async fn attempts(daemon: &Daemon, class: &str, outcome: &str) -> f64 {
    let name = format!("bearerd_refresh_attempts_total{{class=\"{class}\",outcome=\"{outcome}\"}}");
    daemon.metric(&name).await
}

/// A 503 whose `Retry-After` is the time that is left until the next attempt.
async fn unavailable(daemon: &Daemon, word: &str, next: &Value) -> Reply {
    let from = bearerd::clock::wall();
    let reply = daemon.token().await;
    let to = bearerd::clock::wall();
    assert_eq!((reply.status, reply.problem().as_str()), (503, word));
    let wait: f64 = reply.header("retry-after").parse().unwrap();
    let at = time(&next["at"]);
    let (least, most) = (between(to, at).max(1.0), between(from, at).max(1.0) + 1.0);
    assert!(
        (least - 0.01..=most + 0.01).contains(&wait),
        "Retry-After: {wait}, for {least} to {most}"
    );
    reply
}

/// Reports a token until it is old enough for the report to be believed.
async fn believed(daemon: &Daemon, report: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = daemon.report(report).await.json()["outcome"].clone();
        if outcome != "too_young" {
            let told = ["refreshing", "paced"].iter().any(|it| outcome == *it);
            assert!(told, "{outcome}");
            return;
        }
        assert!(Instant::now() < deadline, "the token does not grow older");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs one table: every row in a world of its own, many at a time. All rows that fail are named.
async fn each<F>(chosen: impl Fn(&Row) -> bool, test: impl Fn(Row) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(WORLDS));
    let mut turning = JoinSet::new();
    for row in rows().into_iter().filter(|row| chosen(row)) {
        let (name, permits, run) = (row.name(), Arc::clone(&permits), test(row));
        turning.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            let mut alone = JoinSet::new();
            alone.spawn(run);
            alone.join_next().await.unwrap().err().map(|_| name)
        });
    }
    let failed: Vec<String> = turning.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "rows that failed: {failed:#?}");
}

#[tokio::test]
async fn the_first_mint_meets_each_fault() {
    each(|_| true, first_mint).await;
}

/// The same lengths with the time-out of a row.
fn patient(scale: Scale, row: &Row) -> Scale {
    Scale {
        timeout: row.timeout(),
        in_flight: row.timeout() * 2,
        ..scale
    }
}

async fn first_mint(row: Row) {
    // The retry of a first mint comes after the window's 360th: longer than this test takes anywhere.
    let scale = Scale {
        lifetime: Duration::from_secs(72_000),
        window: Duration::from_secs(36_000),
        ..slow()
    };
    let world = World::new(patient(scale, &row)).await;
    world.sandbox.script(row.fault.clone());
    let daemon = world.start().await;
    let status = over(&daemon, 0).await;
    let (label, first) = (row.outcome.label(), &status["attempts"][0]);
    assert_eq!(first["outcome"], label, "{first}");
    assert_eq!(
        (&first["class"], &first["trigger"], &first["key"]),
        (&"urgent".into(), &"first_token".into(), &1.into())
    );
    let detail = first["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(row.detail), "{detail}");
    assert_eq!(row.detail.is_empty(), detail.is_empty(), "{detail}");
    let slots = status["budget"]["slots"].as_array().unwrap();
    assert_eq!((slots.len(), &slots[0]["outcome"]), (1, &label.into()));
    assert_eq!(status["budget"]["free"]["urgent"], 9);
    assert_eq!(attempts(&daemon, "urgent", label).await, 1.0);
    let refused = row.outcome == Outcome::Refused;
    assert_eq!(status["parked"].is_null(), !refused);
    assert_eq!(
        daemon.metric("bearerd_parked").await,
        f64::from(u8::from(refused))
    );
    let next = &status["next"];
    assert_eq!(next["waiting_for"], row.outcome.first_waits_for(), "{next}");
    let ready = daemon.ask_admin("/readyz?verbose").await;
    if let Outcome::Minted { .. } = row.outcome {
        assert!(status["trouble"].is_null(), "{status}");
        let token = daemon.first_token().await.access_token();
        assert_eq!(world.sandbox.spend(&token).status(), 200);
        assert_eq!(ready.status, 200, "{}", ready.text);
        assert_eq!(daemon.metric("bearerd_token_usable").await, 1.0);
    } else {
        assert_eq!(
            (&status["trouble"]["code"], &status["trouble"]["detail"]),
            (&label.into(), &detail.into())
        );
        let waits = format!("waiting for {}", next["waiting_for"].as_str().unwrap());
        let reply = unavailable(&daemon, "no_token_yet", next).await;
        let told = reply.json()["detail"].as_str().unwrap().to_owned();
        for part in [row.detail, label, &waits] {
            assert!(told.contains(part), "{part} is not in: {told}");
        }
        let trouble = format!("trouble: {label}: {detail}\n");
        assert_eq!(ready.status, 503);
        for part in ["not ready\ntoken: none yet\n", &trouble, &waits] {
            assert!(ready.text.contains(part), "{part}: {}", ready.text);
        }
        assert_eq!(daemon.ask_admin("/livez").await.status, 200);
        assert_eq!(daemon.metric("bearerd_token_usable").await, 0.0);
    }
    row.let_go();
    world.sandbox.arrived(1).await;
    assert_eq!(world.sandbox.arrivals(), 1, "one attempt is one call");
    assert_eq!(world.sandbox.mints(), usize::from(row.issued));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn after_each_fault_the_first_token_comes_by_itself() {
    // Those that the issuer asks to wait have tests of their own: their waits are longer than the others'.
    let fails = |row: &Row| !matches!(row.outcome, Outcome::Minted { .. });
    each(|row| fails(row) && !row.retry_after, recovery).await;
}

async fn recovery(row: Row) {
    let world = World::new(patient(quick(), &row)).await;
    world.sandbox.script(row.fault.clone());
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    let status = over(&daemon, 1).await;
    let outcomes = [&status["attempts"][0], &status["attempts"][1]].map(|it| &it["outcome"]);
    assert_eq!(outcomes, ["minted", row.outcome.label()]);
    assert!(
        status["trouble"].is_null() && status["parked"].is_null(),
        "{status}"
    );
    let trigger = &status["attempts"][0]["trigger"];
    match row.outcome {
        Outcome::Refused => assert_eq!(trigger, "parked"),
        _ => assert_eq!(trigger, "first_token"),
    }
    assert_eq!(daemon.ask_admin("/readyz").await.status, 200);
    assert_eq!(daemon.metric("bearerd_token_usable").await, 1.0);
    assert_eq!(daemon.metric("bearerd_parked").await, 0.0);
    row.let_go();
    world.sandbox.arrived(2).await;
    assert_eq!(world.sandbox.arrivals(), 2, "the fault cost one call");
    assert_eq!(world.sandbox.mints(), 1 + usize::from(row.issued));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_refresh_that_meets_a_fault_takes_nothing_from_callers() {
    let gives_none = |row: &Row| row.outcome != Outcome::Minted { again: false };
    each(gives_none, refresh).await;
}

async fn refresh(row: Row) {
    let scale = long_lived(Duration::from_secs(10));
    let world = due_at_once(patient(scale, &row)).await;
    world
        .sandbox
        .script(Script::from(row.fault.clone()).after(1));
    let daemon = world.start().await;
    let held = daemon.first_token().await;
    let status = over(&daemon, 1).await;
    let (label, detail) = match row.outcome {
        Outcome::Minted { .. } => ("repeated", "the issuer gave the token that we hold already"),
        outcome => (outcome.label(), row.detail),
    };
    let failed = &status["attempts"][0];
    assert_eq!(failed["outcome"], label, "{failed}");
    assert_eq!(
        (&failed["class"], &failed["trigger"]),
        (&"routine".into(), &"schedule".into())
    );
    assert!(failed["detail"].as_str().unwrap().contains(detail));
    assert_eq!(
        (&status["trouble"]["code"], &status["trouble"]["detail"]),
        (&label.into(), &failed["detail"])
    );
    assert_eq!(
        status["next"]["waiting_for"],
        row.outcome.later_waits_for(),
        "{}",
        status["next"]
    );
    assert_eq!(
        status["parked"].is_null(),
        row.outcome != Outcome::Refused,
        "{status}"
    );
    assert_eq!(status["budget"]["slots"].as_array().unwrap().len(), 2);

    let still = daemon.token().await;
    assert_eq!(still.access_token(), held.access_token());
    assert_eq!(still.header("etag"), held.header("etag"));
    for same in ["generation", "expires_at", "suspect"] {
        assert_eq!(still.json()[same], held.json()[same]);
    }
    assert_eq!(world.sandbox.spend(&still.access_token()).status(), 200);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    assert!(
        ready.text.contains(&format!("trouble: {label}: ")) && ready.text.contains(detail),
        "{}",
        ready.text
    );
    assert_eq!(daemon.metric("bearerd_token_usable").await, 1.0);
    assert_eq!(attempts(&daemon, "routine", label).await, 1.0);
    row.let_go();
    world.sandbox.arrived(2).await;
    assert_eq!(world.sandbox.arrivals(), 2, "one attempt is one call");
    let given_again = row.outcome == Outcome::Minted { again: true };
    assert_eq!(
        world.sandbox.mints(),
        1 + usize::from(row.issued && !given_again)
    );
    assert!(daemon.stop().await.success());
    world.finish();
}
