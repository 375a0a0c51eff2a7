#!/usr/bin/env bash
# Whether a program can tell, from a reqwest error, that TLS failed and why: by walking `source()` and looking for a `rustls::Error`.
#
# Guess, written before the first run: yes. The error is wrapped a few times (reqwest, hyper-util, io), and each wrapper gives the next
# one as its source.
#
# Seen: the walk meets no `rustls::Error` at all. tokio-rustls wraps it in an `io::Error`, whose `source()` is not the error that it
# wraps but that one's own source, so the step to it is left out. It is found only by `io::Error::get_ref()`, again and again, on each step that is one.
# Whoever classifies failures by the documented walk takes a bad certificate for a broken connection.
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
reqwest = { version = "=0.13.5", default-features = false, features = ["rustls-no-provider"] }
rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std", "tls12"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "net", "rt"] }
TOML
cat > "$folder/src/main.rs" <<'RS'
use std::error::Error;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    // A server that speaks plain HTTP, asked over https: the commonest mistake in a URL.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
    let error = client.get(&url).send().await.unwrap_err();
    let (mut by_source, mut by_get_ref, mut steps) = (None, None, 0);
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(step) = next {
        steps += 1;
        let is_tls = |it: &(dyn Error + 'static)| it.downcast_ref::<rustls::Error>().map(|it| format!("{it:?}"));
        by_source = by_source.or_else(|| is_tls(step));
        let mut wrapped = step.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        while let Some(inner) = wrapped {
            by_get_ref = by_get_ref.or_else(|| is_tls(inner));
            wrapped = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        }
        next = step.source();
    }
    println!("reqwest 0.13.5, rustls 0.23");
    println!("expected: the walk over {steps} sources meets a rustls::Error");
    println!("seen:     {by_source:?}; by io::Error::get_ref: {by_get_ref:?}");
    assert_eq!(by_source, None);
    assert!(by_get_ref.is_some());
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
