//! What operators reach while the daemon runs: the settings in force, the log's filter, and when `/startupz` says yes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, EVERYTHING, PATIENCE, Reply, Scale, World};
use crate::terminal::run;

async fn put_log(daemon: &Daemon, query: &str, filter: &str) -> Reply {
    let path = format!("/log{query}");
    let put = daemon.send(Method::PUT, &daemon.admin, &path, &[], Some(filter));
    put.await.unwrap()
}

/// Starts a daemon of this world with more arguments and variables than the usual ones.
async fn start(world: &World, arguments: &[&str], environment: &[(&str, &str)]) -> Daemon {
    let settings = world.write("own.toml", &world.toml(&world.state(), "own"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .args(["serve", "--config"])
        .arg(settings)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    Daemon::spawn(command, &world.captured).await
}

#[tokio::test]
async fn secrets_stay_hidden_when_the_log_is_switched_to_everything() {
    let world = World::quiet(Scale::brisk()).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let traced = |target: &str| {
        let lines = world.captured.lines("stderr");
        let mut traces = lines.iter().filter(|line| line.contains(" TRACE "));
        traces.any(|line| line.contains(target))
    };
    assert!(!traced(""), "nobody asked for it yet");

    let reply = put_log(&daemon, "", EVERYTHING).await;
    assert_eq!(
        (reply.status, &reply.json()["level"]),
        (200, &EVERYTHING.into())
    );
    // A mint, an answer of every kind, and a report, all of them traced.
    let second = daemon.next_token(&first).await;
    let body = format!(
        "{{\"generation\": {}, \"status\": 401}}",
        second.generation()
    );
    assert_eq!(daemon.report(&body).await.status, 202);
    daemon.next_token(&second).await;
    let bad = put_log(&daemon, "", "hush").await;
    assert_eq!((bad.status, bad.problem().as_str()), (400, "bad_filter"));

    let reply = put_log(&daemon, "?for=1s", "debug").await;
    assert!(reply.json()["until"].is_string(), "{}", reply.text);
    let deadline = Instant::now() + PATIENCE;
    while daemon.ask_admin("/log").await.json()["level"] != "info" {
        assert!(
            Instant::now() < deadline,
            "the settings' filter does not come back"
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert!(daemon.stop().await.success());
    assert!(traced("hyper"), "the issuer's client was traced");
    world.finish();
}

// The sandbox goes on while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_in_force_are_those_that_check_shows() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let file = world.path("state.toml").display().to_string();
    let check = run(&["check", "--format", "json", "--config", &file], &[]);
    assert_eq!(check.code, Some(0), "{check:?}");
    let mut checked: Value = serde_json::from_str(&check.out).unwrap();
    checked.as_object_mut().unwrap().remove("key_set").unwrap();
    let shown = daemon.ask_admin("/settings").await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json(), checked);
    let key_file = &shown.json()["settings"]["upstream.keys.0.api_key_file"];
    assert_eq!(
        key_file["value"],
        world.path("api_key_0").display().to_string()
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

/// A line of a JSON log. A field that is there twice is an error here.
#[derive(Debug, Deserialize)]
struct Line {
    timestamp: jiff::Timestamp,
    level: String,
    target: String,
    message: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[tokio::test]
async fn every_line_of_a_json_log_is_one_flat_object_from_the_first_warning_to_the_end() {
    let world = World::new(Scale::brisk()).await;
    // Others may read this one, which is worth a warning before anything else is said.
    let others = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("api_key_0"), others).unwrap();
    // The key at hand is refused, until a good one is written.
    world.sandbox.regenerate_key(0).unwrap();
    let began = bearerd::clock::wall();
    let daemon = start(&world, &["--log-format", "json"], &[]).await;
    let parked = |status: &Value| !status["parked"].is_null();
    daemon.until("the key is refused", parked).await;
    world.write_keys();
    let token = daemon.first_token().await;
    assert_eq!(daemon.get("/nowhere", &[("origin", "x")]).await.status, 403);
    assert_eq!(daemon.report("{").await.status, 400);
    daemon.next_token(&token).await;
    assert_eq!(put_log(&daemon, "?for=1h", "trace").await.status, 200);
    assert!(daemon.stop().await.success());

    let lines: Vec<Line> = world.captured.lines("stderr").iter().map(parsed).collect();
    let said = |level: &str, message: &str| {
        let of = lines.iter().filter(|line| line.level == level);
        let mut messages = of.filter_map(|line| line.message.as_deref());
        assert!(
            messages.any(|it| it.contains(message)),
            "{level}: {message}"
        );
    };
    assert!(lines.iter().all(|line| line.timestamp >= began));
    said("WARN", "api_key_0");
    said("INFO", "starting");
    said("WARN", "the issuer refuses our keys");
    said("INFO", "a token was minted");
    said("INFO", "the log's filter was changed");
    said("INFO", "draining");
    said("INFO", "drained");
    assert!(lines.iter().any(|line| line.level == "TRACE"));
    world.finish();
}

fn parsed(text: &String) -> Line {
    let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let flat = |value: &Value| !value.is_object() && !value.is_array();
    assert!(line.fields.values().all(flat), "{text}");
    // What bearerd is built on may say something by fields alone.
    assert!(
        line.message.is_some() || !line.target.starts_with("bearerd"),
        "{text}"
    );
    line
}

/// Asks until `/startupz` says yes. Gives what it said, and how often it had said no.
async fn started(daemon: &Daemon) -> (String, u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut refused = 0;
    loop {
        let reply = daemon.ask_admin("/startupz").await;
        if reply.status == 200 {
            return (reply.text, refused);
        }
        assert_eq!((reply.status, reply.text.as_str()), (503, "starting\n"));
        assert!(Instant::now() < deadline, "it never starts");
        refused += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

const NO_GRACE: (&str, &str) = ("BEARERD_ADMIN__STARTUP_GRACE", "1h");

#[tokio::test]
async fn with_the_upstream_up_it_has_started_once_a_token_lives() {
    let world = World::new(Scale::still()).await;
    let daemon = start(&world, &[], &[NO_GRACE]).await;
    let (said, _) = started(&daemon).await;
    assert_eq!(said, "started\n");
    assert_eq!(
        daemon.token().await.status,
        200,
        "what waited for it need not wait again"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn with_a_slow_upstream_it_has_started_with_the_answer() {
    let world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let daemon = start(&world, &[], &[NO_GRACE]).await;
    gate.reached(1).await;
    assert_eq!(daemon.ask_admin("/startupz").await.status, 503);
    gate.open();
    assert_eq!(started(&daemon).await.0, "started\n");
    assert_eq!(daemon.token().await.status, 200);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn with_the_upstream_down_it_has_started_once_the_grace_is_over_or_a_token_lives() {
    let mut world = World::new(Scale::still()).await;
    world.stop_sandbox().await;
    let grace = Duration::from_secs(1);
    let before = Instant::now();
    let impatient = start(&world, &[], &[("BEARERD_ADMIN__STARTUP_GRACE", "1s")]).await;
    let (said, _) = started(&impatient).await;
    assert!(before.elapsed() >= grace, "after {:?}", before.elapsed());
    assert_eq!(said, "started without a token\n");
    assert_eq!(impatient.ask_admin("/readyz").await.status, 503);
    assert_eq!(impatient.ask_admin("/livez").await.status, 200);
    assert!(impatient.stop().await.success());

    let patient = start(&world, &[], &[NO_GRACE]).await;
    let tried = |status: &Value| status["attempts"][0]["outcome"] == "not_sent";
    patient.until("an attempt has failed", tried).await;
    assert_eq!(patient.ask_admin("/startupz").await.status, 503);
    world.start_sandbox().await;
    assert_eq!(started(&patient).await.0, "started\n");
    assert_eq!(patient.token().await.status, 200);
    assert!(patient.stop().await.success());
    world.finish();
}
