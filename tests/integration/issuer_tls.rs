//! An issuer over TLS, as in production: its certificate is checked, and its token is vended.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::tls::certificates::{Authority, Pair, Wanted, server};

/// A front that speaks TLS with this certificate before the sandbox, and its port.
async fn front(pair: &Pair, sandbox: &str) -> (JoinSet<()>, u16) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sandbox = sandbox.trim_start_matches("http://").to_owned();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A handshake that the daemon breaks off is what one of the tests is about.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut sandbox = TcpStream::connect(&sandbox).await.unwrap();
                let _ended = copy_bidirectional(&mut stream, &mut sandbox).await;
            }
        }
    });
    (task, port)
}

/// A daemon that trusts this authority alone, and asks the front by the name `localhost`.
async fn daemon(world: &World, authority: &Authority, port: u16) -> Daemon {
    let toml = world.toml(&world.state(), "state");
    let url = format!("https://localhost:{port}");
    let toml = toml.replace(&world.sandbox.base_url(), &url);
    let settings = world.write("state.toml", &toml);
    let roots = world.write("roots.pem", &authority.certificate);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["serve", "--config"]).arg(&settings);
    command.env_clear().env("SSL_CERT_FILE", roots);
    Daemon::spawn(command, &world.captured).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_comes_over_tls_from_an_issuer_with_a_good_certificate() {
    let world = World::new(Scale::still()).await;
    let authority = Authority::new("authority");
    let pair = authority.issue(&server());
    let (_front, port) = front(&pair, &world.sandbox.base_url()).await;
    let daemon = daemon(&world, &authority, port).await;
    let token = daemon.first_token().await;
    assert_eq!(world.sandbox.spend(&token.access_token()).status(), 200);
    assert_eq!(world.sandbox.mints(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_an_issuer_whose_certificate_is_for_another_name() {
    let world = World::new(Scale::still()).await;
    let authority = Authority::new("authority");
    let other = Wanted {
        dns: vec!["somewhere.example"],
        ..server()
    };
    let (_front, port) = front(&authority.issue(&other), &world.sandbox.base_url()).await;
    let daemon = daemon(&world, &authority, port).await;
    let tried = |status: &serde_json::Value| status["attempts"][0]["outcome"] == "not_sent";
    let status = daemon.until("an attempt was made", tried).await;
    let detail = status["trouble"]["detail"].as_str().unwrap();
    assert!(detail.contains("certificate"), "{detail}");
    assert_eq!(world.sandbox.arrivals(), 0);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_that_change_hold_from_the_next_attempt_on() {
    let world = World::new(Scale::still()).await;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (_front, port) = front(&new.issue(&server()), &world.sandbox.base_url()).await;
    let daemon = daemon(&world, &old, port).await;
    let tried = |status: &serde_json::Value| status["attempts"][0]["outcome"] == "not_sent";
    daemon.until("an attempt was made", tried).await;
    // What cannot be read changes nothing, and says so.
    world.write("roots.pem", "no certificate");
    let deadline = Instant::now() + PATIENCE;
    while !world.captured.says("cannot be read again") {
        assert!(Instant::now() < deadline, "nobody is told");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.sandbox.arrivals(), 0);
    world.write("roots.pem", &new.certificate);
    daemon.first_token().await;
    assert_eq!(world.sandbox.mints(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}
