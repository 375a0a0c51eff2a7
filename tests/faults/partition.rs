//! A partition that begins once the connection stands and heals after `budget.in_flight`: nothing of an
//! attempt that was given up arrives then.
//!
//! The peer's system drops what comes (a socket filter, which needs no rights), so the daemon's
//! system goes on sending for as long as it may.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::harness::{Daemon, PATIENCE, Scale, World};

/// One attempt is made, and the next one is far away. The system may repeat a request for a second.
fn one_attempt() -> Scale {
    Scale {
        in_flight: Duration::from_secs(4),
        timeout: Duration::from_secs(1),
        ..Scale::still()
    }
}

/// A socket filter that lets handshakes and bare acknowledgements in, and drops data, ends and resets.
fn partition() -> [SockFilter; 11] {
    const DROP: u8 = 10;
    let to_drop = |from: u8| DROP - from - 1;
    [
        SockFilter::new(0x30, 0, 0, 12), // the byte with the length of the TCP header
        SockFilter::new(0x54, 0, 0, 0xf0),
        SockFilter::new(0x74, 0, 0, 2), // its length in bytes
        SockFilter::new(0x07, 0, 0, 0),
        SockFilter::new(0x80, 0, 0, 0), // the length of the segment
        SockFilter::new(0x1c, 0, 0, 0), // less that of the header
        SockFilter::new(0x15, 0, to_drop(6), 0),
        SockFilter::new(0x30, 0, 0, 13),             // the flags
        SockFilter::new(0x45, to_drop(8), 0, 0b101), // an end or a reset
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

/// An issuer behind a partition.
struct Peer(TcpListener);

impl Peer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener)
            .attach_filter(&partition())
            .expect("this test needs a system with socket filters (SO_ATTACH_FILTER)");
        Self(listener)
    }

    /// Starts a daemon that asks this peer, and waits until its system holds a request that does not get through.
    async fn asked(&self, world: &World) -> (Daemon, Cut) {
        let url = format!("http://{}", self.0.local_addr().unwrap());
        let toml = world.toml(&world.state(), "state");
        let toml = toml.replace(&world.sandbox.base_url(), &url);
        let daemon = Daemon::start(&world.write("state.toml", &toml), &world.captured).await;
        let accepted = timeout(PATIENCE, self.0.accept()).await;
        let (stream, from) = accepted.expect("a connection in time").unwrap();
        let cut = Cut {
            stream,
            from,
            opened: Instant::now(),
        };
        let deadline = Instant::now() + PATIENCE;
        while cut.unacknowledged() == 0 {
            assert!(Instant::now() < deadline, "no request is on its way");
            sleep(Duration::from_millis(1)).await;
        }
        (daemon, cut)
    }
}

/// A connection that is cut.
struct Cut {
    stream: TcpStream,
    from: SocketAddr,
    /// Not before the request's slot was reserved.
    opened: Instant,
}

impl Cut {
    /// So many bytes the other side's system holds that this side has not acknowledged.
    fn unacknowledged(&self) -> u64 {
        let port = format!("0100007F:{:04X}", self.from.port());
        let sockets = fs::read_to_string("/proc/net/tcp").expect("this test needs /proc/net/tcp");
        let queued = sockets.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let queues = words.next()?.eq(&port).then(|| words.nth(2))??;
            u64::from_str_radix(queues.split(':').next()?, 16).ok()
        });
        queued.unwrap_or(0)
    }

    fn heal(&self) {
        SockRef::from(&self.stream).detach_filter().unwrap();
    }

    /// Asserts that the other side's system has nothing left to send.
    fn is_forgotten(&self, what: &str) {
        let held = self.unacknowledged();
        assert_eq!(held, 0, "{what}: the system holds bytes that were given up");
    }

    /// When the first byte arrived, if any does. The distance between two repetitions doubles at the
    /// most, so the next one comes before as long again has passed.
    async fn arrival(&mut self) -> Option<Duration> {
        let patience = self.opened.elapsed() + Duration::from_secs(1);
        let read = timeout(patience, self.stream.read_u8()).await;
        matches!(read, Ok(Ok(_))).then(|| self.opened.elapsed())
    }

    /// Heals once `in_flight` has passed since the reservation, and asserts that nothing arrives.
    async fn heals_too_late(&mut self, what: &str) {
        let in_flight = one_attempt().in_flight;
        sleep_until(self.opened + in_flight).await;
        self.heal();
        let arrival = self.arrival().await;
        assert_eq!(arrival, None, "{what}: it arrived after {in_flight:?}");
    }
}

#[tokio::test]
async fn what_is_sent_into_a_partition_that_heals_in_time_arrives() {
    let world = World::quiet(Scale::still()).await;
    let peer = Peer::start().await;
    let (daemon, mut cut) = peer.asked(&world).await;
    cut.heal();
    assert!(cut.arrival().await.is_some());
    let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    cut.stream.write_all(answer.as_bytes()).await.unwrap();
    // After an answer the connection is closed, and not reset.
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, cut.stream.read_to_end(&mut rest)).await;
    ended.expect("it is closed").expect("it is not reset");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_attempt_that_was_given_up_does_not_arrive_later() {
    let world = World::quiet(one_attempt()).await;
    let peer = Peer::start().await;
    let (daemon, mut cut) = peer.asked(&world).await;
    let given_up = |status: &serde_json::Value| status["attempts"][0]["outcome"] == "lost";
    daemon.until("it is given up", given_up).await;
    cut.is_forgotten("given up");
    cut.heals_too_late("given up").await;
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_attempt_of_a_killed_process_does_not_arrive_later() {
    let world = World::quiet(one_attempt()).await;
    let peer = Peer::start().await;
    let (daemon, mut cut) = peer.asked(&world).await;
    daemon.kill();
    cut.is_forgotten("killed");
    cut.heals_too_late("killed").await;
    world.finish();
}

#[tokio::test]
async fn an_attempt_of_a_frozen_process_does_not_arrive_later() {
    let world = World::quiet(one_attempt()).await;
    let peer = Peer::start().await;
    let (daemon, mut cut) = peer.asked(&world).await;
    daemon.signal(Signal::STOP);
    cut.heals_too_late("frozen").await;
    daemon.kill();
    world.finish();
}
