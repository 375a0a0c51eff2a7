//! Constant load over many rotations: nobody ever fails, waits or holds a dead token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bearerd::sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Scale, World};

const CLIENTS: u64 = 8;
const ROTATIONS: u64 = 30;

/// Every so many reads the token is spent.
const SAMPLE: u64 = 50;

/// What all readers have seen together.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    spent: AtomicU64,
    enough: AtomicBool,
}

/// Reads on one connection until it is enough. Any answer but a token that the issuer takes is a failure.
async fn read_on(address: String, sandbox: Sandbox, seen: Arc<Seen>) {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let ask = format!(
        "GET /v1/token HTTP/1.1\r\nHost: {address}\r\nX-Bearerd-Request: true\r\nAccept: text/plain\r\n\r\n"
    );
    let mut answer = vec![0; 4096];
    while !seen.enough.load(Ordering::Relaxed) {
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut length = 0;
        let token = loop {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the connection was closed");
            length += read;
            let text = std::str::from_utf8(&answer[..length]).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
            let token = text.split_once("\r\n\r\n").map(|(_, body)| body);
            if let Some(token) = token.filter(|token| token.len() == 64) {
                break token;
            }
        };
        let count = seen.reads.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(SAMPLE) {
            assert_eq!(
                sandbox.spend(token).status(),
                200,
                "a token was vended that the issuer refuses"
            );
            seen.spent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn thirty_rotations_under_constant_load_fail_nobody() {
    // As brisk, but more patient with an issuer that shares its thread with eight readers.
    let world = World::quiet(Scale {
        lifetime: Duration::from_millis(4_500),
        window: Duration::from_secs(1),
        in_flight: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        limit: 10,
    })
    .await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let seen = Arc::new(Seen::default());
    let mut readers = JoinSet::new();
    for _ in 0..CLIENTS {
        readers.spawn(read_on(
            daemon.http.clone(),
            world.sandbox.clone(),
            Arc::clone(&seen),
        ));
    }
    let began = Instant::now();
    let mut last = first;
    for _ in 0..ROTATIONS {
        last = tokio::select! {
            next = daemon.next_token(&last) => next,
            failed = readers.join_next() => panic!("a reader has failed: {failed:?}"),
        };
    }
    seen.enough.store(true, Ordering::Relaxed);
    readers.join_all().await;
    let per_second = seen.reads.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!(
        "{per_second:.0} reads a second, {} tokens spent",
        seen.spent.load(Ordering::Relaxed)
    );
    assert!(per_second >= 2_000.0, "only {per_second:.0} reads a second");
    assert!(seen.spent.load(Ordering::Relaxed) > 1_000);
    assert_eq!(
        world.sandbox.mints() as u64,
        ROTATIONS + 1,
        "one mint a rotation"
    );
    assert!(daemon.stop().await.success());
    world.finish();
}
