//! The rules that keep browsers and proxies away from a door that trusts its machine: a request must say what it is, must not
//! have been passed on by anybody, and must have been meant for this machine.
//!
//! A web page can make a browser send requests to localhost, and a forgotten proxy can pass on a stranger's. Neither can make
//! them pass here: a page cannot set [`MARK`] without asking first, and browsers and proxies add headers of their own. A foreign
//! `Host` is what remains of a name that was re-bound to this machine.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hyper::{HeaderMap, Method, Request, Uri};

use crate::listener::Peer;

/// The header that every request must carry, with the value `true`.
pub const MARK: &str = "X-Bearerd-Request";

/// What a listener accepts beyond local names.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    hosts: Box<[Box<str>]>,
}

impl Rules {
    /// Accepts these hosts, each without a port, whatever the port in the request.
    pub fn new(hosts: &[String]) -> Self {
        let hosts = hosts
            .iter()
            .map(|host| host.trim_start_matches('[').trim_end_matches(']').into())
            .collect();
        Self { hosts }
    }
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not carry the mark.
    Unmarked,
    /// A proxy passed it on and says so.
    Forwarded,
    /// A browser sent it.
    Browser,
    /// It has no `Host`, or more than one.
    NoHost,
    /// It was meant for another host.
    ForeignHost,
    /// Its target is not a path.
    Target,
    /// Where it ends could be doubted: it asks to read and has a body, or the encoding of its transfer is not just `chunked`.
    Framing,
}

impl Refusal {
    /// All there are, in their order.
    pub const ALL: [Self; 7] = [
        Self::Unmarked,
        Self::Forwarded,
        Self::Browser,
        Self::NoHost,
        Self::ForeignHost,
        Self::Target,
        Self::Framing,
    ];

    /// The word that metrics and problems use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unmarked => "unmarked",
            Self::Forwarded => "forwarded",
            Self::Browser => "browser",
            Self::NoHost => "no_host",
            Self::ForeignHost => "foreign_host",
            Self::Target => "target",
            Self::Framing => "framing",
        }
    }
}

/// Says whether a request may be looked at. One pass over its headers.
pub fn check<B>(request: &Request<B>, peer: Peer, rules: &Rules) -> Result<(), Refusal> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    check_parts(request.uri(), request.headers(), reads, peer, rules)
}

/// The same for a gRPC call. It needs no mark: no web page can make a browser speak HTTP/2 to a port without TLS. The host is its
/// `:authority`, and a `Host` beside it must be as good; on a Unix socket they may be anything.
pub fn check_call<B>(request: &Request<B>, peer: Peer, rules: &Rules) -> Result<(), Refusal> {
    let seen = Seen::of(request.headers())?;
    let authority = request.uri().authority().map(|it| it.as_str().as_bytes());
    if let Peer::Unix(_) = peer {
        return Ok(());
    }
    let mut hosts = authority.into_iter().chain(seen.host).peekable();
    if hosts.peek().is_none() {
        return Err(Refusal::NoHost);
    }
    match hosts.all(|host| is_known(host, rules)) {
        true => Ok(()),
        false => Err(Refusal::ForeignHost),
    }
}

fn check_parts(
    uri: &Uri,
    headers: &HeaderMap,
    reads: bool,
    peer: Peer,
    rules: &Rules,
) -> Result<(), Refusal> {
    if uri.authority().is_some() {
        return Err(Refusal::Target);
    }
    let seen = Seen::of(headers)?;
    if reads && seen.body {
        return Err(Refusal::Framing);
    }
    if !seen.marked {
        return Err(Refusal::Unmarked);
    }
    match seen.host {
        None => Err(Refusal::NoHost),
        // No name leads a web page to a Unix socket, and clients put anything there.
        Some(_) if matches!(peer, Peer::Unix(_)) => Ok(()),
        Some(host) if is_known(host, rules) => Ok(()),
        Some(_) => Err(Refusal::ForeignHost),
    }
}

/// What one pass over the headers found.
#[derive(Default)]
struct Seen<'a> {
    marked: bool,
    host: Option<&'a [u8]>,
    /// It has a body, or may have one.
    body: bool,
    chunked: bool,
}

impl<'a> Seen<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut seen = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "host" if seen.host.is_some() => return Err(Refusal::NoHost),
                "host" => seen.host = Some(value.as_bytes()),
                "x-bearerd-request" if value.as_bytes() != b"true" => {
                    return Err(Refusal::Unmarked);
                }
                "x-bearerd-request" => seen.marked = true,
                "content-length" => seen.body |= value.as_bytes() != b"0",
                // Whoever passes requests on may understand any other one in its own way. One beside a Content-Length hyper takes for
                // the body's, and for the connection's last.
                "transfer-encoding" if seen.chunked || value.as_bytes() != b"chunked" => {
                    return Err(Refusal::Framing);
                }
                "transfer-encoding" => (seen.chunked, seen.body) = (true, true),
                "via"
                | "forwarded"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip" => return Err(Refusal::Forwarded),
                "origin" => return Err(Refusal::Browser),
                // Node's fetch cannot leave it out. Browsers never send it without Sec-Fetch-Site,
                // which is refused below.
                "sec-fetch-mode" => {}
                name if name.starts_with("x-forwarded-") => return Err(Refusal::Forwarded),
                name if name.starts_with("sec-fetch-") => return Err(Refusal::Browser),
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// True if a `Host` names this machine or one of the rules' hosts, with any port or none.
fn is_known(host: &[u8], rules: &Rules) -> bool {
    let (name, rest, bracketed) = match host {
        [b'[', inner @ ..] => match inner.iter().position(|&byte| byte == b']') {
            Some(end) => (&inner[..end], &inner[end + 1..], true),
            None => return false,
        },
        _ => {
            let end = host.iter().position(|&byte| byte == b':');
            let (name, rest) = host.split_at(end.unwrap_or(host.len()));
            (name, rest, false)
        }
    };
    is_port(rest)
        && (is_local(name, bracketed)
            || rules
                .hosts
                .iter()
                .any(|it| it.as_bytes().eq_ignore_ascii_case(name)))
}

fn is_local(name: &[u8], bracketed: bool) -> bool {
    if bracketed {
        parsed::<Ipv6Addr>(name).is_some_and(|ip| ip.is_loopback())
    } else {
        name == b"127.0.0.1"
            || name.eq_ignore_ascii_case(b"localhost")
            || name.eq_ignore_ascii_case(b"localhost.")
            || (name.starts_with(b"127.") && parsed::<Ipv4Addr>(name).is_some())
    }
}

fn parsed<T: FromStr>(name: &[u8]) -> Option<T> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// True for nothing, and for a colon and a port.
fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', port @ ..] => (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::testing::{LOOPBACK, UNIX};
    use hyper::header::{HOST, HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn judged(peer: Peer, target: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let rules = Rules::new(&["gateway.internal".into(), "[fd00::1]".into()]);
        check(&request.body(()).unwrap(), peer, &rules)
    }

    fn with_host(peer: Peer, host: &str) -> Result<(), Refusal> {
        judged(peer, "/v1/token", &[(MARK, "true"), ("host", host)])
    }

    #[test]
    fn local_and_named_hosts_pass_with_any_port() {
        for host in [
            "localhost",
            "LOCALHOST:7290",
            "localhost.",
            "Localhost.:7290",
            "127.0.0.1",
            "127.0.0.1:7290",
            "127.8.9.1:1",
            "[::1]",
            "[::1]:7290",
            "[0:0:0:0:0:0:0:1]",
            "gateway.internal",
            "Gateway.Internal:443",
            "[fd00::1]:80",
        ] {
            assert_eq!(with_host(LOOPBACK, host), Ok(()), "{host}");
            assert_eq!(with_host(UNIX, host), Ok(()), "{host}");
        }
        for host in [
            "",
            "unix",
            "bearerd_upstream",
            "/run/bearerd.sock",
            "example.com:1",
        ] {
            assert_eq!(with_host(UNIX, host), Ok(()), "{host}");
        }
        let two = [(MARK, "true"), ("host", "unix"), ("host", "unix")];
        assert_eq!(judged(UNIX, "/v1/token", &two), Err(Refusal::NoHost));
        assert_eq!(judged(UNIX, "/v1/token", &two[..1]), Err(Refusal::NoHost));
    }

    #[test]
    fn a_foreign_host_is_refused() {
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "localhost..",
            ".localhost",
            "127.0.0.1.nip.io",
            "127.0.0.1.",
            "127.1",
            "0127.0.0.1",
            "localhost:",
            "localhost:80x",
            "localhost:80:80",
            "localhost@example.com",
            "[::1",
            "[::1]x",
            "[::2]",
            "::1",
            "10.0.0.1:7290",
            "gateway.internal.example.com",
        ] {
            let judged = with_host(LOOPBACK, host);
            assert_eq!(judged, Err(Refusal::ForeignHost), "{host}");
        }
    }

    #[test]
    fn each_rule_turns_away_what_it_is_for() {
        let good = [(MARK, "true"), ("host", "localhost")];
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Refusal);
        let table: &[Case<'_>] = &[
            ("/v1/token", &[("host", "localhost")], Refusal::Unmarked),
            ("/v1/token", &[(MARK, "TRUE"), good[1]], Refusal::Unmarked),
            ("/v1/token", &[(MARK, "1"), good[1]], Refusal::Unmarked),
            (
                "/v1/token",
                &[good[0], (MARK, ""), good[1]],
                Refusal::Unmarked,
            ),
            ("/v1/token", &[good[0]], Refusal::NoHost),
            ("/v1/token", &[good[0], good[1], good[1]], Refusal::NoHost),
            ("http://localhost/v1/token", &good, Refusal::Target),
            ("localhost:7290", &good, Refusal::Target),
            (
                "/",
                &[good[0], good[1], ("via", "1.1 x")],
                Refusal::Forwarded,
            ),
            (
                "/",
                &[("forwarded", ""), good[0], good[1]],
                Refusal::Forwarded,
            ),
            (
                "/",
                &[good[0], good[1], ("X-Forwarded-For", "::1")],
                Refusal::Forwarded,
            ),
            (
                "/",
                &[good[0], good[1], ("X-Forwarded-Host", "a")],
                Refusal::Forwarded,
            ),
            (
                "/",
                &[good[0], good[1], ("Origin", "null")],
                Refusal::Browser,
            ),
            (
                "/",
                &[good[0], good[1], ("Sec-Fetch-Site", "none")],
                Refusal::Browser,
            ),
            (
                "/",
                &[
                    good[0],
                    good[1],
                    ("sec-fetch-mode", "cors"),
                    ("sec-fetch-site", "none"),
                ],
                Refusal::Browser,
            ),
            (
                "/",
                &[
                    good[0],
                    good[1],
                    ("sec-fetch-dest", "empty"),
                    ("sec-fetch-mode", "cors"),
                ],
                Refusal::Browser,
            ),
            (
                "/",
                &[
                    good[0],
                    good[1],
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-user", "?1"),
                ],
                Refusal::Browser,
            ),
            (
                "/",
                &[
                    good[0],
                    good[1],
                    ("sec-fetch-mode", "cors"),
                    ("origin", "http://a"),
                ],
                Refusal::Browser,
            ),
        ];
        for (target, headers, refusal) in table {
            let judged = judged(LOOPBACK, target, headers);
            assert_eq!(judged, Err(*refusal), "{target} {headers:?}");
        }
        let innocent = [
            good[0],
            good[1],
            ("user-agent", "curl"),
            ("x-forward", "no"),
            ("sec-fetch-mode", "cors"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("x-request-id", "1"),
            ("x-b3-traceid", "1"),
        ];
        assert_eq!(judged(LOOPBACK, "/v1/token", &innocent), Ok(()));
        for name in [
            "X-Real-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
        ] {
            let headers = [good[0], good[1], (name, "127.0.0.1")];
            for peer in [LOOPBACK, UNIX] {
                let judged = judged(peer, "/v1/token", &headers);
                assert_eq!(judged, Err(Refusal::Forwarded), "{name}");
            }
        }
    }

    #[test]
    fn a_call_needs_no_mark_and_must_be_meant_for_this_machine() {
        let judged = |peer, target: &str, headers: &[(&str, &str)]| {
            let mut request = Request::post(target);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let rules = Rules::new(&["gateway.internal".into()]);
            check_call(&request.body(()).unwrap(), peer, &rules)
        };
        const LOCAL: &str = "http://localhost:7291/a/b";
        type Case<'a> = (
            &'a str,
            &'a [(&'a str, &'a str)],
            Result<(), Refusal>,
            Result<(), Refusal>,
        );
        let table: &[Case<'_>] = &[
            (LOCAL, &[], Ok(()), Ok(())),
            ("http://127.0.0.1/a/b", &[], Ok(()), Ok(())),
            ("http://gateway.internal:1/a/b", &[], Ok(()), Ok(())),
            ("/a/b", &[("host", "localhost")], Ok(()), Ok(())),
            ("/a/b", &[], Err(Refusal::NoHost), Ok(())),
            // What tonic's users write for a Unix socket.
            (
                "http://[::]:50051/a/b",
                &[],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                "http://example.com/a/b",
                &[],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                "http://user@localhost/a/b",
                &[],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                "/a/b",
                &[("host", "example.com")],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                LOCAL,
                &[("host", "example.com")],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                "http://example.com/a/b",
                &[("host", "localhost")],
                Err(Refusal::ForeignHost),
                Ok(()),
            ),
            (
                LOCAL,
                &[("via", "2 x")],
                Err(Refusal::Forwarded),
                Err(Refusal::Forwarded),
            ),
            (
                LOCAL,
                &[("forwarded", "for=a")],
                Err(Refusal::Forwarded),
                Err(Refusal::Forwarded),
            ),
            (
                LOCAL,
                &[("x-forwarded-for", "a")],
                Err(Refusal::Forwarded),
                Err(Refusal::Forwarded),
            ),
            (
                LOCAL,
                &[("origin", "null")],
                Err(Refusal::Browser),
                Err(Refusal::Browser),
            ),
            (
                LOCAL,
                &[("sec-fetch-site", "none")],
                Err(Refusal::Browser),
                Err(Refusal::Browser),
            ),
            (
                LOCAL,
                &[(MARK, "false")],
                Err(Refusal::Unmarked),
                Err(Refusal::Unmarked),
            ),
            (
                LOCAL,
                &[(MARK, "true"), ("user-agent", "grpc")],
                Ok(()),
                Ok(()),
            ),
        ];
        for (target, headers, port, socket) in table {
            assert_eq!(
                judged(LOOPBACK, target, headers),
                *port,
                "{target} {headers:?}"
            );
            assert_eq!(
                judged(UNIX, target, headers),
                *socket,
                "{target} {headers:?}"
            );
        }
    }

    #[test]
    fn a_body_that_others_could_see_differently_is_refused() {
        let judged = |method: &str, more: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/v1/token");
            for (name, value) in [(MARK, "true"), ("host", "localhost")].iter().chain(more) {
                request = request.header(*name, *value);
            }
            check(&request.body(()).unwrap(), LOOPBACK, &Rules::default())
        };
        let chunked = ("transfer-encoding", "chunked");
        let good: [(&str, &[(&str, &str)]); 5] = [
            ("GET", &[]),
            ("GET", &[("content-length", "0")]),
            ("POST", &[("content-length", "5")]),
            ("POST", &[chunked]),
            ("PUT", &[chunked]),
        ];
        for (method, more) in good {
            assert_eq!(judged(method, more), Ok(()), "{method} {more:?}");
        }
        let bad: [(&str, &[(&str, &str)]); 7] = [
            ("GET", &[("content-length", "5")]),
            ("HEAD", &[("content-length", "00")]),
            ("GET", &[chunked]),
            ("POST", &[chunked, chunked]),
            ("POST", &[("transfer-encoding", "gzip, chunked")]),
            ("POST", &[("transfer-encoding", "chunked, chunked")]),
            ("POST", &[("transfer-encoding", "identity")]),
        ];
        for (method, more) in bad {
            let judged = judged(method, more);
            assert_eq!(judged, Err(Refusal::Framing), "{method} {more:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_own_counter() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_in_a_host_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(HOST, value.clone());
                headers.insert(HeaderName::from_static("x-bearerd-request"), HeaderValue::from_static("true"));
                let _ = check_parts(&Uri::from_static("/"), &headers, true, UNIX, &Rules::default());
            }
        }

        #[test]
        fn only_this_machines_names_are_local(host in "[a-z0-9.:\\[\\]]{0,24}") {
            if is_known(host.as_bytes(), &Rules::default()) {
                prop_assert!(host.starts_with("localhost") || host.starts_with("127.") || host.starts_with('['));
            }
        }
    }
}
