use super::*;

use std::convert::Infallible;
use std::future::{Ready, ready};

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::listener::testing::calls::Caller;
use crate::listener::testing::{metric, request};
use crate::listener::{
    Answer, Body, Calls, Limits, Listener, Patience, Service, serve_http, serve_http2, text,
};
use crate::tls::testing::{Authority, Pair, Wanted, caller, server};
use crate::tls::{Credentials, Files, Metrics};

/// Answers with the names of the caller's certificate.
#[derive(Clone)]
struct Mirror;

fn shown(connection: &Connection) -> Response<Body> {
    let names = connection
        .names
        .as_deref()
        .map_or("nobody".into(), |names| {
            format!("{} {}", names.dns.join(","), names.uris.join(","))
        });
    text(StatusCode::OK, names)
}

impl Service for Mirror {
    fn answer<B>(&self, _: Request<B>, connection: &Connection) -> Answer {
        shown(connection).into()
    }
}

impl Calls for Mirror {
    type Body = Body;
    type Answer = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, _: Request<Incoming>, connection: &Connection) -> Self::Answer {
        ready(Ok(shown(connection)))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Grpc,
    /// HTTP/1.1 that asks for no certificate.
    Admin,
}

/// A listener, and who signs for both of its sides.
struct House {
    authority: Authority,
    registry: Registry,
    address: String,
    drain: CancellationToken,
    task: JoinSet<()>,
}

impl House {
    async fn open(kind: Kind) -> Self {
        let authority = Authority::new("tests");
        let registry = Registry::new();
        let credentials = credentials(&authority, &registry);
        let current = match kind {
            Kind::Http => credentials.http(),
            Kind::Grpc => credentials.grpc(),
            Kind::Admin => credentials.admin(),
        };
        let tls = Tls::new(current, Handshakes::register(&registry));
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await;
        let listener = listener.unwrap().with_tls(tls);
        let address = listener.local_address().to_string();
        let (drain, mut task) = (CancellationToken::new(), JoinSet::new());
        let told = drain.clone();
        if kind == Kind::Grpc {
            task.spawn(async move {
                let limits = Limits {
                    streams: 8,
                    keepalive: Duration::from_secs(3600),
                    patience: Duration::from_secs(3600),
                };
                serve_http2(listener, Mirror, &limits, told).await;
            });
        } else {
            task.spawn(serve_http(listener, Mirror, told));
        }
        Self {
            authority,
            registry,
            address,
            drain,
            task,
        }
    }

    /// A caller's side: with this certificate, of these versions, offering these protocols.
    fn config(
        &self,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.authority.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate(&pair.certificate)], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The side of a caller whom all listeners serve.
    fn good(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let names = caller(&["orders.shop.svc"], &["spiffe://prod/orders"]);
        let pair = self.authority.issue(&names);
        self.config(Some(&pair), &[&TLS13, &TLS12], protocols)
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    async fn connect(
        &self,
        config: &Arc<ClientConfig>,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(config))
            .connect(name, self.tcp().await)
            .await
    }

    /// The last line of the answer to a request; none if the connection ends before.
    async fn ask(&self, config: &Arc<ClientConfig>) -> Option<String> {
        asked(&mut self.connect(config).await.ok()?).await
    }

    fn count(&self, outcome: &str) -> f64 {
        let line = format!("bearerd_tls_handshakes_total{{outcome=\"{outcome}\"}}");
        metric(&self.registry, &line)
    }

    async fn until_counted(&self, outcome: &str) {
        while self.count(outcome) == 0.0 {
            tokio::task::yield_now().await;
        }
    }

    /// Everybody who was not turned away was served.
    async fn refuses(&self, outcome: &str, config: &Arc<ClientConfig>) {
        let before = self.count(outcome);
        assert_eq!(self.ask(config).await, None, "{outcome}");
        assert_eq!(self.count(outcome), before + 1.0, "{outcome}");
    }
}

fn credentials(authority: &Authority, registry: &Registry) -> Credentials {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let pair = authority.issue(&server());
    std::fs::write(path("crt"), &pair.certificate).unwrap();
    std::fs::write(path("key"), &pair.key).unwrap();
    std::fs::write(path("ca"), &authority.certificate).unwrap();
    let files = Files {
        certificate: path("crt"),
        key: path("key"),
        client_ca: Some(path("ca")),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let loaded = Credentials::load(files, clock, Metrics::register(registry));
    loaded.unwrap_or_else(|problem| panic!("{problem}"))
}

async fn asked(stream: &mut client::TlsStream<TcpStream>) -> Option<String> {
    let request = request("GET /", "Connection: close\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.lines().next_back()?.to_owned())
}

const NAMES: &str = "orders.shop.svc spiffe://prod/orders";

#[tokio::test]
async fn the_names_of_a_callers_certificate_come_with_its_requests() {
    let house = House::open(Kind::Http).await;
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let names = caller(
            &["orders.shop.svc", "*.shop.svc", "b.shop.svc"],
            &["spiffe://prod/orders"],
        );
        let config = house.config(Some(&house.authority.issue(&names)), versions, &[]);
        let told = house.ask(&config).await;
        // One with a wildcard is nobody's name.
        let expected = "orders.shop.svc,b.shop.svc spiffe://prod/orders";
        assert_eq!(told.as_deref(), Some(expected));
    }
    let nameless = house.authority.issue(&caller(&[], &[]));
    let config = house.config(Some(&nameless), &[&TLS13], &[]);
    assert_eq!(house.ask(&config).await.as_deref(), Some(" "));
    assert_eq!(house.count("done"), 3.0);
}

#[tokio::test]
async fn operators_need_no_certificate() {
    let house = House::open(Kind::Admin).await;
    let config = house.config(None, &[&TLS13, &TLS12], &["http/1.1"]);
    assert_eq!(house.ask(&config).await.as_deref(), Some("nobody"));
}

#[tokio::test]
async fn a_wrong_certificate_is_turned_away_and_others_are_served() {
    let house = House::open(Kind::Http).await;
    let good = house.good(&["http/1.1"]);
    let mut kept = house.connect(&good).await.unwrap();
    let stranger = Authority::new("another").issue(&caller(&["orders.shop.svc"], &[]));
    let namesake = Authority::new("tests").issue(&caller(&["orders.shop.svc"], &[]));
    let expired = house.authority.issue(&Wanted {
        life: Some((1_000_000_000, 1_600_000_000)),
        ..caller(&["orders.shop.svc"], &[])
    });
    let early = house.authority.issue(&Wanted {
        life: Some((4_000_000_000, 4_100_000_000)),
        ..caller(&["orders.shop.svc"], &[])
    });
    let a_servers = house.authority.issue(&server());
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let with = |pair| house.config(pair, versions, &[]);
        house.refuses("no_certificate", &with(None)).await;
        house
            .refuses("unknown_issuer", &with(Some(&stranger)))
            .await;
        house
            .refuses("expired_certificate", &with(Some(&expired)))
            .await;
        house
            .refuses("bad_certificate", &with(Some(&namesake)))
            .await;
        house.refuses("bad_certificate", &with(Some(&early))).await;
        house
            .refuses("bad_certificate", &with(Some(&a_servers)))
            .await;
        assert_eq!(house.ask(&good).await.as_deref(), Some(NAMES));
    }
    assert_eq!(asked(&mut kept).await.as_deref(), Some(NAMES));
}

#[tokio::test]
async fn only_the_listeners_own_protocol_is_agreed_on() {
    let house = House::open(Kind::Http).await;
    for served in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
        assert_eq!(house.ask(&house.good(served)).await.as_deref(), Some(NAMES));
    }
    house.refuses("no_protocol", &house.good(&["h2"])).await;
    let house = House::open(Kind::Grpc).await;
    for served in [&[][..], &["h2"], &["http/1.1", "h2"]] {
        let stream = house.connect(&house.good(served)).await.unwrap();
        let caller = Caller::over(stream).await;
        let call = caller.begin("/", &[], b"").await.unwrap();
        assert_eq!(call.answered().await.unwrap().text().await, NAMES);
    }
    house
        .refuses("no_protocol", &house.good(&["http/1.1"]))
        .await;
}

#[tokio::test]
async fn what_is_no_tls_is_answered_if_it_can_be_and_counted() {
    let house = House::open(Kind::Http).await;
    let mut plain = house.tcp().await;
    let request = request("GET /", "");
    plain.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _reset_or_closed = plain.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https"),
        "{answer}"
    );
    house.until_counted("not_tls").await;
    let mut plain = house.tcp().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    plain.write_all(preface).await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    // Settings, and a goodbye for inadequate security.
    let (settings, goodbye) = answer.split_at(9);
    assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!((goodbye[3], &goodbye[13..17]), (7, &[0, 0, 0, 0xc][..]));
    assert!(goodbye[17..].starts_with(b"this port speaks TLS"));
    drop(house.tcp().await);
    house.until_counted("gone").await;
    // A hello of TLS 1.1: without the extension that names versions it is taken at its word.
    let mut old = house.tcp().await;
    old.write_all(HELLO_OF_TLS_1_1).await.unwrap();
    let _reset_or_closed = old.read_to_end(&mut Vec::new()).await;
    house.until_counted("incompatible").await;
    assert_eq!(house.ask(&house.good(&[])).await.as_deref(), Some(NAMES));
}

/// One cipher suite (ECDHE-ECDSA with AES-128), no compression, no extensions.
const HELLO_OF_TLS_1_1: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x02\
    0123456789abcdef0123456789abcdef\x00\x00\x02\xc0\x09\x01\x00";

#[tokio::test]
async fn who_does_not_trust_the_certificate_is_counted() {
    let house = House::open(Kind::Http).await;
    let mut other = House::open(Kind::Http).await;
    other.address.clone_from(&house.address);
    assert!(other.connect(&other.good(&[])).await.is_err());
    house.until_counted("refused_by_caller").await;
}

#[tokio::test]
async fn no_connection_takes_up_another_ones_session() {
    let house = House::open(Kind::Http).await;
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let pair = house.authority.issue(&caller(&["a.shop.svc"], &[]));
        let config = house.config(Some(&pair), versions, &[]);
        for _ in 0..3 {
            let mut stream = house.connect(&config).await.unwrap();
            assert!(asked(&mut stream).await.is_some());
            let kind = stream.get_ref().1.handshake_kind();
            assert!(matches!(
                kind,
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
            ));
        }
    }
}

#[tokio::test]
async fn half_a_handshake_holds_no_drain_up() {
    let mut house = House::open(Kind::Http).await;
    let mut silent = house.tcp().await;
    let mut begun = house.tcp().await;
    begun.write_all(&HELLO_OF_TLS_1_1[..20]).await.unwrap();
    // Those before it were accepted before it.
    assert_eq!(house.ask(&house.good(&[])).await.as_deref(), Some(NAMES));
    let mut idle = house.connect(&house.good(&[])).await.unwrap();
    house.drain.cancel();
    house.task.join_next().await.unwrap().unwrap();
    assert_eq!(house.count("drained"), 2.0);
    assert_eq!(
        idle.read(&mut [0]).await.unwrap(),
        0,
        "it is told of its end"
    );
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(matches!(begun.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off() {
    let house = House::open(Kind::Http).await;
    let mut silent = house.tcp().await;
    tokio::time::pause();
    let before = Instant::now();
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(before.elapsed() >= Patience::default().header);
    assert_eq!(house.count("timed_out"), 1.0);
}

#[test]
fn a_connection_without_tls_is_no_larger_for_it() {
    // Never made: it is what a socket would be without TLS.
    #[expect(dead_code, reason = "only its size matters")]
    enum Plain {
        Tcp(TcpStream),
        Unix(tokio::net::UnixStream),
    }
    assert_eq!(size_of::<Socket>(), size_of::<Plain>());
}
