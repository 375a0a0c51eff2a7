use super::*;

use jiff::SignedDuration;
use prometheus::Registry;
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FileDescriptorSet, Timestamp};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use crate::caller;
use crate::clock::Stamp;
use crate::listener::Address;
use crate::listener::testing::calls::{Answer, Call, Caller, framed};
use crate::listener::testing::{HandClock, at, metric, until};
use crate::token::{Generation, Secret, Token};
use crate::vend::{Command, Live, ReportOutcome};

use proto::{
    GetTokenRequest, ReportOutcome as Told, ReportRejectedRequest, ReportRejectedResponse,
};

const GET: &str = "/bearerd.v1.TokenService/GetToken";
const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";
const REPORT: &str = "/bearerd.v1.TokenService/ReportRejected";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH_HEALTH: &str = "/grpc.health.v1.Health/Watch";

/// `bearerd.v1.Token`, as a caller reads it.
#[derive(Clone, PartialEq, Message)]
struct Got {
    #[prost(string, tag = "1")]
    access_token: String,
    #[prost(message, optional, tag = "2")]
    expires_at: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    issued_at: Option<Timestamp>,
    #[prost(uint64, tag = "4")]
    generation: u64,
    #[prost(bool, tag = "5")]
    suspect: bool,
    #[prost(uint32, tag = "6")]
    expires_in: u32,
}

/// `GetTokenResponse` and `WatchTokenResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    token: Option<Got>,
}

fn token(message: &[u8]) -> Got {
    Response::decode(message).unwrap().token.unwrap()
}

struct House {
    vend: Arc<Vend>,
    clock: Arc<HandClock>,
    registry: Registry,
    commands: Option<mpsc::Receiver<Command>>,
    drain: CancellationToken,
    tasks: JoinSet<()>,
    address: Address,
}

impl House {
    async fn open() -> Self {
        Self::open_at("127.0.0.1:0").await
    }

    async fn open_at(address: &str) -> Self {
        let registry = Registry::new();
        let (vend, commands) = Vend::new(crate::vend::Status::default());
        let clock = Arc::new(HandClock::new());
        let settings = Settings {
            hosts: vec!["gateway".into()],
            streams: 100,
            keepalive: Duration::from_secs(3600),
        };
        let metrics = Metrics::register(&registry);
        let callers = Callers::new(&caller::Settings::default(), clock.clone(), &registry).unwrap();
        let grpc = Grpc::new(
            &settings,
            Arc::clone(&vend),
            clock.clone(),
            &metrics,
            &callers,
        );
        let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
        let address = listener.local_address().clone();
        let drain = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(grpc.serve(listener, drain.clone()));
        Self {
            vend,
            clock,
            registry,
            commands: Some(commands),
            drain,
            tasks,
            address,
        }
    }

    fn publish(&self, generation: u64, expires: u64) {
        self.vend.publish(live(generation, expires, false));
    }

    async fn caller(&self) -> Caller {
        match &self.address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                Caller::over(stream.unwrap()).await
            }
            Address::Unix(path) => Caller::over(UnixStream::connect(path).await.unwrap()).await,
        }
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Status {
        self.caller().await.ask(path, headers, message).await.1
    }

    fn vends(&self, outcome: &str) -> f64 {
        let line = format!("bearerd_vends_total{{outcome=\"{outcome}\",transport=\"grpc\"}}");
        metric(&self.registry, &line)
    }

    async fn watched_by(&self, number: f64) {
        let watchers = || metric(&self.registry, "bearerd_watchers{transport=\"grpc\"}");
        until(|| (watchers() - number).abs() < 0.5).await;
    }

    /// A keeper that says the same to every report.
    fn keep(&mut self, outcome: ReportOutcome) {
        let mut commands = self.commands.take().unwrap();
        self.tasks.spawn(async move {
            while let Some(command) = commands.recv().await {
                if let Command::Report { reply, .. } = command {
                    let _ = reply.send(outcome);
                }
            }
        });
    }

    async fn ended(mut self) {
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

async fn watch(caller: &Caller) -> Answer {
    let call = caller.begin(WATCH, &[], b"").await.unwrap();
    call.answered().await.unwrap()
}

fn live(generation: u64, expires: u64, suspect: bool) -> Live {
    let token = Token {
        generation: Generation(generation),
        secret: Secret::new(format!("token-{generation}")),
        issued_at: at(0),
        refresh_at: at(1),
        expires_at: at(expires).plus(Duration::from_nanos(1_999_999)),
    };
    Live::new(token, suspect)
}

/// The code, and the word of the table, which every failure has.
fn told(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "bearerd");
    (status.code(), info.reason)
}

fn waiting(wait: Duration) -> Vec<u8> {
    let wait = Some(wait.try_into().unwrap());
    GetTokenRequest { wait }.encode_to_vec()
}

#[tokio::test]
async fn the_token_is_what_the_proto_says() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/grpc.sock", folder.path().display());
    for address in ["127.0.0.1:0", &unix] {
        let house = House::open_at(address).await;
        house.publish(5, 100);
        let (messages, status) = house.caller().await.ask(GET, &[], b"").await;
        assert_eq!((messages.len(), status.code()), (1, Code::Ok));
        let seconds = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let expected = Got {
            access_token: "token-5".into(),
            // Cut to milliseconds, and never later than the truth.
            expires_at: seconds(1_800_000_100, 1_000_000),
            issued_at: seconds(1_800_000_000, 0),
            generation: 5,
            suspect: false,
            expires_in: 100,
        };
        assert_eq!(token(&messages[0]), expected);
        assert_eq!(house.vends("ok") as u32, 1);
    }
}

/// Every way to the token: the fast path, tonic's, and both kinds of watch.
#[tokio::test]
async fn every_way_gives_the_times_of_the_moment_it_answers() {
    let house = House::open().await;
    house.publish(5, 3600);
    let minted = at(0).wall.as_second();
    // Seconds on the boot clock, how far the wall clock was set meanwhile, and what is left.
    for (boot, step, left) in [
        (0, 0, 3600),
        (1, 0, 3599),
        (1, -18_000, 3599),
        (2, -18_000, 3598),
        (3, 600, 2997),
        (3, -18_000, 3597),
    ] {
        let wall = at(boot).wall + SignedDuration::from_secs(step);
        house.clock.set(Stamp { wall, ..at(boot) });
        let caller = house.caller().await;
        let mut ways = Vec::new();
        for message in [Vec::new(), waiting(Duration::from_secs(1))] {
            let (messages, _) = caller.ask(GET, &[], &message).await;
            ways.push(token(&messages[0]));
        }
        // What says how it is compressed goes the long way.
        for headers in [&[][..], &[("grpc-encoding", "identity")]] {
            let call = caller.begin(WATCH, headers, b"").await.unwrap();
            let mut answer = call.answered().await.unwrap();
            ways.push(token(&answer.next().await.unwrap().unwrap()));
        }
        let issued = minted + step;
        for got in ways {
            let seconds = |at: Option<Timestamp>| at.unwrap().seconds;
            assert_eq!(got.expires_in, left, "{boot} {step}");
            assert_eq!(
                seconds(got.expires_at),
                wall.as_second() + i64::from(left),
                "{boot} {step}"
            );
            assert_eq!(seconds(got.issued_at), issued, "{boot} {step}");
        }
    }
}

#[tokio::test]
async fn a_watcher_is_sent_the_seconds_of_the_moment_and_is_not_woken_by_a_step() {
    let house = House::open().await;
    house.publish(5, 3600);
    let caller = house.caller().await;
    let mut answer = watch(&caller).await;
    assert_eq!(
        token(&answer.next().await.unwrap().unwrap()).expires_in,
        3600
    );
    house.clock.set(Stamp {
        wall: at(0).wall,
        ..at(100)
    });
    // Whatever else is answered meanwhile, this stream is silent until there is a successor.
    let (messages, _) = house.caller().await.ask(GET, &[], b"").await;
    assert_eq!(token(&messages[0]).expires_in, 3500);
    house.publish(6, 4000);
    let got = token(&answer.next().await.unwrap().unwrap());
    assert_eq!((got.generation, got.expires_in), (6, 3900));
}

#[tokio::test]
async fn a_call_is_answered_when_its_end_has_arrived() {
    let house = House::open().await;
    house.publish(7, 3600);
    let caller = house.caller().await;
    let mut call = caller.open(GET, &[]).await.unwrap();
    call.body.send_data(framed(b""), false).unwrap();
    // Its message has arrived once a later call on the same connection is answered.
    caller.ask(GET, &[], b"").await;
    assert_eq!(house.vends("ok"), 1.0);
    call.body.send_data(bytes::Bytes::new(), true).unwrap();
    let (messages, status) = call.answered().await.unwrap().all().await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(token(&messages[0]).generation, 7);
    assert_eq!(house.vends("ok"), 2.0);
}

#[test]
fn the_prepared_token_has_the_fields_of_the_proto() {
    let files = FileDescriptorSet::decode(
        &include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..],
    )
    .unwrap();
    let messages = files.file.iter().flat_map(|file| &file.message_type);
    let mut tokens = messages.filter(|message| message.name() == "Token");
    let fields: Vec<_> = tokens
        .next()
        .unwrap()
        .field
        .iter()
        .map(|field| {
            (
                field.name(),
                field.number(),
                field.r#type(),
                field.type_name(),
            )
        })
        .collect();
    let time = ".google.protobuf.Timestamp";
    assert_eq!(
        fields,
        [
            ("access_token", 1, Type::String, ""),
            ("expires_at", 2, Type::Message, time),
            ("issued_at", 3, Type::Message, time),
            ("generation", 4, Type::Uint64, ""),
            ("suspect", 5, Type::Bool, ""),
            ("expires_in", 6, Type::Uint32, ""),
        ]
    );
    // The same on the wire, by hand: three tags and lengths, two times, a number, a flag and a number.
    let encoded = vended(&live(5, 100, true), 40).encode_to_vec();
    let times = [
        &[
            0x12, 10, 8, 0xe4, 0xa4, 0xa7, 0xda, 6, 0x10, 0xc0, 0x84, 0x3d,
        ][..],
        &[0x1a, 6, 8, 0x80, 0xa4, 0xa7, 0xda, 6],
    ];
    let expected = [
        b"\x0a\x23\x0a\x07token-5",
        times[0],
        times[1],
        &[0x20, 5, 0x28, 1, 0x30, 60],
    ]
    .concat();
    assert_eq!(encoded, expected);
}

fn vended(live: &Live, second: u64) -> message::Vended {
    message::Vended::from_frame(&message::framed(live, at(second)))
}

#[test]
fn a_token_is_not_shown() {
    let vended = vended(&live(5, 100, true), 40);
    let shown = format!("{vended:?} {vended:#?} {:?}", proto::Token::default());
    assert!(
        !shown.contains("token-5") && shown.contains("Token(…)"),
        "{shown}"
    );
    let bytes = format!("{:?}", b"token-5");
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    // Truecaller's message may repeat the token.
    let report = ReportRejectedRequest {
        generation: 5,
        status: 500,
        message: "failed to parse token token-5".into(),
    };
    let shown = format!("{report:?}");
    assert!(!shown.contains("token-5"), "{shown}");
}

#[tokio::test]
async fn a_watcher_gets_the_token_then_its_mark_then_its_successor() {
    let house = House::open().await;
    let caller = house.caller().await;
    let mut answer = watch(&caller).await;
    house.watched_by(1.0).await;
    for (generation, suspect) in [(5, false), (5, true), (6, false)] {
        house.vend.publish(live(generation, 100, suspect));
        let got = token(&answer.next().await.unwrap().unwrap());
        assert_eq!((got.generation, got.suspect), (generation, suspect));
        assert_eq!(got.access_token, format!("token-{generation}"));
    }
    assert_eq!(house.vends("ok") as u32, 3);
    drop(answer);
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn a_watcher_is_sent_nothing_that_is_dead() {
    let house = House::open().await;
    house.clock.set(at(200));
    house.publish(5, 100);
    let caller = house.caller().await;
    let mut answer = watch(&caller).await;
    house.watched_by(1.0).await;
    house.publish(6, 300);
    assert_eq!(token(&answer.next().await.unwrap().unwrap()).generation, 6);
    assert_eq!(house.vends("ok") as u32, 1);
}

#[tokio::test]
async fn a_slow_reader_skips_to_the_newest_and_delays_nobody() {
    const LAST: u64 = 2_000;
    let house = House::open().await;
    house.publish(1, 100);
    let Address::Tcp { host, port } = &house.address else {
        unreachable!("the house is at a port")
    };
    let stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
    let narrow = Caller::narrow(300, stream).await;
    let mut slow = watch(&narrow).await;
    let caller = house.caller().await;
    let mut quick = watch(&caller).await;
    for generation in 1..=LAST {
        house.publish(generation, 100);
        assert_eq!(
            token(&quick.next().await.unwrap().unwrap()).generation,
            generation
        );
    }
    let (mut last, mut seen) = (0, 0);
    while last < LAST {
        let next = token(&slow.next().await.unwrap().unwrap()).generation;
        assert!(next > last, "{next} after {last}");
        (last, seen) = (next, seen + 1);
    }
    assert!(seen < 20, "{seen} of {LAST} were kept for a slow reader");
}

#[tokio::test]
async fn a_drain_ends_every_watch_once_with_its_reason() {
    let house = House::open().await;
    house.publish(5, 100);
    let caller = house.caller().await;
    let (mut first, mut second) = (watch(&caller).await, watch(&caller).await);
    let beside = house.caller().await;
    let mut other = watch(&beside).await;
    for answer in [&mut first, &mut second, &mut other] {
        assert_eq!(token(&answer.next().await.unwrap().unwrap()).generation, 5);
    }
    house.drain.cancel();
    for answer in [first, second, other] {
        let (messages, status) = answer.all().await;
        assert!(messages.is_empty());
        assert_eq!(told(&status), (Code::Unavailable, "DRAINING".into()));
        let retry = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(retry, Some(Duration::from_secs(1)));
    }
    house.watched_by(0.0).await;
    assert_eq!(house.vends("draining") as u32, 3);
    caller.ended().await.unwrap();
    house.ended().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_first_token() {
    let house = House::open().await;
    let caller = house.caller().await;
    let call = caller
        .begin(GET, &[], &waiting(Duration::from_secs(60)))
        .await
        .unwrap();
    house.watched_by(1.0).await;
    house.publish(5, 100);
    let (messages, status) = call.answered().await.unwrap().all().await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(token(&messages[0]).generation, 5);
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn a_wait_without_a_token_ends_and_says_why() {
    let house = House::open().await;
    let short = waiting(Duration::from_millis(1));
    let status = house.ask(GET, &[], &short).await;
    assert_eq!(told(&status), (Code::Unavailable, "NO_TOKEN_YET".into()));
    house.publish(5, 100);
    house.clock.set(at(101));
    for message in [&short[..], b""] {
        let status = house.ask(GET, &[], message).await;
        assert_eq!(told(&status), (Code::Unavailable, "EXPIRED".into()));
    }
    assert_eq!(house.vends("expired") as u32, 2);
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn a_wait_ends_with_the_drain() {
    let house = House::open().await;
    let caller = house.caller().await;
    let wait = waiting(Duration::from_secs(60));
    let call = caller.begin(GET, &[], &wait).await.unwrap();
    house.watched_by(1.0).await;
    house.drain.cancel();
    let (_, status) = call.answered().await.unwrap().all().await;
    assert_eq!(told(&status), (Code::Unavailable, "DRAINING".into()));
    house.ended().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_callers_deadline() {
    let house = House::open().await;
    let long = waiting(Duration::from_secs(60));
    for timeout in ["20m", "20000u", "20000000n", "0S"] {
        let status = house.ask(GET, &[("grpc-timeout", timeout)], &long).await;
        assert_eq!(told(&status), (Code::DeadlineExceeded, "DEADLINE".into()));
        house.watched_by(0.0).await;
    }
    for timeout in ["1H", "5M", "60S"] {
        house.publish(5, 100);
        let status = house.ask(GET, &[("grpc-timeout", timeout)], &long).await;
        assert_eq!(status.code(), Code::Ok);
    }
    for timeout in ["20", "m", "20 m", "-1m", "123456789m", "20x", "+2m"] {
        let status = house.ask(GET, &[("grpc-timeout", timeout)], &long).await;
        assert_eq!(
            told(&status),
            (Code::Internal, "BAD_MESSAGE".into()),
            "{timeout}"
        );
    }
}

#[tokio::test]
async fn a_caller_that_leaves_leaves_nothing_behind() {
    let house = House::open().await;
    let caller = house.caller().await;
    let wait = waiting(Duration::from_secs(60));
    let cancelled = caller.begin(GET, &[], &wait).await.unwrap();
    let watching = watch(&caller).await;
    house.watched_by(2.0).await;
    drop(cancelled);
    house.watched_by(1.0).await;
    drop(watching);
    house.watched_by(0.0).await;
    let other = house.caller().await;
    let left = other.begin(GET, &[], &wait).await.unwrap();
    let watching = watch(&other).await;
    house.watched_by(2.0).await;
    drop((other, left, watching));
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn a_wait_that_is_none_is_told_even_beside_a_live_token() {
    let house = House::open().await;
    let backwards = GetTokenRequest {
        wait: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
    };
    for _ in 0..2 {
        let status = house.ask(GET, &[], &backwards.encode_to_vec()).await;
        assert_eq!(told(&status), (Code::InvalidArgument, "BAD_WAIT".into()));
        house.publish(5, 100);
    }
}

#[tokio::test]
async fn a_report_comes_to_what_the_keeper_says() {
    let paced = ReportOutcome::Paced {
        until: at(0).plus(Duration::from_millis(7_100)),
    };
    for (outcome, expected, seconds) in [
        (ReportOutcome::Refreshing, Told::Refreshing, None),
        (ReportOutcome::StaleGeneration, Told::StaleGeneration, None),
        (ReportOutcome::TooYoung, Told::TooYoung, None),
        (paced, Told::Paced, Some(8)),
    ] {
        let mut house = House::open().await;
        house.keep(outcome);
        let report = |status, message: &str| {
            let message = message.to_owned();
            let report = ReportRejectedRequest {
                generation: 5,
                status,
                message,
            };
            report.encode_to_vec()
        };
        let caller = house.caller().await;
        for (message, expected, seconds) in [
            (report(401, ""), expected, seconds),
            (report(500, "Failed to parse token"), expected, seconds),
            (report(403, ""), Told::NotARefusal, None),
            (report(500, "oops"), Told::NotARefusal, None),
        ] {
            let (messages, _) = caller.ask(REPORT, &[], &message).await;
            let response = ReportRejectedResponse::decode(&messages[0][..]).unwrap();
            assert_eq!(response.outcome(), expected);
            let retry_after = response.retry_after.map(|it| (it.seconds, it.nanos));
            assert_eq!(retry_after, seconds.map(|seconds| (seconds, 0)));
        }
        for message in [
            report(99, ""),
            report(600, ""),
            report(70_000, ""),
            report(401, &"x".repeat(4097)),
        ] {
            let (_, status) = caller.ask(REPORT, &[], &message).await;
            assert_eq!(told(&status), (Code::InvalidArgument, "BAD_REPORT".into()));
        }
    }
}

#[tokio::test]
async fn a_report_after_the_end_is_told_so() {
    let mut house = House::open().await;
    house.commands = None;
    let report = ReportRejectedRequest {
        generation: 5,
        status: 401,
        message: String::new(),
    };
    let status = house.ask(REPORT, &[], &report.encode_to_vec()).await;
    assert_eq!(told(&status), (Code::Unavailable, "DRAINING".into()));
}

/// Every failure of a call has its row of the table, tonic's own refusals too.
#[tokio::test]
async fn every_refusal_has_its_reason() {
    let house = House::open().await;
    house.publish(5, 100);
    let too_long = ReportRejectedRequest {
        message: "x".repeat(LONGEST),
        ..ReportRejectedRequest::default()
    };
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], Code, &'a str);
    let table: &[Case<'_>] = &[
        (
            "/bearerd.v1.TokenService/No",
            &[],
            b"",
            Code::Unimplemented,
            "UNKNOWN_CALL",
        ),
        (
            "/bearerd.v1.TokenService/",
            &[],
            b"",
            Code::Unimplemented,
            "UNKNOWN_CALL",
        ),
        (
            "/bearerd.v1.No/GetToken",
            &[],
            b"",
            Code::Unimplemented,
            "UNKNOWN_CALL",
        ),
        (
            "/grpc.health.v1.Health/No",
            &[],
            b"",
            Code::Unimplemented,
            "UNKNOWN_CALL",
        ),
        (
            "/grpc.reflection.v1.ServerReflection/No",
            &[],
            b"",
            Code::Unimplemented,
            "UNKNOWN_CALL",
        ),
        ("/", &[], b"", Code::Unimplemented, "UNKNOWN_CALL"),
        (
            REPORT,
            &[],
            &too_long.encode_to_vec(),
            Code::ResourceExhausted,
            "TOO_LONG",
        ),
        (
            CHECK,
            &[],
            &[0x0a; 2 * LONGEST],
            Code::ResourceExhausted,
            "TOO_LONG",
        ),
        (REPORT, &[], b"\xff\xff", Code::Internal, "BAD_MESSAGE"),
        (
            GET,
            &[("grpc-encoding", "gzip")],
            b"",
            Code::Unimplemented,
            "COMPRESSED",
        ),
        (
            GET,
            &[("via", "1.1 x")],
            b"",
            Code::PermissionDenied,
            "FORWARDED",
        ),
        (
            GET,
            &[("x-forwarded-for", "::1")],
            b"",
            Code::PermissionDenied,
            "FORWARDED",
        ),
        (
            GET,
            &[("origin", "http://localhost")],
            b"",
            Code::PermissionDenied,
            "BROWSER",
        ),
        (
            GET,
            &[(":authority", "example.com")],
            b"",
            Code::PermissionDenied,
            "FOREIGN_HOST",
        ),
        (CHECK, &[], b"\x0a\x02no", Code::NotFound, "UNKNOWN_SERVICE"),
    ];
    let caller = house.caller().await;
    for (path, headers, message, code, reason) in table {
        let call = caller.begin(path, headers, message).await.unwrap();
        let answer = call.answered().await.unwrap();
        assert_eq!(answer.status, 200, "{path} {headers:?}");
        assert_eq!(answer.headers["content-type"], "application/grpc");
        let (_, status) = answer.all().await;
        let case = format!("{path} {headers:?}: {status:?}");
        assert_eq!(told(&status), (*code, (*reason).into()), "{case}");
    }
    let refused = metric(
        &house.registry,
        "bearerd_callers_refused_total{reason=\"forwarded\"}",
    );
    assert_eq!(refused as u32, 2);
}

#[tokio::test]
async fn a_message_that_breaks_the_framing_is_told_so() {
    let house = House::open().await;
    let caller = house.caller().await;
    for body in [
        &b""[..],
        b"\x01\0\0\0\0",
        b"\x02\0\0\0\0",
        b"\0\0\0\0\x09ab",
        b"\0\0",
    ] {
        let mut call = caller.open(GET, &[]).await.unwrap();
        call.body.send_data(body.into(), true).unwrap();
        let (_, status) = call.answered().await.unwrap().all().await;
        assert_eq!(
            told(&status),
            (Code::Internal, "BAD_MESSAGE".into()),
            "{body:?}"
        );
    }
    assert_eq!(house.vends("ok") as u32, 0);
}

#[tokio::test]
async fn what_is_no_grpc_is_told_so_over_http() {
    let house = House::open().await;
    house.publish(5, 100);
    let caller = house.caller().await;
    type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);
    let table: &[Case<'_>] = &[
        (&[("content-type", "")], 415, "not_grpc"),
        (&[("content-type", "application/json")], 415, "not_grpc"),
        (&[("content-type", "application/grpc-web")], 415, "not_grpc"),
        (
            &[("content-type", "application/grpc+json")],
            415,
            "not_grpc",
        ),
        (
            &[("content-type", "text/plain"), ("origin", "null")],
            403,
            "browser",
        ),
        (&[(":method", "PUT")], 405, "wrong_method"),
        (&[(":method", "GET")], 405, "wrong_method"),
    ];
    for (headers, status, word) in table {
        let call = caller.begin(GET, headers, b"").await.unwrap();
        let mut answer = call.answered().await.unwrap();
        assert_eq!(answer.status, *status, "{headers:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let problem = answer.text().await;
        assert!(
            problem.contains(&format!("urn:bearerd:problem:{word}\"")),
            "{problem}"
        );
    }
    for kind in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
    ] {
        let (messages, _) = caller.ask(GET, &[("content-type", kind)], b"").await;
        assert_eq!(messages.len(), 1, "{kind}");
    }
}

fn asked(service: &str) -> Vec<u8> {
    let service = service.to_owned();
    HealthCheckRequest { service }.encode_to_vec()
}

fn health(message: &[u8]) -> ServingStatus {
    HealthCheckResponse::decode(message).unwrap().status()
}

#[tokio::test]
async fn health_is_what_holds_now() {
    use ServingStatus::{NotServing, ServiceUnknown, Serving};
    let house = House::open().await;
    let caller = house.caller().await;
    let check = async |service: &str| {
        let (messages, _) = caller.ask(CHECK, &[], &asked(service)).await;
        messages.first().map(|it| health(it))
    };
    assert_eq!(check("").await, Some(Serving));
    assert_eq!(check("bearerd.v1.TokenService").await, Some(NotServing));
    assert_eq!(check("bearerd.v1.No").await, None);
    let mut watches = Vec::new();
    for (service, expected) in [
        ("bearerd.v1.TokenService", NotServing),
        ("", Serving),
        ("bearerd.v1.No", ServiceUnknown),
    ] {
        let call = caller.begin(WATCH_HEALTH, &[], &asked(service)).await;
        let mut answer = call.unwrap().answered().await.unwrap();
        assert_eq!(health(&answer.next().await.unwrap().unwrap()), expected);
        watches.push(answer);
    }
    house.publish(5, 100);
    assert_eq!(check("bearerd.v1.TokenService").await, Some(Serving));
    assert_eq!(health(&watches[0].next().await.unwrap().unwrap()), Serving);
    // An end comes without any event, and is told nevertheless.
    house.clock.set(at(101));
    assert_eq!(check("bearerd.v1.TokenService").await, Some(NotServing));
    assert_eq!(
        health(&watches[0].next().await.unwrap().unwrap()),
        NotServing
    );
    house.publish(6, 200);
    assert_eq!(health(&watches[0].next().await.unwrap().unwrap()), Serving);
    house.drain.cancel();
    for (watch, expected) in watches
        .into_iter()
        .zip([&[NotServing][..], &[NotServing], &[]])
    {
        let (messages, status) = watch.all().await;
        let statuses: Vec<_> = messages.iter().map(|it| health(it)).collect();
        assert_eq!(statuses, expected);
        assert_eq!(told(&status), (Code::Unavailable, "DRAINING".into()));
    }
    house.ended().await;
}

#[tokio::test]
async fn any_authority_will_do_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open_at(&format!("unix:{}/grpc.sock", folder.path().display())).await;
    house.publish(5, 100);
    for authority in ["localhost", "[::]:50051", "example.com"] {
        let status = house.ask(GET, &[(":authority", authority)], b"").await;
        assert_eq!(status.code(), Code::Ok, "{authority}");
    }
    let status = house.ask(GET, &[("forwarded", "for=a")], b"").await;
    assert_eq!(told(&status), (Code::PermissionDenied, "FORWARDED".into()));
}

#[tokio::test]
async fn reflection_knows_all_that_an_error_carries() {
    use prost::Message;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let house = House::open().await;
    let caller = house.caller().await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut wanted: Vec<_> = [
        "google.rpc.Status",
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
    ]
    .map(|it| MessageRequest::FileContainingSymbol(it.into()))
    .into();
    // What those files import is asked for by name, as grpcurl and buf do.
    while let Some(question) = wanted.pop() {
        let shown = format!("{question:?}");
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let (messages, _) = caller.ask(path, &[], &question.encode_to_vec()).await;
        let answer = ServerReflectionResponse::decode(&messages[0][..]).unwrap();
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("{shown}: {answer:?}");
        };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(&file[..]).unwrap();
            let imports = file.dependency.into_iter();
            wanted.extend(imports.map(MessageRequest::FileByFilename));
        }
    }
}

#[tokio::test]
async fn an_open_question_about_the_services_ends_with_the_drain() {
    let house = House::open().await;
    let caller = house.caller().await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut call = caller.open(path, &[]).await.unwrap();
    // `list_services`
    let list = crate::listener::testing::calls::framed(b"\x3a\0");
    call.body.send_data(list, false).unwrap();
    let Call { answer, body } = call;
    let mut answer = Call::read(answer).await.unwrap();
    let listed = answer.next().await.unwrap().unwrap();
    let listed = String::from_utf8_lossy(&listed);
    assert!(listed.contains("bearerd.v1.TokenService") && listed.contains("grpc.health.v1.Health"));
    house.drain.cancel();
    let (_, status) = answer.all().await;
    assert_eq!(told(&status), (Code::Unavailable, "DRAINING".into()));
    drop(body);
    house.ended().await;
}
