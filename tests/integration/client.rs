//! The Rust client beside the real daemon.

use std::time::Duration;

use bearerd::client::{Client, Closed, Door, Reported, Watch};
use bearerd::clock::SystemClock;
use bearerd::listener::Address;
use bearerd::token::Generation;

use crate::harness::{Daemon, PATIENCE, Scale, World};

/// The daemon's socket is where it was after a restart; its port is not.
fn socket(daemon: &Daemon) -> Address {
    Address::Unix(daemon.socket.clone().into())
}

async fn next(watch: &mut Watch) -> (Generation, String) {
    let changed = tokio::time::timeout(PATIENCE, watch.changed());
    let token = changed.await.expect("a newer token comes").unwrap();
    (token.generation(), token.secret().expose().to_owned())
}

/// A token lives longer than the test, so that it rotates when the test says so and never by itself.
fn by_steps() -> Scale {
    Scale {
        lifetime: Duration::from_secs(300),
        window: Duration::from_secs(2),
        in_flight: Duration::from_secs(4),
        timeout: Duration::from_secs(2),
        limit: 10,
    }
}

/// Asks for a new token until the pace allows it.
async fn rotate(daemon: &Daemon) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while daemon.refresh().await.status != 202 {
        assert!(tokio::time::Instant::now() < deadline, "no refresh");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_rotation_is_seen_over_tcp_and_over_a_socket() {
    let world = World::new(by_steps()).await;
    let daemon = world.start().await;
    let tcp = Client::connect(&daemon.http.parse().unwrap()).unwrap();
    let unix = Client::connect(&socket(&daemon)).unwrap();
    let (mut one, mut other) = (tcp.watch(), unix.watch());
    for rotation in 0..20 {
        if rotation > 0 {
            rotate(&daemon).await;
        }
        let (generation, secret) = next(&mut one).await;
        assert_eq!(next(&mut other).await, (generation, secret.clone()));
        assert_eq!(world.sandbox.issued_tokens().last(), Some(&secret));
        assert_eq!(world.sandbox.mints(), rotation + 1, "none was missed");
        assert_eq!(world.sandbox.spend(&secret).status(), 200);
        assert_eq!(tcp.current().unwrap().secret().expose(), secret);
    }
    drop((tcp, unix));
    assert_eq!(one.changed().await.err(), Some(Closed));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_outage_of_the_daemon_and_its_restart_are_survived() {
    let mut world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let client = Client::connect(&socket(&daemon)).unwrap();
    let mut watch = client.watch();
    let (held, _) = next(&mut watch).await;
    assert!(daemon.stop().await.success());
    // What is at hand is kept without a daemon, until its end and no longer.
    let mut reads = 0;
    let why = loop {
        match client.current() {
            Ok(token) => {
                reads += 1;
                assert!(token.generation() >= held);
                assert!(world.sandbox.is_live(token.secret().expose()));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(why) => break why.to_string(),
        }
    };
    assert!(
        reads > 0 && why.contains("no daemon answers at unix:"),
        "{why}"
    );
    let daemon = world.start().await;
    let (newer, secret) = next(&mut watch).await;
    assert!(newer > held);
    assert_eq!(world.sandbox.spend(&secret).status(), 200);

    world.stop_sandbox().await;
    while client.current().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.start_sandbox().await;
    next(&mut watch).await;
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_report_leads_to_a_newer_token() {
    let world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let client = Client::connect(&socket(&daemon)).unwrap();
    let mut watch = client.watch();
    let mut token = client.ready(PATIENCE).await.unwrap();
    watch.seen(token.generation());
    let outcome = client.report(token.generation(), 429, None).await;
    assert_eq!(outcome.unwrap(), Reported::NotARefusal);
    let outcome = client.report(Generation(1), 401, None).await;
    assert_eq!(outcome.unwrap(), Reported::StaleGeneration);
    // One of its own, for the schedule would bring a newer one, too.
    let reported = loop {
        world.sandbox.revoke(token.secret().expose());
        match client.report(token.generation(), 401, None).await.unwrap() {
            Reported::Refreshing | Reported::Paced { .. } => break token.generation(),
            Reported::TooYoung | Reported::StaleGeneration => token = client.current().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (mut generation, mut secret) = next(&mut watch).await;
    while generation <= reported {
        (generation, secret) = next(&mut watch).await;
    }
    assert_eq!(world.sandbox.spend(&secret).status(), 200);
    let status = daemon.status().await;
    let attempts = status["attempts"].as_array().unwrap();
    assert!(
        attempts.iter().any(|it| it["trigger"] == "report"),
        "{status:#}"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_door_gives_the_token_once_and_waits_if_it_is_asked_to() {
    let world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    let (door, clock) = (Door::new(&socket(&daemon)).unwrap(), SystemClock::new());
    let none = door.token(Duration::ZERO, &clock).await.unwrap_err();
    assert!(
        none.may_pass() && none.to_string().contains("There is no token yet"),
        "{none}"
    );
    let waiting = door.token(PATIENCE, &clock);
    let released = async {
        gate.reached(1).await;
        gate.open();
    };
    let (token, ()) = tokio::join!(waiting, released);
    let (token, document) = token.unwrap();
    assert_eq!(world.sandbox.spend(token.secret().expose()).status(), 200);
    assert!(document.starts_with(b"{\"access_token\""));
    assert!(daemon.stop().await.success());
    world.finish();
}
