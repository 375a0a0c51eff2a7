//! No upstream delays a read, whatever it sends (law 5).
//!
//! A reader asks again and again while attempts meet an upstream that floods. Most attempts must be
//! quiet: a busy machine delays a read now and then, a daemon that is at fault does at most attempts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::tls::certificates::{Authority, server};

/// Ten times what is promised on a machine at rest.
const BOUND: Duration = Duration::from_millis(200);

/// So many attempts without a slow read are enough, and so many with one are too much.
const ENOUGH: usize = 3;

/// What an upstream does once it has read a request.
#[derive(Clone)]
enum Manner {
    /// It sends this, and then that again and again.
    Flood(&'static str, String),
    /// It begins TLS with so many authorities that each might have signed its certificate.
    Certificates(Arc<ServerConfig>),
}

/// An attempt takes a second at the most, and the next one may come soon.
fn scale() -> Scale {
    Scale {
        window: Duration::from_secs(8),
        in_flight: Duration::from_secs(3),
        timeout: Duration::from_secs(1),
        limit: 100,
        ..Scale::still()
    }
}

/// An upstream on loopback, and where it is.
async fn upstream(manner: Manner) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = match manner {
        Manner::Certificates(_) => "https",
        Manner::Flood(..) => "http",
    };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            open.spawn(behave(manner.clone(), stream));
        }
    });
    (task, url)
}

async fn behave(manner: Manner, mut stream: tokio::net::TcpStream) {
    match manner {
        Manner::Certificates(config) => {
            // It ends when the daemon has looked at them.
            let _refused = TlsAcceptor::from(config).accept(stream).await;
        }
        Manner::Flood(head, piece) => {
            let flood = async {
                stream.read_u8().await?;
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(piece.as_bytes()).await?;
                }
            };
            // It ends when the daemon takes no more.
            let _hung_up: std::io::Result<()> = flood.await;
        }
    }
}

/// As much of a chain as a handshake may hold, without the authority that signed the certificate.
fn certificates() -> Arc<ServerConfig> {
    let pair = Authority::new("root").issue(&server());
    let others = (0..100).map(|_| Authority::new("root").certificate);
    let chain = [pair.certificate].into_iter().chain(others);
    let chain = chain.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_no_client_auth();
    Arc::new(builder.with_single_cert(chain.collect(), key).unwrap())
}

/// Reads on a thread of its own, and keeps the longest time that one read took.
struct Reader {
    longest: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (longest, reads, stop) = (Arc::default(), Arc::default(), Arc::default());
        Self {
            longest: Arc::clone(&longest),
            reads: Arc::clone(&reads),
            stop: Arc::clone(&stop),
            thread: std::thread::spawn(move || {
                let request =
                    b"GET /v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n\r\n";
                let mut answer = [0; 4096];
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    stream.write_all(request).unwrap();
                    let count = stream.read(&mut answer).unwrap();
                    assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
                    let took = u64::try_from(asked.elapsed().as_micros()).unwrap();
                    longest.fetch_max(took, Ordering::Relaxed);
                    reads.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }),
        }
    }

    /// Forgets what was, and says what the longest read was and how many there were.
    fn take(&self) -> (Duration, u64) {
        let longest = self.longest.swap(0, Ordering::Relaxed);
        let reads = self.reads.swap(0, Ordering::Relaxed);
        (Duration::from_micros(longest), reads)
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// One attempt from its beginning to its end, and what it came to.
async fn attempt(daemon: &Daemon) -> String {
    let newest = |status: &serde_json::Value| status["attempts"][0].clone();
    let before = newest(&daemon.status().await)["began_at"].clone();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = daemon.refresh().await;
        let now = newest(&daemon.status().await);
        if now["began_at"] != before {
            return now["outcome"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "no attempt: {}", reply.text);
        sleep(Duration::from_millis(10)).await;
    }
}

async fn delays_nobody(manner: Manner, outcome: &str) {
    let world = World::quiet(scale()).await;
    let first = world.start().await;
    first.first_token().await;
    assert!(first.stop().await.success());
    // The next one finds the token in the record, and another upstream in its settings.
    let (_upstream, url) = upstream(manner).await;
    let toml = world.toml(&world.state(), "state");
    let toml = toml.replace(&world.sandbox.base_url(), &url);
    let settings = world.write("state.toml", &toml);
    let roots = world.write("roots.pem", &Authority::new("other").certificate);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["serve", "--config"]).arg(&settings);
    command.env_clear().env("SSL_CERT_FILE", roots);
    let daemon = Daemon::spawn(command, &world.captured).await;
    daemon.first_token().await;
    let reader = Reader::start(&daemon.http);
    let (mut quiet, mut slow) = (0, Vec::new());
    while quiet < ENOUGH && slow.len() < ENOUGH {
        reader.take();
        let came_to = attempt(&daemon).await;
        let (longest, reads) = reader.take();
        println!("{came_to}: {reads} reads, the longest {longest:?}");
        assert_eq!(came_to, outcome);
        match longest <= BOUND {
            true => quiet += 1,
            false => slow.push(longest),
        }
    }
    reader.finish();
    let stopped = timeout(PATIENCE, daemon.stop()).await;
    assert!(stopped.unwrap().success());
    assert!(quiet >= ENOUGH, "law 5: reads took {slow:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_interim_answers_delays_no_read() {
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2_000);
    delays_nobody(Manner::Flood("", hint), "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_an_end_delay_no_read() {
    let headers = "X-More: 1\r\n".repeat(5_000);
    delays_nobody(Manner::Flood("HTTP/1.1 200 OK\r\n", headers), "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_header_without_an_end_delays_no_read() {
    let header = "a".repeat(60_000);
    let head = "HTTP/1.1 200 OK\r\nX-More: ";
    delays_nobody(Manner::Flood(head, header), "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_an_end_in_the_smallest_chunks_delays_no_read() {
    let chunks = "1\r\n \r\n".repeat(10_000);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    delays_nobody(Manner::Flood(head, chunks), "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_as_many_authorities_as_fit_delays_no_read() {
    delays_nobody(Manner::Certificates(certificates()), "not_sent").await;
}
