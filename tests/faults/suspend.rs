//! A machine that sleeps for hours, and one whose boot clock begins anew: on the live serving path of the daemon in this process.
//!
//! No test can put its machine to sleep. So the daemon is given a clock of the test's own, whose times jump, while the runtime's
//! timers stand still over the jump just as they do in a suspend.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearerd::app::App;
use bearerd::clock::{BootId, Clock, Stamp, SystemClock};
use bearerd::config::{self, Sources};
use jiff::SignedDuration;
use reqwest::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::World;
use crate::laws::client;
use crate::scales::minutes;

const HOUR: Duration = Duration::from_secs(3600);

/// The system's clock, but for where the test has moved it.
struct Moved {
    system: SystemClock,
    by: Mutex<By>,
}

#[derive(Clone)]
struct By {
    wall: SignedDuration,
    boot: SignedDuration,
    boot_id: &'static str,
}

impl Moved {
    fn new() -> Arc<Self> {
        let by = Mutex::new(By {
            wall: SignedDuration::ZERO,
            boot: SignedDuration::ZERO,
            boot_id: "first",
        });
        let system = SystemClock::new();
        Arc::new(Self { system, by })
    }

    /// The machine slept: time went by on both clocks.
    fn sleep(&self, length: Duration) {
        let mut by = self.by.lock().unwrap();
        let length = SignedDuration::try_from(length).unwrap();
        by.wall += length;
        by.boot += length;
    }

    /// Another boot begins, a second old: its boot clock is far below that of the one before.
    fn reboot(&self, boot_id: &'static str) {
        let mut by = self.by.lock().unwrap();
        let boot = SignedDuration::try_from(self.system.now().boot).unwrap();
        by.boot = SignedDuration::from_secs(1) - boot;
        by.boot_id = boot_id;
    }
}

impl Clock for Moved {
    fn now(&self) -> Stamp {
        let (now, by) = (self.system.now(), self.by.lock().unwrap().clone());
        let boot = SignedDuration::try_from(now.boot).unwrap() + by.boot;
        Stamp {
            wall: now.wall + by.wall,
            boot: boot.try_into().unwrap(),
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::new(self.by.lock().unwrap().boot_id)
    }
}

/// A daemon in this process.
struct Inside {
    url: String,
    client: Client,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Inside {
    async fn start(world: &World, clock: &Arc<Moved>) -> Self {
        let file = world.write("inside.toml", &world.toml(&world.state(), "inside"));
        let reading = config::read(&Sources::new(Some(file), [], Vec::new())).unwrap();
        let app = App::bind_with(reading.config, Arc::clone(clock) as Arc<dyn Clock>);
        let app = app.await.unwrap();
        let url = format!("http://{}/v1/token", app.http_addresses()[0]);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        task.spawn(async move { app.run(stopped).await.unwrap() });
        Self {
            url,
            client: client(),
            stop,
            task,
        }
    }

    /// The status of an answer, and the token in it.
    async fn ask(&self, headers: &[(&str, &str)]) -> (u16, String, String) {
        let mut request = self.client.get(&self.url).header("accept", "text/plain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = request.send().await.unwrap();
        let etag = reply.headers().get("etag");
        let etag = etag.map_or("", |it| it.to_str().unwrap()).to_owned();
        (reply.status().as_u16(), reply.text().await.unwrap(), etag)
    }

    async fn first_token(&self) -> (String, String) {
        let (status, token, etag) = self.ask(&[("prefer", "wait=30")]).await;
        assert_eq!(status, 200, "{token}");
        (token, etag)
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

#[tokio::test]
async fn the_first_read_after_a_suspend_gets_no_token_that_has_ended() {
    let world = World::new(minutes()).await;
    let clock = Moved::new();
    let daemon = Inside::start(&world, &clock).await;
    let mut last = daemon.first_token().await;
    for slept in [Duration::from_secs(61), HOUR, HOUR * 50] {
        let gate = world.sandbox.hold_mints();
        // Somebody waits for the next token while the machine goes to sleep.
        let waiting = [("prefer", "wait=60"), ("if-none-match", last.1.as_str())];
        let waiting = daemon.ask(&waiting);
        let reading = async {
            clock.sleep(slept);
            let (status, text, _) = daemon.ask(&[]).await;
            assert_eq!(status, 503, "the old token was vended after {slept:?}");
            assert!(text.contains("expired"), "{text}");
            // Its tick notices by itself.
            gate.reached(1).await;
            assert_eq!(daemon.ask(&[]).await.0, 503);
            gate.open();
        };
        let ((status, token, etag), ()) = tokio::join!(waiting, reading);
        assert_eq!(status, 200, "never 304 for what has ended: {token}");
        assert_ne!(token, last.0);
        assert_eq!(world.sandbox.spend(&token).status(), 200);
        last = (token, etag);
    }
    assert_eq!(world.sandbox.mints(), 4, "one for each time");
    daemon.stop().await;
    world.finish();
}

#[tokio::test]
async fn a_token_that_comes_after_a_suspend_in_its_mint_is_not_vended() {
    let world = World::new(minutes()).await;
    let clock = Moved::new();
    let gate = world.sandbox.hold_mints();
    let daemon = Inside::start(&world, &clock).await;
    gate.reached(1).await;
    clock.sleep(HOUR);
    gate.open();
    let (token, _) = daemon.first_token().await;
    let issued = world.sandbox.issued_tokens();
    assert_eq!(issued.len(), 2);
    assert_eq!(token, issued[1], "the first had ended when it came");
    daemon.stop().await;
    world.finish();
}

#[tokio::test]
async fn on_a_boot_whose_clock_begins_anew_a_live_token_lives_on_and_an_ended_one_does_not() {
    let world = World::new(minutes()).await;
    let clock = Moved::new();
    let daemon = Inside::start(&world, &clock).await;
    let (token, _) = daemon.first_token().await;
    daemon.stop().await;

    clock.reboot("second");
    let daemon = Inside::start(&world, &clock).await;
    assert_eq!(daemon.first_token().await.0, token);
    assert_eq!(world.sandbox.mints(), 1);
    daemon.stop().await;

    // It was off for an hour.
    clock.sleep(HOUR);
    clock.reboot("third");
    let daemon = Inside::start(&world, &clock).await;
    let (fresh, _) = daemon.first_token().await;
    assert_ne!(fresh, token);
    assert_eq!(world.sandbox.mints(), 2);
    daemon.stop().await;
    world.finish();
}
