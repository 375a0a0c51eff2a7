//! Many connections, and many reports.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::frames::Raw;
use super::siege::Siege;
use super::wire::{Wire, good, statuses};
use crate::harness::PATIENCE;

/// What a connection may cost that has said nothing: hyper's buffer begins with 8 KiB, and a debug build's task is larger than a release
/// build's.
const EACH: u64 = 16 << 10;

/// Comes and goes so often, a few at a time.
async fn comes_and_goes(address: &str, times: usize, each: impl AsyncFn(Wire)) {
    for _ in 0..times {
        each(
            timeout(PATIENCE, Wire::connect(address))
                .await
                .expect("a connect"),
        )
        .await;
    }
}

#[tokio::test]
async fn thousands_that_come_and_go_leave_nothing() {
    let mut siege = Siege::begin("").await;
    let (http, grpc) = (siege.daemon.http.clone(), siege.daemon.grpc.clone());
    for address in [&http, &grpc] {
        comes_and_goes(address, 3000, async |_| {}).await;
        siege.within("connect and close", 0).await;
        comes_and_goes(address, 3000, async |wire| wire.reset_on_drop()).await;
        siege.within("connect and reset", 0).await;
        comes_and_goes(address, 1000, async |mut wire| {
            wire.reset_on_drop();
            let _reset_already = wire.send(good("GET /v1/token", "").as_bytes()).await;
        })
        .await;
        siege.within("ask and reset", 0).await;
    }
    // The callers in the background have one each; one more may just have come anew.
    siege
        .until_at_most("bearerd_connections{transport=\"http\"}", 2.0)
        .await;
    siege
        .until_at_most("bearerd_connections{transport=\"grpc\"}", 1.0)
        .await;
    siege.lift().await;
}

/// 64 places make 16 for each of the four listeners.
const FEW: &str = "[limits]\nconnections = 64";

#[tokio::test]
async fn whoever_takes_all_places_has_to_make_room() {
    let mut siege = Siege::begin(FEW).await;
    let (http, grpc) = (siege.daemon.http.clone(), siege.daemon.grpc.clone());
    let made_room = "bearerd_connections_closed_total{reason=\"made_room\"}";
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(Wire::connect(&http).await);
    }
    // More than all places have been given away once a reader who comes anew is served behind them.
    siege.until_at_least(made_room, 84.0).await;
    siege.served().await;
    let before = siege.daemon.metric(made_room).await;
    // Who has asked once is idle, and makes room too.
    let mut asked = Vec::new();
    for _ in 0..40 {
        let mut wire = Wire::connect(&http).await;
        wire.send(good("GET /v1/token", "").as_bytes())
            .await
            .unwrap();
        asked.push(wire);
    }
    siege.until_at_least(made_room, before + 40.0).await;
    siege.served().await;
    // Half a head, over and over.
    for _ in 0..40 {
        let mut wire = Wire::connect(&http).await;
        wire.send(b"GET /v1/token HTTP/1.1\r\n").await.unwrap();
        held.push(wire);
    }
    siege.served().await;
    // And over gRPC, where nobody but the callers there can feel it.
    for _ in 0..100 {
        held.push(Wire::connect(&grpc).await);
    }
    siege.served().await;
    assert!(
        siege
            .daemon
            .metric("bearerd_connections{transport=\"http\"}")
            .await
            <= 17.0
    );
    assert!(
        siege
            .daemon
            .metric("bearerd_connections{transport=\"grpc\"}")
            .await
            <= 17.0
    );
    siege.within("floods of connections", 2 * 17 * EACH).await;
    drop((held, asked));
    siege.lift().await;
}

#[tokio::test]
async fn a_flood_that_does_not_stop_leaves_room_for_others() {
    let mut siege = Siege::begin(FEW).await;
    let mut floods = JoinSet::new();
    for address in [&siege.daemon.http, &siege.daemon.grpc] {
        let address = address.clone();
        floods.spawn(async move {
            // Those it holds are always more than there are places, and all of them have just come.
            let mut held = VecDeque::new();
            loop {
                held.push_back(Wire::connect(&address).await);
                if held.len() > 100 {
                    held.pop_front();
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
    }
    let made_room = "bearerd_connections_closed_total{reason=\"made_room\"}";
    siege.until_at_least(made_room, 1000.0).await;
    for _ in 0..3 {
        siege.served().await;
    }
    siege
        .within("a flood that does not stop", 2 * 17 * EACH)
        .await;
    assert!(floods.try_join_next().is_none(), "it goes on");
    floods.shutdown().await;
    siege.lift().await;
}

#[tokio::test]
async fn operators_are_answered_beside_a_flood_of_their_own() {
    let mut siege = Siege::begin("").await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(Wire::connect(&siege.daemon.admin).await);
        held.push(Wire::connect(&siege.daemon.http).await);
    }
    for _ in 0..10 {
        let mut probe = Wire::connect(&siege.daemon.admin).await;
        probe
            .send(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(statuses(&probe.rest().await), [200]);
    }
    // Operators have 128 places, and whoever came before a probe had to go before it.
    assert!(siege.closed("made_room").await >= 160.0);
    siege.within("a flood of operators", 450 * EACH).await;
    siege.lift().await;
}

#[tokio::test]
async fn who_is_being_answered_never_makes_room() {
    let mut siege = Siege::begin(FEW).await;
    let token = siege.daemon.token().await;
    let etag = format!(
        "If-None-Match: {}\r\nPrefer: wait=8\r\n",
        token.header("etag")
    );
    let mut waiting = JoinSet::new();
    // Two places are the callers' in the background, and two are left.
    for _ in 0..12 {
        let mut wire = Wire::connect(&siege.daemon.http).await;
        wire.send(good("GET /v1/token", &etag).as_bytes())
            .await
            .unwrap();
        waiting.spawn(async move { wire.status().await });
    }
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"http\"}", 12.0)
        .await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(Wire::connect(&siege.daemon.http).await);
    }
    siege.served().await;
    let made_room = "bearerd_connections_closed_total{reason=\"made_room\"}";
    siege.until_at_least(made_room, 1.0).await;
    for status in waiting.join_all().await {
        assert_eq!(status, Some(304));
    }
    siege.lift().await;
}

#[tokio::test]
async fn who_waits_for_ever_does_not_take_every_place() {
    let mut siege = Siege::begin("[limits]\nconnections = 128").await;
    let token = siege.daemon.token().await;
    let more = format!(
        "If-None-Match: {}\r\nPrefer: wait=60\r\n",
        token.header("etag")
    );
    let wait = good("GET /v1/token", &more);
    let mut waiting = Vec::new();
    // Three quarters of the 32 places of a listener.
    for _ in 0..24 {
        let mut wire = Wire::connect(&siege.daemon.http).await;
        wire.send(wait.as_bytes()).await.unwrap();
        waiting.push(wire);
    }
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"http\"}", 24.0)
        .await;
    for _ in 0..20 {
        // One that has not been read from yet may have to make room for the callers in the background.
        let status = loop {
            let mut wire = Wire::connect(&siege.daemon.http).await;
            let _it_may_be_gone = wire.send(wait.as_bytes()).await;
            if let Some(status) = wire.status().await {
                break status;
            }
        };
        assert_eq!(status, 429);
    }
    siege.served().await;
    siege.lift().await;
}

#[tokio::test]
async fn many_connections_cost_what_they_may() {
    let mut siege = Siege::begin("").await;
    const MANY: usize = 1000;
    let mut mute = Vec::new();
    let mut begun = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..MANY {
        mute.push(Wire::connect(&siege.daemon.http).await);
        let mut wire = Wire::connect(&siege.daemon.http).await;
        // All that a head may have before it is refused.
        wire.send(
            good("GET /v1/token", &format!("X-A: {}", "a".repeat(15_000)))
                .trim_end()
                .as_bytes(),
        )
        .await
        .unwrap();
        begun.push(wire);
    }
    for _ in 0..MANY {
        calls.push(Raw::connect(&siege.daemon.grpc).await);
    }
    siege
        .until_at_least("bearerd_connections{transport=\"http\"}", 2.0 * MANY as f64)
        .await;
    // Besides the buffer, which doubles as a head grows: 16 KiB are the most.
    siege
        .within(
            "3,000 connections",
            MANY as u64 * (2 * EACH + EACH + (16 << 10)),
        )
        .await;
    drop((mute, begun, calls));
    siege
        .until_at_most("bearerd_connections{transport=\"http\"}", 2.0)
        .await;
    siege.lift().await;
}

#[tokio::test]
async fn one_user_does_not_take_every_place_on_a_socket() {
    let mut siege = Siege::begin("[limits]\npeer_connections = 8").await;
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&siege.daemon.socket).await.unwrap();
        let mut byte = [0];
        // Who is let in hears nothing; who is not, the end.
        match timeout(Duration::from_millis(50), stream.read(&mut byte)).await {
            Err(_) => held.push(stream),
            Ok(Ok(0)) => turned_away += 1,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => turned_away += 1,
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((held.len(), turned_away), (8, 42));
    // One share for all sockets of the process.
    let mut over_grpc = UnixStream::connect(&siege.daemon.grpc_socket)
        .await
        .unwrap();
    assert_eq!(over_grpc.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(siege.closed("peer_limit").await, 43.0);
    drop(held);
    let client = reqwest::Client::builder()
        .unix_socket(siege.daemon.socket.as_str())
        .build()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = client
            .get("http://localhost/v1/token")
            .header("x-bearerd-request", "true");
        if request.send().await.is_ok_and(|it| it.status() == 200) {
            break;
        }
        assert!(Instant::now() < deadline, "its places are never given back");
    }
    siege.within("a user's flood", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn a_flood_of_reports_takes_no_slots() {
    let mut siege = Siege::begin("").await;
    let generation = siege.daemon.token().await.generation();
    let free = "bearerd_budget_slots_free{class=\"urgent\"}";
    let before = siege.daemon.metric(free).await;
    let mut floods = JoinSet::new();
    for caller in 0..8_u64 {
        let address = siege.daemon.http.clone();
        floods.spawn(async move {
            let mut wire = Wire::connect(&address).await;
            for index in 0..500 {
                // Of this generation, of those before, and of those to come.
                let of = (generation + (caller + index) % 3).saturating_sub(1);
                let body = format!("{{\"generation\":{of},\"status\":401}}");
                let more = format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                );
                let head = good("POST /v1/token/rejected", &more);
                wire.send(format!("{head}{body}").as_bytes()).await.unwrap();
                assert_eq!(wire.status().await, Some(202));
            }
        });
    }
    floods.join_all().await;
    // The token has just been minted: a report of it is too young, and if the machine was slow, one of them is believed.
    let after = siege.daemon.metric(free).await;
    assert!(after >= before - 1.0, "{before} slots, and then {after}");
    siege.within("4,000 reports", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn a_flood_of_requests_on_one_connection_is_answered_in_turn() {
    let mut siege = Siege::begin("").await;
    let requests =
        good("GET /v1/token", "").repeat(5000) + &good("GET /v1/token", "Connection: close\r\n");
    let answers = super::wire::exchange(&siege.daemon.http, requests.as_bytes()).await;
    let statuses = statuses(&answers);
    assert_eq!(
        (statuses.len(), statuses.iter().all(|it| *it == 200)),
        (5001, true)
    );
    siege.within("5,000 requests at once", 0).await;
    siege.lift().await;
}
