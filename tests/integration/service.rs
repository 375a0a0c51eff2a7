//! What a service manager is told by the real daemon.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Daemon, PATIENCE, Scale, World};

/// A service manager as far as its socket goes. Its waits have an end only for a broken daemon.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message that holds this, and all that came up to it.
    fn hears(&self, word: &str) -> Vec<String> {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .0
                .recv(&mut buffer)
                .unwrap_or_else(|_| panic!("no {word} in {heard:?}"));
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            heard.push(text);
            if heard.last().unwrap().contains(word) {
                return heard;
            }
        }
    }

    /// True if nothing comes for so long.
    fn hears_nothing(&self, wait: Duration) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while self.0.recv(&mut buffer).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        self.0.set_read_timeout(Some(wait)).unwrap();
        self.0.recv(&mut buffer).is_err()
    }
}

async fn start(world: &World, socket: &str) -> Daemon {
    let settings = world.write("state.toml", &world.toml(&world.state(), "state"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .args(["serve", "--config"])
        .arg(settings)
        .env_clear();
    command
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", "1000000");
    Daemon::spawn(command, &world.captured).await
}

fn state_of(daemon: &Daemon) -> String {
    let pid = daemon.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_of_a_daemons_whole_life() {
    let mut world = World::new(Scale::brisk()).await;
    let path = world.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    world.stop_sandbox().await;
    let daemon = start(&world, &path.display().to_string()).await;
    let first = manager.hears("READY=1").remove(0);
    assert!(
        first.starts_with("READY=1\n") && first.contains("STATUS=no token yet"),
        "{first}"
    );
    for address in [&daemon.http, &daemon.grpc, &daemon.admin] {
        std::net::TcpStream::connect(address).unwrap();
    }
    // The upstream is away, and that is no reason to restart anything.
    for _ in 0..4 {
        manager.hears("WATCHDOG=1");
    }
    world.start_sandbox().await;
    let told = manager.hears("STATUS=vending generation ").pop().unwrap();
    let generation = daemon.first_token().await.generation();
    assert!(told.contains(" until ") && generation > 0, "{told}");

    daemon.signal(Signal::STOP);
    while state_of(&daemon) != "T" {
        std::thread::yield_now();
    }
    assert!(
        manager.hears_nothing(Duration::from_millis(2500)),
        "a process that stands still is not alive"
    );
    daemon.signal(Signal::CONT);
    manager.hears("WATCHDOG=1");
    daemon.signal(Signal::TERM);
    let last = manager.hears("STOPPING=1").pop().unwrap();
    assert!(last.contains("STATUS=draining"), "{last}");
    assert!(daemon.ended().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_on_an_abstract_socket_hears_too_and_one_that_is_gone_is_not_waited_for() {
    use std::os::linux::net::SocketAddrExt;
    let world = World::new(Scale::still()).await;
    let name = format!("bearerd-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    let daemon = start(&world, &format!("@{name}")).await;
    manager.hears("STATUS=vending generation ");
    drop(manager);
    assert_eq!(daemon.token().await.status, 200);
    assert!(daemon.stop().await.success());
    for odd in ["relative", "@"] {
        let daemon = start(&world, odd).await;
        assert_eq!(daemon.first_token().await.status, 200, "{odd}");
        assert!(daemon.stop().await.success());
    }
    world.finish();
}
