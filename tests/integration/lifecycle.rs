//! How a daemon ends.

use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Daemon, Scale, World};

/// A report whose last byte has not been sent yet.
async fn half_a_report(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(&daemon.http).await.unwrap();
    let head = format!(
        "POST /v1/token/rejected HTTP/1.1\r\nHost: {}\r\nX-Bearerd-Request: true\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n",
        daemon.http
    );
    stream
        .write_all(format!("{head}{{\"generation\": 1, \"status\": 40").as_bytes())
        .await
        .unwrap();
    // An answer on another connection: by then the daemon has taken this one.
    daemon.token().await;
    stream
}

async fn all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let mut report = half_a_report(&daemon).await;
    daemon.signal(Signal::TERM);
    daemon.until_draining().await;
    assert_eq!(
        daemon.ask_admin("/livez").await.status,
        200,
        "alive until the end"
    );
    report.write_all(b"1}").await.unwrap();
    let answer = all(report).await;
    assert!(
        answer.starts_with("HTTP/1.1 202 ") && answer.contains("stale_generation"),
        "{answer}"
    );
    assert!(daemon.ended().await.success());
    world.finish();
}

#[tokio::test]
async fn those_who_wait_are_answered_at_once_on_drain() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let seen = [
        ("prefer", "wait=60"),
        ("if-none-match", token.header("etag")),
    ];
    let waiting = async {
        let reply = daemon.get("/v1/token", &seen).await;
        assert_eq!(reply.status, 304);
    };
    let ending = async {
        daemon
            .until_metric("bearerd_watchers{transport=\"http\"}", 1.0)
            .await;
        daemon.signal(Signal::INT);
    };
    tokio::join!(waiting, ending);
    assert!(daemon.ended().await.success());
    world.finish();
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let report = half_a_report(&daemon).await;
    daemon.signal(Signal::TERM);
    daemon.until_draining().await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(1));
    drop(report);
    world.finish();
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let mut world = World::new(Scale::still()).await;
    world.settings("[shutdown]\ndeadline = \"300ms\"");
    let daemon = world.start().await;
    daemon.first_token().await;
    let report = half_a_report(&daemon).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    drop(report);
    world.finish();
}

/// Sends a signal by its number, which may be one without a name.
fn send(daemon: &Daemon, number: i32) {
    let mut kill = Command::new("kill");
    let kill = kill.arg(format!("-{number}"));
    let pid = daemon.pid().as_raw_nonzero().to_string();
    assert!(kill.arg(pid).status().unwrap().success(), "{number}");
}

#[tokio::test]
async fn each_signal_that_asks_for_an_end_drains() {
    let world = World::new(Scale::still()).await;
    for signal in [
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::POWER,
        Signal::XCPU,
    ] {
        let daemon = world.start().await;
        daemon.first_token().await;
        let mut report = half_a_report(&daemon).await;
        daemon.signal(signal);
        daemon.until_draining().await;
        report.write_all(b"1}").await.unwrap();
        let answer = all(report).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{signal:?}: {answer}");
        let status = daemon.ended().await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
    }
    world.finish();
}

#[tokio::test]
async fn each_signal_that_means_nothing_here_changes_nothing() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let mut report = half_a_report(&daemon).await;
    let named = [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::STKFLT,
        Signal::XFSZ,
        Signal::PIPE,
    ];
    // What the C library does not keep for itself.
    let real_time = if cfg!(target_env = "musl") { 35 } else { 34 }..=64;
    let named = named.map(Signal::as_raw).into_iter();
    for number in named.chain(real_time) {
        send(&daemon, number);
        // It has been delivered by the time the process answers: no thread of it blocks signals.
        let reply = daemon.ask_admin("/readyz").await;
        assert_eq!(reply.status, 200, "{number}");
    }
    report.write_all(b"1}").await.unwrap();
    let mut answer = vec![0; 12];
    report.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 202", "nothing drains");
    drop(report);
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.finish();
}

#[tokio::test]
async fn a_file_that_may_not_grow_ends_nothing() {
    let world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    // From now on each write to a file brings a SIGXFSZ.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    prlimit(Some(daemon.pid()), Resource::Fsize, none).unwrap();
    daemon.until_metric("bearerd_record_up", 0.0).await;
    assert_eq!(daemon.ask_admin("/livez").await.status, 200);
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.finish();
}

#[tokio::test]
async fn a_mint_under_way_is_settled_before_the_end() {
    let world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    daemon.signal(Signal::TERM);
    daemon.until_draining().await;
    gate.open();
    assert!(daemon.ended().await.success());
    let successor = world.start().await;
    let token = successor.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert_eq!(world.sandbox.mints(), 1, "the slot was not wasted");
    assert!(successor.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_abort_leaves_no_core() {
    let world = World::new(Scale::still()).await;
    let cores = world.path("cores");
    std::fs::create_dir(&cores).unwrap();
    let settings = world.write("core.toml", &world.toml(&world.state(), "core"));
    let daemon = Daemon::start_under("-c unlimited", &cores, &settings, &world.captured).await;
    daemon.first_token().await;
    daemon.signal(Signal::ABORT);
    assert!(!daemon.ended().await.success());
    assert_eq!(
        std::fs::read_dir(&cores).unwrap().count(),
        0,
        "a core file was left"
    );
    world.finish();
}

#[tokio::test]
async fn callers_that_hang_on_take_nothing_that_a_refresh_needs() {
    let world = World::new(Scale::brisk()).await;
    let settings = world.write("few.toml", &world.toml(&world.state(), "few"));
    let daemon = Daemon::start_under(
        "-n 160",
        world.path(".").as_path(),
        &settings,
        &world.captured,
    )
    .await;
    let first = daemon.first_token().await;
    // More than may be open at all; those above the bound are not accepted, and wait.
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(TcpStream::connect(&daemon.http).await.unwrap());
    }
    let later = |status: &serde_json::Value| {
        status["token"]["generation"].as_u64() > Some(first.generation() + 2)
    };
    daemon.until("the token has rotated", later).await;
    assert_eq!(daemon.ask_admin("/livez").await.status, 200);
    drop(idle);
    let token = daemon.token().await;
    assert_eq!(world.sandbox.spend(&token.access_token()).status(), 200);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_closed_terminal_drains_too() {
    let world = World::new(Scale::still()).await;
    let settings = world.write("hangup.toml", &world.toml(&world.state(), "hangup"));
    // Whoever runs this under `nohup` hands the request to ignore a closed terminal down.
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal=HUP",
            env!("CARGO_BIN_EXE_bearerd"),
            "serve",
        ])
        .arg("--config")
        .arg(settings)
        .env_clear();
    let daemon = Daemon::spawn(command, &world.captured).await;
    daemon.first_token().await;
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.ended().await.code(), Some(0));
    world.finish();
}
