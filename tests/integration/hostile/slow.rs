//! Who begins and does not go on, who is silent, and who does not read.

use std::time::Duration;

use super::frames::{PING, Raw, WATCH, frame, whole_call};
use super::siege::Siege;
use super::wire::{Wire, exchange, good, statuses};
use crate::harness::PATIENCE;

/// Short enough for a test, and long enough for the callers in the background on a busy machine.
const SHORT: &str =
    "[limits]\nheader_timeout = \"1s\"\nidle_timeout = \"2s\"\nwrite_timeout = \"2s\"";

/// Writes byte after byte, and never all; true if the other end has closed by then.
async fn drip(address: &str, bytes: &[u8]) -> bool {
    let mut wire = Wire::connect(address).await;
    for byte in bytes.iter().cycle().take(3000) {
        if wire.send(&[*byte]).await.is_err() {
            return true;
        }
        if wire.ended_within(Duration::from_millis(10)).await {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn who_does_not_get_on_with_a_head_is_ended() {
    let mut siege = Siege::begin(SHORT).await;
    let http = siege.daemon.http.clone();
    let grpc = siege.daemon.grpc.clone();
    let admin = siege.daemon.admin.clone();
    let reason = "header_timeout";
    for (name, address, bytes) in [
        (
            "a head, byte after byte",
            &http,
            "GET /v1/token HTTP/1.1\r\nX-A: bbbbbbb",
        ),
        ("a head of lines without end", &http, "\r\n"),
        ("half a preface", &grpc, "PRI * HTTP/2.0\r\n\r\n"),
        (
            "a head for operators",
            &admin,
            "GET /metrics HTTP/1.1\r\nX-A: bbbbbbb",
        ),
    ] {
        let before = siege.closed(reason).await;
        // A preface that goes on wrongly is closed for that.
        let ended = match name {
            "half a preface" => {
                let mut wire = Wire::connect(address).await;
                wire.send(bytes.as_bytes()).await.unwrap();
                wire.ended_within(PATIENCE).await
            }
            _ => drip(address, bytes.as_bytes()).await,
        };
        assert!(ended, "{name}");
        assert!(siege.closed(reason).await > before, "{name}");
    }
    for (name, address) in [("nothing over HTTP", &http), ("nothing over gRPC", &grpc)] {
        let before = siege.closed(reason).await;
        let mut wire = Wire::connect(address).await;
        assert!(wire.ended_within(PATIENCE).await, "{name}");
        assert!(siege.closed(reason).await > before, "{name}");
    }
    siege.within("slow heads", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn a_second_head_has_its_time_from_its_first_byte() {
    let mut siege = Siege::begin(SHORT).await;
    let mut wire = Wire::connect(&siege.daemon.http).await;
    wire.send(good("GET /v1/token", "").as_bytes())
        .await
        .unwrap();
    assert_eq!(wire.status().await, Some(200));
    let before = siege.closed("header_timeout").await;
    wire.send(b"GET").await.unwrap();
    assert!(wire.ended_within(PATIENCE).await);
    assert_eq!(siege.closed("header_timeout").await, before + 1.0);
    siege.within("a slow second head", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn who_asks_for_nothing_is_let_go_and_who_waits_is_not() {
    let mut siege = Siege::begin(SHORT).await;
    let token = siege.daemon.token().await;
    let etag = format!(
        "If-None-Match: {}\r\nPrefer: wait=8\r\n",
        token.header("etag")
    );
    let mut waits = Wire::connect(&siege.daemon.http).await;
    waits
        .send(good("GET /v1/token", &etag).as_bytes())
        .await
        .unwrap();

    let mut watches = Raw::connect(&siege.daemon.grpc).await;
    watches.send(&whole_call(1, WATCH)).await.unwrap();

    let mut idle = Wire::connect(&siege.daemon.http).await;
    idle.send(good("GET /v1/token", "").as_bytes())
        .await
        .unwrap();
    assert_eq!(idle.status().await, Some(200));
    assert!(idle.ended_within(PATIENCE).await);

    // A caller over HTTP/2 that answers pings, and is told before the end.
    let mut quiet = Raw::connect(&siege.daemon.grpc).await;
    let goodbye = quiet
        .reader
        .until(|it| it.kind == super::frames::GOAWAY)
        .await;
    let goodbye = goodbye.expect("a goodbye");
    assert_eq!(goodbye.payload[4..8], [0; 4]);
    let pinged = quiet
        .reader
        .until(|it| it.kind == PING)
        .await
        .expect("a ping behind it");
    quiet
        .send(&frame(PING, 1, 0, &pinged.payload))
        .await
        .unwrap();
    assert_eq!(quiet.reader.end().await, Some(0));
    // And one that says nothing to it.
    let mut deaf = Raw::connect(&siege.daemon.grpc).await;
    assert_eq!(deaf.reader.end().await, Some(0));
    assert!(siege.closed("idle_timeout").await >= 3.0);

    // By now they have waited for longer than anybody may be idle.
    assert_eq!(waits.status().await, Some(304));
    watches.send(&frame(PING, 0, 0, b"are you?")).await.unwrap();
    let answered = watches
        .reader
        .until(|it| it.kind == PING && it.payload == b"are you?");
    assert!(answered.await.is_some(), "a watch is never idle");
    siege.within("silence", 0).await;
    siege.lift().await;
}

/// Writes until nothing more is taken, and then until the other end closes; says how much was taken.
async fn never_reads(wire: &mut Wire, bytes: &[u8]) -> usize {
    let mut taken = 0;
    let writing = async {
        while wire.stream.writable().await.is_ok() {
            match wire.stream.try_write(&bytes[taken % bytes.len()..]) {
                Ok(0) => return,
                Ok(written) => taken += written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, writing)
        .await
        .expect("the connection ends");
    taken
}

#[tokio::test]
async fn who_reads_nothing_is_ended_and_is_not_answered_meanwhile() {
    let mut siege = Siege::begin("[limits]\nwrite_timeout = \"1s\"").await;
    let token = good("GET /v1/token", "").repeat(100);
    let heads = good("HEAD /v1/token", "").repeat(100);
    // Answers without a body go another way through hyper.
    let etag = siege.daemon.token().await.header("etag").to_owned();
    let same = good("GET /v1/token", &format!("If-None-Match: {etag}\r\n")).repeat(100);
    let refused = good("GET /nowhere", "").repeat(100);
    for (name, bytes) in [
        ("reads", &token),
        ("heads", &heads),
        ("reads of the same", &same),
        ("refusals", &refused),
    ] {
        let before = siege.closed("write_timeout").await;
        let mut wire = Wire::connect(&siege.daemon.http).await;
        let taken = never_reads(&mut wire, bytes.as_bytes()).await;
        println!("{name}: {taken} bytes taken");
        assert_eq!(siege.closed("write_timeout").await, before + 1.0, "{name}");
        // What the sockets' own buffers hold is not the process's.
        siege.within(name, 0).await;
    }
    for (name, bytes) in [
        ("pings", frame(PING, 0, 0, &[7; 8]).repeat(1000)),
        (
            "settings",
            frame(super::frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(1000),
        ),
    ] {
        let before = siege.closed("write_timeout").await;
        let raw = Raw::connect(&siege.daemon.grpc).await;
        let mut wire = Wire::over(raw.into_stream());
        let taken = never_reads(&mut wire, &bytes).await;
        println!("{name}: {taken} bytes taken");
        assert_eq!(siege.closed("write_timeout").await, before + 1.0, "{name}");
        siege.within(name, 0).await;
    }
    siege.lift().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_or_does_not_end_is_given_up() {
    let mut siege = Siege::begin("").await;
    let json = "Content-Type: application/json\r\n";
    let post = |more: &str| good("POST /v1/token/rejected", &format!("{json}{more}"));
    let address = siege.daemon.http.clone();

    let promised = post("Content-Length: 100\r\nExpect: 100-continue\r\n");
    let never = exchange(&address, promised.as_bytes());
    let slow = async {
        let mut wire = Wire::connect(&address).await;
        wire.send(post("Content-Length: 4000\r\n").as_bytes())
            .await
            .unwrap();
        let mut sent = 0;
        while wire.send(b" ").await.is_ok() && !wire.ended_within(Duration::from_millis(20)).await {
            sent += 1;
            assert!(sent < 3000, "it is never given up");
        }
        wire.rest().await
    };
    let endless = async {
        let mut bytes = post("Transfer-Encoding: chunked\r\n").into_bytes();
        bytes.extend_from_slice("1000\r\n".as_bytes());
        bytes.extend_from_slice(&[b' '; 1 << 24]);
        exchange(&address, &bytes).await
    };
    let halved = post("Content-Length: 100\r\n");
    let half = exchange(&address, halved.as_bytes());
    let (never, slow, endless, half) = tokio::join!(never, slow, endless, half);
    let never = String::from_utf8_lossy(&never).into_owned();
    let rest = never.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    assert_eq!(statuses(rest.as_bytes()), [408]);
    assert_eq!(statuses(&slow), [408]);
    assert_eq!(statuses(&half), [408]);
    // A reset may overtake the answer, since more is on its way.
    assert!(
        matches!(statuses(&endless)[..], [] | [400 | 413]),
        "{endless:?}"
    );
    siege.within("bodies", 0).await;
    siege.lift().await;
}

#[tokio::test]
async fn who_has_shut_one_half_is_let_go_and_answered_if_it_asked() {
    let mut siege = Siege::begin("").await;
    for bytes in ["GET /v1/tok", ""] {
        let mut wire = Wire::connect(&siege.daemon.http).await;
        wire.send(bytes.as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
            .await
            .unwrap();
        assert!(statuses(&wire.rest().await).is_empty(), "{bytes}");
    }
    // Whoever waits and shuts its half waits no longer.
    let token = siege.daemon.token().await;
    let etag = format!(
        "If-None-Match: {}\r\nPrefer: wait=60\r\n",
        token.header("etag")
    );
    let mut wire = Wire::connect(&siege.daemon.http).await;
    wire.send(good("GET /v1/token", &etag).as_bytes())
        .await
        .unwrap();
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"http\"}", 1.0)
        .await;
    tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
        .await
        .unwrap();
    assert_eq!(statuses(&wire.rest().await), [304]);
    siege
        .daemon
        .until_metric("bearerd_watchers{transport=\"http\"}", 0.0)
        .await;
    siege.within("half-closed connections", 0).await;
    siege.lift().await;
}

/// A process that holds its connections and is stopped: the system goes on acknowledging, and nobody reads or answers.
#[tokio::test]
async fn a_peer_that_has_frozen_is_let_go() {
    let mut siege = Siege::begin(SHORT).await;
    let request = good("GET /v1/token", "").replace("\r\n", "\\r\\n");
    let script = |address: &str, bytes: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        format!("exec 3<>/dev/tcp/{host}/{port}; printf '{bytes}' >&3; kill -STOP $$")
    };
    let mut frozen = Vec::new();
    for (address, bytes, reason) in [
        (&siege.daemon.http, request.as_str(), "idle_timeout"),
        (&siege.daemon.http, "GET /v1", "header_timeout"),
    ] {
        let before = siege.closed(reason).await;
        let mut command = std::process::Command::new("bash");
        let child = command
            .args(["-c", &script(address, bytes)])
            .spawn()
            .unwrap();
        frozen.push(child);
        let name = format!("bearerd_connections_closed_total{{reason=\"{reason}\"}}");
        siege.until_at_least(&name, before + 1.0).await;
    }
    siege.within("frozen peers", 0).await;
    for mut child in frozen {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    siege.lift().await;
}
