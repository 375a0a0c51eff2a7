//! The sandbox over real sockets, driven by the smallest client there is.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const CONTROL: &str = "X-Bearerd-Request: true\r\n";
const MINT: &str = "/clients/acct/token";
const SPEND: &str = "/v2/clients/acct/dynamic_call_record";

/// What came back on a connection, up to its end.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the connection was reset rather than closed.
    reset: bool,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn declared_length(&self) -> usize {
        self.header("content-length").unwrap().parse().unwrap()
    }
}

async fn send(sandbox: &Sandbox, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sandbox.0.address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn receive(mut stream: TcpStream) -> Reply {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    let reset = loop {
        match stream.read(&mut chunk).await {
            Ok(0) => break false,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(_) => break true,
        }
    };
    let split = all.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = all.split_at(split.map_or(0, |at| at + 4));
    let head = String::from_utf8(head.to_vec()).unwrap();
    let status = head
        .split(' ')
        .nth(1)
        .map_or(0, |code| code.parse().unwrap());
    Reply {
        status,
        body: body.to_vec(),
        head,
        reset,
    }
}

fn mint_body(sandbox: &Sandbox) -> String {
    let key = sandbox.keys().remove(0);
    json!({"key_id": key.key_id, "api_key": key.api_key}).to_string()
}

async fn send_mint(sandbox: &Sandbox) -> TcpStream {
    let headers = "X-Public-Access: allow\r\nContent-Type: application/json\r\n";
    send(sandbox, "POST", MINT, headers, &mint_body(sandbox)).await
}

async fn mint(sandbox: &Sandbox) -> Reply {
    receive(send_mint(sandbox).await).await
}

async fn spend(sandbox: &Sandbox, token: &str) -> Reply {
    let headers = format!("Authorization: Bearer {token}\r\n");
    receive(send(sandbox, "POST", SPEND, &headers, "{}").await).await
}

async fn control(sandbox: &Sandbox, method: &str, path: &str, body: &str) -> Reply {
    let path = format!("/_sandbox/{path}");
    receive(send(sandbox, method, &path, CONTROL, body).await).await
}

async fn start() -> Running {
    Sandbox::start(Settings::new("acct")).await.unwrap()
}

/// Mints once with a fault.
async fn mint_with(fault: Fault) -> (Running, Reply) {
    let sandbox = start().await;
    sandbox.script(fault);
    let reply = mint(&sandbox).await;
    (sandbox, reply)
}

#[tokio::test]
async fn a_minted_token_can_be_spent() {
    let sandbox = start().await;
    let minted = mint(&sandbox).await;
    assert_eq!(minted.status, 200);
    let token = minted.json()["token"].as_str().unwrap().to_string();
    assert_eq!(sandbox.issued_tokens(), std::slice::from_ref(&token));
    let created_at: Timestamp = minted.json()["created_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(created_at <= wall());
    assert!(minted.header("date").unwrap().ends_with(" GMT"));
    assert_eq!(spend(&sandbox, &token).await.status, 200);
    assert_eq!((sandbox.mints(), sandbox.arrivals()), (1, 1));
    let organisation = "/organisations/acct/campaigns/token";
    let headers = "X-Public-Access: allow\r\nContent-Type: application/json\r\n";
    let body = mint_body(&sandbox);
    let second = receive(send(&sandbox, "POST", organisation, headers, &body).await).await;
    assert_eq!(second.status, 200);
    assert!(sandbox.is_live(&token));
}

#[tokio::test]
async fn a_wrong_token_is_answered_as_the_contract_says() {
    let sandbox = start().await;
    mint(&sandbox).await;
    let token = sandbox.issued_tokens().remove(0);
    let unparsable = spend(&sandbox, "short").await;
    assert_eq!(unparsable.status, 500);
    let expected =
        json!({"slug": "internal-server-error", "message": "500/50011 - Failed to parse token"});
    assert_eq!(unparsable.json(), expected);
    sandbox.set_suspended(true);
    let forbidden = spend(&sandbox, &token).await;
    let expected =
        json!({"slug": "forbidden-error", "message": "not authorized. please contact your admin."});
    assert_eq!((forbidden.status, forbidden.json()), (403, expected));
    assert!(sandbox.revoke(&token));
    let refused = spend(&sandbox, &token).await;
    let expected = json!({"slug": "authorization-error", "message": "please login again"});
    assert_eq!((refused.status, refused.json()), (401, expected));
    let bare = receive(send(&sandbox, "POST", SPEND, "", "{}").await).await;
    assert_eq!(bare.status, 401);
}

#[tokio::test]
async fn only_the_paths_and_methods_of_the_contract_are_served() {
    let sandbox = start().await;
    for (method, path, status) in [
        ("GET", MINT, 405),
        ("POST", "/nowhere", 404),
        ("POST", "/clients/other/token", 404),
        ("POST", "/v2/clients/other/dynamic_call_record", 404),
    ] {
        let reply = receive(send(&sandbox, method, path, "", "").await).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.json()["slug"].is_string());
    }
    assert_eq!(sandbox.arrivals(), 1);
    let long = "x".repeat(70_000);
    let headers = "X-Public-Access: allow\r\nContent-Type: application/json\r\n";
    let reply = receive(send(&sandbox, "POST", MINT, headers, &long).await).await;
    assert!(reply.status == 400 || reply.reset);
}

#[tokio::test]
async fn the_eleventh_mint_is_refused_over_http_too() {
    let sandbox = start().await;
    sandbox.switch(|switches| switches.over_budget_retry_after = true);
    for _ in 0..10 {
        assert_eq!(mint(&sandbox).await.status, 200);
    }
    let refused = mint(&sandbox).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["slug"], "too-many-requests");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1801).contains(&wait));
    assert_eq!(sandbox.worst_window(), 10);
    assert_eq!(sandbox.worst_window_of_arrivals(), 11);
}

#[tokio::test]
async fn faults_in_place_of_a_mint_mint_nothing() {
    let retry_after = Some(RetryAfter::Seconds(7));
    let (sandbox, reply) = mint_with(Fault::too_many_requests(retry_after)).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(sandbox.mints(), 0);

    let date = "Thu, 10 Jul 2025 06:59:05 GMT";
    let fault = Fault::Status {
        code: 503,
        slug: Some("maintenance".into()),
        message: Some("back soon".into()),
        counted: true,
        retry_after: Some(RetryAfter::Text(date.into())),
    };
    let (sandbox, reply) = mint_with(fault).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some(date))
    );
    assert_eq!(
        reply.json(),
        json!({"slug": "maintenance", "message": "back soon"})
    );
    assert_eq!((sandbox.mints(), sandbox.worst_window()), (0, 1));

    let location = "http://127.0.0.1:1/elsewhere";
    let (_, reply) = mint_with(Fault::Redirect {
        location: location.into(),
    })
    .await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (307, Some(location))
    );

    let (sandbox, reply) = mint_with(Fault::DropAfterAccept { counted: false }).await;
    assert_eq!((reply.status, reply.reset), (0, false));
    assert_eq!((sandbox.mints(), sandbox.arrivals()), (0, 1));
}

#[tokio::test]
async fn faults_of_delivery_mint_all_the_same() {
    let (sandbox, reply) = mint_with(Fault::DropAfterMint).await;
    assert_eq!((reply.status, reply.reset, sandbox.mints()), (0, false, 1));

    let (sandbox, reply) = mint_with(Fault::ResetMidBody).await;
    assert!(reply.reset);
    assert_eq!(sandbox.mints(), 1);

    let (sandbox, reply) = mint_with(Fault::TruncatedBody).await;
    assert_eq!(
        (reply.status, reply.reset, sandbox.mints()),
        (200, false, 1)
    );
    assert!(!reply.body.is_empty());
    assert!(reply.body.len() < reply.declared_length());

    let interval = Duration::from_micros(10);
    let (_, reply) = mint_with(Fault::SlowBody { interval }).await;
    assert_eq!(reply.json()["token"].as_str().unwrap().len(), 64);

    let (_, reply) = mint_with(Fault::HugeBody { bytes: 100_000 }).await;
    assert_eq!(
        (reply.body.len(), reply.declared_length()),
        (100_000, 100_000)
    );
    assert_eq!(reply.json()["token"].as_str().unwrap().len(), 64);

    let (_, reply) = mint_with(Fault::latency(Duration::from_millis(1))).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn faults_of_content_reach_the_client() {
    let (sandbox, reply) = mint_with(Fault::MalformedBody).await;
    serde_json::from_slice::<Value>(&reply.body).unwrap_err();
    assert_eq!((reply.status, sandbox.mints()), (200, 1));
    let (_, reply) = mint_with(Fault::Empty200).await;
    assert_eq!((reply.status, reply.declared_length()), (200, 0));
    let (_, reply) = mint_with(Fault::EmptyToken).await;
    assert_eq!(reply.json()["token"], "");
    let (_, reply) = mint_with(Fault::BadToken).await;
    assert!(!reply.json()["token"].as_str().unwrap().is_ascii());
    let (_, reply) = mint_with(Fault::NoCreatedAt).await;
    assert!(reply.json().get("created_at").is_none());
    let value = String::from("yesterday");
    let (_, reply) = mint_with(Fault::CreatedAt { value }).await;
    assert_eq!(reply.json()["created_at"], "yesterday");
    let (sandbox, first) = mint_with(Fault::PreviousToken).await;
    sandbox.script(Fault::PreviousToken);
    assert_eq!(mint(&sandbox).await.json()["token"], first.json()["token"]);
    let (_, reply) = mint_with(Fault::ShiftedDate {
        seconds: -1_000_000_000,
        date_only: false,
    })
    .await;
    let year = &reply.json()["created_at"].as_str().unwrap()[..4].to_string();
    assert!(reply.header("date").unwrap().contains(year.as_str()));
    assert!(!wall().to_string().starts_with(year));
}

#[tokio::test]
async fn a_lost_answer_is_silent_until_the_client_gives_up() {
    let sandbox = start().await;
    sandbox.script(Fault::LostAnswer);
    let stream = send_mint(&sandbox).await;
    sandbox.arrived(1).await;
    assert_eq!((sandbox.mints(), *sandbox.answers_watch().borrow()), (1, 0));
    drop(stream);
    sandbox.answered(1).await;
    let again = mint(&sandbox).await;
    assert_eq!(again.status, 200);
    let sequences: Vec<_> = sandbox
        .log()
        .entries
        .iter()
        .map(|entry| entry.sequence)
        .collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test]
async fn a_gate_holds_answers_until_they_are_released() {
    let sandbox = start().await;
    let gate = sandbox.hold_mints();
    let first = send_mint(&sandbox).await;
    let second = send_mint(&sandbox).await;
    gate.reached(2).await;
    assert_eq!((sandbox.mints(), *sandbox.answers_watch().borrow()), (2, 0));
    gate.release(1);
    sandbox.answered(1).await;
    gate.open();
    assert_eq!(receive(first).await.status, 200);
    assert_eq!(receive(second).await.status, 200);
    let own = Gate::new();
    sandbox.script(Fault::held(&own));
    let third = send_mint(&sandbox).await;
    own.reached(1).await;
    own.release(1);
    assert_eq!(receive(third).await.status, 200);
}

#[tokio::test]
async fn a_call_that_is_underway_arrives_though_its_client_has_left() {
    let sandbox = start().await;
    let gate = Gate::new();
    sandbox.script(Script::from(Fault::held_underway(&gate)).times(2));
    let gone = send_mint(&sandbox).await;
    let stays = send_mint(&sandbox).await;
    gate.reached(2).await;
    assert_eq!(sandbox.arrivals(), 0);
    drop(gone);
    gate.open();
    assert_eq!(receive(stays).await.status, 200);
    sandbox.arrived(2).await;
    sandbox.answered(2).await;
    assert_eq!((sandbox.mints(), sandbox.worst_window()), (2, 2));
    assert_eq!(sandbox.log().entries[1].fault, Some("held_underway"));
    let duration = Duration::from_millis(1);
    let (sandbox, reply) = mint_with(Fault::LateArrival { duration }).await;
    assert_eq!((reply.status, sandbox.mints()), (200, 1));
}

#[tokio::test]
async fn one_connection_carries_many_spends() {
    let mut settings = Settings::new("acct");
    settings.spends_per_second = u32::MAX;
    let sandbox = Sandbox::start(settings).await.unwrap();
    mint(&sandbox).await;
    let token = sandbox.issued_tokens().remove(0);
    let request = format!(
        "POST {SPEND} HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 0\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(sandbox.0.address).await.unwrap();
    let mut chunk = [0; 4096];
    for _ in 0..500 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(chunk[..read].starts_with(b"HTTP/1.1 200 "));
    }
    assert_eq!(sandbox.spends().accepted, 500);
}

#[tokio::test]
async fn while_down_every_connection_is_closed_and_arrivals_still_show() {
    let sandbox = start().await;
    sandbox.set_down(true);
    assert_eq!(mint(&sandbox).await.status, 0);
    assert_eq!(spend(&sandbox, "t").await.status, 0);
    assert_eq!(sandbox.log().entries[0].outcome, Outcome::Down);
    let up = control(&sandbox, "POST", "switches", r#"{"down": false}"#).await;
    assert_eq!((up.status, up.json()["down"].as_bool()), (200, Some(false)));
    assert_eq!(mint(&sandbox).await.status, 200);
}

#[tokio::test]
async fn an_outage_resets_connections_and_ends_on_the_same_port() {
    let running = start().await;
    let sandbox = running.sandbox().clone();
    mint(&sandbox).await;
    let gate = sandbox.hold_mints();
    let held = send_mint(&sandbox).await;
    gate.reached(1).await;
    running.stop().await;
    assert!(receive(held).await.reset);
    TcpStream::connect(sandbox.0.address).await.unwrap_err();
    let _running = sandbox.start_again().await.unwrap();
    gate.open();
    assert_eq!(mint(&sandbox).await.status, 200);
    assert_eq!(sandbox.mints(), 3);
}

#[tokio::test]
async fn keys_rotate() {
    let sandbox = start().await;
    let old = mint_body(&sandbox);
    let headers = "X-Public-Access: allow\r\nContent-Type: application/json\r\n";
    let reply = control(&sandbox, "POST", "keys/regenerate", r#"{"index": 0}"#).await;
    assert_eq!(reply.json()["api_key"], sandbox.keys()[0].api_key);
    let refused = receive(send(&sandbox, "POST", MINT, headers, &old).await).await;
    assert_eq!(
        (refused.status, refused.json()["slug"].as_str()),
        (401, Some("authorization-error"))
    );
    assert_eq!(mint(&sandbox).await.status, 200);
    assert_eq!(
        control(&sandbox, "POST", "keys/add", "").await.json()["index"],
        1
    );
    assert_eq!(
        control(&sandbox, "POST", "keys/remove", r#"{"index": 0}"#)
            .await
            .status,
        200
    );
    assert_eq!(
        control(&sandbox, "POST", "keys/remove", r#"{"index": 0}"#)
            .await
            .status,
        400
    );
    assert_eq!(mint(&sandbox).await.status, 200);
    assert_eq!(sandbox.log().entries[2].key, Some(1));
}

#[tokio::test]
async fn faults_can_be_queued_and_cleared_over_http() {
    let sandbox = start().await;
    let body = r#"[{"fault": "status", "code": 502, "after": 1}, {"fault": "empty_token", "always": true}]"#;
    let queued = control(&sandbox, "POST", "faults", body).await.json();
    assert_eq!(queued["queue"][1]["fault"], "status");
    assert_eq!(mint(&sandbox).await.status, 200);
    assert_eq!(mint(&sandbox).await.status, 502);
    assert_eq!(mint(&sandbox).await.json()["token"], "");
    let cleared = control(&sandbox, "DELETE", "faults", "").await.json();
    assert_eq!(cleared, json!({"queue": [], "always": null}));
    assert_ne!(mint(&sandbox).await.json()["token"], "");
}

#[tokio::test]
async fn a_wrong_control_request_is_told_why() {
    let sandbox = start().await;
    for (method, path, body, status) in [
        ("POST", "faults", r#"{"fault": "gremlins"}"#, 400),
        ("POST", "faults", "nonsense", 400),
        ("POST", "switches", r#"{"dwon": true}"#, 400),
        ("POST", "revoke", "{}", 400),
        ("GET", "revoke", "", 405),
        ("GET", "nothing", "", 404),
    ] {
        let reply = control(&sandbox, method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
        assert!(reply.json()["detail"].is_string());
    }
    for headers in [
        "",
        "X-Bearerd-Request: true\r\nOrigin: http://evil.example\r\n",
    ] {
        let reply = receive(send(&sandbox, "GET", "/_sandbox/log", headers, "").await).await;
        assert_eq!(reply.status, 403);
    }
}

#[tokio::test]
async fn log_state_and_debug_show_neither_token_nor_key() {
    let settings = Settings::new("acct");
    let mut shown = format!("{settings:?}");
    let sandbox = Sandbox::start(settings).await.unwrap();
    mint(&sandbox).await;
    let token = sandbox.issued_tokens().remove(0);
    let state = control(&sandbox, "GET", "state", "").await;
    assert_eq!(state.json()["live_tokens"], 1);
    assert_eq!(state.json()["budget"]["used"], 1);
    let log = control(&sandbox, "GET", "log", "").await;
    let entry = &log.json()["entries"][0];
    assert_eq!(entry["fingerprint"], fingerprint(&token).as_str());
    shown += &format!("{sandbox:?} {:?} {:?}", sandbox.log(), sandbox.keys());
    shown += &(state.text() + &log.text());
    for key in sandbox.keys() {
        assert!(!shown.contains(&key.api_key) && !shown.contains(&key.key_id));
    }
    assert!(!shown.contains(&token));
    let revoked = control(&sandbox, "POST", "revoke", r#"{"all": true}"#).await;
    assert_eq!(revoked.json()["revoked"], 1);
    assert_eq!(sandbox.spend(&token), Spend::LoginAgain);
}

#[tokio::test]
async fn spending_too_fast_is_answered_429() {
    let mut settings = Settings::new("acct");
    settings.spends_per_second = 0;
    let sandbox = Sandbox::start(settings).await.unwrap();
    mint(&sandbox).await;
    let token = sandbox.issued_tokens().remove(0);
    let reply = spend(&sandbox, &token).await;
    assert_eq!(
        (reply.status, reply.json()["slug"].as_str()),
        (429, Some("too-many-requests"))
    );
    assert_eq!(sandbox.spends().too_many_calls, 1);
}

#[tokio::test]
async fn dropping_a_running_sandbox_ends_it() {
    let running = start().await;
    let sandbox = running.sandbox().clone();
    let gate = sandbox.hold_mints();
    let held = send_mint(&sandbox).await;
    gate.reached(1).await;
    drop(running);
    assert_eq!(receive(held).await.status, 0);
}

#[tokio::test]
async fn a_sixth_key_is_refused() {
    let mut settings = Settings::new("acct");
    settings.keys = (0..6).map(|_| ApiKey::random()).collect();
    let refused = Sandbox::bind(settings).await;
    assert!(matches!(refused, Err(Error::TooManyKeys)));
}
