use super::*;

use std::future::Future;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::Response;
use jiff::Timestamp;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::caller;
use crate::clock::Stamp;
use crate::listener::testing::{Client, HandClock, LOOPBACK, Reply, at, metric, request, until};
use crate::listener::{Address, Body};
use crate::token::{Generation, Secret, Token};
use crate::vend::status::NextStatus;
use crate::vend::{Command, Live, ReportOutcome, Status};

const TAG_5: &str = "W/\"5-6fcb1cf1\"";

struct House {
    vend: Arc<Vend>,
    clock: Arc<HandClock>,
    registry: Registry,
    api: Api,
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
        let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
        let mut house = Self::closed();
        house.address = listener.local_address().clone();
        let serve = house.api.clone().serve(listener, house.drain.clone());
        house.tasks.spawn(serve);
        house
    }

    /// Without a listener.
    fn closed() -> Self {
        let registry = Registry::new();
        let (vend, commands) = Vend::new(Status::default());
        let clock = Arc::new(HandClock::new());
        let settings = Settings {
            hosts: vec!["gateway".into()],
        };
        let metrics = Metrics::register(&registry);
        let callers = Callers::new(&caller::Settings::default(), clock.clone(), &registry).unwrap();
        Self {
            api: Api::new(
                &settings,
                Arc::clone(&vend),
                clock.clone(),
                &metrics,
                &callers,
            ),
            vend,
            clock,
            registry,
            commands: Some(commands),
            drain: CancellationToken::new(),
            tasks: JoinSet::new(),
            address: Address::Unix("/".into()),
        }
    }

    fn publish(&self, generation: u64, expires: u64) {
        self.vend.publish(live(generation, expires, false));
    }

    async fn client(&self) -> Client {
        Client::connect(&self.address).await
    }

    async fn ask(&self, line: &str, more: &str) -> Reply {
        self.client().await.ask(line, more).await
    }

    /// Without a socket.
    fn get(&self, headers: &[(&str, &str)]) -> impl Future<Output = Response<Body>> + use<> {
        let mut request = Request::get("/v1/token")
            .header("host", "localhost")
            .header(guard::MARK, "true");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.call(request.body(Empty::new()).unwrap())
    }

    fn call<B>(&self, request: Request<B>) -> impl Future<Output = Response<Body>> + use<B>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connection = Connection {
            peer: LOOPBACK,
            names: None,
            drain: self.drain.clone(),
        };
        let answer = self.api.on(&connection).answer(request, &connection);
        async move {
            match answer {
                Answer::Now(response) => response,
                Answer::Later(later) | Answer::Wait(later, _) => later.await,
            }
        }
    }

    fn vends(&self, outcome: &str) -> f64 {
        let line = format!("bearerd_vends_total{{outcome=\"{outcome}\",transport=\"http\"}}");
        metric(&self.registry, &line)
    }

    fn watchers(&self) -> f64 {
        metric(&self.registry, "bearerd_watchers{transport=\"http\"}")
    }

    async fn watched_by(&self, number: f64) {
        until(|| (self.watchers() - number).abs() < 0.5).await;
    }

    /// A keeper that says the same to every report, and sends on what was reported.
    fn keep(&mut self, outcome: ReportOutcome) -> mpsc::UnboundedReceiver<Generation> {
        let mut commands = self.commands.take().unwrap();
        let (reported, receiver) = mpsc::unbounded_channel();
        self.tasks.spawn(async move {
            while let Some(command) = commands.recv().await {
                if let Command::Report { generation, reply } = command {
                    let _ = reported.send(generation);
                    let _ = reply.send(outcome);
                }
            }
        });
        receiver
    }
}

fn live(generation: u64, expires: u64, suspect: bool) -> Live {
    let token = Token {
        generation: Generation(generation),
        secret: Secret::new(format!("token-{generation}")),
        issued_at: at(0),
        refresh_at: at(1),
        expires_at: at(expires),
    };
    Live::new(token, suspect)
}

async fn body_of(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_read_gives_the_documented_answer() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/http.sock", folder.path().display());
    for address in ["127.0.0.1:0", &unix] {
        let house = House::open_at(address).await;
        house.publish(5, 100);
        house.clock.set(at(40));
        let mut client = house.client().await;
        for line in ["GET /v1/token", "GET /v1/token?anything"] {
            let reply = client.ask(line, "").await;
            assert_eq!(reply.status, 200);
            assert_eq!(
                reply.body,
                concat!(
                    r#"{"access_token":"token-5","token_type":"Bearer","expires_in":60,"expires_at":"2027-01-15T08:01:40Z","#,
                    r#""issued_at":"2027-01-15T08:00:00Z","generation":5,"suspect":false}"#,
                    "\n"
                )
            );
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(reply.header("vary"), Some("accept"));
            assert_eq!(reply.header("etag"), Some(TAG_5));
            assert_eq!(reply.header("preference-applied"), None);
            assert_eq!(reply.header("connection"), None);
        }
        let head = client.ask("HEAD /v1/token", "").await;
        assert_eq!((head.status, head.header("etag")), (200, Some(TAG_5)));
        assert!(head.header("content-length").is_some_and(|it| it != "0"));
        assert_eq!(client.ask("GET /v1/token", "").await.status, 200);
        assert_eq!(house.vends("ok") as u32, 4);
    }
}

#[tokio::test]
async fn the_bare_token_is_there_for_who_accepts_text() {
    let house = House::open().await;
    house.publish(5, 100);
    let reply = house.ask("GET /v1/token", "Accept: text/plain\r\n").await;
    assert_eq!(reply.body, "token-5");
    let kind = reply.header("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("etag"), Some(TAG_5));
    let reply = house.ask("GET /v1/token", "Accept: image/png\r\n").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (406, "not_acceptable")
    );
    assert_eq!(house.vends("not_acceptable") as u32, 1);
}

#[tokio::test]
async fn who_breaks_the_rules_of_the_door_is_turned_away_and_counted() {
    let house = House::open().await;
    house.publish(5, 100);
    let table = [
        (
            "GET /v1/token HTTP/1.1\r\nHost: localhost\r\n\r\n",
            403,
            "unmarked",
        ),
        (
            "GET /v1/token HTTP/1.1\r\nHost: evil.example\r\nX-Bearerd-Request: true\r\n\r\n",
            403,
            "foreign_host",
        ),
        (
            "GET /v1/token HTTP/1.1\r\nX-Bearerd-Request: true\r\n\r\n",
            400,
            "no_host",
        ),
        (
            "GET /v1/token HTTP/1.1\r\nHost: a\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n\r\n",
            400,
            "no_host",
        ),
        (
            "GET /v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\nOrigin: http://localhost\r\n\r\n",
            403,
            "browser",
        ),
        (
            "GET /v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\nVia: 1.1 p\r\n\r\n",
            403,
            "forwarded",
        ),
        (
            "GET http://localhost/v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n\r\n",
            400,
            "target",
        ),
        (
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n\r\n",
            400,
            "target",
        ),
    ];
    for (text, status, word) in table {
        let mut client = house.client().await;
        client.send(text).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (status, word),
            "{text}"
        );
        assert!(!reply.body.contains("token-5"));
        let line = format!("bearerd_callers_refused_total{{reason=\"{word}\"}}");
        assert!(metric(&house.registry, &line) > 0.5, "{line}");
    }
    assert_eq!(house.vends("ok") as u32, 0);
    let mut client = house.client().await;
    client
        .send("GET /v1/token HTTP/1.1\r\nHost: gateway:80\r\nX-Bearerd-Request: true\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn other_paths_and_methods_are_not_there() {
    let house = House::open().await;
    house.publish(5, 100);
    for path in [
        "/",
        "/v1/token/",
        "/v1//token",
        "/v1/%74oken",
        "/V1/token",
        "/v1/token/rejected/",
        "*",
    ] {
        let line = if path == "*" {
            "OPTIONS *".into()
        } else {
            format!("GET {path}")
        };
        let reply = house.ask(&line, "").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    for (line, allow) in [
        ("POST /v1/token", "GET, HEAD"),
        ("DELETE /v1/token", "GET, HEAD"),
        ("GET /v1/token/rejected", "POST"),
    ] {
        let reply = house.ask(line, "").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (405, "wrong_method"),
            "{line}"
        );
        assert_eq!(reply.header("allow"), Some(allow));
    }
}

#[tokio::test]
async fn without_a_token_the_answer_says_why_and_when() {
    let house = House::open().await;
    house.vend.publish_status(Status {
        next: Some(NextStatus {
            at: Stamp {
                wall: Timestamp::MAX,
                ..at(0).plus(Duration::from_millis(41_001))
            },
            class: "urgent",
            trigger: "start",
            waiting_for: "backoff",
        }),
        ..Status::default()
    });
    let reply = house.ask("GET /v1/token", "").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "no_token_yet")
    );
    assert_eq!(reply.header("retry-after"), Some("42"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("waiting for backoff")
    );
    house.publish(5, 100);
    house.clock.set(at(100));
    for more in [
        "",
        &format!("If-None-Match: {TAG_5}\r\n"),
        "If-None-Match: *\r\n",
    ] {
        let reply = house.ask("GET /v1/token", more).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (503, "expired"),
            "{more}"
        );
    }
    assert_eq!(house.vends("no_token_yet") as u32, 1);
    assert_eq!(house.vends("expired") as u32, 3);
}

#[tokio::test]
async fn who_has_the_token_is_told_so_only_while_it_lives() {
    let house = House::open().await;
    house.publish(5, 100);
    let mut client = house.client().await;
    for list in [TAG_5, "\"5-6fcb1cf1\"", "*", &format!("\"x\", {TAG_5}")] {
        let more = format!("If-None-Match: {list}\r\n");
        let reply = client.ask("GET /v1/token", &more).await;
        assert_eq!(
            (reply.status, reply.header("etag")),
            (304, Some(TAG_5)),
            "{list}"
        );
        assert_eq!(reply.header("content-type"), None);
        assert_eq!(reply.header("vary"), Some("accept"));
    }
    let foreign = client
        .ask("GET /v1/token", "If-None-Match: W/\"4-00000000\"\r\n")
        .await;
    assert_eq!(foreign.status, 200);
    house.vend.publish(live(5, 100, true));
    let more = format!("If-None-Match: {TAG_5}\r\n");
    assert_eq!(client.ask("GET /v1/token", &more).await.status, 304);
    assert!(
        client
            .ask("GET /v1/token", "")
            .await
            .body
            .contains("\"suspect\":true")
    );
    house.clock.set(at(100));
    assert_eq!(client.ask("GET /v1/token", &more).await.status, 503);
    assert_eq!(house.vends("not_modified") as u32, 5);
}

#[tokio::test]
async fn a_waiting_caller_gets_the_next_token_when_it_is_there() {
    let house = House::open().await;
    house.publish(5, 100);
    let mut client = house.client().await;
    let more = format!("If-None-Match: {TAG_5}\r\nPrefer: wait=45\r\n");
    client.send(&request("GET /v1/token", &more)).await;
    house.watched_by(1.0).await;
    house.vend.publish(live(5, 100, true));
    assert_eq!(house.watchers() as u32, 1, "the mark alone wakes nobody");
    house.publish(6, 100);
    let reply = client.reply().await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("token-6"));
    assert_eq!(reply.header("preference-applied"), Some("wait=45"));
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn a_waiting_caller_gets_the_first_token_and_the_one_after_the_end() {
    let house = House::open().await;
    let mut client = house.client().await;
    client
        .send(&request("GET /v1/token", "Prefer: wait=99\r\n"))
        .await;
    house.watched_by(1.0).await;
    house.publish(5, 100);
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.header("preference-applied")),
        (200, Some("wait=60"))
    );
    house.clock.set(at(100));
    client
        .send(&request("GET /v1/token", "Prefer: wait=60\r\n"))
        .await;
    house.watched_by(1.0).await;
    house.publish(6, 200);
    assert!(client.reply().await.body.contains("token-6"));
}

#[tokio::test]
async fn who_need_not_wait_does_not() {
    let house = House::open().await;
    house.publish(5, 100);
    let mut client = house.client().await;
    for more in [
        "Prefer: wait=60\r\n",
        "Prefer: wait=60\r\nIf-None-Match: W/\"4-00000000\"\r\n",
    ] {
        let reply = client.ask("GET /v1/token", more).await;
        assert_eq!(
            (reply.status, reply.header("preference-applied")),
            (200, Some("wait=60"))
        );
    }
    let more = format!("Prefer: wait=0\r\nIf-None-Match: {TAG_5}\r\n");
    assert_eq!(client.ask("GET /v1/token", &more).await.status, 304);
    let more = format!("Prefer: wait=soon\r\nIf-None-Match: {TAG_5}\r\n");
    let reply = client.ask("GET /v1/token", &more).await;
    assert_eq!(
        (reply.status, reply.header("preference-applied")),
        (400, None)
    );
    assert_eq!(reply.problem(), "bad_wait");
}

#[tokio::test]
async fn a_hung_up_watcher_is_forgotten_and_disturbs_nobody() {
    let house = House::open().await;
    let (mut stays, mut goes) = (house.client().await, house.client().await);
    for client in [&mut stays, &mut goes] {
        client
            .send(&request("GET /v1/token", "Prefer: wait=60\r\n"))
            .await;
    }
    house.watched_by(2.0).await;
    drop(goes);
    house.watched_by(1.0).await;
    house.publish(5, 100);
    assert_eq!(stays.reply().await.status, 200);
}

#[tokio::test]
async fn who_shuts_its_writing_half_is_answered() {
    for address in ["127.0.0.1:0", "unix"] {
        let folder = tempfile::tempdir().unwrap();
        let address = match address {
            "unix" => format!("unix:{}", folder.path().join("http.sock").display()),
            port => port.to_owned(),
        };
        let mut house = House::open_at(&address).await;
        house.publish(5, 100);
        let _reported = house.keep(ReportOutcome::Refreshing);
        // The server waits for a request, so that this one and the end behind it are there at once.
        let mut client = house.client().await;
        assert_eq!(client.ask("GET /v1/token", "").await.status, 200);
        client.send(&request("GET /v1/token", "")).await;
        client.shut().await;
        assert_eq!(client.reply().await.status, 200);
        client.ended().await;

        let mut client = house.client().await;
        let three = request("GET /v1/token", "").repeat(3);
        client.send(&three).await;
        client.shut().await;
        for _ in 0..3 {
            assert_eq!(client.reply().await.status, 200);
        }
        client.ended().await;

        let mut client = house.client().await;
        let body = r#"{"generation":5,"status":401}"#;
        let more = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let head = request("POST /v1/token/rejected", &more);
        assert_eq!(client.ask("GET /v1/token", "").await.status, 200);
        client.send(&format!("{head}{body}")).await;
        client.shut().await;
        assert_eq!(client.reply().await.status, 202);
        client.ended().await;

        // What is cut off within the request ends at once, as before.
        let mut client = house.client().await;
        client.send(&format!("{head}{{")).await;
        client.shut().await;
        assert_eq!(client.reply().await.problem(), "bad_report");
        client.ended().await;
    }
}

#[tokio::test]
async fn a_long_poll_of_who_has_shut_its_half_is_answered_with_what_holds() {
    let house = House::open().await;
    let none_yet = request("GET /v1/token", "Prefer: wait=60\r\n");
    let mut client = house.client().await;
    client.send(&none_yet).await;
    house.watched_by(1.0).await;
    client.shut().await;
    assert_eq!(client.reply().await.problem(), "no_token_yet");
    client.ended().await;

    house.publish(5, 100);
    let seen = format!("Prefer: wait=60\r\nIf-None-Match: {TAG_5}\r\n");
    let mut client = house.client().await;
    client.send(&request("GET /v1/token", &seen)).await;
    client.shut().await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.header("preference-applied")),
        (304, Some("wait=60"))
    );
    client.ended().await;
    house.watched_by(0.0).await;
}

#[tokio::test]
async fn what_is_asked_behind_a_long_poll_is_no_hang_up_and_is_answered_after_it() {
    let house = House::open().await;
    house.publish(5, 100);
    let seen = format!("Prefer: wait=60\r\nIf-None-Match: {TAG_5}\r\n");
    let mut client = house.client().await;
    client.send(&request("GET /v1/token", &seen)).await;
    house.watched_by(1.0).await;
    client.send(&request("GET /v1/token", "")).await;
    client.shut().await;
    tokio::task::yield_now().await;
    assert_eq!(house.watchers() as u32, 1);
    house.publish(6, 200);
    assert!(client.reply().await.body.contains("token-6"));
    assert!(client.reply().await.body.contains("token-6"));
    client.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_what_is_true_then() {
    let house = House::closed();
    let begin = tokio::time::Instant::now();
    let response = house.get(&[("prefer", "wait=7")]).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["preference-applied"], "wait=7");
    assert_eq!(begin.elapsed().as_secs(), 7);
    assert!(body_of(response).await.contains("no_token_yet"));

    house.publish(5, 100);
    let waits = [("prefer", "wait=90"), ("if-none-match", TAG_5)];
    let begin = tokio::time::Instant::now();
    let response = house.get(&waits).await;
    assert_eq!(response.status(), 304);
    assert_eq!(response.headers()["preference-applied"], "wait=60");
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_during_the_wait_is_never_called_unmodified() {
    let house = House::closed();
    house.publish(5, 100);
    let waits = [("prefer", "wait=60"), ("if-none-match", TAG_5)];
    let clock = Arc::clone(&house.clock);
    let meanwhile = async {
        house.watched_by(1.0).await;
        clock.set(at(100));
    };
    let (response, ()) = tokio::join!(house.get(&waits), meanwhile);
    assert_eq!(response.status(), 503);
    assert!(body_of(response).await.contains("problem:expired"));
}

#[tokio::test(start_paused = true)]
async fn a_first_token_that_the_caller_has_already_is_no_news() {
    let house = House::closed();
    let waits = [("prefer", "wait=60"), ("if-none-match", TAG_5)];
    let meanwhile = async {
        house.watched_by(1.0).await;
        house.publish(5, 100);
    };
    let begin = tokio::time::Instant::now();
    let (response, ()) = tokio::join!(house.get(&waits), meanwhile);
    assert_eq!(
        (response.status().as_u16(), begin.elapsed().as_secs()),
        (304, 60)
    );
}

#[tokio::test]
async fn a_drain_answers_whoever_waits_at_once() {
    let house = House::open().await;
    let mut without = house.client().await;
    without
        .send(&request("GET /v1/token", "Prefer: wait=60\r\n"))
        .await;
    house.watched_by(1.0).await;
    house.drain.cancel();
    let reply = without.reply().await;
    assert_eq!((reply.status, reply.problem().as_str()), (503, "draining"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.header("retry-after"), Some("1"));
    without.ended().await;

    let house = House::open().await;
    house.publish(5, 100);
    let mut with = house.client().await;
    let more = format!("If-None-Match: {TAG_5}\r\nPrefer: wait=60\r\n");
    with.send(&request("GET /v1/token", &more)).await;
    house.watched_by(1.0).await;
    house.drain.cancel();
    let reply = with.reply().await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (304, Some("close"))
    );
}

#[tokio::test]
async fn a_read_that_arrives_with_the_drain_is_still_answered() {
    let mut house = House::open().await;
    house.publish(5, 100);
    let mut client = house.client().await;
    assert_eq!(client.ask("GET /v1/token", "").await.status, 200);
    client.send(&request("GET /v1/token", "")).await;
    house.drain.cancel();
    let reply = client.reply().await;
    assert_eq!(reply.status, 200);
    client.ended().await;
    house.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_report_comes_to_what_the_keeper_says() {
    let paced = ReportOutcome::Paced {
        until: at(0).plus(Duration::from_millis(300_500)),
    };
    for (outcome, word, retry_after) in [
        (ReportOutcome::Refreshing, "refreshing", None),
        (ReportOutcome::StaleGeneration, "stale_generation", None),
        (ReportOutcome::TooYoung, "too_young", None),
        (paced, "paced", Some("301")),
    ] {
        let mut house = House::open().await;
        house.publish(5, 100);
        let mut reported = house.keep(outcome);
        let body = r#"{"generation":5,"status":401,"message":"no"}"#;
        let reply = house.client().await.post("/v1/token/rejected", body).await;
        assert_eq!(reply.status, 202);
        assert_eq!(reply.body, format!("{{\"outcome\":\"{word}\"}}\n"));
        assert_eq!(reply.header("retry-after"), retry_after);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reported.recv().await, Some(Generation(5)));
        let line = format!("bearerd_rejection_reports_total{{outcome=\"{word}\"}}");
        assert_eq!(metric(&house.registry, &line) as u32, 1);
    }
}

#[tokio::test]
async fn what_is_no_refusal_does_not_reach_the_keeper() {
    let mut house = House::open().await;
    house.publish(5, 100);
    let mut reported = house.keep(ReportOutcome::Refreshing);
    let mut client = house.client().await;
    for status in ["200", "403", "429", "500", "503"] {
        let body = format!("{{\"generation\":5,\"status\":{status}}}");
        let reply = client.post("/v1/token/rejected", &body).await;
        assert_eq!(reply.json()["outcome"], "not_a_refusal", "{status}");
    }
    let body = r#"{"generation":5,"status":500,"message":"Failed to parse token"}"#;
    let reply = client.post("/v1/token/rejected", body).await;
    assert_eq!(reply.json()["outcome"], "refreshing");
    assert_eq!(reported.recv().await, Some(Generation(5)));
    assert!(reported.try_recv().is_err());
}

#[tokio::test]
async fn an_etag_stands_for_its_generation_only_with_the_right_fingerprint() {
    let mut house = House::open().await;
    house.publish(5, 100);
    let mut reported = house.keep(ReportOutcome::Refreshing);
    let mut client = house.client().await;
    let mut report = async |tag: &str| {
        let tag = tag.replace('"', "\\\"");
        let body = format!("{{\"etag\":\"{tag}\",\"status\":401}}");
        let reply = client.post("/v1/token/rejected", &body).await;
        reply.json()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(report("W/\"5-00000000\"").await, "stale_generation");
    assert!(reported.try_recv().is_err());
    assert_eq!(report(TAG_5).await, "refreshing");
    assert_eq!(report("\"5-6FCB1CF1\"").await, "refreshing");
    // What is not the current one is the keeper's to judge.
    assert_eq!(report("W/\"4-00000000\"").await, "refreshing");
    assert_eq!(reported.recv().await, Some(Generation(5)));
    assert_eq!(reported.recv().await, Some(Generation(5)));
    assert_eq!(reported.recv().await, Some(Generation(4)));
}

#[tokio::test]
async fn a_report_that_is_not_one_is_refused() {
    let mut house = House::open().await;
    let _reported = house.keep(ReportOutcome::Refreshing);
    let send = async |more: &str, body: &str| {
        let mut client = house.client().await;
        let head = request("POST /v1/token/rejected", more);
        client.send(&format!("{head}{body}")).await;
        let reply = client.reply().await;
        (reply.status, reply.problem())
    };
    let json = "Content-Type: application/json\r\n";
    let answer = |status, word: &str| (status, word.to_owned());
    let text = "Content-Type: text/plain\r\nContent-Length: 2\r\n";
    assert_eq!(send(text, "{}").await, answer(415, "not_json"));
    assert_eq!(
        send("Content-Length: 2\r\n", "{}").await,
        answer(415, "not_json")
    );
    let empty = format!("{json}Content-Length: 0\r\n");
    assert_eq!(send(&empty, "").await, answer(400, "bad_report"));
    let charset = "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n";
    assert_eq!(send(charset, "{}").await, answer(400, "bad_report"));
    let declared = format!("{json}Content-Length: 4097\r\n");
    assert_eq!(send(&declared, "").await, answer(413, "too_long"));
    let chunked = format!("{json}Transfer-Encoding: chunked\r\n");
    let body = format!("1001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x1001));
    assert_eq!(send(&chunked, &body).await, answer(413, "too_long"));
    let full = format!(
        "{{\"generation\":5,\"status\":401,\"message\":\"{}\"}}",
        "x".repeat(4096 - 42)
    );
    assert_eq!(full.len(), 4096);
    let reply = house.client().await.post("/v1/token/rejected", &full).await;
    assert_eq!(reply.status, 202);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_does_not_arrive_in_time_is_given_up() {
    let house = House::closed();
    let (_never, receiver) = mpsc::channel::<()>(1);
    let stream = Never(receiver);
    let request = Request::post("/v1/token/rejected")
        .header("host", "localhost")
        .header(guard::MARK, "true")
        .header("content-type", "application/json")
        .body(stream)
        .unwrap();
    let begin = tokio::time::Instant::now();
    let response = house.call(request).await;
    assert_eq!(
        (response.status().as_u16(), begin.elapsed().as_secs()),
        (408, 5)
    );
}

/// A body that does not come.
struct Never(mpsc::Receiver<()>);

impl hyper::body::Body for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|_| None)
    }
}

#[tokio::test]
async fn a_report_after_the_keepers_end_is_told_so() {
    let mut house = House::open().await;
    drop(house.commands.take());
    let body = r#"{"generation":5,"status":401}"#;
    let reply = house.client().await.post("/v1/token/rejected", body).await;
    assert_eq!((reply.status, reply.problem().as_str()), (503, "draining"));
}

#[tokio::test]
async fn a_hung_up_reporter_has_reported() {
    let mut house = House::closed();
    let mut commands = house.commands.take().unwrap();
    let request = Request::post("/v1/token/rejected")
        .header("host", "localhost")
        .header(guard::MARK, "true")
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(r#"{"generation":5,"status":401}"#))
        .unwrap();
    let call = house.call(request);
    let command = tokio::select! {
        biased;
        _ = call => unreachable!("nobody has answered"),
        command = commands.recv() => command,
    };
    let Some(Command::Report { generation, reply }) = command else {
        unreachable!("it was a report");
    };
    assert_eq!(generation, Generation(5));
    assert!(reply.is_closed());
}

#[test]
fn each_outcome_has_its_own_counter() {
    for (index, outcome) in crate::api::report::Outcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index);
    }
}
