//! A daemon, and the callers that must not notice anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{Wire, good, statuses};
use crate::grpc::calls::Caller;
use crate::harness::{Daemon, PATIENCE, Scale, World};

/// A caller rests so long between two requests, so that a busy machine goes on with the attack.
const REST: Duration = Duration::from_millis(2);

/// What any attack may cost that holds nothing: the allocator's slack, and what a debug build's first use of anything takes.
pub const SLACK: u64 = 8 << 20;

pub struct Siege {
    world: World,
    pub daemon: Arc<Daemon>,
    callers: JoinSet<()>,
    answered: [(&'static str, Arc<AtomicU64>); 3],
    lifted: CancellationToken,
    /// The most that was resident before the first attack, in bytes.
    before: u64,
}

impl Siege {
    /// Begins with lines of settings of its own.
    pub async fn begin(settings: &str) -> Self {
        let mut world = World::quiet(Scale::still()).await;
        world.settings(settings);
        let daemon = Arc::new(world.start().await);
        daemon.first_token().await;
        let mut siege = Self {
            world,
            callers: JoinSet::new(),
            answered: ["http", "http anew", "grpc"].map(|name| (name, Arc::default())),
            lifted: CancellationToken::new(),
            before: 0,
            daemon,
        };
        let [(_, kept), (_, anew), (_, grpc)] = &siege.answered;
        let (http, calls) = (siege.daemon.http.clone(), siege.daemon.grpc.clone());
        siege.callers.spawn(keeps_asking(
            http.clone(),
            Arc::clone(kept),
            siege.lifted.clone(),
        ));
        siege
            .callers
            .spawn(comes_anew(http, Arc::clone(anew), siege.lifted.clone()));
        siege
            .callers
            .spawn(calls_on(calls, Arc::clone(grpc), siege.lifted.clone()));
        siege.served().await;
        siege.before = siege.peak();
        siege
    }

    /// Returns once every caller has been answered again; fails if one was not.
    pub async fn served(&mut self) {
        let seen: Vec<u64> = self.counts();
        let deadline = Instant::now() + PATIENCE;
        while self
            .counts()
            .iter()
            .zip(&seen)
            .any(|(now, then)| *now < then + 3)
        {
            if let Some(ended) = self.callers.try_join_next() {
                ended.expect("a caller in the background was served");
            }
            assert!(
                Instant::now() < deadline,
                "{seen:?}, then {:?}",
                self.answered
            );
            sleep(REST).await;
        }
    }

    fn counts(&self) -> Vec<u64> {
        let counts = self.answered.iter();
        counts.map(|(_, it)| it.load(Ordering::Relaxed)).collect()
    }

    /// The most that the process has held in memory until now, in bytes.
    fn peak(&self) -> u64 {
        let pid = self.daemon.pid().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
        let kilobytes: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kilobytes << 10
    }

    /// Fails if the process has ever held more than before the first attack, [`SLACK`], and what the attacks until now may cost besides.
    pub async fn within(&mut self, attack: &str, besides: u64) {
        self.served().await;
        let (before, now) = (self.before, self.peak());
        println!("{attack}: {} KiB more", now.saturating_sub(before) >> 10);
        assert!(
            now <= before + SLACK + besides,
            "{attack}: {} KiB, and before {} KiB",
            now >> 10,
            before >> 10
        );
    }

    /// How often the daemon has ended a connection for this.
    pub async fn closed(&self, reason: &str) -> f64 {
        let name = format!("bearerd_connections_closed_total{{reason=\"{reason}\"}}");
        self.daemon.metric(&name).await
    }

    /// Waits until a metric is at least so much.
    pub async fn until_at_least(&self, name: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.daemon.metric(name).await < value {
            assert!(Instant::now() < deadline, "{name} does not become {value}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a metric is at most so much.
    pub async fn until_at_most(&self, name: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.daemon.metric(name).await > value {
            assert!(Instant::now() < deadline, "{name} does not become {value}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The callers leave, each served to the end, and so does the daemon.
    pub async fn lift(mut self) {
        self.served().await;
        self.lifted.cancel();
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller in the background was served");
        }
        let daemon = Arc::into_inner(self.daemon).expect("nobody else has the daemon");
        assert!(daemon.stop().await.success());
        self.world.finish();
    }
}

async fn in_time<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let answer = timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| panic!("no answer to {what} in the background"))
}

/// One connection, request after request.
async fn keeps_asking(address: String, answered: Arc<AtomicU64>, lifted: CancellationToken) {
    let mut wire = Wire::connect(&address).await;
    while !lifted.is_cancelled() {
        wire.send(good("GET /v1/token", "").as_bytes())
            .await
            .unwrap();
        assert_eq!(in_time("a reader", wire.status()).await, Some(200));
        answered.fetch_add(1, Ordering::Relaxed);
        sleep(REST).await;
    }
}

/// A connection for each request.
async fn comes_anew(address: String, answered: Arc<AtomicU64>, lifted: CancellationToken) {
    let request = good("GET /v1/token", "Connection: close\r\n");
    while !lifted.is_cancelled() {
        let mut wire = in_time("a connect", Wire::connect(&address)).await;
        wire.send(request.as_bytes()).await.unwrap();
        let answer = in_time("a reader who comes anew", wire.rest()).await;
        assert_eq!(statuses(&answer), [200]);
        answered.fetch_add(1, Ordering::Relaxed);
        sleep(REST).await;
    }
}

/// One connection over gRPC, call after call.
async fn calls_on(address: String, answered: Arc<AtomicU64>, lifted: CancellationToken) {
    let caller = Caller::over(TcpStream::connect(&address).await.unwrap()).await;
    while !lifted.is_cancelled() {
        let call = caller.ask("/bearerd.v1.TokenService/GetToken", &[], b"");
        let (messages, status) = in_time("a call", call).await;
        assert_eq!(
            (messages.len(), status.code()),
            (1, tonic::Code::Ok),
            "{status:?}"
        );
        answered.fetch_add(1, Ordering::Relaxed);
        sleep(REST).await;
    }
}
