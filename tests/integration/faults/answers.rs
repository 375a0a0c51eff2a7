//! Answers that are slow, huge, elsewhere, old or about a token that is worth nothing any more.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearerd::sandbox::{Fault, Script};
use tokio::task::JoinSet;

use super::{believed, between, due_at_once, long_lived, over, quick, seconds, slow, time};
use crate::harness::{Daemon, Reply, Scale, World};

fn expires_at(token: &Reply) -> jiff::Timestamp {
    time(&token.json()["expires_at"])
}

fn issued_at(token: &Reply) -> jiff::Timestamp {
    time(&token.json()["issued_at"])
}

#[tokio::test]
async fn while_the_first_mint_hangs_everybody_is_told_so() {
    let world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    let status = daemon.status().await;
    let attempt = format!("attempt {} is under way", status["minting"]);
    assert!(status["next"].is_null(), "{status}");
    assert_eq!(status["budget"]["slots"][0]["outcome"], "begun");
    let reply = daemon.token().await;
    assert_eq!(
        (
            reply.status,
            reply.problem().as_str(),
            reply.header("retry-after")
        ),
        (503, "no_token_yet", "1")
    );
    assert!(reply.text.contains(&attempt), "{}", reply.text);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains(&attempt), "{}", ready.text);
    assert_eq!(daemon.ask_admin("/startupz").await.status, 503);
    assert_eq!(daemon.ask_admin("/livez").await.status, 200);
    gate.open();
    daemon.first_token().await;
    assert_eq!(daemon.ask_admin("/startupz").await.status, 200);
    assert_eq!(
        world.sandbox.arrivals(),
        1,
        "nobody who asks sets off a mint"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_body_that_is_slow_but_in_time_is_a_token() {
    let world = World::new(Scale::still()).await;
    world.sandbox.script(Fault::SlowBody {
        interval: Duration::from_millis(1),
    });
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert_eq!(world.sandbox.arrivals(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

/// The most memory that a process has held so far, in bytes.
fn most_memory(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .unwrap()
        .parse()
        .unwrap();
    kilobytes * 1024
}

#[tokio::test]
async fn a_huge_body_is_not_read_to_its_end() {
    const HUGE: u64 = 1 << 30;
    let world = World::new(slow()).await;
    world.sandbox.script(Fault::HugeBody { bytes: HUGE });
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    // The connection is closed once the token is there, so the call is over although its answer was not sent.
    world.sandbox.answered(1).await;
    let most = most_memory(&daemon);
    assert!(most < HUGE / 16, "{most} bytes");
    assert_eq!(world.sandbox.arrivals(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let world = World::new(quick()).await;
    world.sandbox.script(Fault::Redirect {
        location: format!("http://{}/token", elsewhere.local_addr().unwrap()),
    });
    let daemon = world.start().await;
    let status = daemon
        .until("the attempt has failed", |status| {
            !status["trouble"].is_null()
        })
        .await;
    assert_eq!(status["trouble"]["code"], "intermediary");
    let detail = status["trouble"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the answer does not look like Truecaller's: 307 to 127.0.0.1 "),
        "{detail}"
    );
    daemon.first_token().await;
    let nobody = elsewhere.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
    assert_eq!(world.sandbox.arrivals(), 2);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_token_that_is_older_than_its_answer_ends_earlier() {
    let age = Duration::from_secs(20 * 60);
    let world = World::new(slow()).await;
    world.sandbox.script(Fault::AgedToken { age });
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let lives = between(issued_at(&token), expires_at(&token));
    assert!((2_398.0..=2_400.0).contains(&lives), "{lives} s");
    let arrived = world.sandbox.log().entries[0].wall;
    let true_end = arrived + (world.scale.lifetime - age);
    assert!(
        expires_at(&token) <= true_end,
        "nothing is vended beyond its true end"
    );
    let status = daemon.status().await;
    let lead = between(
        time(&status["token"]["refresh_at"]),
        time(&status["token"]["expires_at"]),
    );
    assert!(
        (lead - 1_980.0).abs() < 0.02,
        "and its successor is due earlier"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_token_that_is_due_at_its_birth_sets_off_no_flood() {
    let world = World::new(Scale {
        lifetime: Duration::from_secs(30),
        ..quick()
    })
    .await;
    // Four seconds are left of thirty, and the lead is longer than that.
    let old = Fault::AgedToken {
        age: Duration::from_secs(25),
    };
    world.sandbox.script(Script::from(old).times(3));
    let daemon = world.start().await;
    daemon.first_token().await;
    let status = over(&daemon, 3).await;
    assert_eq!(
        world.sandbox.arrivals(),
        4,
        "three that were due at once, and one that was not"
    );
    let pace = seconds(&status["budget"]["period_seconds"]) / 10.0;
    for pair in status["attempts"].as_array().unwrap().windows(2) {
        let apart = between(time(&pair[1]["began_at"]), time(&pair[0]["began_at"]));
        assert!(apart >= pace - 0.02, "{apart} s apart");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn what_an_odd_created_at_says_is_noted_and_changes_nothing() {
    for (value, note) in [
        ("0001-01-01T00:00:00Z", "further back than a token lives"),
        ("9999-12-30T00:00:00Z", "lies in the future"),
        ("", "is not a time"),
    ] {
        let world = World::new(slow()).await;
        world.sandbox.script(Fault::CreatedAt {
            value: value.to_owned(),
        });
        let daemon = world.start().await;
        let token = daemon.first_token().await;
        let lives = between(issued_at(&token), expires_at(&token));
        assert!((lives - 3_600.0).abs() < 0.02, "{value}: {lives} s");
        let status = over(&daemon, 0).await;
        let detail = status["attempts"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(note), "{value}: {detail}");
        assert!(status["trouble"].is_null());
        assert!(daemon.stop().await.success());
        world.finish();
    }
}

#[tokio::test]
async fn a_token_that_was_dead_when_it_came_is_found_out_by_its_first_caller() {
    let world = World::with(
        Scale {
            lifetime: Duration::from_secs(60),
            ..quick()
        },
        |settings| settings.expired_fails_to_parse = true,
    )
    .await;
    world.sandbox.script(Fault::AgedToken {
        age: Duration::from_secs(61),
    });
    let daemon = world.start().await;
    let dead = daemon.first_token().await;
    let status = over(&daemon, 0).await;
    let note = status["attempts"][0]["detail"].as_str().unwrap();
    assert!(note.contains("further back than a token lives"), "{note}");
    assert_eq!(world.sandbox.spend(&dead.access_token()).status(), 500);
    let report = format!(
        r#"{{"generation":{},"status":500,"message":"500/50011 - Failed to parse token"}}"#,
        dead.generation()
    );
    believed(&daemon, &report).await;
    let live = daemon.next_token(&dead).await;
    assert_eq!(world.sandbox.spend(&live.access_token()).status(), 200);
    assert_eq!(world.sandbox.arrivals(), 2);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_revoked_token_that_is_reported_has_a_successor() {
    let world = World::new(Scale {
        lifetime: Duration::from_secs(60),
        window: Duration::from_secs(6),
        ..quick()
    })
    .await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let report = |status: u16| {
        format!(
            r#"{{"generation":{},"status":{status}}}"#,
            first.generation()
        )
    };
    world.sandbox.set_suspended(true);
    assert_eq!(world.sandbox.spend(&first.access_token()).status(), 403);
    world.sandbox.set_suspended(false);
    assert_eq!(
        daemon.report(&report(403)).await.json()["outcome"],
        "not_a_refusal"
    );
    assert!(world.sandbox.revoke(&first.access_token()));
    assert_eq!(world.sandbox.spend(&first.access_token()).status(), 401);
    let gate = world.sandbox.hold_mints();
    believed(&daemon, &report(401)).await;
    gate.reached(1).await;
    let meanwhile = daemon.token().await;
    assert_eq!(meanwhile.access_token(), first.access_token());
    assert_eq!(meanwhile.json()["suspect"], true);
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert!(ready.status == 200 && ready.text.contains("suspect"));
    gate.open();
    let second = daemon.next_token(&meanwhile).await;
    assert_eq!(world.sandbox.spend(&second.access_token()).status(), 200);
    assert_eq!(
        daemon.report(&report(401)).await.json()["outcome"],
        "stale_generation"
    );
    let status = over(&daemon, 1).await;
    assert_eq!(
        (
            &status["attempts"][0]["class"],
            &status["attempts"][0]["trigger"]
        ),
        (&"reported".into(), &"report".into())
    );
    assert_eq!(super::attempts(&daemon, "reported", "minted").await, 1.0);
    assert_eq!(
        world.sandbox.arrivals(),
        2,
        "all reports together cost one mint"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

/// A world where a new token ends the life of the one before it, and the daemon knows.
async fn revoking(mut world: World) -> World {
    world.upstream("revokes_previous = true");
    world
        .sandbox
        .switch(|switches| switches.revokes_previous = true);
    world
}

#[tokio::test]
async fn where_a_new_token_revokes_the_old_one_nobody_holds_a_dead_token_for_long() {
    const ROTATIONS: u64 = 3;
    let world = revoking(World::new(Scale::brisk()).await).await;
    let daemon = Arc::new(world.start().await);
    let mut last = daemon.first_token().await;
    let enough = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (daemon, sandbox) = (Arc::clone(&daemon), world.sandbox.clone());
        let enough = Arc::clone(&enough);
        readers.spawn(async move {
            let mut accepted = 0;
            while !enough.load(Ordering::Relaxed) {
                let read = daemon.token().await;
                if sandbox.spend(&read.access_token()).status() == 200 {
                    accepted += 1;
                    continue;
                }
                // Only a successor can have ended it, and that one comes without anybody asking for it.
                let newest = sandbox.issued_tokens().pop().unwrap();
                assert_ne!(read.access_token(), newest);
                daemon.next_token(&read).await;
            }
            accepted
        });
    }
    for _ in 0..ROTATIONS {
        last = daemon.next_token(&last).await;
        assert_eq!(world.sandbox.spend(&last.access_token()).status(), 200);
    }
    enough.store(true, Ordering::Relaxed);
    let accepted: u64 = readers.join_all().await.into_iter().sum();
    assert!(accepted > 10 * ROTATIONS, "{accepted} reads were accepted");
    assert_eq!(world.sandbox.arrivals() as u64, ROTATIONS + 1);
    let daemon = Arc::into_inner(daemon).unwrap();
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn where_a_new_token_revokes_the_old_one_a_lost_answer_makes_the_next_attempt_urgent() {
    let world = revoking(due_at_once(long_lived(Duration::from_secs(10))).await).await;
    world
        .sandbox
        .script(Script::from(Fault::LostAnswer).after(1));
    let daemon = world.start().await;
    let held = daemon.first_token().await;
    let status = over(&daemon, 1).await;
    assert_eq!(world.sandbox.spend(&held.access_token()).status(), 401);
    let next = &status["next"];
    assert_eq!(
        (&next["class"], &next["trigger"]),
        (&"urgent".into(), &"expiry".into())
    );
    // Hardly any of the held token is left, whatever its own end says: only the back-off counts.
    let failed = &status["attempts"][0];
    let took = seconds(&failed["duration_seconds"]);
    let wait = between(time(&failed["began_at"]), time(&next["at"])) - took;
    let longest = seconds(&status["budget"]["period_seconds"]) / 10.0;
    assert!(wait <= longest, "{wait} s, with a token that is dead");
    let second = daemon.next_token(&held).await;
    assert_eq!(world.sandbox.spend(&second.access_token()).status(), 200);
    assert_eq!(world.sandbox.arrivals(), 3);
    assert!(daemon.stop().await.success());
    world.finish();
}
