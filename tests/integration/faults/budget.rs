//! Faults that touch the budget: answers lost in a row, limits that the issuer tells, mints that others spend.

use std::time::Duration;

use bearerd::sandbox::{Fault, OverBudget, RetryAfter, Sandbox, Script};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{between, over, quick, seconds, slow, time, unavailable};
use crate::harness::{ACCOUNT, Daemon, Scale, World};

/// Times are told to the nanosecond, and computed from clocks that are read one behind the other.
const ROUNDING: f64 = 0.02;

/// When an attempt ended, by what the daemon tells of it.
fn ended(attempt: &Value) -> Timestamp {
    let took = Duration::from_secs_f64(seconds(&attempt["duration_seconds"]));
    time(&attempt["began_at"]) + SignedDuration::try_from(took).unwrap()
}

/// From the end of each failed attempt to the beginning of the one behind it, oldest first.
fn waits(status: &Value) -> Vec<f64> {
    let mut attempts = status["attempts"].as_array().unwrap().clone();
    attempts.reverse();
    attempts
        .windows(2)
        .map(|pair| between(ended(&pair[0]), time(&pair[1]["began_at"])))
        .collect()
}

#[tokio::test]
async fn answers_lost_in_a_row_cost_a_slot_each_and_back_off() {
    let scale = Scale {
        timeout: Duration::from_millis(200),
        in_flight: Duration::from_millis(400),
        window: Duration::from_secs(4),
        ..quick()
    };
    let world = World::new(scale).await;
    world
        .sandbox
        .script(Script::from(Fault::LostAnswer).times(6));
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    let status = over(&daemon, 6).await;
    assert_eq!(world.sandbox.arrivals(), 7, "six answers lost, and one not");
    assert_eq!(world.sandbox.mints(), 7);
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert_eq!(super::attempts(&daemon, "urgent", "lost").await, 6.0);
    assert_eq!(super::attempts(&daemon, "urgent", "minted").await, 1.0);
    // The first mint is retried once after the window's 360th. From then on it is the sixtieth, doubled up to the eighth, and up to a
    // fifth less by the dice.
    for (failures, wait) in waits(&status).into_iter().enumerate() {
        let backoff = match failures {
            0 => 4.0 / 360.0,
            _ => (4.0 / 60.0 * f64::from(1 << failures)).min(4.0 / 8.0),
        };
        assert!(
            wait >= 0.8 * backoff - ROUNDING,
            "{wait} s after {} failures",
            failures + 1
        );
    }
    // A slot whose answer was lost counts for the whole period; each was written before its call arrived.
    let period = seconds(&status["budget"]["period_seconds"]);
    for slot in status["budget"]["slots"].as_array().unwrap() {
        if slot["outcome"] == "lost" {
            let held = between(time(&slot["reserved_at"]), time(&slot["frees_at"]));
            assert!((held - period).abs() < ROUNDING, "{held} of {period} s");
        }
    }
    let began = status["attempts"].as_array().unwrap().iter().rev();
    for (attempt, call) in began.zip(world.sandbox.log().entries) {
        assert!(between(time(&attempt["began_at"]), call.wall) > -ROUNDING);
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_spent_budget_is_told() {
    let world = World::new(Scale { limit: 1, ..slow() }).await;
    world.sandbox.script(Fault::DropAfterMint);
    let daemon = world.start().await;
    let status = over(&daemon, 0).await;
    assert_eq!(status["next"]["waiting_for"], "budget");
    assert_eq!(status["budget"]["free"]["urgent"], 0);
    let frees_at = time(&status["budget"]["slots"][0]["frees_at"]);
    assert!(between(frees_at, time(&status["next"]["at"])).abs() < ROUNDING);
    let reply = unavailable(&daemon, "no_token_yet", &status["next"]).await;
    let told = reply.json()["detail"].as_str().unwrap().to_owned();
    for part in ["lost", "connection closed", "waiting for budget"] {
        assert!(told.contains(part), "{told}");
    }
    for class in ["routine", "reported", "urgent"] {
        let name = format!("bearerd_budget_slots_free{{class=\"{class}\"}}");
        assert_eq!(daemon.metric(&name).await, 0.0, "{class}");
    }
    assert_eq!(world.sandbox.arrivals(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn calls_that_are_always_lost_never_overrun_a_small_budget() {
    let scale = Scale {
        window: Duration::from_secs(1),
        in_flight: Duration::from_millis(800),
        timeout: Duration::from_millis(400),
        limit: 3,
        ..quick()
    };
    let world = World::new(scale).await;
    world
        .sandbox
        .script(Script::from(Fault::DropAfterMint).times(8));
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    let calls = world.sandbox.log().entries;
    assert_eq!(calls.len(), 9, "eight lost, and one not");
    for four in calls.windows(4) {
        let apart = four[3].arrived - four[0].arrived;
        assert!(apart > world.scale.window, "four calls within {apart:?}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// The wait that a 429 leads to: what the daemon tells at once, and what its next call keeps.
async fn throttled(scale: Scale, retry_after: Option<RetryAfter>) -> (World, Daemon, Value) {
    let world = World::new(scale).await;
    world.sandbox.script(Fault::too_many_requests(retry_after));
    let daemon = world.start().await;
    let status = over(&daemon, 0).await;
    assert_eq!(status["trouble"]["code"], "throttled");
    (world, daemon, status)
}

async fn recovers_no_sooner_than(world: World, daemon: Daemon, not_before: Timestamp) {
    daemon.first_token().await;
    let calls = world.sandbox.log().entries;
    assert_eq!(calls.len(), 2);
    let early = -between(not_before, calls[1].wall);
    assert!(early < ROUNDING, "{early} s too early");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_429_with_seconds_is_honoured() {
    let (world, daemon, status) = throttled(quick(), Some(RetryAfter::Seconds(2))).await;
    assert_eq!(status["next"]["waiting_for"], "backoff");
    let answered = ended(&status["attempts"][0]);
    let not_before = answered + SignedDuration::from_secs(2);
    assert!(between(not_before, time(&status["next"]["at"])).abs() < ROUNDING);
    unavailable(&daemon, "no_token_yet", &status["next"]).await;
    recovers_no_sooner_than(world, daemon, not_before).await;
}

#[tokio::test]
async fn a_429_with_a_date_is_honoured() {
    let date = Timestamp::from_second(bearerd::clock::wall().as_second() + 3).unwrap();
    let text = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&date)
        .unwrap();
    let (world, daemon, status) = throttled(quick(), Some(RetryAfter::Text(text))).await;
    assert!(between(date, time(&status["next"]["at"])) > -ROUNDING);
    recovers_no_sooner_than(world, daemon, date).await;
}

#[tokio::test]
async fn a_429_without_a_wait_waits_a_quarter_of_the_window_where_there_is_no_token() {
    let (world, daemon, status) = throttled(slow(), None).await;
    let wait = between(ended(&status["attempts"][0]), time(&status["next"]["at"]));
    assert!((wait - 450.0).abs() < ROUNDING, "{wait} s");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_429_cannot_ask_for_more_than_a_period_or_for_less_than_a_second() {
    let day = Some(RetryAfter::Seconds(86_400));
    let (world, daemon, status) = throttled(slow(), day).await;
    let wait = between(ended(&status["attempts"][0]), time(&status["next"]["at"]));
    assert!((wait - 1_980.0).abs() < ROUNDING, "{wait} s");
    assert!(daemon.stop().await.success());
    world.finish();
    for least in [
        RetryAfter::Seconds(0),
        RetryAfter::Text("Thu, 10 Jul 2025 06:59:05 GMT".into()),
    ] {
        let world = World::new(quick()).await;
        world.sandbox.script(Fault::too_many_requests(Some(least)));
        let daemon = world.start().await;
        daemon.first_token().await;
        let status = over(&daemon, 1).await;
        let wait = waits(&status)[0];
        assert!(wait >= 1.0 - ROUNDING, "{wait} s");
        assert!(daemon.stop().await.success());
        world.finish();
    }
}

/// Mints as another client of the same account does.
async fn spend_elsewhere(sandbox: &Sandbox, times: u32) {
    let key = sandbox.keys().remove(0);
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..times {
        let body = json!({"key_id": key.key_id, "api_key": key.api_key}).to_string();
        let call = client
            .post(format!("{}/clients/{ACCOUNT}/token", sandbox.base_url()))
            .header("x-public-access", "allow")
            .header("content-type", "application/json")
            .body(body);
        assert_eq!(call.send().await.unwrap().status(), 200);
    }
}

/// Others have spent the account's budget. However the issuer says so, the daemon recovers once the window has moved on.
async fn over_budget(answer: OverBudget, told: bool, label: &str, detail: &str) {
    let world = World::with(quick(), |settings| {
        settings.limit = 3;
        settings.over_budget = answer;
        settings.over_budget_retry_after = told;
    })
    .await;
    spend_elsewhere(&world.sandbox, 3).await;
    let daemon = world.start().await;
    let status = daemon
        .until("an attempt is over and written down", |status| {
            !status["trouble"].is_null() && status["budget"]["slots"][0]["outcome"] == label
        })
        .await;
    assert_eq!(status["trouble"]["code"], label);
    let told = status["trouble"]["detail"].as_str().unwrap();
    assert!(told.starts_with(detail), "{told}");
    assert_eq!(
        status["parked"].is_null(),
        label != "refused",
        "only a refusal parks"
    );
    daemon.first_token().await;
    let calls = world.sandbox.log().entries;
    let (last, before) = calls[3..].split_last().unwrap();
    assert_eq!(last.outcome.name(), "minted");
    assert!(!before.is_empty());
    assert!(
        before
            .iter()
            .all(|call| call.outcome.name() == "over_budget")
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_budget_that_others_have_spent_is_waited_for_after_a_429() {
    let detail = "429 / too-many-requests / token limit exceeded";
    for told in [false, true] {
        over_budget(OverBudget::TooManyRequests, told, "throttled", detail).await;
    }
}

#[tokio::test]
async fn a_budget_that_others_have_spent_is_waited_for_after_a_400() {
    let detail = "400 / invalid-input / token limit exceeded";
    over_budget(OverBudget::BadRequest, false, "refused", detail).await;
}

#[tokio::test]
async fn a_budget_that_others_have_spent_is_waited_for_after_a_500() {
    let detail = "500 / internal-server-error / token limit exceeded";
    over_budget(OverBudget::InternalServerError, false, "lost", detail).await;
}

#[tokio::test]
async fn calls_that_arrive_late_in_bunches_stay_inside_the_budget() {
    let in_flight = Duration::from_millis(1_200);
    let world = World::new(Scale {
        lifetime: Duration::from_secs(60),
        window: Duration::from_secs(1),
        in_flight,
        timeout: Duration::from_millis(200),
        limit: 3,
    })
    .await;
    // Each third call overtakes the two before it, or nearly.
    let late = |millis| Fault::LateArrival {
        duration: Duration::from_millis(millis),
    };
    let script = (0..3).fold(Script::new(), |script, _| {
        script.then(late(900)).then(late(600)).then(late(300))
    });
    world.sandbox.script(script);
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    world.sandbox.arrived(10).await;
    assert_eq!(world.sandbox.arrivals(), 10);
    assert_eq!(super::attempts(&daemon, "urgent", "lost").await, 9.0);
    let worst = world.sandbox.worst_window_of_arrivals();
    assert!(worst <= 3, "{worst} calls arrived within one window");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn what_was_never_sent_gives_its_slot_back() {
    let mut world = World::new(slow()).await;
    world.stop_sandbox().await;
    let daemon = world.start().await;
    // A second's wait, two, four: the daemon says when it tries again, and holds no slot meanwhile.
    let status = daemon
        .until("an attempt that was not sent is over", |status| {
            status["next"]["waiting_for"] == "backoff" && status["trouble"]["code"] == "not_sent"
        })
        .await;
    assert_eq!(status["budget"]["slots"], json!([]));
    assert_eq!(status["budget"]["free"]["urgent"], 10);
    let told = status["trouble"]["detail"].as_str().unwrap();
    assert!(told.contains("refused"), "{told}");
    let reply = daemon.token().await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "no_token_yet")
    );
    assert!(reply.text.contains("not_sent"), "{}", reply.text);
    assert!(super::attempts(&daemon, "urgent", "not_sent").await >= 1.0);
    assert_eq!(world.sandbox.arrivals(), 0);
    world.start_sandbox().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert_eq!(world.sandbox.arrivals(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_call_to_an_issuer_that_hangs_up_is_never_sent_twice() {
    let world = World::new(quick()).await;
    world.sandbox.set_down(true);
    let daemon = world.start().await;
    world.sandbox.arrived(3).await;
    world.sandbox.set_down(false);
    daemon.first_token().await;
    let status = daemon
        .until("all attempts are over", |status| {
            status["token"].is_object() && status["minting"].is_null()
        })
        .await;
    let calls = world.sandbox.log().entries;
    let attempts = status["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), calls.len(), "one attempt is one call");
    for (attempt, call) in attempts.iter().rev().zip(&calls) {
        let expected = match call.outcome.name() {
            "down" => "lost",
            other => other,
        };
        assert_eq!(attempt["outcome"], expected);
    }
    assert!(daemon.stop().await.success());
    world.finish();
}
