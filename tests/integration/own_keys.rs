//! The keys that bearerd itself asks with: pairs come, go and change under load, and nobody who reads a token notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bearerd::sandbox::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, PATIENCE, Scale, World};

const READERS: usize = 4;
const ROTATIONS: usize = 50;

/// No token ends while a test runs, and a refresh is allowed every second or so.
fn lasting() -> Scale {
    Scale {
        lifetime: Duration::from_secs(600),
        window: Duration::from_secs(3),
        in_flight: Duration::from_secs(3),
        timeout: Duration::from_secs(1),
        limit: 30,
    }
}

/// Readers in the background, each on one connection, with a rest between two reads that leaves the machine to other tests. Any answer but a token is a failure.
struct Readers {
    tasks: JoinSet<()>,
    reads: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
}

impl Readers {
    fn of(daemon: &Daemon) -> Self {
        let (reads, enough) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut tasks = JoinSet::new();
        for _ in 0..READERS {
            tasks.spawn(read_on(
                daemon.http.clone(),
                Arc::clone(&reads),
                Arc::clone(&enough),
            ));
        }
        Self {
            tasks,
            reads,
            enough,
        }
    }

    /// How many reads there were, none of which failed.
    async fn done(mut self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a reader has failed");
        }
        self.reads.load(Ordering::Relaxed)
    }
}

async fn read_on(address: String, reads: Arc<AtomicU64>, enough: Arc<AtomicBool>) {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let ask = format!(
        "GET /v1/token HTTP/1.1\r\nHost: {address}\r\nX-Bearerd-Request: true\r\nAccept: text/plain\r\n\r\n"
    );
    let mut answer = vec![0; 4096];
    while !enough.load(Ordering::Relaxed) {
        stream.write_all(ask.as_bytes()).await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer[..read]);
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        reads.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
    }
}

async fn two_keys(scale: Scale) -> World {
    World::with(scale, |settings| {
        settings.keys = vec![ApiKey::random(), ApiKey::random()];
    })
    .await
}

fn remove(world: &World, pair: usize) {
    for kind in ["key_id", "api_key"] {
        fs::remove_file(world.path(&format!("{kind}_{pair}"))).unwrap();
    }
}

/// The requests that were made with a key that the sandbox did not know.
fn refused(world: &World) -> usize {
    let log = world.sandbox.log();
    log.entries.iter().filter(|it| it.key.is_none()).count()
}

/// Wishes for a new token until one comes.
async fn refreshed(daemon: &Daemon) {
    let generation = daemon.token().await.generation();
    let deadline = Instant::now() + PATIENCE * 4;
    while daemon.token().await.generation() == generation {
        daemon.refresh().await;
        assert!(
            Instant::now() < deadline,
            "no new token; {:#}",
            daemon.status().await
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// What the log says of changed keys, at the latest when the daemon has ended.
fn changed(world: &World) -> Vec<String> {
    let lines = world.captured.lines("stderr").into_iter();
    lines
        .filter(|line| line.contains("the keys have changed"))
        .collect()
}

#[tokio::test]
async fn a_pair_that_comes_while_parked_frees_the_daemon_and_readers_notice_nothing() {
    let mut world = two_keys(lasting()).await;
    // Due after a second and a half.
    world.settings("[refresh]\nlead = \"598.5s\"");
    let bytes = ["key_id_1", "api_key_1"].map(|name| fs::read_to_string(world.path(name)).unwrap());
    remove(&world, 1);
    let daemon = world.start().await;
    assert!(
        world
            .captured
            .says("its pair is left out until both of its files hold a key")
    );
    let first = daemon.first_token().await;
    daemon.until_metric("bearerd_key_pairs_absent", 1.0).await;
    let readers = Readers::of(&daemon);
    world.sandbox.regenerate_key(0).unwrap();
    daemon
        .until("parked", |status| !status["parked"].is_null())
        .await;
    world.write("key_id_1", &bytes[0]);
    world.write("api_key_1", &bytes[1]);
    daemon.next_token(&first).await;
    daemon
        .until("free", |status| status["parked"].is_null())
        .await;
    daemon.until_metric("bearerd_key_pairs_absent", 0.0).await;
    assert!(readers.done().await > 0);
    assert!(daemon.stop().await.success());
    assert!(
        changed(&world)
            .iter()
            .any(|line| line.contains("added=\"1\""))
    );
    world.finish();
}

#[tokio::test]
async fn removing_the_pair_in_use_changes_nothing_for_readers() {
    let world = two_keys(lasting()).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let readers = Readers::of(&daemon);
    remove(&world, 0);
    world.sandbox.remove_key(0).unwrap();
    assert_eq!(daemon.token().await.generation(), first.generation());
    refreshed(&daemon).await;
    assert_eq!(refused(&world), 0, "the removed pair was not tried");
    // With none left, those at hand are kept, and that is told once.
    remove(&world, 1);
    daemon.until_metric("bearerd_key_pairs_absent", 2.0).await;
    refreshed(&daemon).await;
    assert_eq!(refused(&world), 0);
    println!("{} reads", readers.done().await);
    assert!(daemon.stop().await.success());
    assert!(
        changed(&world)
            .iter()
            .any(|line| line.contains("removed=\"0\""))
    );
    assert!(world.captured.says("those at hand are kept"));
    world.finish();
}

/// Replaces a pair as people, tools and Kubernetes do, in turn.
fn replace(world: &World, turn: usize, key: &ApiKey) {
    let volume = world.path("volume");
    match turn % 3 {
        0 => {
            let target = volume.join(format!("..{turn}"));
            fs::create_dir(&target).unwrap();
            write(&target, key);
            symlink(format!("..{turn}"), volume.join("..data.new")).unwrap();
            fs::rename(volume.join("..data.new"), volume.join("..data")).unwrap();
        }
        1 => write(&volume.join("..data"), key),
        _ => {
            let target = volume.join("..data");
            for (name, text) in [("key_id", &key.key_id), ("api_key", &key.api_key)] {
                fs::write(target.join(format!("{name}.new")), text).unwrap();
                fs::rename(target.join(format!("{name}.new")), target.join(name)).unwrap();
            }
        }
    }
}

fn write(folder: &Path, key: &ApiKey) {
    fs::write(folder.join("key_id"), &key.key_id).unwrap();
    fs::write(folder.join("api_key"), &key.api_key).unwrap();
}

#[tokio::test]
async fn fifty_rotations_of_our_own_key_under_load_fail_no_read_and_need_no_restart() {
    let world = World::quiet(lasting()).await;
    let volume = world.path("volume");
    fs::create_dir(&volume).unwrap();
    replace(&world, 3 * ROTATIONS, &world.sandbox.keys()[0]);
    for name in ["key_id", "api_key"] {
        let (file, link) = (
            volume.join("..data").join(name),
            world.path(&format!("{name}_0")),
        );
        fs::remove_file(&link).unwrap();
        symlink(file, link).unwrap();
    }
    let daemon = world.start().await;
    daemon.first_token().await;
    let readers = Readers::of(&daemon);
    let (began, mut secrets) = (Instant::now(), Vec::new());
    for turn in 0..ROTATIONS {
        let key = world.sandbox.regenerate_key(0).unwrap();
        secrets.extend([key.key_id.clone(), key.api_key.clone()]);
        replace(&world, turn, &key);
        refreshed(&daemon).await;
    }
    let reads = readers.done().await;
    let (mints, wasted) = (world.sandbox.mints(), refused(&world));
    println!(
        "{ROTATIONS} rotations in {:.0?}: {mints} mints, {wasted} with a bad pair, {reads} reads",
        began.elapsed()
    );
    assert!(mints > ROTATIONS);
    assert!(wasted <= ROTATIONS, "{wasted} mints with a bad pair");
    assert!(daemon.stop().await.success());
    assert!(secrets.iter().all(|secret| !world.captured.says(secret)));
    fs::remove_dir_all(&volume).unwrap();
    world.finish();
}
