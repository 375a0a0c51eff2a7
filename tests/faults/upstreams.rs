//! An upstream that is worse than any answer: silent, slow, broken off in the middle, or without an end.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::front::{Front, Manner};
use crate::harness::{Daemon, Scale, World};
use crate::laws::Reader;
use crate::scales::without_reserve;

const MANNERS: [Manner; 8] = [
    Manner::Slam,
    Manner::Silence,
    Manner::Drip,
    Manner::ResetInHead,
    Manner::ResetInBody,
    Manner::Gigabyte,
    Manner::Endless,
    Manner::Headers,
];

/// A call may take long enough for a byte or two of those that come one a second.
fn patient() -> Scale {
    Scale {
        lifetime: Duration::from_secs(6),
        window: Duration::from_millis(1_500),
        in_flight: Duration::from_secs(3),
        timeout: Duration::from_millis(1_500),
        limit: 3,
    }
}

/// The most memory that a process has held so far, in KiB.
fn most_memory(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse().unwrap()
}

/// No attempt begins sooner after a lost one than this, less a fifth of it, as the daemon itself tells.
fn back_off_is_kept(attempts: &[Value], first: Duration) {
    for pair in attempts.windows(2) {
        let [next, lost] = pair else { unreachable!() };
        let began = |it: &Value| it["began_at"].as_str().unwrap().parse::<Timestamp>();
        let apart = began(next).unwrap().duration_since(began(lost).unwrap());
        let waited = apart.as_secs_f64() - lost["duration_seconds"].as_f64().unwrap();
        let least = first.as_secs_f64() * 0.8;
        assert!(
            !is_lost(&lost["outcome"]) || waited >= least - 0.001,
            "{waited} s after a lost attempt"
        );
    }
}

/// A request may have been counted, and gave nothing: no answer came, or none of Truecaller's.
fn is_lost(outcome: &Value) -> bool {
    outcome == "lost" || outcome == "intermediary"
}

/// From a live token through attempts that all meet this, past the token's end, and to the next token.
async fn outlive(manner: Manner) -> usize {
    let world = World::quiet(patient()).await;
    let front = Front::start(&world.sandbox.base_url()).await;
    let toml = without_reserve(&world, "state").replace(&world.sandbox.base_url(), &front.url);
    let daemon = Daemon::start(&world.write("state.toml", &toml), &world.captured).await;
    daemon.first_token().await;
    let reader = Reader::start(&world, &daemon);
    let memory = most_memory(&daemon);

    front.behave(manner);
    let ended = |status: &Value| {
        let end: Timestamp = status["token"]["expires_at"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let lost = status["attempts"].as_array().unwrap();
        let lost = lost.iter().filter(|it| is_lost(&it["outcome"])).count();
        bearerd::clock::wall() >= end && lost >= 2
    };
    let status = daemon
        .until("two attempts are lost and the token has ended", ended)
        .await;
    assert!(is_lost(&status["trouble"]["code"]), "{status:#}");
    let slots = status["budget"]["slots"].as_array().unwrap();
    let told = |slot: &Value| is_lost(&slot["outcome"]) || slot["outcome"] == "begun";
    assert!(slots.iter().any(told), "they cost a slot: {status:#}");
    assert_eq!(daemon.token().await.status, 503);
    let grown = most_memory(&daemon).saturating_sub(memory);

    front.behave(Manner::Pass);
    daemon.first_token().await;
    let answers = reader.finish().await;
    let status = daemon.status().await;
    let attempts = status["attempts"].as_array().unwrap();
    back_off_is_kept(attempts, world.scale.window / 60);
    if matches!(manner, Manner::Silence | Manner::Drip) {
        let gave_up = |it: &&Value| it["outcome"] == "lost";
        for lost in attempts.iter().filter(gave_up) {
            let waited = lost["duration_seconds"].as_f64().unwrap();
            assert!(waited >= world.scale.timeout.as_secs_f64(), "{lost}");
        }
    }
    assert!(daemon.stop().await.success());

    let seen = front.seen();
    let bad: Vec<_> = seen.iter().filter(|seen| seen.manner == manner).collect();
    assert!(bad.len() >= 2);
    assert!(
        seen.len() <= attempts.len(),
        "a connection beside the attempts"
    );
    for connection in &seen {
        assert!(connection.posts <= 1, "a second POST: {connection:?}");
        let head = connection.head.to_ascii_lowercase();
        let whole = head.contains("content-length: ") && !head.contains("transfer-encoding");
        assert!(whole || connection.manner == Manner::Slam, "{connection:?}");
    }
    let open_for = |it: &&crate::front::Seen| it.open_for.expect("the daemon has hung up");
    let longest = bad.iter().map(open_for).max().unwrap();
    // An answer that came byte by byte would have taken most of a minute.
    assert!(longest < Duration::from_secs(20), "{longest:?}");
    let taken = bad.iter().map(|seen| seen.sent).max().unwrap();
    // What fills the buffers of two sockets, and no more.
    assert!(taken < 64 << 20, "{taken} bytes were taken");
    assert!(grown < 16 << 10, "{grown} KiB more memory");
    let worst = front.worst_window(world.scale.window);
    println!(
        "{manner:?}: {} attempts met it, the longest for {longest:.1?}; {} KiB taken, {grown} KiB more memory; {answers:?}; \
         worst window {worst}",
        bad.len(),
        taken >> 10
    );
    assert!(worst <= world.scale.limit as usize, "law 1");
    world.finish();
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_upstream_costs_its_slots_and_nobody_else_anything() {
    let mut worlds = JoinSet::new();
    for manner in MANNERS {
        worlds.spawn(outlive(manner));
    }
    let worst = worlds.join_all().await;
    assert!(
        worst.iter().any(|worst| *worst >= 2),
        "the budget was never strained: {worst:?}"
    );
}
