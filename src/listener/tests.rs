use super::testing::{Client, request, until};
use super::*;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, StatusCode};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod names;

/// Answers with the path; under `/slow` once a permit is there.
#[derive(Clone)]
struct Echo {
    permits: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Echo {
    fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            waiting: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Service for Echo {
    fn answer<B>(&self, request: Request<B>, connection: &Connection) -> Answer {
        let kind = match connection.peer {
            Peer::Loopback(_) => "Loopback",
            Peer::Other(_) => "Other",
            Peer::Unix(_) => "Unix",
        };
        let path = format!("{kind} {}", request.uri().path());
        if !path.ends_with("/slow") {
            return text(StatusCode::OK, path).into();
        }
        let echo = self.clone();
        let hung_up = CancellationToken::new();
        Answer::wait(hung_up.clone(), async move {
            echo.waiting.add_permits(1);
            tokio::select! {
                permit = echo.permits.acquire() => permit.unwrap().forget(),
                () = hung_up.cancelled() => return text(StatusCode::OK, "hung up"),
            }
            text(StatusCode::OK, path)
        })
    }
}

struct House {
    echo: Echo,
    address: Address,
    drain: CancellationToken,
    task: JoinSet<()>,
}

impl House {
    async fn open(address: &str) -> Self {
        Self::of(Listener::bind(&address.parse().unwrap()).await.unwrap())
    }

    fn of(listener: Listener) -> Self {
        let address = listener.local_address().clone();
        let (echo, drain) = (Echo::new(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(serve_http(listener, echo.clone(), drain.clone()));
        Self {
            echo,
            address,
            drain,
            task,
        }
    }

    async fn closed(mut self) {
        self.task.join_next().await.unwrap().unwrap();
    }
}

fn folder() -> (tempfile::TempDir, PathBuf, Address) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let address = Address::Unix(path.clone());
    (folder, path, address)
}

#[tokio::test]
async fn a_port_and_a_socket_answer_and_say_who_asks() {
    let house = House::open("127.0.0.1:0").await;
    assert!(!house.address.to_string().ends_with(":0"));
    let mut client = Client::connect(&house.address).await;
    assert_eq!(client.ask("GET /a", "").await.body, "Loopback /a");
    assert_eq!(client.ask("GET /b", "").await.body, "Loopback /b");
    let (_folder, _, address) = folder();
    let house = House::of(Listener::bind(&address).await.unwrap());
    let mut client = Client::connect(&house.address).await;
    assert_eq!(client.ask("GET /a", "").await.body, "Unix /a");
}

#[test]
fn a_peer_is_this_machine_whatever_the_notation() {
    let of = |address: &str| Peer::of(address.parse().unwrap());
    let loopback = |address: &str| Peer::Loopback(address.parse().unwrap());
    assert_eq!(of("127.0.0.9:1"), loopback("127.0.0.9:1"));
    assert_eq!(of("[::1]:1"), loopback("[::1]:1"));
    assert_eq!(of("[::ffff:127.0.0.1]:1"), loopback("127.0.0.1:1"));
    let other = Peer::Other("10.0.0.1:1".parse().unwrap());
    assert_eq!(of("10.0.0.1:1"), other);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = first.local_address();
    let error = Listener::bind(address).await.unwrap_err();
    let expected = format!(
        "{address} is in use by another process: stop that process, or listen on another port"
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn what_cannot_be_bound_says_why() {
    let error = |address: &str| {
        let address: Address = address.parse().unwrap();
        async move { Listener::bind(&address).await.unwrap_err() }
    };
    assert!(matches!(
        error("192.0.2.1:0").await,
        BindError::NotHere { .. }
    ));
    let missing = error("unix:/nowhere/at/all.sock").await.to_string();
    assert!(missing.contains("the folder of unix:/nowhere/at/all.sock does not exist"));
    let (_folder, path, address) = folder();
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
    let (_folder, path, address) = folder();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let house = House::of(Listener::bind(&address).await.unwrap());
    let error = Listener::bind(&address).await.unwrap_err();
    let expected =
        format!("another process listens on {address}: stop it, or give this one another path");
    assert_eq!(error.to_string(), expected);
    let mut client = Client::connect(&house.address).await;
    assert_eq!(client.ask("GET /a", "").await.status, 200);
}

#[tokio::test]
async fn a_socket_has_its_mode_and_goes_with_its_listener() {
    let (_folder, path, address) = folder();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    let listener = Listener::bind(&address).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    drop(listener);
    assert!(!path.exists());
    let access = SocketAccess {
        mode: 0o660,
        ..SocketAccess::default()
    };
    let listener = Listener::bind_with(&address, access).await.unwrap();
    assert_eq!(mode(&path), 0o660);
    std::fs::remove_file(&path).unwrap();
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists(), "the successor's socket was removed");
}

/// A group that this process may give its files to, other than its own where there is one.
fn group_at_hand() -> u32 {
    let own = rustix::process::getgid().as_raw();
    let groups = rustix::process::getgroups().unwrap();
    let mut further = groups.iter().map(|group| group.as_raw());
    match rustix::process::geteuid().is_root() {
        true => 4242,
        false => further.find(|group| *group != own).unwrap_or(own),
    }
}

#[tokio::test]
async fn a_socket_belongs_to_its_group_before_it_has_its_name() {
    let (_folder, path, address) = folder();
    let access = SocketAccess {
        mode: 0o660,
        group: Some(group_at_hand()),
    };
    let _listener = Listener::bind_with(&address, access).await.unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.gid(), group_at_hand());
    assert_eq!(found.mode() & 0o777, 0o660);
}

#[tokio::test]
async fn a_group_that_it_is_no_member_of_leaves_no_socket_behind() {
    if rustix::process::geteuid().is_root() {
        // To the stream itself: what a test prints is swallowed if it passes.
        let line = "cannot run here: a_group_that_it_is_no_member_of_leaves_no_socket_behind: root may give a socket to any group\n";
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    let (folder, path, address) = folder();
    let access = SocketAccess {
        mode: 0o660,
        group: Some(4242),
    };
    let error = Listener::bind_with(&address, access).await.unwrap_err();
    assert!(matches!(error, BindError::NotAMember { .. }), "{error}");
    assert!(!path.exists() && std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_live_socket_is_refused_at_once_even_if_its_process_stands_still() {
    let (_folder, path, address) = folder();
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let _nobody_accepts = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    // Until there is no place left: here a connection that may wait would wait for ever.
    while let Ok(stream) = UnixStream::connect(&path).await {
        waiting.push(stream);
    }
    assert!(!waiting.is_empty());
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error}");
}

#[tokio::test]
async fn a_link_in_the_place_of_a_socket_is_left_alone() {
    let (folder, path, address) = folder();
    let elsewhere = folder.path().join("elsewhere.sock");
    drop(std::os::unix::net::UnixListener::bind(&elsewhere).unwrap());
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_link(&path).unwrap(), elsewhere);
}

#[test]
fn a_folder_is_open_if_anybody_may_rename_in_it() {
    let (folder, path, _) = folder();
    let is_open = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        open_folder(&path).is_some()
    };
    assert!(is_open(0o777));
    assert!(!is_open(0o1777), "as /tmp is");
    assert!(!is_open(0o775));
    assert_eq!(open_folder(Path::new("/nowhere/at/all.sock")), None);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let house = House::open("127.0.0.1:0").await;
    let mut client = Client::connect(&house.address).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(15_000));
    assert_eq!(client.ask("GET /a", &long).await.status, 200);
    let mut client = Client::connect(&house.address).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(17_000));
    assert_eq!(client.ask("GET /a", &long).await.status, 431);
}

#[tokio::test]
async fn a_drain_lets_a_request_end_and_closes_idle_connections() {
    let house = House::open("127.0.0.1:0").await;
    let mut idle = Client::connect(&house.address).await;
    assert_eq!(idle.ask("GET /a", "").await.status, 200);
    let mut silent = Client::connect(&house.address).await;
    let mut slow = Client::connect(&house.address).await;
    slow.send(&request("GET /slow", "")).await;
    house.echo.waiting.acquire().await.unwrap().forget();
    house.drain.cancel();
    idle.ended().await;
    silent.ended().await;
    house.echo.permits.add_permits(1);
    let reply = slow.reply().await;
    assert_eq!(reply.body, "Loopback /slow");
    assert_eq!(reply.header("connection"), Some("close"));
    slow.ended().await;
    house.closed().await;
}

#[tokio::test]
async fn half_a_request_holds_no_drain_up() {
    for spoken in [false, true] {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&address).await.unwrap();
        let patience = Patience {
            header: Duration::from_millis(200),
            ..Patience::default()
        };
        let house = House::of(listener.within(Bounds {
            patience,
            ..Bounds::default()
        }));
        let (mut half, mut busy) = (
            Client::connect(&house.address).await,
            Client::connect(&house.address).await,
        );
        if spoken {
            half.ask("GET /a", "").await;
        }
        half.send("GET /b HTTP/1.1\r\nHo").await;
        busy.send(&request("GET /slow", "")).await;
        house.echo.waiting.acquire().await.unwrap().forget();
        house.drain.cancel();
        half.ended().await;
        // Who is being answered is waited for all the same.
        house.echo.permits.add_permits(1);
        assert_eq!(busy.reply().await.body, "Loopback /slow");
        house.closed().await;
    }
}

#[tokio::test]
async fn what_arrived_before_the_drain_is_answered() {
    for _ in 0..20 {
        let house = House::open("127.0.0.1:0").await;
        let mut kept = Client::connect(&house.address).await;
        assert_eq!(kept.ask("GET /a", "").await.status, 200);
        kept.send(&request("GET /b", "")).await;
        house.drain.cancel();
        let reply = kept.reply().await;
        assert_eq!(reply.body, "Loopback /b");
        kept.ended().await;
        house.closed().await;
    }
}

#[tokio::test]
async fn who_waited_to_be_accepted_before_the_drain_is_answered() {
    let (_folder, _, unix) = folder();
    for address in ["127.0.0.1:0".parse().unwrap(), unix] {
        let listener = Listener::bind(&address).await.unwrap();
        let address = listener.local_address().clone();
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = Client::connect(&address).await;
            client.send(&request("GET /a", "")).await;
            clients.push(client);
        }
        let drain = CancellationToken::new();
        drain.cancel();
        serve_http(listener, Echo::new(), drain).await;
        for mut client in clients {
            let reply = client.reply().await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("connection"), Some("close"));
        }
    }
}

#[tokio::test]
async fn nobody_finds_the_listener_once_it_drains() {
    let (_folder, path, address) = folder();
    let house = House::of(Listener::bind(&address).await.unwrap());
    let mut slow = Client::connect(&house.address).await;
    slow.send(&request("GET /slow", "")).await;
    house.echo.waiting.acquire().await.unwrap().forget();
    house.drain.cancel();
    until(|| !path.exists()).await;
    let successor = Listener::bind(&address).await.unwrap();
    house.echo.permits.add_permits(1);
    assert_eq!(slow.reply().await.status, 200);
    house.closed().await;
    assert!(path.exists());
    drop(successor);
}

#[tokio::test]
async fn whoever_drops_the_loop_cuts_its_connections() {
    let mut house = House::open("127.0.0.1:0").await;
    let mut slow = Client::connect(&house.address).await;
    slow.send(&request("GET /slow", "")).await;
    house.echo.waiting.acquire().await.unwrap().forget();
    house.task.shutdown().await;
    slow.ended().await;
}

#[tokio::test]
async fn a_hung_up_caller_frees_what_waited_for_it() {
    let house = House::open("127.0.0.1:0").await;
    let mut slow = Client::connect(&house.address).await;
    slow.send(&request("GET /slow", "")).await;
    house.echo.waiting.acquire().await.unwrap().forget();
    let permits = Arc::strong_count(&house.echo.permits);
    drop(slow);
    until(|| Arc::strong_count(&house.echo.permits) < permits).await;

    let mut reads_on = Client::connect(&house.address).await;
    reads_on.send(&request("GET /slow", "")).await;
    reads_on.shut().await;
    assert_eq!(reads_on.reply().await.body, "hung up");
    reads_on.ended().await;
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    #[derive(Clone)]
    struct Brittle;
    impl Service for Brittle {
        fn answer<B>(&self, request: Request<B>, _: &Connection) -> Answer {
            assert_eq!(request.uri().path(), "/good");
            text(StatusCode::OK, Bytes::new()).into()
        }
    }
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_address().clone();
    let mut task = JoinSet::new();
    task.spawn(serve_http(listener, Brittle, CancellationToken::new()));
    let mut first = Client::connect(&address).await;
    first.send(&request("GET /bad", "")).await;
    first.ended().await;
    let mut second = Client::connect(&address).await;
    assert_eq!(second.ask("GET /good", "").await.status, 200);
}
