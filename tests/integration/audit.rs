//! The audit as an operator reads it: every kind of line, in the log and in a file of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::callers::{GET, REPORT, STALE, WATCH, over_tcp, over_unix};
use crate::harness::{Daemon, EVERYTHING, PATIENCE, Reply, Scale, World};

/// A world whose audit goes to a file in a folder of its own, which is scanned at the end as the state folder is.
async fn with_a_file(mut world: World) -> (World, PathBuf) {
    let folder = world.path("audit");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("audit.jsonl");
    world.settings(&format!("[audit]\nfile = {file:?}"));
    (world, file)
}

fn parsed(text: &str) -> Vec<Value> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The lines of the file, once this is so.
async fn until(file: &Path, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = parsed(&fs::read_to_string(file).unwrap_or_default());
        if so(&lines) {
            return lines;
        }
        assert!(Instant::now() < deadline, "not until now: {lines:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// One of everything that is told.
async fn one_of_each(daemon: &Daemon) -> Reply {
    let token = daemon.first_token().await;
    let caller = over_unix(daemon).await;
    let watch = caller.begin(WATCH, &[], b"").await.unwrap();
    let mut watch = watch.answered().await.unwrap();
    watch.next().await.unwrap().unwrap();
    drop((watch, caller));
    daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 0.0)
        .await;
    assert_eq!(
        daemon
            .report("{\"generation\": 1, \"status\": 401}")
            .await
            .status,
        202
    );
    over_tcp(daemon).await.ask(REPORT, &[], STALE).await;
    assert_eq!(daemon.get("/v1/token", &[("via", "x")]).await.status, 403);
    assert_eq!(daemon.refresh().await.status, 429);
    let put = daemon.send(Method::PUT, &daemon.admin, "/log", &[], Some(EVERYTHING));
    assert_eq!(put.await.unwrap().status, 200);
    let page = [("origin", "https://x")];
    let wish = daemon.send(Method::POST, &daemon.admin, "/refresh", &page, None);
    assert_eq!(wish.await.unwrap().status, 403);
    token
}

/// What a line says, but for when, how long, and from which port.
fn gist(line: &Value) -> String {
    let mut gist = String::new();
    for name in [
        "event",
        "caller",
        "transport",
        "action",
        "generation",
        "outcome",
        "tokens",
    ] {
        match &line[name] {
            Value::Null => {}
            Value::String(text) => gist += &format!("{text} "),
            other => gist += &format!("{other} "),
        }
    }
    gist.trim_end().to_owned()
}

/// What one of each comes to, in order.
fn expected(token: &Reply) -> Vec<String> {
    let generation = token.generation();
    let lines = [
        format!("first_vend local http {generation}"),
        "stream_opened local grpc".into(),
        "stream_closed local grpc hung_up 1".into(),
        "report local http 1 stale_generation".into(),
        "report local grpc 1 stale_generation".into(),
        "refused local http forwarded".into(),
        "operator operator admin refresh not_now".into(),
        "operator operator admin log changed".into(),
        "refused operator admin refresh browser".into(),
    ];
    lines.into()
}

fn are_right(lines: &[Value], token: &Reply) {
    let own = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    for line in lines {
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let from = line["from"].as_str().unwrap();
        match line["event"].as_str().unwrap() {
            "stream_opened" | "stream_closed" => assert_eq!(from, format!("uid {own} gid {group}")),
            _ => assert!(from.starts_with("127.0.0.1:"), "{line}"),
        }
    }
    let fingerprint = lines[0]["fingerprint"].as_str().unwrap();
    assert!(token.header("etag").ends_with(&format!("-{fingerprint}\"")));
    assert!(lines[2]["seconds"].as_f64().unwrap() >= 0.0);
}

#[tokio::test]
async fn each_event_is_a_line_of_a_file_of_its_own_whatever_the_log_shows() {
    let (world, file) = with_a_file(World::new(Scale::still()).await).await;
    // Not even errors are in the log.
    let settings = world.toml(&world.state(), "state");
    let start = settings.find("level = ").unwrap();
    let end = start + settings[start..].find('\n').unwrap();
    let level = "level = \"off,bearerd::app=info\"";
    let settings = format!("{}{level}{}", &settings[..start], &settings[end..]);
    let settings = world.write("state.toml", &settings);
    let daemon = Daemon::start(&settings, &world.captured).await;
    let token = one_of_each(&daemon).await;
    let lines = until(&file, |lines| lines.len() >= 9).await;
    assert_eq!(lines.iter().map(gist).collect::<Vec<_>>(), expected(&token));
    are_right(&lines, &token);
    // The scan at the end looks at the file and at its mode.
    assert!(daemon.stop().await.success());
    world
        .captured
        .add("the audit", &fs::read_to_string(&file).unwrap());
    assert!(
        !world
            .captured
            .lines("stderr")
            .iter()
            .any(|it| it.contains("first_vend"))
    );
    world.finish();
}

#[tokio::test]
async fn without_a_file_the_lines_are_in_the_log_in_its_form() {
    let mut world = World::quiet(Scale::still()).await;
    world.settings("format = \"json\"");
    let daemon = world.start().await;
    let token = one_of_each(&daemon).await;
    assert!(daemon.stop().await.success());
    let lines: Vec<Value> = world
        .captured
        .lines("stderr")
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["target"] == "audit")
        .collect();
    assert_eq!(lines.iter().map(gist).collect::<Vec<_>>(), expected(&token));
    are_right(&lines, &token);
    world.finish();
}

#[tokio::test]
async fn a_log_of_errors_has_no_audit_unless_it_is_asked_for_by_name() {
    for (level, told) in [("error", false), ("error,audit=info", true)] {
        let world = World::quiet(Scale::still()).await;
        let level = format!("level = \"{level},bearerd::app=info\"");
        let settings = world.toml(&world.state(), "state");
        let settings = settings.replace("level = \"info\"", &level);
        let settings = world.write("state.toml", &settings);
        let daemon = Daemon::start(&settings, &world.captured).await;
        daemon.first_token().await;
        assert!(daemon.stop().await.success());
        assert_eq!(world.captured.says("first_vend"), told, "{level}");
        world.finish();
    }
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_followed_by_a_new_one() {
    let (world, file) = with_a_file(World::new(Scale::still()).await).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let first = until(&file, |lines| lines.len() == 1).await;
    let moved = file.with_extension("jsonl.1");
    fs::rename(&file, &moved).unwrap();
    assert_eq!(daemon.refresh().await.status, 429);
    let second = until(&file, |lines| lines.len() == 1).await;
    assert_eq!(second[0]["event"], "operator");
    assert_eq!(parsed(&fs::read_to_string(&moved).unwrap()), first);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_flood_of_refusals_is_bounded_and_what_is_left_out_is_counted() {
    let (world, file) = with_a_file(World::quiet(Scale::still()).await).await;
    let daemon = world.start().await;
    let caller = over_tcp(&daemon).await;
    const FLOOD: u64 = 1000;
    for _ in 0..FLOOD {
        caller.ask(GET, &[("via", "x")], b"").await;
    }
    // What is no refusal is told all the same.
    assert_eq!(daemon.refresh().await.status, 429);
    until(&file, |lines| {
        lines.iter().any(|it| it["event"] == "operator")
    })
    .await;
    let refused = "bearerd_callers_refused_total{reason=\"forwarded\"}";
    assert_eq!(daemon.metric(refused).await, FLOOD as f64);
    assert!(daemon.stop().await.success());
    // By the end it is told how many are missing, and of whom.
    let lines = parsed(&fs::read_to_string(&file).unwrap());
    let told = count(&lines, "refused");
    assert_eq!(told + left_out(&lines, "local"), FLOOD);
    assert!(told >= 100, "{told}");
    world.finish();
}

fn count(lines: &[Value], event: &str) -> u64 {
    lines.iter().filter(|line| line["event"] == event).count() as u64
}

fn left_out(lines: &[Value], caller: &str) -> u64 {
    let of = |line: &&Value| line["event"] == "left_out" && line["caller"] == caller;
    let counts = lines.iter().filter(of);
    counts.map(|line| line["lines"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_caller_that_opens_and_closes_watches_fills_no_disk() {
    let (world, file) = with_a_file(World::quiet(Scale::still()).await).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    const FLOOD: u64 = 5000;
    let caller = over_tcp(&daemon).await;
    for _ in 0..FLOOD {
        let watch = caller.begin(WATCH, &[], b"").await.unwrap();
        drop(watch.answered().await.unwrap());
    }
    // Others are told of all the same.
    over_tcp(&daemon).await.ask(REPORT, &[], STALE).await;
    assert_eq!(daemon.refresh().await.status, 429);
    daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 0.0)
        .await;
    assert!(daemon.stop().await.success());
    let text = fs::read_to_string(&file).unwrap();
    let lines = parsed(&text);
    let (opened, closed) = (
        count(&lines, "stream_opened"),
        count(&lines, "stream_closed"),
    );
    assert_eq!(opened, closed, "a watch is told whole or not at all");
    assert_eq!(opened + closed + left_out(&lines, "local"), 2 * FLOOD);
    // A thousand at once, and one more for each second.
    assert!((1000..2000).contains(&opened), "{opened}");
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert_eq!((count(&lines, "report"), count(&lines, "operator")), (1, 1));
    world.finish();
}

#[tokio::test]
async fn a_full_disk_stops_nothing_but_the_lines_and_is_told_in_the_log() {
    let mut world = World::new(Scale::still()).await;
    world.settings("[audit]\nfile = \"/dev/full\"");
    let daemon = world.start().await;
    let token = one_of_each(&daemon).await;
    for _ in 0..100 {
        assert_eq!(daemon.token().await.text.len(), token.text.len());
        assert_eq!(
            daemon
                .report("{\"generation\": 1, \"status\": 401}")
                .await
                .status,
            202
        );
    }
    assert!(daemon.stop().await.success());
    assert!(world.captured.says("a line could not be written"));
    assert!(world.captured.says("No space left on device"));
    world.finish();
}

/// A hundred reports, one behind the other on one connection, and all their answers.
async fn a_hundred_reports(daemon: &Daemon) {
    let body = "{\"generation\": 1, \"status\": 401}";
    let report = format!(
        "POST /v1/token/rejected HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&daemon.http).await.unwrap();
    stream
        .write_all(report.repeat(100).as_bytes())
        .await
        .unwrap();
    let mut answers = String::new();
    while answers.matches("stale_generation").count() < 100 {
        let mut bytes = [0; 8192];
        let length = stream.read(&mut bytes).await.unwrap();
        assert!(length > 0, "the connection ends");
        answers.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    assert_eq!(answers.matches("HTTP/1.1 202 ").count(), 100);
}

#[tokio::test]
async fn a_disk_that_hangs_makes_nobody_wait() {
    let (world, file) = with_a_file(World::quiet(Scale::still()).await).await;
    // A pipe that somebody holds open and never reads takes some lines, and then no more.
    let made = Command::new("mkfifo").arg("-m600").arg(&file).status();
    assert!(made.unwrap().success());
    let held = fs::File::options().read(true).write(true).open(&file);
    let held = held.unwrap();
    let daemon = world.start().await;
    daemon.first_token().await;
    // More lines than the pipe takes.
    for _ in 0..100 {
        timeout(PATIENCE, a_hundred_reports(&daemon)).await.unwrap();
    }
    assert_eq!(daemon.token().await.status, 200);
    // The end does not wait for it either.
    assert!(daemon.stop().await.success());
    drop(held);
    fs::remove_file(file).unwrap();
    world.finish();
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_bad_settings() {
    let mut world = World::new(Scale::still()).await;
    // No user may make a file there.
    world.settings("[audit]\nfile = \"/proc/audit.jsonl\"");
    let settings = world.write("state.toml", &world.toml(&world.state(), "state"));
    let said = crate::terminal::run(&["serve", "--config", settings.to_str().unwrap()], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(
        said.err.contains("audit.file: it cannot be opened"),
        "{said:?}"
    );
    assert!(said.err.contains("No such file or directory"), "{said:?}");
    world.finish();
}
