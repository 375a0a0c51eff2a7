//! An answer as it came over the wire, and what must hold of it, told by a second reading of the rules: those of `proto/README.md`.

use std::net::{Ipv4Addr, Ipv6Addr};

use bearerd::listener::Peer;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Uri, Version};
use serde_json::Value;

use super::http::Story;
use super::room::{HOST, SECRETS};

/// How the words end that a problem's type may be.
const WORDS: [&str; 19] = [
    "unknown_caller",
    "no_token_yet",
    "expired",
    "draining",
    "unmarked",
    "forwarded",
    "browser",
    "no_host",
    "foreign_host",
    "target",
    "framing",
    "not_found",
    "wrong_method",
    "not_acceptable",
    "bad_wait",
    "not_json",
    "too_long",
    "too_slow",
    "bad_report",
];

/// A request that reached the room, and what could be vended when it was answered.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// The tag and the end of the live token, if there was one.
    pub(super) live: Option<(String, u64)>,
}

/// An answer as it was sent.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    /// Takes one answer off the bytes; whatever is not well formed fails.
    pub(super) fn read(bytes: &mut &[u8], to_head: bool) -> Self {
        let (head, rest) = super::cut(bytes, b"\r\n\r\n");
        assert!(head.len() < bytes.len(), "a whole head");
        let head = std::str::from_utf8(head)
            .expect("heads are text")
            .to_owned();
        assert!(
            head.bytes()
                .all(|byte| byte == b'\r' || byte == b'\n' || (b' '..=b'~').contains(&byte)),
            "{head:?}"
        );
        let line = head.lines().next().unwrap();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .expect(line);
        let status: u16 = status[..3].parse().unwrap();
        let mut reply = Self {
            status,
            head,
            body: String::new(),
        };
        *bytes = rest;
        if status == 100 {
            return Self::read(bytes, to_head);
        }
        assert!(reply.head.lines().skip(1).all(|line| {
            line.split_once(": ")
                .is_some_and(|(name, _)| !name.contains(' '))
        }));
        assert_eq!(reply.header("transfer-encoding"), None);
        if to_head || status == 304 {
            return reply;
        }
        let length: usize = reply
            .header("content-length")
            .expect("a length")
            .parse()
            .unwrap();
        let (body, rest) = bytes.split_at(length);
        reply.body = std::str::from_utf8(body)
            .expect("bodies are text")
            .to_owned();
        *bytes = rest;
        reply
    }

    /// A header that is there at most once.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let mut values = lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

pub(super) fn is_right(story: &Story, asked: &Asked, reply: &Reply) {
    let path = asked.uri.path();
    let told = format!(
        "{} {} {:?}: {} {}",
        asked.method, asked.uri, asked.headers, reply.head, reply.body
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{told}");
    let allowed = may_ask(story.peer, asked);
    let reading =
        allowed && path == "/v1/token" && [Method::GET, Method::HEAD].contains(&asked.method);
    let shows = SECRETS.iter().any(|secret| told.contains(secret));
    assert!(
        !shows || (reading && asked.method == Method::GET && reply.status == 200),
        "{told}"
    );
    assert_eq!(
        reply.header("etag").is_some(),
        matches!(reply.status, 200 | 304),
        "{told}"
    );
    let reporting = allowed && path == "/v1/token/rejected" && asked.method == Method::POST;
    match reply.status {
        200 => {
            assert!(reading, "{told}");
            is_vended(asked, reply, &told);
        }
        202 => {
            assert!(reporting && told.contains("application/json"), "{told}");
            is_accepted(reply, &told);
        }
        304 => {
            let (tag, _) = asked.live.as_ref().expect(&told);
            assert!(reading && reply.header("etag") == Some(tag), "{told}");
            let list: Vec<_> = asked.headers.get_all("if-none-match").iter().collect();
            let bare = tag.trim_start_matches("W/").as_bytes();
            let names = |value: &[u8]| {
                value.trim_ascii() == b"*" || value.windows(bare.len()).any(|it| it == bare)
            };
            assert!(list.iter().any(|value| names(value.as_bytes())), "{told}");
        }
        _ if asked.method == Method::HEAD => assert!(reply.status >= 400, "{told}"),
        _ => is_a_problem(story, asked, reply, reading, &told),
    }
    if !allowed {
        assert!([400, 403].contains(&reply.status), "{told}");
    } else if path != "/v1/token" && path != "/v1/token/rejected" {
        assert_eq!(reply.status, 404, "{told}");
    }
    if reading {
        assert_eq!(reply.header("vary"), Some("accept"), "{told}");
        let plain = ["accept", "prefer", "if-none-match"]
            .iter()
            .all(|it| !asked.headers.contains_key(*it));
        let expected = if asked.live.is_some() { 200 } else { 503 };
        assert!(!plain || reply.status == expected, "{told}");
        let applied = reply.header("preference-applied");
        let wait = applied.map(|it| it.strip_prefix("wait=").unwrap().parse::<u8>().unwrap());
        assert!(
            wait.is_none_or(|wait| wait <= 60 && asked.headers.contains_key("prefer")),
            "{told}"
        );
    }
}

fn is_vended(asked: &Asked, reply: &Reply, told: &str) {
    let (tag, left) = asked.live.as_ref().expect(told);
    assert_eq!(reply.header("etag"), Some(tag.as_str()), "{told}");
    if asked.method == Method::HEAD {
        return;
    }
    let secret = SECRETS[usize::from(tag.starts_with("W/\"6"))];
    if reply.header("content-type") == Some("text/plain; charset=utf-8") {
        return assert_eq!(reply.body, secret);
    }
    assert_eq!(
        reply.header("content-type"),
        Some("application/json"),
        "{told}"
    );
    let document: Value = serde_json::from_str(&reply.body).expect(told);
    assert_eq!(document["access_token"], secret);
    assert_eq!(document["expires_in"], *left);
    assert_eq!(document.as_object().unwrap().len(), 7, "{told}");
}

fn is_accepted(reply: &Reply, told: &str) {
    let document: Value = serde_json::from_str(&reply.body).expect(told);
    let outcome = document["outcome"].as_str().expect(told);
    assert!(
        ["refreshing", "not_a_refusal", "stale_generation"].contains(&outcome),
        "{told}"
    );
}

fn is_a_problem(story: &Story, asked: &Asked, reply: &Reply, reading: bool, told: &str) {
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{told}"
    );
    let document: Value = serde_json::from_str(&reply.body).expect(told);
    let word = document["type"]
        .as_str()
        .and_then(|it| it.strip_prefix("urn:bearerd:problem:"))
        .expect(told);
    assert!(WORDS.contains(&word), "{told}");
    let nobody = matches!(story.peer, Peer::Other(_));
    assert_eq!(word == "unknown_caller", nobody, "{told}");
    assert_eq!(document["status"], reply.status, "{told}");
    assert!(
        ["title", "detail"]
            .iter()
            .all(|it| document[*it].as_str().is_some_and(|it| !it.is_empty())),
        "{told}"
    );
    assert_eq!(
        reply.header("allow").is_some(),
        word == "wrong_method",
        "{told}"
    );
    let retry = reply
        .header("retry-after")
        .map(|it| it.parse::<u64>().expect(told));
    assert!(retry != Some(0), "{told}");
    if ["no_token_yet", "expired"].contains(&word) {
        assert!(reading && asked.live.is_none(), "{told}");
        assert_eq!(word == "expired", story.token.is_some(), "{told}");
    }
    assert!(word != "draining" || story.drain.is_some(), "{told}");
    assert!(
        word != "bad_wait" || (reading && asked.headers.contains_key("prefer")),
        "{told}"
    );
}

/// The rules of the door, as `proto/README.md` tells them.
fn may_ask(peer: Peer, asked: &Asked) -> bool {
    let headers = &asked.headers;
    let passed_on = headers.keys().map(HeaderName::as_str).any(|name| {
        const PROXIES: [&str; 7] = [
            "via",
            "forwarded",
            "x-real-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
        ];
        PROXIES.contains(&name)
            || name == "origin"
            || name.starts_with("x-forwarded-")
            || (name.starts_with("sec-fetch-") && name != "sec-fetch-mode")
    });
    let mut marks = headers.get_all("x-bearerd-request").iter().peekable();
    let marked = marks.peek().is_some() && marks.all(|mark| mark == "true");
    let mut hosts = headers.get_all("host").iter();
    let (host, second) = (hosts.next(), hosts.next());
    let known = host.is_some_and(|host| is_known(host.as_bytes(), peer));
    let mut encodings = headers.get_all("transfer-encoding").iter();
    let (encoding, another) = (encodings.next(), encodings.next());
    let lengths = headers.get_all("content-length");
    let bodied = encoding.is_some() || lengths.iter().any(|length| length != "0");
    let reads = [Method::GET, Method::HEAD].contains(&asked.method);
    // Another machine has no certificate here, and so no name.
    !matches!(peer, Peer::Other(_))
        && asked.uri.authority().is_none()
        && !passed_on
        && encoding.is_none_or(|it| it == "chunked")
        && another.is_none()
        && !(reads && bodied)
        && marked
        && second.is_none()
        && known
        && asked.version <= Version::HTTP_11
}

fn is_known(host: &[u8], peer: Peer) -> bool {
    if matches!(peer, Peer::Unix(_)) {
        return true;
    }
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let inner = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let local = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => {
            ["localhost", "localhost."].contains(&name.to_ascii_lowercase().as_str())
                || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    };
    port.is_none_or(is_port)
        && (local
            || name.eq_ignore_ascii_case(HOST)
            || inner.is_some_and(|it| it.eq_ignore_ascii_case(HOST)))
}
