//! What real clients send and cannot leave out, and the right answers: one table of requests as
//! they are on the wire, and the same by the clients that this machine has.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::harness::{Daemon, PATIENCE, Scale, World, cannot_run_here};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    Http,
    Socket,
    Grpc,
}
use Door::{Grpc, Http, Socket};

const JDK: &str = "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\n";
const NODE_FETCH: &str = "accept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n";
const CHROME: &str =
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
const TRACING: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nbaggage: a=b\r\nX-Request-ID: 1\r\n";
const JSON: &str = "\"access_token\"";

/// Client, door, `Host`, further headers, status, and what the answer contains.
type Row = (
    &'static str,
    Door,
    &'static str,
    &'static str,
    u16,
    &'static str,
);

#[rustfmt::skip]
const READS: &[Row] = &[
    ("Java 8 and 11 HttpURLConnection", Http, "127.0.0.1:7290", JDK, 200, JSON),
    ("curl, Go, requests", Http, "localhost:7290", "Accept: */*\r\n", 200, JSON),
    ("axios", Http, "localhost:7290", "Accept: application/json, text/plain, */*\r\n", 200, JSON),
    ("a range with a parameter", Http, "localhost", "Accept: */*;charset=utf-8;q=.9\r\n", 200, JSON),
    ("a weight that is none", Http, "localhost", "Accept: text/html, */*;q=high\r\n", 200, JSON),
    ("a browser's list", Http, "localhost", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", 200, JSON),
    ("neither form", Http, "localhost", "Accept: text/html\r\n", 406, "not_acceptable"),
    ("Node's fetch, undici, ky", Http, "127.0.0.1:7290", NODE_FETCH, 200, JSON),
    ("a web page's image", Http, "127.0.0.1:7290", CHROME, 403, "browser"),
    ("a web page's form", Http, "127.0.0.1:7290", "Sec-Fetch-Mode: navigate\r\nOrigin: null\r\n", 403, "browser"),
    ("a resolver's search list", Http, "localhost.:7290", "", 200, JSON),
    ("a re-bound name", Http, "evil.example:7290", "", 403, "foreign_host"),
    ("Go through a Unix socket", Socket, "unix", "", 200, JSON),
    ("httpx through a Unix socket", Socket, "bearerd", "", 200, JSON),
    ("nginx with a named upstream", Socket, "bearerd_upstream", "Connection: close\r\n", 200, JSON),
    ("got through a Unix socket", Socket, "unix:", "", 200, JSON),
    ("an empty Host", Socket, "", "", 200, JSON),
    ("two hosts", Socket, "unix", "Host: unix\r\n", 400, "no_host"),
    ("a web page through a Unix socket", Socket, "unix", CHROME, 403, "browser"),
    ("tracing", Http, "localhost", TRACING, 200, JSON),
    ("HTTP_PROXY without no_proxy", Http, "localhost", "Via: 1.1 squid\r\n", 403, "no_proxy"),
    ("nginx as it is often set", Http, "localhost", "X-Real-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("Apache and others", Http, "localhost", "X-Client-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("Rackspace and others", Http, "localhost", "X-Cluster-Client-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("Akamai", Http, "localhost", "True-Client-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("Cloudflare", Http, "localhost", "CF-Connecting-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("… through a Unix socket", Socket, "unix", "X-Real-IP: 10.0.0.1\r\n", 403, "forwarded"),
    ("a wait with a unit", Http, "localhost", "Prefer: wait=5s\r\n", 400, "Prefer: wait=30"),
    ("HTTP/1.1 on the gRPC port", Grpc, "localhost", "", 400, "HTTP/1.1 is spoken on"),
];

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn open(daemon: &Daemon, door: Door) -> Box<dyn Stream> {
    match door {
        Http => Box::new(TcpStream::connect(&daemon.http).await.unwrap()),
        Grpc => Box::new(TcpStream::connect(&daemon.grpc).await.unwrap()),
        Socket => Box::new(UnixStream::connect(&daemon.socket).await.unwrap()),
    }
}

fn request(line: &str, host: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: {host}\r\nX-Bearerd-Request: true\r\n{more}\r\n")
}

/// What is answered until the connection ends, after this was written and the writing half shut.
async fn say(daemon: &Daemon, door: Door, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open(daemon, door).await;
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection ends").unwrap();
    answer
}

fn status(answer: &str) -> u16 {
    let status = answer.get(9..12).and_then(|it| it.parse().ok());
    status.unwrap_or_else(|| panic!("no status in {answer:?}"))
}

#[tokio::test]
async fn each_client_gets_what_it_should_for_what_it_sends() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    for (client, door, host, more, expected, says) in READS {
        let asked = request("GET /v1/token", host, more);
        let answer = say(&daemon, *door, asked.as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status(&answer), *expected, "{client}: {answer}");
        assert!(answer.contains(says), "{client}: {answer}");
    }
    let answer = say(&daemon, Grpc, request("GET /", "a", "").as_bytes()).await;
    let names_the_port = format!("; HTTP/1.1 is spoken on {} (http.listen)\"", daemon.http);
    assert!(String::from_utf8(answer).unwrap().contains(&names_the_port));
    for generation in ["1", "\"1\""] {
        let body = format!("{{\"generation\":{generation},\"status\":401}}");
        assert_eq!(daemon.report(&body).await.status, 202, "{generation}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// The beginning of a connection by HTTP/2, and a call whose `:authority` is this.
fn http2(authority: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // POST and http by their numbers in HPACK's table; the others as text.
    let head = [
        &[0x83, 0x86, 0x04][..],
        &text("/bearerd.v1.TokenService/GetToken"),
        &[0x01],
        &text(authority),
    ]
    .concat();
    let length = u8::try_from(head.len()).unwrap();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00",
        &[length, 1, 5, 0, 0, 0, 1][..],
        &head,
    ]
    .concat()
}

#[tokio::test]
async fn another_protocol_is_answered_in_its_own_and_says_where_to_go() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let closed = "bearerd_connections_closed_total{reason=\"wrong_protocol\"}";
    for (door, address) in [(Http, &daemon.grpc), (Socket, &daemon.grpc_socket)] {
        let goodbye = say(&daemon, door, &http2("localhost")).await;
        let shown = String::from_utf8_lossy(&goodbye);
        // A frame of settings, and then the goodbye: HTTP_1_1_REQUIRED.
        assert_eq!(goodbye[9 + 3], 7, "{shown}");
        assert_eq!(goodbye[9 + 13..9 + 17], [0, 0, 0, 0xd], "{shown}");
        let unix = if door == Socket { "unix:" } else { "" };
        let names_the_port = format!("; gRPC is spoken on {unix}{address} (grpc.listen)");
        assert!(shown.ends_with(&names_the_port), "{shown}");
    }
    for door in [Http, Socket, Grpc] {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        let alert = say(&daemon, door, hello).await;
        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 70], "{door:?}");
    }
    assert_eq!(daemon.metric(closed).await, 5.0);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_call_that_is_reset_unseen_is_counted_and_its_cure_logged_once() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let malformed = "bearerd_malformed_calls_total";
    let cure = "grpc.default_authority";
    assert!(!world.captured.says(cure));
    for calls in [1.0, 2.0, 3.0] {
        let mut stream = UnixStream::connect(&daemon.grpc_socket).await.unwrap();
        // As grpcio and grpcurl write the socket's path.
        let bytes = http2("%2Frun%2Fbearerd%2Fgrpc.sock");
        stream.write_all(&bytes).await.unwrap();
        daemon.until_metric(malformed, calls).await;
    }
    // What is good, or refused by us, is none.
    daemon.first_token().await;
    let mut stream = UnixStream::connect(&daemon.grpc_socket).await.unwrap();
    stream.write_all(&http2("localhost")).await.unwrap();
    let mut some = [0; 64];
    assert!(stream.read(&mut some).await.unwrap() > 0);
    assert_eq!(daemon.metric(malformed).await, 3.0);
    assert!(daemon.stop().await.success());
    let said = [
        world.captured.lines("stderr"),
        world.captured.lines("stdout"),
    ]
    .concat();
    assert_eq!(said.iter().filter(|it| it.contains(cure)).count(), 1);
    world.finish();
}

/// Polls that are open at once, and how often that many come and hang up.
const POLLS: usize = 1000;
const WAVES: usize = 10;

#[tokio::test]
async fn ten_thousand_polls_that_hang_up_give_all_places_back() {
    let mut world = World::quiet(Scale::still()).await;
    // Four listeners share the connections, and three quarters of a listener's may wait: a wave
    // finds its places only if the earlier ones have kept none.
    world.settings("[limits]\nconnections = 6000");
    let daemon = world.start().await;
    let etag = daemon.first_token().await.header("etag").to_owned();
    let seen = format!("Prefer: wait=60\r\nIf-None-Match: {etag}\r\n");
    let poll = request("GET /v1/token", "localhost", &seen);
    let waiting = "bearerd_watchers{transport=\"http\"}";
    let waves = if std::env::var_os("CI").is_some() {
        2
    } else {
        WAVES
    };
    for wave in 0..waves {
        let mut polls = Vec::with_capacity(POLLS);
        for _ in 0..POLLS {
            let mut stream = TcpStream::connect(&daemon.http).await.unwrap();
            stream.write_all(poll.as_bytes()).await.unwrap();
            polls.push(stream);
        }
        daemon.until_metric(waiting, POLLS as f64).await;
        // Every second one reads on, and is answered; the others have gone.
        let begin = Instant::now();
        for mut stream in polls.drain(..POLLS / 2) {
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(status(&answer), 304, "wave {wave}: {answer}");
        }
        drop(polls);
        daemon.until_metric(waiting, 0.0).await;
        assert!(begin.elapsed() < PATIENCE, "wave {wave}");
    }
    // The client of the test keeps one for itself.
    let open = "bearerd_connections{transport=\"http\"}";
    daemon.until_metric(open, 1.0).await;
    assert!(daemon.stop().await.success());
    world.finish();
}

/// What a program wrote on both streams; none if this machine has no such program, which is said.
async fn foreign(test: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    // Only what is written here counts.
    for variable in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(variable);
    }
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    match done.unwrap() {
        Ok(done) => {
            let said = [done.stdout, done.stderr].concat();
            Some(String::from_utf8_lossy(&said).into_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            cannot_run_here(test, &format!("no {program}"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_served_through_both_doors_and_told_where_to_go() {
    const TEST: &str = "client_shapes::curl";
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    let (http, grpc, socket) = (&daemon.http, &daemon.grpc, &daemon.socket);
    let mark = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--header",
        "X-Bearerd-Request: true",
    ];
    let rows: [(&[&str], String, &str); 6] = [
        (
            &["--unix-socket", socket],
            "http://unix/v1/token".into(),
            &token,
        ),
        (
            &[],
            format!("http://{http}/v1/token").replace("127.0.0.1", "localhost"),
            &token,
        ),
        (
            &["--header", "Prefer: wait=5s"],
            format!("http://{http}/v1/token"),
            "Prefer: wait=30",
        ),
        (&[], format!("http://{grpc}/v1/token"), http),
        (
            &[],
            format!("https://{grpc}/v1/token"),
            "alert protocol version",
        ),
        (
            &[],
            format!("https://{http}/v1/token"),
            "alert protocol version",
        ),
    ];
    for (more, url, says) in rows {
        let all: Vec<&str> = mark
            .iter()
            .chain(more)
            .copied()
            .chain([url.as_str()])
            .collect();
        let Some(said) = foreign(TEST, "curl", &all).await else {
            break;
        };
        assert!(
            said.contains(says),
            "{url}: {}",
            said.replace(&token, "TOKEN")
        );
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Prints what `fetch` got, and the goodbye to an HTTP/2 session.
const NODE: &str = "
const [http, grpc] = process.argv.slice(1);
const headers = { 'X-Bearerd-Request': 'true' };
const got = async (url, more) => { const answer = await fetch(url, more); console.log(answer.status, await answer.text()); };
(async () => {
  await got(`http://${http}/v1/token`, { headers });
  await got(`http://${http}/v1/token`, { headers: { ...headers, Origin: 'http://localhost' } });
  await got(`http://${grpc}/v1/token`, { headers });
  const session = require('node:http2').connect(`http://${http}`);
  session.on('error', () => {});
  session.on('goaway', (code, last, data) => console.log('goaway', code, data.toString()));
  session.on('close', () => process.exit(0));
})();";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_own_fetch_is_served_and_its_http2_told_where_to_go() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    let all = ["-e", NODE, &daemon.http, &daemon.grpc];
    if let Some(said) = foreign("client_shapes::node", "node", &all).await {
        let shown = said.replace(&token, "TOKEN");
        assert!(said.starts_with("200 ") && said.contains(&token), "{shown}");
        assert!(said.contains("\n403 "), "{shown}");
        assert!(
            said.contains("\n400 ") && said.contains(&daemon.http),
            "{shown}"
        );
        let goodbye = format!(
            "goaway 13 this port speaks HTTP/1.1; gRPC is spoken on {}",
            daemon.grpc
        );
        assert!(said.contains(&goodbye), "{shown}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Shuts its writing half as `nc -N` does, after a request and after a long poll.
const PYTHON: &str = "
import http.client, json, socket, sys, time
host, port = sys.argv[1].split(':')
def ask(more):
    with socket.create_connection((host, int(port))) as it:
        it.sendall(('GET /v1/token HTTP/1.1\\r\\nHost: localhost\\r\\nX-Bearerd-Request: true\\r\\n' + more + '\\r\\n').encode())
        it.shutdown(socket.SHUT_WR)
        return b''.join(iter(lambda: it.recv(65536), b'')).decode()
first = ask('')
etag = next(line for line in first.splitlines() if line.lower().startswith('etag:'))[5:].strip()
begin = time.monotonic()
poll = ask('Prefer: wait=60\\r\\nIf-None-Match: ' + etag + '\\r\\n').split()[1]
print(first.split()[1], poll, 'at once' if time.monotonic() - begin < 30 else 'late')
for _ in range(200):
    assert ask('').startswith('HTTP/1.1 200'), 'unanswered'
it = http.client.HTTPConnection(host, int(port))
body = json.dumps({'generation': json.loads(first.split('\\r\\n\\r\\n')[1])['generation'].__str__(), 'status': 401})
it.request('POST', '/v1/token/rejected', body, {'X-Bearerd-Request': 'true', 'Content-Type': 'application/json'})
print(it.getresponse().status)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_that_shuts_its_half_is_answered() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let all = ["-c", PYTHON, &daemon.http];
    if let Some(said) = foreign("client_shapes::python", "python3", &all).await {
        assert_eq!(said, "200 304 at once\n202\n");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Calls through the socket as grpcio does by itself, and then by a name.
const GRPCIO: &str = "
import grpc, sys
def ask(options):
    with grpc.insecure_channel('unix:' + sys.argv[1], options) as channel:
        try:
            channel.unary_unary('/bearerd.v1.TokenService/GetToken')(b'', timeout=20)
            return 'OK'
        except grpc.RpcError as error:
            return error.code().name
print(ask([]), ask([('grpc.default_authority', 'localhost')]))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_through_a_socket_is_counted_and_its_cure_works() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    // `tests/run integration` makes it.
    let python = format!("{}/target/python/bin/python3", env!("CARGO_MANIFEST_DIR"));
    let all = ["-c", GRPCIO, &daemon.grpc_socket];
    if let Some(said) = foreign("client_shapes::grpcio", &python, &all).await {
        let (by_itself, by_name) = said.trim_end().split_once(' ').unwrap();
        assert_eq!(by_name, "OK", "{said}");
        let malformed = daemon.metric("bearerd_malformed_calls_total").await;
        assert_eq!(malformed > 0.0, by_itself != "OK", "{said} {malformed}");
    }
    assert!(daemon.stop().await.success());
    world.finish();
}
