use super::*;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::caller;
use crate::listener::testing::{Client, HandClock, Reply, at, metric, request};
use crate::listener::{Address, Peer};
use crate::telemetry::{self, subscriber};
use crate::token::{Generation, Secret, Token};
use crate::vend::status::{NextStatus, ParkedStatus, RegisterStatus, TokenStatus, Trouble};
use crate::vend::{Command, Live, RefreshOutcome, Status};

struct House {
    vend: Arc<Vend>,
    clock: Arc<HandClock>,
    registry: Registry,
    admin: Admin,
    commands: Option<mpsc::Receiver<Command>>,
    draining: CancellationToken,
    address: Address,
    tasks: JoinSet<()>,
}

impl House {
    async fn open() -> Self {
        let settings = json!({
            "file": "/etc/bearerd/bearerd.toml",
            "key_set": "0123abcd",
            "settings": {
                "log.level": {"value": "info", "from": "default"},
                "upstream.keys.0.api_key_file": {"value": "/etc/bearerd/keys/api_key", "from": "file"},
            },
        });
        let (_log, handle) = subscriber(&telemetry::Settings::default(), false, std::io::sink);
        Self::open_with(|admin| admin.with_log(handle).with_settings(settings)).await
    }

    async fn open_with(furnish: impl FnOnce(Admin) -> Admin) -> Self {
        let (vend, commands) = Vend::new(Status::default());
        let clock = Arc::new(HandClock::new());
        let registry = crate::metrics::registry(clock.clone());
        let draining = CancellationToken::new();
        let settings = caller::Settings::default();
        let callers = Callers::new(&settings, clock.clone(), &registry).unwrap();
        let admin = Admin::new(
            &Settings::default(),
            Arc::clone(&vend),
            clock.clone(),
            registry.clone(),
            callers,
            draining.clone(),
        );
        let admin = furnish(admin);
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.local_address().clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(admin.clone().serve(listener, CancellationToken::new()));
        Self {
            vend,
            clock,
            registry,
            admin,
            commands: Some(commands),
            draining,
            address,
            tasks,
        }
    }

    /// As a probe asks: with a foreign host and no mark.
    async fn get(&self, path: &str) -> Reply {
        let mut client = Client::connect(&self.address).await;
        let text = format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:7292\r\n\r\n");
        client.send(&text).await;
        client.reply().await
    }

    async fn put_log(&self, query: &str, body: &str) -> Reply {
        let mut client = Client::connect(&self.address).await;
        let more = format!("Content-Length: {}\r\n", body.len());
        let head = request(&format!("PUT /log{query}"), &more);
        client.send(&format!("{head}{body}")).await;
        client.reply().await
    }

    async fn refresh(&self) -> Reply {
        let mut client = Client::connect(&self.address).await;
        client.ask("POST /refresh", "Content-Length: 0\r\n").await
    }

    fn publish(&self, generation: u64, expires: u64) {
        let token = Token {
            generation: Generation(generation),
            secret: Secret::new("hush-hush".into()),
            issued_at: at(0),
            refresh_at: at(1),
            expires_at: at(expires),
        };
        self.vend.publish_status(Status {
            token: Some(TokenStatus {
                generation: token.generation,
                fingerprint: token.secret.fingerprint(),
                issued_at: token.issued_at,
                refresh_at: token.refresh_at,
                expires_at: token.expires_at,
                suspect: false,
            }),
            ..troubled()
        });
        self.vend.publish(Live::new(token, false));
    }

    /// A keeper that says the same to everybody.
    fn keep(&mut self, outcome: RefreshOutcome) {
        let mut commands = self.commands.take().unwrap();
        self.tasks.spawn(async move {
            while let Some(command) = commands.recv().await {
                if let Command::Refresh { reply } = command {
                    let _ = reply.send(outcome.clone());
                }
            }
        });
    }
}

fn troubled() -> Status {
    Status {
        version: "1.2.3",
        register: RegisterStatus {
            kind: "file",
            up: false,
            detail: Some("no space left\non device".into()),
            moved_aside: None,
        },
        parked: Some(ParkedStatus {
            since: at(0),
            reason: "403".into(),
        }),
        trouble: Some(Trouble {
            code: "refused",
            detail: "the issuer answered 403".into(),
        }),
        next: Some(NextStatus {
            at: at(900),
            class: "routine",
            trigger: "schedule",
            waiting_for: "parked",
        }),
        ..Status::default()
    }
}

#[tokio::test]
async fn readiness_is_the_truth_at_each_question() {
    let house = House::open().await;
    let states = async || {
        let [livez, readyz, startupz] = [
            house.get("/livez"),
            house.get("/readyz"),
            house.get("/startupz"),
        ];
        (
            livez.await.status,
            readyz.await.status,
            startupz.await.status,
        )
    };
    assert_eq!(states().await, (200, 503, 503));
    house.publish(5, 10);
    assert_eq!(states().await, (200, 200, 200));
    house.clock.set(at(10));
    assert_eq!(states().await, (200, 503, 503));
    house.publish(6, 900);
    assert_eq!(states().await, (200, 200, 200));
    house.draining.cancel();
    assert_eq!(states().await, (200, 503, 200));
}

#[tokio::test]
async fn an_outage_holds_nobody_back_beyond_the_grace() {
    let house = House::open().await;
    house.clock.set(at(29));
    assert_eq!(house.get("/startupz").await.status, 503);
    house.clock.set(at(30));
    let reply = house.get("/startupz").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "started without a token\n")
    );
    assert_eq!(house.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn verbose_readiness_lists_the_reasons() {
    let house = House::open().await;
    assert_eq!(house.get("/readyz").await.body, "not ready\n");
    let reply = house.get("/readyz?verbose").await;
    assert_eq!(
        reply.body,
        "not ready\ntoken: none yet\nregister: not read yet\nparked: no\ntrouble: none\nnext attempt: none planned\ndraining: no\nsockets: found\n"
    );
    house.publish(5, 60);
    house.draining.cancel();
    let reply = house.get("/readyz?verbose=1").await;
    assert_eq!(
        reply.body,
        concat!(
            "not ready\n",
            "token: generation 5, live until 2027-01-15T08:01:00Z\n",
            "register: file, down: no space left on device\n",
            "parked: since 2027-01-15T08:00:00Z: 403\n",
            "trouble: refused: the issuer answered 403\n",
            "next attempt: 2027-01-15T08:15:00Z at the earliest, routine (schedule), waiting for parked\n",
            "draining: yes\n",
            "sockets: found\n",
        )
    );
    house.clock.set(at(60));
    let reply = house.get("/readyz?verbose").await;
    assert!(
        reply
            .body
            .contains("token: expired at 2027-01-15T08:01:00Z\n")
    );
}

#[tokio::test]
async fn nothing_here_shows_a_token() {
    let house = House::open().await;
    house.publish(5, 60);
    for path in [
        "/",
        "/livez",
        "/readyz?verbose",
        "/startupz",
        "/metrics",
        "/status",
        "/settings",
        "/log",
        "/nowhere",
    ] {
        let reply = house.get(path).await;
        assert!(
            !reply.body.contains("hush") && !reply.head.contains("hush"),
            "{path}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        let mut client = Client::connect(&house.address).await;
        let head = client.ask(&format!("HEAD {path}"), "").await;
        assert_eq!(head.status, reply.status, "{path}");
    }
}

#[tokio::test]
async fn the_status_is_one_document_with_what_is_true_now() {
    let house = House::open().await;
    house.publish(5, 60);
    let reply = house.get("/status").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let status = reply.json();
    assert_eq!(status["ready"], true);
    assert_eq!(status["draining"], false);
    assert_eq!(status["sockets_lost"], serde_json::json!([]));
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["token"]["generation"], 5);
    assert_eq!(status["next"]["waiting_for"], "parked");
    house.clock.set(at(60));
    assert_eq!(house.get("/status").await.json()["ready"], false);
}

#[tokio::test]
async fn metrics_are_brought_up_to_date_and_scraped() {
    let house = House::open().await;
    house.clock.set(at(23));
    let reply = house.get("/metrics").await;
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for line in [
        "bearerd_token_usable 0",
        "bearerd_build_info{version=",
        "process_resident_memory_bytes ",
        "bearerd_callers_refused_total{reason=\"browser\"} 0",
    ] {
        assert!(reply.body.contains(line), "{line}");
    }
}

#[tokio::test]
async fn the_page_is_allowed_its_own_script_only() {
    let house = House::open().await;
    let reply = house.get("/").await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
    assert!(!policy.contains("unsafe"));
}

#[tokio::test]
async fn every_document_that_the_page_links_to_is_there() {
    let house = House::open().await;
    house.publish(5, 60);
    let page = house.get("/").await.body;
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(
        links,
        ["status", "readyz?verbose", "metrics", "settings", "log"]
    );
    for link in links {
        assert_eq!(house.get(&format!("/{link}")).await.status, 200, "{link}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let house = House::open().await;
    for path in ["/livez/", "/status.json", "/v1/token", "/%72eadyz"] {
        let reply = house.get(path).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    let mut client = Client::connect(&house.address).await;
    for (line, allow) in [
        ("POST /status", "GET, HEAD"),
        ("PUT /settings", "GET, HEAD"),
        ("GET /refresh", "POST"),
        ("POST /log", "GET, HEAD, PUT"),
    ] {
        let reply = client.ask(line, "").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (405, "wrong_method")
        );
        assert_eq!(reply.header("allow"), Some(allow));
    }
}

#[tokio::test]
async fn a_wish_for_a_token_is_passed_on() {
    let mut house = House::open().await;
    house.keep(RefreshOutcome::Refreshing);
    let reply = house.refresh().await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (202, "{\"outcome\":\"refreshing\"}\n")
    );
}

#[tokio::test]
async fn a_wish_that_must_wait_is_told_for_what() {
    for (until, retry_after, detail) in [
        (
            Some(at(90)),
            Some("90"),
            "waiting for pace until 2027-01-15T08:01:30Z",
        ),
        (None, None, "waiting for pace"),
    ] {
        let mut house = House::open().await;
        house.keep(RefreshOutcome::Refused {
            waiting_for: "pace",
            until,
        });
        let reply = house.refresh().await;
        assert_eq!((reply.status, reply.problem().as_str()), (429, "not_now"));
        assert_eq!(reply.header("retry-after"), retry_after);
        assert_eq!(reply.json()["detail"], detail);
    }
    let mut house = House::open().await;
    drop(house.commands.take());
    let reply = house.refresh().await;
    assert_eq!((reply.status, reply.problem().as_str()), (503, "draining"));
}

#[tokio::test]
async fn what_changes_something_obeys_the_rules_of_the_door() {
    for line in ["POST /refresh", "PUT /log"] {
        let house = House::open().await;
        for (headers, word) in [
            ("Host: localhost\r\n", "unmarked"),
            (
                "Host: 10.1.2.3\r\nX-Bearerd-Request: true\r\n",
                "foreign_host",
            ),
            (
                "Host: localhost\r\nX-Bearerd-Request: true\r\nOrigin: null\r\n",
                "browser",
            ),
        ] {
            let mut client = Client::connect(&house.address).await;
            client
                .send(&format!(
                    "{line} HTTP/1.1\r\n{headers}Content-Length: 5\r\n\r\ntrace"
                ))
                .await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.problem().as_str()), (403, word));
            let counted = format!("bearerd_callers_refused_total{{reason=\"{word}\"}}");
            assert_eq!(metric(&house.registry, &counted) as u32, 1);
        }
        assert_eq!(house.get("/log").await.json()["level"], "info");
    }
}

#[tokio::test]
async fn what_changes_something_is_not_for_other_machines() {
    let house = House::open().await;
    let connection = Connection {
        peer: Peer::Other("10.1.2.3:4".parse().unwrap()),
        names: None,
        drain: CancellationToken::new(),
    };
    for (method, path) in [(Method::POST, "/refresh"), (Method::PUT, "/log")] {
        let wish = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("x-bearerd-request", "true")
            .body(Full::<Bytes>::from("trace"))
            .unwrap();
        let Answer::Now(response) = house.admin.answer(wish, &connection) else {
            unreachable!("nobody is asked");
        };
        assert_eq!(response.status(), 403, "{path}");
    }
}

#[tokio::test]
async fn the_logs_filter_is_shown_and_changed() {
    let house = House::open().await;
    let shown = house.get("/log").await;
    assert_eq!(shown.header("content-type"), Some("application/json"));
    assert_eq!(
        shown.json(),
        json!({"level": "info", "settings": "info", "until": null})
    );
    let changed = house.put_log("?for=10m", "debug,hyper=trace\n").await;
    assert_eq!(changed.status, 200);
    assert_eq!(
        changed.json(),
        json!({"level": "debug,hyper=trace", "settings": "info", "until": "2027-01-15T08:10:00Z"})
    );
    assert_eq!(house.get("/log").await.body, changed.body);
    for (query, body, status, word) in [
        ("", "hush", 400, "bad_filter"),
        ("?for=hush", "debug", 400, "bad_filter"),
        ("", "x".repeat(4097).as_str(), 413, "too_long"),
    ] {
        let reply = house.put_log(query, body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (status, word));
        assert!(!reply.body.contains("hush"), "{}", reply.body);
    }
    assert_eq!(house.get("/log").await.body, changed.body);
}

#[tokio::test]
async fn the_settings_in_force_are_shown_with_the_filter_in_force() {
    let house = House::open().await;
    let shown = house.get("/settings").await;
    assert_eq!(shown.header("content-type"), Some("application/json"));
    let shown = shown.json();
    assert_eq!(shown["file"], "/etc/bearerd/bearerd.toml");
    assert_eq!(
        shown.get("key_set"),
        None,
        "it would be wrong once the keys change"
    );
    assert_eq!(
        shown["settings"]["upstream.keys.0.api_key_file"]["value"],
        "/etc/bearerd/keys/api_key"
    );
    let level = async || house.get("/settings").await.json()["settings"]["log.level"].clone();
    assert_eq!(level().await, json!({"value": "info", "from": "default"}));
    house.put_log("", "debug").await;
    assert_eq!(level().await, json!({"value": "debug", "from": "PUT /log"}));
    house.put_log("", "info").await;
    assert_eq!(level().await, json!({"value": "info", "from": "default"}));
}

#[tokio::test]
async fn what_was_not_handed_over_is_not_there() {
    let house = House::open_with(|admin| admin).await;
    for path in ["/log", "/settings"] {
        assert_eq!(house.get(path).await.status, 404, "{path}");
    }
    assert_eq!(house.put_log("", "debug").await.status, 404);
}

#[tokio::test]
async fn the_process_stays_live_until_its_own_drain() {
    let mut house = House::open().await;
    house.draining.cancel();
    let mut client = Client::connect(&house.address).await;
    client.send(&request("GET /livez", "")).await;
    assert_eq!(client.reply().await.body, "ok\n");
    house.tasks.abort_all();
}
