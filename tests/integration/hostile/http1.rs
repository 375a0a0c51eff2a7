//! What is wrong with a request over HTTP/1.1, and how it is told.

use super::siege::Siege;
use super::wire::{exchange, good, statuses};

/// Behind each attack stands a good request on the same connection. An attack that is answered on its own terms has it answered, too;
/// one after which nobody can say where the next request begins must not.
const NEXT: &str = "GET /v1/token HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\nConnection: close\r\n\r\n";

type Row<'a> = (&'a str, Vec<u8>, &'a [u16]);

async fn hold(siege: &mut Siege, rows: Vec<Row<'_>>) {
    let mut wrong = Vec::new();
    for (name, bytes, expected) in rows {
        let address = siege.daemon.http.clone();
        let answers = exchange(&address, &bytes).await;
        let found = statuses(&answers);
        if found != expected {
            let shown = String::from_utf8_lossy(&answers);
            wrong.push(format!(
                "{name}: {found:?} and not {expected:?}: {shown:.200}"
            ));
        }
        siege.served().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    siege.within("malformed requests", 0).await;
}

fn raw(name: &'static str, text: impl AsRef<[u8]>, expected: &'static [u16]) -> Row<'static> {
    let mut bytes = text.as_ref().to_vec();
    bytes.extend_from_slice(NEXT.as_bytes());
    (name, bytes, expected)
}

/// A good request with these further headers.
fn with(name: &'static str, more: &str, expected: &'static [u16]) -> Row<'static> {
    raw(name, good("GET /v1/token", more), expected)
}

/// A good request for another target.
fn to(name: &'static str, target: &str, expected: &'static [u16]) -> Row<'static> {
    raw(name, good(&format!("GET {target}"), ""), expected)
}

/// A report with these headers and this body.
fn report(name: &'static str, more: &str, body: &str, expected: &'static [u16]) -> Row<'static> {
    let more = format!("Content-Type: application/json\r\n{more}");
    let head = good("POST /v1/token/rejected", &more);
    raw(name, format!("{head}{body}"), expected)
}

const BODY: &str = "{\"generation\":1,\"status\":403}";

#[tokio::test]
async fn a_malformed_head_is_told_so() {
    let mut siege = Siege::begin("").await;
    let long = "x".repeat(20_000);
    let many = "X-A: b\r\n".repeat(101);
    let path = format!("/{}", "a".repeat(20_000));
    let rows = vec![
        with(
            "a head that is too long",
            &format!("X-Long: {long}\r\n"),
            &[431],
        ),
        with("too many headers", &many, &[431]),
        to("a path that is too long", &path, &[431]),
        with("a folded line", "X-A: b\r\n c\r\n", &[400]),
        with("a space before the colon", "X-A : b\r\n", &[400]),
        with("a NUL in a value", "X-A: b\0c\r\n", &[400]),
        with("a CR in a value", "X-A: b\rc\r\n", &[400]),
        with("no colon", "X-A\r\n", &[400]),
        with("an empty name", ": b\r\n", &[400]),
        with("a control character in a name", "X\x01A: b\r\n", &[400]),
        raw(
            "bare LF",
            good("GET /v1/token", "").replace("\r\n", "\n"),
            &[200, 200],
        ),
        raw(
            "a line before the request",
            format!("\r\n{}", good("GET /v1/token", "")),
            &[200, 200],
        ),
        raw("two spaces", good("GET  /v1/token", ""), &[400]),
        raw(
            "a method of lower case",
            good("get /v1/token", ""),
            &[405, 200],
        ),
        raw(
            "a method nobody knows",
            good("FROBNICATE /v1/token", ""),
            &[405, 200],
        ),
        raw("a method with a NUL", good("G\0T /v1/token", ""), &[400]),
        raw(
            "HTTP/2.0 in the line",
            good("GET /v1/token", "").replace("HTTP/1.1", "HTTP/2.0"),
            &[400],
        ),
        raw("HTTP/0.9", "GET /v1/token\r\n\r\n", &[400]),
        raw(
            "HTTP/1.0",
            good("GET /v1/token", "").replace("HTTP/1.1", "HTTP/1.0"),
            &[200],
        ),
        raw(
            "HTTP/1.0 kept alive",
            good("GET /v1/token", "Connection: keep-alive\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            &[200, 200],
        ),
        raw(
            "the preface of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            // Answered in its own protocol, and so is the next.
            &[0],
        ),
        raw(
            "the beginning of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            &[0],
        ),
        raw("bytes that mean nothing", [0xff; 64], &[400]),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}

#[tokio::test]
async fn where_a_request_ends_is_beyond_doubt() {
    let mut siege = Siege::begin("").await;
    let length = format!("Content-Length: {}\r\n", BODY.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    let whole = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let rows = vec![
        report("a good report", &length, BODY, &[202, 200]),
        report("a good report in chunks", chunked, &whole, &[202, 200]),
        report(
            "the same Content-Length twice",
            &format!("{length}{length}"),
            BODY,
            &[202, 200],
        ),
        report(
            "two Content-Lengths",
            &format!("{length}Content-Length: 5\r\n"),
            BODY,
            &[400],
        ),
        report(
            "a list of Content-Lengths",
            "Content-Length: 29, 5\r\n",
            BODY,
            &[400],
        ),
        report(
            "a negative Content-Length",
            "Content-Length: -1\r\n",
            BODY,
            &[400],
        ),
        report(
            "a Content-Length with a plus",
            "Content-Length: +29\r\n",
            BODY,
            &[400],
        ),
        report(
            "a Content-Length in hexadecimal",
            "Content-Length: 0x1d\r\n",
            BODY,
            &[400],
        ),
        report(
            "an empty Content-Length",
            "Content-Length: \r\n",
            BODY,
            &[400],
        ),
        report(
            "a huge Content-Length",
            "Content-Length: 18446744073709551615\r\n",
            BODY,
            &[431],
        ),
        report(
            "a Content-Length beyond 64 bits",
            "Content-Length: 99999999999999999999\r\n",
            BODY,
            &[400],
        ),
        report(
            "a long Content-Length",
            "Content-Length: 1000000000000\r\n",
            BODY,
            &[413],
        ),
        report("CL.TE", &format!("{length}{chunked}"), &whole, &[202]),
        report("TE.CL", &format!("{chunked}{length}"), &whole, &[202]),
        report("TE.TE", &format!("{chunked}{chunked}"), &whole, &[400]),
        report(
            "chunked twice in one",
            "Transfer-Encoding: chunked, chunked\r\n",
            &whole,
            &[400],
        ),
        report(
            "chunked and then something",
            "Transfer-Encoding: chunked, identity\r\n",
            &whole,
            &[400],
        ),
        report(
            "something and then chunked",
            "Transfer-Encoding: gzip, chunked\r\n",
            &whole,
            &[400],
        ),
        report(
            "an encoding nobody knows",
            "Transfer-Encoding: xchunked\r\n",
            &whole,
            &[400],
        ),
        report(
            "an encoding behind a tab",
            "Transfer-Encoding:\tchunked\r\n",
            &whole,
            &[202, 200],
        ),
        report(
            "an encoding behind a space",
            "Transfer-Encoding : chunked\r\n",
            &whole,
            &[400],
        ),
        report("identity", "Transfer-Encoding: identity\r\n", BODY, &[400]),
        report(
            "chunks whose size overflows",
            chunked,
            "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
            &[400],
        ),
        report(
            "a chunk of 16 exabytes",
            chunked,
            "ffffffffffffffff\r\nx",
            &[408],
        ),
        report(
            "a chunk without a size",
            chunked,
            "\r\nx\r\n0\r\n\r\n",
            &[400],
        ),
        report("a negative chunk", chunked, "-1\r\nx\r\n0\r\n\r\n", &[400]),
        report(
            "a chunk that is longer than it says",
            chunked,
            "1\r\nxyz\r\n0\r\n\r\n",
            &[400],
        ),
        report(
            "a chunk's end with a bare LF",
            chunked,
            &whole.replace("\r\n", "\n"),
            &[400],
        ),
        report(
            "extensions of chunks without end",
            chunked,
            &format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(20_000)),
            &[400],
        ),
        report(
            "trailers without end",
            chunked,
            &format!("0\r\nX-A: {}\r\n\r\n", "a".repeat(20_000)),
            &[400],
        ),
        with("a GET with a body", "Content-Length: 5\r\n", &[400]),
        raw(
            "a GET with a request for its body",
            format!(
                "{}{NEXT}",
                good(
                    "GET /v1/token",
                    &format!("Content-Length: {}\r\n", NEXT.len())
                )
            ),
            &[400],
        ),
        with("a GET in chunks", chunked, &[400]),
        raw(
            "a GET over HTTP/1.0 in chunks",
            good("GET /v1/token", chunked).replace("HTTP/1.1", "HTTP/1.0"),
            &[400],
        ),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}

#[tokio::test]
async fn what_is_asked_and_of_whom_is_beyond_doubt() {
    let mut siege = Siege::begin("").await;
    let unhosted = good("GET /v1/token", "").replace("Host: localhost\r\n", "");
    let rows = vec![
        to("a whole URL", "http://localhost/v1/token", &[400, 200]),
        to(
            "a whole URL elsewhere",
            "http://example.com/v1/token",
            &[400, 200],
        ),
        raw(
            "an authority",
            good("CONNECT localhost:7290", ""),
            &[400, 200],
        ),
        to("an asterisk", "*", &[404, 200]),
        raw("OPTIONS of an asterisk", good("OPTIONS *", ""), &[404, 200]),
        to("no path", "v1/token", &[400]),
        to("an encoded slash", "/v1%2ftoken", &[404, 200]),
        to("an encoded letter", "/v1/%74oken", &[404, 200]),
        to("a NUL at the end", "/v1/token%00", &[404, 200]),
        to("two slashes", "//v1/token", &[404, 200]),
        to("a dot", "/v1/./token", &[404, 200]),
        to("two dots", "/v1/x/../token", &[404, 200]),
        to("encoded dots", "/v1/x/%2e%2e/token", &[404, 200]),
        to("a slash at the end", "/v1/token/", &[404, 200]),
        to("another case", "/V1/token", &[404, 200]),
        to("a parameter of a path", "/v1/token;a=b", &[404, 200]),
        to("a backslash", "/v1\\token", &[404, 200]),
        to("a fragment", "/v1/token#x", &[200, 200]),
        to("a raw byte beyond ASCII", "/v1/tok\u{e9}n", &[404, 200]),
        raw("no Host", &unhosted, &[400, 200]),
        with("two Hosts", "Host: localhost\r\n", &[400, 200]),
        with("another Host", "Host: example.com\r\n", &[400, 200]),
        raw(
            "a Host with a user",
            good("GET /v1/token", "").replace("Host: localhost", "Host: a@localhost"),
            &[403, 200],
        ),
        with("two marks", "X-Bearerd-Request: true\r\n", &[200, 200]),
        with(
            "an upgrade to h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            &[200, 200],
        ),
        with(
            "an upgrade to WebSocket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            &[200, 200],
        ),
    ];
    hold(&mut siege, rows).await;
    siege.lift().await;
}
