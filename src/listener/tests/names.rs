//! The names of listeners: where a socket is found, whoever removes it or takes its name.

use super::*;
use std::os::unix::net::UnixListener as Stranger;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// What is looked at every few seconds has happened by then, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener that answers, and the sockets that are lost.
async fn watched(address: &Address) -> (House, Lost) {
    let lost = Lost::default();
    let bounds = Bounds {
        lost: lost.clone(),
        ..Bounds::default()
    };
    let listener = Listener::bind(address).await.unwrap();
    (House::of(listener.within(bounds)), lost)
}

async fn soon(so: impl Fn() -> bool) {
    let looked = async {
        while !so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looked)
        .await
        .expect("it never came to be so");
}

/// True if somebody answers there.
async fn answers(address: &Address) -> bool {
    let mut client = Client::connect(address).await;
    client.ask("GET /a", "").await.status == 200
}

#[tokio::test]
async fn a_socket_is_bound_under_the_name_that_it_keeps() {
    let (folder, path, address) = folder();
    let _listener = Listener::bind(&address).await.unwrap();
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let name = path.to_str().unwrap();
    assert!(table.lines().any(|line| line.ends_with(name)), "{table}");
    assert!(!table.contains(&format!("{name}.")), "{table}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_socket_that_was_removed_is_made_again_and_nobody_is_forgotten() {
    let (_folder, path, address) = folder();
    let (house, lost) = watched(&address).await;
    let mut before = Client::connect(&address).await;
    assert_eq!(before.ask("GET /a", "").await.status, 200);
    for _ in 0..2 {
        std::fs::remove_file(&path).unwrap();
        soon(|| path.exists()).await;
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(answers(&address).await);
    }
    assert_eq!(before.ask("GET /b", "").await.body, "Unix /b");
    assert!(lost.names().is_empty());
    house.drain.cancel();
    house.closed().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_name_that_another_process_has_taken_is_left_to_it_as_long_as_it_answers() {
    let (_folder, path, address) = folder();
    let (_house, lost) = watched(&address).await;
    std::fs::remove_file(&path).unwrap();
    let stranger = Stranger::bind(&path).unwrap();
    let theirs = std::fs::metadata(&path).unwrap().ino();
    soon(|| lost.names() == [address.to_string()]).await;
    // It is asked again and again, and not robbed.
    stranger.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        soon(|| stranger.accept().is_ok()).await;
    }
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), theirs);
    drop(stranger);
    soon(|| lost.names().is_empty()).await;
    assert!(answers(&address).await);
}

#[tokio::test]
async fn a_file_in_its_place_is_kept_and_a_folder_that_comes_back_is_used() {
    let (folder, path, address) = folder();
    let (_house, lost) = watched(&address).await;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    soon(|| !lost.names().is_empty()).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    // Somebody swept the whole folder away.
    std::fs::remove_dir_all(folder.path()).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    soon(|| lost.names().is_empty()).await;
    assert!(answers(&address).await);
}

#[tokio::test]
async fn who_drains_takes_no_name_again() {
    let (_folder, path, address) = folder();
    let (house, lost) = watched(&address).await;
    let mut slow = Client::connect(&address).await;
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let waiting = Arc::clone(&house.echo.waiting);
    soon(|| waiting.available_permits() > 0).await;
    std::fs::remove_file(&path).unwrap();
    house.drain.cancel();
    sleep(unix::LOOK + unix::LOOK / 2).await;
    assert!(!path.exists() && lost.names().is_empty());
    house.echo.permits.add_permits(1);
    house.closed().await;
}

#[tokio::test]
async fn localhost_is_one_port_at_each_loopback_address() {
    let house = House::open("localhost:0").await;
    let Address::Tcp { host, port } = house.address.clone() else {
        panic!("{:?}", house.address);
    };
    assert_eq!(host, "localhost");
    let at = |ip: &str| Address::Tcp {
        host: ip.to_owned(),
        port,
    };
    assert!(answers(&at("127.0.0.1")).await);
    let has_v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if has_v6 {
        assert!(answers(&at("::1")).await);
    }
    // Whichever of them is taken is named.
    let taken = if has_v6 { "[::1]:0" } else { "127.0.0.1:0" };
    let taken = std::net::TcpListener::bind(taken).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Listener::bind(&format!("localhost:{port}").parse().unwrap())
        .await
        .unwrap_err();
    let begins = format!(
        "{} is in use by another process",
        taken.local_addr().unwrap()
    );
    assert!(error.to_string().starts_with(&begins), "{error}");
}
