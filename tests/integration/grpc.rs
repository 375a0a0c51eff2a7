//! The token over gRPC: by a caller of our own that hides nothing, and by Python's grpcio, which knows only the address.

use std::process::Command;
use std::time::Duration;

use bearerd::sandbox::Sandbox;
use prost::Message;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Daemon, Scale, World};
use crate::terminal::Process;
use calls::{Answer, Caller};

#[allow(dead_code, reason = "the unit tests use the rest")]
#[path = "../../src/listener/testing/calls.rs"]
pub mod calls;

const GET: &str = "/bearerd.v1.TokenService/GetToken";
const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";
const REPORT: &str = "/bearerd.v1.TokenService/ReportRejected";

/// `bearerd.v1.Token`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct Token {
    #[prost(string, tag = "1")]
    access_token: String,
    #[prost(uint64, tag = "4")]
    generation: u64,
}

/// `GetTokenResponse` and `WatchTokenResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, required, tag = "1")]
    token: Token,
}

/// `ReportRejectedRequest`, and of its answer the outcome.
#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(uint32, tag = "2")]
    status: u32,
}

async fn over_tcp(daemon: &Daemon) -> Caller {
    Caller::over(TcpStream::connect(&daemon.grpc).await.unwrap()).await
}

async fn over_unix(daemon: &Daemon) -> Caller {
    Caller::over(UnixStream::connect(&daemon.grpc_socket).await.unwrap()).await
}

async fn watch(caller: &Caller) -> Answer {
    let call = caller.begin(WATCH, &[], b"").await.unwrap();
    call.answered().await.unwrap()
}

async fn next(watch: &mut Answer) -> Token {
    let message = watch.next().await.unwrap().expect("the watch goes on");
    Response::decode(message).unwrap().token
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    (status.code(), info.reason)
}

/// Python, with what tests/run has installed for it.
fn python(address: &str, arguments: &[&str]) -> Process {
    let folder = env!("CARGO_MANIFEST_DIR");
    let python = format!("{folder}/target/python/bin/python3");
    assert!(
        std::fs::exists(&python).unwrap(),
        "{python} is missing: `tests/run integration` makes it"
    );
    let mut command = Command::new(python);
    command
        .arg(format!("{folder}/tests/integration/python/client.py"))
        .arg(address)
        .args(arguments)
        .env_clear();
    Process::start(command)
}

/// What a Python caller has told so far under this name.
fn told(process: &Process, name: &str) -> Vec<Value> {
    let out = process.out();
    // The last line may be half there.
    let whole = out.rfind('\n').map_or("", |end| &out[..end]);
    let documents = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    documents.filter_map(|it| it.get(name).cloned()).collect()
}

fn ended(process: Process) {
    let said = process.end();
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// The sandbox gave these tokens one after the other, and none between them.
fn all_that_there_were(sandbox: &Sandbox, seen: &[Value]) {
    let issued = sandbox.issued_tokens();
    let seen: Vec<&str> = seen.iter().map(|it| it.as_str().unwrap()).collect();
    let first = issued.iter().position(|it| it == seen[0]).unwrap();
    assert_eq!(issued[first..first + seen.len()], seen);
}

#[tokio::test]
async fn a_token_is_vended_through_both_doors() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    for caller in [over_tcp(&daemon).await, over_unix(&daemon).await] {
        let (messages, status) = caller.ask(GET, &[], b"").await;
        assert_eq!(status.code(), Code::Ok);
        let token = Response::decode(&messages[0][..]).unwrap().token;
        assert_eq!(token.access_token, first.access_token());
        assert_eq!(token.generation, first.generation());
        let report = Report {
            generation: token.generation - 1,
            status: 401,
        };
        let (messages, _) = caller.ask(REPORT, &[], &report.encode_to_vec()).await;
        assert_eq!(&messages[0][..], [8, 2], "stale");
        let mut watching = watch(&caller).await;
        assert_eq!(next(&mut watching).await, token);
    }
    daemon
        .until_metric("bearerd_watchers{transport=\"grpc\"}", 0.0)
        .await;
    // The scan at the end is worth something only if these speak.
    for target in ["h2::", "hyper"] {
        assert!(world.captured.says(target), "{target} says nothing");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_is_told_what_failed_and_why() {
    let world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    let asking = python(&daemon.grpc, &["errors"]);
    let said = asking.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    let answers: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let services = &answers[0]["services"];
    for service in ["bearerd.v1.TokenService", "grpc.health.v1.Health"] {
        assert!(
            services.as_array().unwrap().contains(&service.into()),
            "{services}"
        );
    }
    let expected = [
        ("UNAVAILABLE", "NO_TOKEN_YET"),
        ("INVALID_ARGUMENT", "BAD_REPORT"),
        ("RESOURCE_EXHAUSTED", "TOO_LONG"),
        ("NOT_FOUND", "UNKNOWN_SERVICE"),
        ("UNIMPLEMENTED", "UNKNOWN_CALL"),
        ("UNIMPLEMENTED", "UNKNOWN_CALL"),
        ("UNIMPLEMENTED", "COMPRESSED"),
        ("PERMISSION_DENIED", "FORWARDED"),
    ];
    assert_eq!(answers.len(), 1 + expected.len(), "{answers:#?}");
    for (answer, (code, reason)) in answers[1..].iter().zip(expected) {
        assert_eq!(answer["code"], code, "{answer}");
        assert_eq!(answer["reason"], reason, "{answer}");
        assert_eq!(answer["domain"], "bearerd", "{answer}");
    }
    assert_eq!(answers[1]["retry"], 1, "an attempt is under way");
    assert!(answers[2].get("retry").is_none());
    let mut health = python(&daemon.grpc, &["health"]);
    health.until("not serving", |it| {
        (told(it, "health") == ["NOT_SERVING"]).then_some(())
    });
    gate.open();
    health.until("serving", |it| {
        (told(it, "health") == ["NOT_SERVING", "SERVING"]).then_some(())
    });
    ended(health);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reports_a_token_and_is_sent_its_successor() {
    // Long enough for nothing to rotate by itself, short enough for a report to be believed.
    let world = World::new(Scale {
        lifetime: Duration::from_secs(90),
        window: Duration::from_secs(12),
        in_flight: Duration::from_millis(400),
        timeout: Duration::from_millis(200),
        limit: 10,
    })
    .await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    daemon
        .until("the pace lets a report through at once", |status| {
            let at = |time: &Value| time.as_str()?.parse::<jiff::Timestamp>().ok();
            let age = at(&status["at"]).zip(at(&status["token"]["issued_at"]));
            age.is_some_and(|(now, issued)| now.duration_since(issued).as_millis() > 2_500)
        })
        .await;
    let unix = format!("unix:{}", daemon.grpc_socket);
    let reporting = python(&unix, &["report"]);
    let said = reporting.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = |name: &str| -> Vec<Value> {
        let lines = said.out.lines();
        let documents = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        documents.filter_map(|it| it.get(name).cloned()).collect()
    };
    assert_eq!(line("outcome"), ["REPORT_OUTCOME_REFRESHING"]);
    let generations = line("generation");
    assert_eq!(generations[0], first.generation());
    assert!(generations.last().unwrap().as_u64() > Some(first.generation()));
    assert_eq!(world.sandbox.mints(), 2);
    assert_eq!(
        line("token").last().unwrap().as_str().unwrap(),
        world.sandbox.issued_tokens()[1]
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

/// What the process holds in memory, in bytes.
fn resident(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// So much may be held for a caller that reads nothing, with a hundred watches: what the sockets and the streams have room for.
const CEILING: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_sees_twenty_rotations_beside_a_frozen_watcher() {
    let world = World::quiet(Scale::brisk()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let mut frozen = python(&daemon.grpc, &["watch", "1000", "100"]);
    frozen.until("a token", |it| {
        (!told(it, "token").is_empty()).then_some(())
    });
    frozen.signal(Signal::STOP);
    let before_frozen = told(&frozen, "token").len();
    let before = resident(&daemon);
    // The first message is the current token, and twenty rotations follow it.
    let mut python = python(&daemon.grpc, &["watch", "21"]);
    let caller = over_unix(&daemon).await;
    let mut ours = watch(&caller).await;
    let mut seen = Vec::new();
    for _ in 0..21 {
        seen.push(Value::from(next(&mut ours).await.access_token));
    }
    all_that_there_were(&world.sandbox, &seen);
    python.until("twenty rotations", |it| {
        (told(it, "token").len() == 21).then_some(())
    });
    all_that_there_were(&world.sandbox, &told(&python, "token"));
    for life in told(&python, "life") {
        assert!(
            life.as_f64() <= Some(world.scale.lifetime.as_secs_f64()),
            "{life}"
        );
    }
    ended(python);
    let growth = resident(&daemon).saturating_sub(before);
    eprintln!("{growth} bytes more beside a frozen caller with 100 watches");
    assert!(growth < CEILING, "{growth} bytes for a frozen watcher");
    assert_eq!(told(&frozen, "token").len(), before_frozen);
    // It was frozen for less than the keepalive allows: it goes on, and catches up with the newest.
    frozen.signal(Signal::CONT);
    let newest = next(&mut ours).await.access_token;
    frozen.until("the newest token", |it| {
        told(it, "token")
            .contains(&Value::from(newest.clone()))
            .then_some(())
    });
    frozen.signal(Signal::KILL);
    frozen.end();
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Asks for the token again and again until the daemon sends it elsewhere. Every call must be answered, or refused before it was
/// looked at, so that its caller may try again.
async fn ask_on(caller: Caller) -> u64 {
    let mut answered = 0;
    loop {
        let call = match caller.begin(GET, &[], b"").await {
            Ok(call) => call,
            Err(error) => {
                assert!(error.is_go_away(), "not begun: {error:?}");
                return answered;
            }
        };
        let answer = match call.answered().await {
            Ok(answer) => answer,
            Err(error) => {
                let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
                assert!(refused || error.is_go_away(), "not answered: {error:?}");
                return answered;
            }
        };
        let (messages, status) = answer.all().await;
        assert_eq!((messages.len(), status.code()), (1, Code::Ok), "{status:?}");
        answered += 1;
    }
}

#[tokio::test]
async fn a_drain_under_load_ends_a_thousand_watches_and_fails_no_call() {
    let world = World::quiet(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let mut watches = JoinSet::new();
    let mut callers = Vec::new();
    for connection in 0..10 {
        let caller = match connection % 2 {
            0 => over_tcp(&daemon).await,
            _ => over_unix(&daemon).await,
        };
        for _ in 0..100 {
            let mut watching = watch(&caller).await;
            next(&mut watching).await;
            watches.spawn(async move { watching.all().await });
        }
        callers.push(caller);
    }
    assert_eq!(
        daemon.metric("bearerd_watchers{transport=\"grpc\"}").await,
        1000.0
    );
    let mut asking = JoinSet::new();
    for connection in 0..8 {
        let caller = match connection % 2 {
            0 => over_tcp(&daemon).await,
            _ => over_unix(&daemon).await,
        };
        asking.spawn(ask_on(caller));
    }
    let vended = "bearerd_vends_total{outcome=\"ok\",transport=\"grpc\"}";
    let before = daemon.metric(vended).await;
    while daemon.metric(vended).await < before + 500.0 {}
    daemon.signal(Signal::TERM);
    let mut ended = 0;
    while let Some(watch) = watches.join_next().await {
        let (messages, status) = watch.unwrap();
        assert!(messages.is_empty());
        assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".into()));
        ended += 1;
    }
    assert_eq!(ended, 1000);
    let mut answered = 0;
    while let Some(calls) = asking.join_next().await {
        answered += calls.unwrap();
    }
    assert!(answered > 500, "{answered}");
    for caller in callers {
        // What it wrote last may have found the door shut already.
        let _closed_or_broken = caller.ended().await;
    }
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(!world.captured.says("has reached its deadline"));
    world.finish();
}
