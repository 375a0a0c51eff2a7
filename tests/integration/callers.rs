//! Who may ask, over real sockets: callers by user and group, what each may do, how fast, and how much at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::grpc::calls::{Answer, Caller};
use crate::harness::{Daemon, Reply, Scale, World, cannot_run_here};

pub const GET: &str = "/bearerd.v1.TokenService/GetToken";
pub const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";
pub const REPORT: &str = "/bearerd.v1.TokenService/ReportRejected";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// `GetTokenRequest` with a wait of thirty seconds.
const WAIT: &[u8] = &[0x0a, 0x02, 0x08, 0x1e];

/// `ReportRejectedRequest`: generation 1 was answered with 401.
pub const STALE: &[u8] = &[0x08, 0x01, 0x10, 0x91, 0x03];

/// A user that this test is not.
const STRANGER: u32 = 54_321;

/// What curl got.
#[derive(Debug)]
struct Got {
    status: u16,
    text: String,
}

impl Got {
    /// The last word of a problem's type.
    fn problem(&self) -> String {
        let document: Value = serde_json::from_str(&self.text).unwrap();
        let kind = document["type"].as_str().unwrap();
        kind.rsplit(':').next().unwrap().to_owned()
    }
}

/// Asks for the token through this socket, as this user if the test may become another.
async fn ask_as(uid: u32, socket: &str) -> Got {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
        .args(["--header", "X-Bearerd-Request: true"])
        .args(["--unix-socket", socket, "http://localhost/v1/token"])
        .env_remove("HOME");
    if rustix::process::getuid().is_root() {
        command.uid(uid).gid(uid);
    }
    let said = tokio::task::spawn_blocking(move || command.output().unwrap());
    let said = said.await.unwrap();
    assert!(said.status.success(), "{said:?}");
    let out = String::from_utf8(said.stdout).unwrap();
    let (text, status) = out.rsplit_once('\n').unwrap();
    Got {
        status: status.parse().unwrap(),
        text: text.to_owned(),
    }
}

/// Lets every user of the machine knock.
fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_user_that_no_rule_names_gets_no_token_through_a_socket() {
    let own = rustix::process::getuid().as_raw();
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!("[callers.orders]\nuids = [{own}]"));
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let socket = Path::new(&daemon.socket);
    open_to_all(socket.parent().unwrap(), 0o755);
    open_to_all(socket, 0o666);
    let named = ask_as(own, &daemon.socket).await;
    assert_eq!(named.status, 200, "{named:?}");
    assert!(named.text.contains(&token.access_token()));
    if rustix::process::getuid().is_root() {
        let stranger = ask_as(STRANGER, &daemon.socket).await;
        assert_eq!(
            (stranger.status, &*stranger.problem()),
            (403, "unknown_caller")
        );
        world.captured.add("the stranger's answer", &stranger.text);
        let counted = "bearerd_callers_refused_total{reason=\"unknown_caller\"}";
        assert_eq!(daemon.metric(counted).await, 1.0);
    } else {
        cannot_run_here(
            "a_user_that_no_rule_names_gets_no_token_through_a_socket",
            "only root can call as another user",
        );
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// The numbers that the kernel shows of users and groups that a user namespace does not know.
fn overflow() -> [String; 2] {
    ["uid", "gid"].map(|kind| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}")).unwrap();
        text.trim().to_owned()
    })
}

/// Whether this user may make user namespaces at all.
fn can_unshare() -> bool {
    let mut unshare = Command::new("unshare");
    let unshare = unshare.args(["--user", "--map-root-user", "true"]).output();
    unshare.is_ok_and(|it| it.status.success())
}

/// A command of bearerd in a user namespace in which only the test's own user has a number, which is 0.
fn namespaced(arguments: &[&str], settings: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_bearerd")])
        .args(arguments)
        .arg("--config")
        .arg(settings)
        .env_clear();
    command
}

#[tokio::test]
async fn whoever_has_no_number_in_a_user_namespace_is_no_named_caller() {
    if !can_unshare() {
        return cannot_run_here(
            "whoever_has_no_number_in_a_user_namespace_is_no_named_caller",
            "this kernel, or this user's rights, allow no user namespaces",
        );
    }
    let [uid, gid] = overflow();
    let world = World::new(Scale::still()).await;
    let text = world.toml(&world.state(), "state");
    // Such numbers name nobody, in any section, and whatever is started with them.
    for wrong in [
        format!("[callers.orders]\nuids = [{uid}]"),
        format!("[callers.orders]\ngids = [0, {gid}]"),
        text.replace("[admin]", &format!("[admin]\nuids = [{uid}]")),
        text.replace("[admin]", &format!("[admin]\ngids = [{gid}]")),
    ] {
        let wrong = match wrong.starts_with("[callers") {
            true => format!("{text}{wrong}\n"),
            false => wrong,
        };
        let settings = world.write("wrong.toml", &wrong);
        for command in ["check", "serve"] {
            let mut command = namespaced(&[command], &settings);
            let said = tokio::task::spawn_blocking(move || command.output().unwrap());
            let said = said.await.unwrap();
            let err = String::from_utf8(said.stderr).unwrap();
            assert_eq!(said.status.code(), Some(78), "{err}");
            assert!(err.contains("/proc/sys/kernel/overflow"), "{err}");
            assert!(err.contains("of its own, and name that one"), "{err}");
        }
    }
    // Root of the namespace is somebody, and others are not.
    let text = format!("{text}[callers.orders]\nuids = [0]\ngids = [1]\n");
    let settings = world.write("state.toml", &text);
    let daemon = Daemon::spawn(namespaced(&["serve"], &settings), &world.captured).await;
    let token = daemon.first_token().await;
    let socket = Path::new(&daemon.socket);
    open_to_all(socket.parent().unwrap(), 0o755);
    open_to_all(socket, 0o666);
    let own = rustix::process::getuid().as_raw();
    let root = ask_as(own, &daemon.socket).await;
    assert_eq!(root.status, 200, "{root:?}");
    assert!(root.text.contains(&token.access_token()));
    if rustix::process::getuid().is_root() {
        let unmapped = ask_as(STRANGER, &daemon.socket).await;
        assert_eq!(
            (unmapped.status, &*unmapped.problem()),
            (403, "unknown_caller")
        );
        world.captured.add("the stranger's answer", &unmapped.text);
        // This is the number that it came with.
        assert!(world.captured.says(&format!("uid {uid} gid {gid}")));
    } else {
        cannot_run_here(
            "whoever_has_no_number_in_a_user_namespace_is_no_named_caller",
            "only root can ask as another user",
        );
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn where_others_are_named_the_tests_own_user_is_a_stranger() {
    let other = rustix::process::getuid().as_raw() + 1;
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!(
        "[callers.orders]\nuids = [{other}]\ngids = [{other}]"
    ));
    let daemon = world.start().await;
    daemon.first_token().await;
    let got = ask_as(rustix::process::getuid().as_raw(), &daemon.socket).await;
    assert_eq!((got.status, &*got.problem()), (403, "unknown_caller"));
    world.captured.add("the stranger's answer", &got.text);
    assert!(daemon.stop().await.success());
    world.finish();
}

pub async fn over_tcp(daemon: &Daemon) -> Caller {
    Caller::over(TcpStream::connect(&daemon.grpc).await.unwrap()).await
}

pub async fn over_unix(daemon: &Daemon) -> Caller {
    Caller::over(UnixStream::connect(&daemon.grpc_socket).await.unwrap()).await
}

/// The word that a call failed with, with the code that belongs to it; or that it did not fail.
fn word(status: &Status) -> String {
    if status.code() == Code::Ok {
        return "ok".into();
    }
    let reason = status
        .get_details_error_info()
        .expect("an ErrorInfo")
        .reason;
    let code = match reason.as_str() {
        "UNKNOWN_CALLER" | "NOT_PERMITTED" => Code::PermissionDenied,
        _ => Code::ResourceExhausted,
    };
    assert_eq!(status.code(), code, "{status:?}");
    reason.to_lowercase()
}

/// The same of an answer over HTTP.
fn said(reply: &Reply) -> String {
    match reply.status {
        200 | 202 => "ok".into(),
        403 | 429 => reply.problem(),
        other => panic!("{other}: {}", reply.text),
    }
}

/// A watch whose first message has come, or why there is none.
async fn watch(caller: &Caller) -> Result<Answer, Status> {
    let call = caller.begin(WATCH, &[], b"").await.unwrap();
    let mut answer = call.answered().await.unwrap();
    match answer.next().await.unwrap() {
        Some(_) => Ok(answer),
        None => Err(answer.end()),
    }
}

/// What each of these comes to: over HTTP a read, a wait and a report; over gRPC a read, a wait, a watch, a report, and health.
async fn all_that_can_be_asked(daemon: &Daemon) -> [String; 8] {
    let caller = over_tcp(daemon).await;
    let call = async |path, message| word(&caller.ask(path, &[], message).await.1);
    let watched = watch(&caller)
        .await
        .map_or_else(|status| word(&status), |_| "ok".into());
    [
        said(&daemon.token().await),
        said(&daemon.get("/v1/token", &[("prefer", "wait=30")]).await),
        said(&daemon.report("{\"generation\": 1, \"status\": 401}").await),
        call(GET, &[][..]).await,
        call(GET, WAIT).await,
        watched,
        call(REPORT, STALE).await,
        call(HEALTH, &[]).await,
    ]
}

#[tokio::test]
async fn a_caller_may_do_what_its_rights_list_and_nothing_else() {
    let no = "not_permitted";
    for (may, expected) in [
        ("[]", [no, no, no, no, no, no, no, "ok"]),
        ("[\"vend\"]", ["ok", no, no, "ok", no, no, no, "ok"]),
        ("[\"watch\"]", [no, "ok", no, no, "ok", "ok", no, "ok"]),
        ("[\"report\"]", [no, no, "ok", no, no, no, "ok", "ok"]),
        ("[\"verify\"]", [no, no, no, no, no, no, no, "ok"]),
        ("[\"vend\", \"watch\", \"report\"]", ["ok"; 8]),
    ] {
        let mut world = World::quiet(Scale::still()).await;
        world.settings(&format!("[callers.local]\nmay = {may}"));
        let daemon = world.start().await;
        daemon.until_metric("bearerd_token_usable", 1.0).await;
        let said = all_that_can_be_asked(&daemon).await;
        assert_eq!(said, expected, "may = {may}");
        let refused = expected.iter().filter(|it| **it == no).count();
        let counted = "bearerd_callers_refused_total{reason=\"not_permitted\"}";
        assert_eq!(daemon.metric(counted).await, refused as f64, "may = {may}");
        assert!(daemon.stop().await.success());
        world.finish();
    }
}

#[tokio::test]
async fn whoever_is_unnamed_can_be_shut_out_while_the_named_are_served() {
    let own = rustix::process::getuid().as_raw();
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!(
        "[callers.orders]\nuids = [{own}]\n[callers.local]\nmay = []"
    ));
    let daemon = world.start().await;
    daemon.until_metric("bearerd_token_usable", 1.0).await;
    let reply = daemon.token().await;
    assert_eq!((reply.status, &*reply.problem()), (403, "not_permitted"));
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("vend") && detail.contains("callers.local.may"),
        "{detail}"
    );
    assert_eq!(ask_as(own, &daemon.socket).await.status, 200);
    let caller = over_unix(&daemon).await;
    assert_eq!(caller.ask(GET, &[], b"").await.1.code(), Code::Ok);
    assert!(watch(&caller).await.is_ok());
    assert!(!world.captured.says("to every process of this machine"));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_port_beside_callers_by_their_user_is_warned_of_at_the_start() {
    let mut world = World::new(Scale::still()).await;
    world.settings("[callers.orders]\nuids = [1]");
    let daemon = world.start().await;
    assert!(world.captured.says("to every process of this machine"));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_stranger_is_told_nothing_over_grpc_either() {
    let other = rustix::process::getuid().as_raw() + 1;
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!("[callers.orders]\nuids = [{other}]"));
    let daemon = world.start().await;
    daemon.first_token().await;
    let caller = over_unix(&daemon).await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for path in [GET, WATCH, REPORT, HEALTH, reflection, "/no.such/Call"] {
        let (messages, status) = caller.ask(path, &[], b"").await;
        assert!(messages.is_empty());
        assert_eq!(word(&status), "unknown_caller", "{path}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Asks until it is refused, and gives the refusal. With one request a second there must be one, however slow the machine is.
async fn until_refused(mut ask: impl AsyncFnMut() -> Option<u64>) -> u64 {
    for _ in 0..10_000 {
        if let Some(retry_after) = ask().await {
            return retry_after;
        }
    }
    panic!("nothing is refused");
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_come_again_through_every_door() {
    let own = rustix::process::getuid().as_raw();
    let mut world = World::quiet(Scale::still()).await;
    world.settings(&format!(
        "[callers.local]\nrate = 1\nburst = 3\n[callers.orders]\nuids = [{own}]"
    ));
    let daemon = world.start().await;
    daemon.until_metric("bearerd_token_usable", 1.0).await;
    let http = async || {
        let reply = daemon.token().await;
        (reply.status == 429).then(|| {
            assert_eq!(reply.problem(), "rate_limited");
            reply.header("retry-after").parse().unwrap()
        })
    };
    let caller = over_tcp(&daemon).await;
    let grpc = async || {
        let status = caller.ask(GET, &[], b"").await.1;
        (status.code() != Code::Ok).then(|| {
            assert_eq!(word(&status), "rate_limited");
            let retry = status.get_details_retry_info().unwrap().retry_delay;
            retry.unwrap().as_secs()
        })
    };
    assert_eq!(until_refused(http).await, 1);
    assert_eq!(until_refused(grpc).await, 1);
    // What a web page sends costs its user nothing, and is told what it is.
    let page = daemon.get("/v1/token", &[("origin", "https://x")]).await;
    assert_eq!(page.problem(), "browser");
    // The other caller has no bound, and knows nothing of this one's.
    for _ in 0..20 {
        assert_eq!(ask_as(own, &daemon.socket).await.status, 200);
    }
    let refused = "bearerd_callers_refused_total{reason=\"rate_limited\"}";
    assert!(daemon.metric(refused).await >= 2.0);
    assert!(daemon.stop().await.success());
    world.finish();
}

/// A long poll that waits, and whose answer nobody has read yet.
async fn long_poll(daemon: &Daemon, etag: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&daemon.http).await.unwrap();
    let head = format!(
        "GET /v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\nPrefer: wait=60\r\nIf-None-Match: {etag}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn so_many_watches_and_waits_may_be_open_and_whoever_hangs_up_makes_room() {
    let mut world = World::quiet(Scale::still()).await;
    world.settings("[callers.local]\nstreams = 2");
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let etag = token.header("etag").to_owned();
    let waiting = "bearerd_watchers{transport=\"http\"}";
    let watching = "bearerd_watchers{transport=\"grpc\"}";
    let caller = over_tcp(&daemon).await;
    let watched = watch(&caller).await.unwrap();
    let poll = long_poll(&daemon, &etag).await;
    daemon.until_metric(waiting, 1.0).await;

    let full = || async {
        let seen = [("prefer", "wait=60"), ("if-none-match", etag.as_str())];
        let reply = daemon.get("/v1/token", &seen).await;
        let another = watch(&over_tcp(&daemon).await).await;
        [said(&reply), word(&another.err().unwrap())]
    };
    assert_eq!(full().await, ["too_many_streams", "too_many_streams"]);
    // What else may stay open is counted with them.
    for path in [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let refused = caller.ask(path, &[], b"").await.1;
        assert_eq!(word(&refused), "too_many_streams", "{path}");
    }
    // Whoever does not wait is not held up by those who do.
    assert_eq!(daemon.token().await.status, 200);
    assert_eq!(caller.ask(GET, &[], WAIT).await.1.code(), Code::Ok);

    drop(poll);
    daemon.until_metric(waiting, 0.0).await;
    let second = over_tcp(&daemon).await;
    let again = watch(&second).await.unwrap();
    assert_eq!(full().await, ["too_many_streams", "too_many_streams"]);

    // One hangs up its call, the other its whole connection.
    drop((watched, second, again));
    daemon.until_metric(watching, 0.0).await;
    let polls = [
        long_poll(&daemon, &etag).await,
        long_poll(&daemon, &etag).await,
    ];
    daemon.until_metric(waiting, 2.0).await;
    assert_eq!(full().await, ["too_many_streams", "too_many_streams"]);
    drop(polls);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_wait_for_the_first_token_over_grpc_is_counted_too() {
    let mut world = World::quiet(Scale::still()).await;
    world.settings("[callers.local]\nstreams = 1");
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    let caller = over_tcp(&daemon).await;
    let wait = caller.begin(GET, &[], WAIT).await.unwrap();
    daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 1.0)
        .await;
    let second = caller.ask(GET, &[], WAIT).await.1;
    assert_eq!(word(&second), "too_many_streams");
    gate.open();
    let (messages, status) = wait.answered().await.unwrap().all().await;
    assert_eq!((messages.len(), status.code()), (1, Code::Ok));
    let send = daemon.send(Method::GET, &daemon.http, "/v1/token", &[], None);
    assert_eq!(send.await.unwrap().status, 200);
    assert!(daemon.stop().await.success());
    world.finish();
}
