#!/usr/bin/env bash
# What hyper's HTTP/1 server does for a caller that has gone, while its handler waits (a long poll), with and without `half_close`.
#
# Guess, written before the first run: `half_close(true)` only lets a caller that has shut its writing half have its answer; a caller
# that closed its socket altogether is still noticed, and its handler dropped.
#
# Seen: with `half_close(true)` nothing is read from the connection while an answer is pending, so the caller that is gone is not
# noticed: its handler and its connection stay until the handler ends by itself. Without it the handler is dropped at once, and so is
# that of the caller who only shut its writing half and waits for the answer. A server with long polls has to look itself.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"
[dependencies]
http-body-util = "=0.1.5"
hyper = { version = "=1.12.0", features = ["http1", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "net", "rt", "sync", "time"] }
TOML
cat > "$folder/src/main.rs" <<'RS'
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

#[derive(Clone, Copy)]
enum Caller {
    Gone,
    ShutItsHalf,
}

/// Whether the handler was dropped before its time, and whether the caller got an answer.
async fn told(half_close: bool, caller: Caller) -> (bool, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (begun, mut has_begun) = mpsc::channel::<oneshot::Sender<()>>(1);
    let handler = service_fn(move |_: Request<hyper::body::Incoming>| {
        let begun = begun.clone();
        async move {
            let (mut alive, dropped) = oneshot::channel::<()>();
            let (keep, kept) = oneshot::channel::<()>();
            begun.send(keep).await.unwrap();
            // As long as a poll may be.
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
                () = alive.closed() => {}
            }
            drop((dropped, kept));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serve = http1::Builder::new().half_close(half_close).serve_connection(TokioIo::new(stream), handler);
    let server = tokio::spawn(async move { serve.await.is_ok() });
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut keep = has_begun.recv().await.unwrap();
    let mut answer = Vec::new();
    let answered = match caller {
        Caller::Gone => {
            drop(client);
            false
        }
        Caller::ShutItsHalf => {
            client.shutdown().await.unwrap();
            let _ = timeout(Duration::from_secs(9), client.read_to_end(&mut answer)).await;
            answer.starts_with(b"HTTP/1.1 200")
        }
    };
    // The handler's end of this channel goes with it.
    let early = timeout(Duration::from_secs(1), keep.closed()).await.is_ok() && !answered;
    server.abort();
    (early, answered)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let gone = told(true, Caller::Gone).await;
    let shut = told(true, Caller::ShutItsHalf).await;
    println!("hyper 1.12.0, half_close(true)");
    println!("expected: the handler of a caller that is gone is dropped; one that shut its half is answered");
    println!("seen:     gone: dropped {}; shut its half: answered {}", gone.0, shut.1);
    let (plain_gone, plain_shut) = (told(false, Caller::Gone).await, told(false, Caller::ShutItsHalf).await);
    println!("without it: gone: dropped {}; shut its half: answered {}", plain_gone.0, plain_shut.1);
    assert_eq!((gone.0, shut.1), (false, true));
    assert_eq!((plain_gone.0, plain_shut.1), (true, false));
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
