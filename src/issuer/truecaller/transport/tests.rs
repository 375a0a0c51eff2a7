use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// What the client says, between the brackets.
fn split(text: &str) -> (&str, &str) {
    let (ours, library) = text.split_once(" (").unwrap_or((text, ""));
    (ours, library.strip_suffix(')').unwrap_or(library))
}

/// What is said of an error, as the issuer says it.
fn described(error: &reqwest::Error, url: &Url) -> String {
    let causes = successors(error.source(), |error| (*error).source());
    let library: Vec<String> = causes.map(ToString::to_string).collect();
    with_library(explain(error, error.is_connect(), url), library.join(": "))
}

/// A client like the issuer's, which trusts this certificate alone.
fn client(root: Option<&rcgen::Certificate>) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = root.map(|root| reqwest::Certificate::from_der(root.der()).unwrap());
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .http1_only()
        .no_proxy()
        .connect_timeout(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// Asks a server that does this with its one connection, and gives what is said of it.
async fn asked<F: Future<Output = ()>>(
    scheme: &str,
    root: Option<&rcgen::Certificate>,
    serve: impl FnOnce(TcpStream) -> F,
) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let url: Url = format!("{scheme}://{peer}/token").parse().unwrap();
    let client = client(root);
    let asking = async {
        let mut response = client.post(url.clone()).body("{}").send().await?;
        while response.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    };
    let (outcome, ()) = tokio::join!(asking, serving);
    (described(&outcome.unwrap_err(), &url), peer)
}

/// Reads the whole request: what is closed over unread bytes is reset instead.
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"{}") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
    }
}

async fn answer_with(mut stream: TcpStream, answer: &'static [u8]) {
    read_request(&mut stream).await;
    stream.write_all(answer).await.unwrap();
}

/// Answers a client's first bytes, whatever they are, and waits until it goes.
async fn answer_any_with(mut stream: TcpStream, answer: &'static [u8]) {
    let mut read = vec![0; 4096];
    assert!(stream.read(&mut read).await.unwrap() > 0);
    stream.write_all(answer).await.unwrap();
    while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
}

#[tokio::test]
async fn without_tls_each_end_has_its_sentence() {
    let closed = async |mut stream: TcpStream| read_request(&mut stream).await;
    let (said, _) = asked("http", None, closed).await;
    let (ours, library) = split(&said);
    assert_eq!(ours, "Truecaller closed the connection without an answer");
    assert!(
        library.contains("connection closed before message completed"),
        "{said}"
    );

    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    let (said, _) = asked("http", None, |it| answer_with(it, half)).await;
    let (ours, library) = split(&said);
    assert_eq!(
        ours,
        "Truecaller closed the connection in the middle of its answer"
    );
    assert!(
        library.contains("end of file before message length reached"),
        "{said}"
    );

    let ssh = b"SSH-2.0-OpenSSH_9.2\r\n\r\n";
    let (said, _) = asked("http", None, |it| answer_with(it, ssh)).await;
    assert_eq!(split(&said).0, "the other end does not answer in HTTP");

    // What was not read makes the system reset the connection.
    let reset = async |mut stream: TcpStream| {
        stream.readable().await.unwrap();
        let _first = stream.read_u8().await.unwrap();
    };
    let (said, _) = asked("http", None, reset).await;
    assert_eq!(split(&said).0, "the connection to Truecaller broke off");
}

#[tokio::test]
async fn a_peer_that_does_not_take_part_in_tls_is_told_as_such() {
    let plain = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (said, _) = asked("https", None, |it| answer_any_with(it, plain)).await;
    let (ours, library) = split(&said);
    assert_eq!(ours, "the other end does not speak TLS");
    assert!(library.contains("corrupt message"), "{said}");

    // A fatal alert: handshake_failure.
    let alert = b"\x15\x03\x03\x00\x02\x02\x28";
    let (said, _) = asked("https", None, |it| answer_any_with(it, alert)).await;
    let (ours, library) = split(&said);
    assert_eq!(ours, "the other end refused the TLS handshake");
    assert!(library.contains("alert"), "{said}");

    let closes = async |mut stream: TcpStream| {
        let mut read = vec![0; 4096];
        assert!(stream.read(&mut read).await.unwrap() > 0);
    };
    let (said, _) = asked("https", None, closes).await;
    assert_eq!(
        split(&said).0,
        "the other end closed the connection during the TLS handshake"
    );

    let silent = async |mut stream: TcpStream| {
        let mut read = Vec::new();
        let _until_it_gives_up = stream.read_to_end(&mut read).await;
    };
    let (said, peer) = asked("https", None, silent).await;
    assert_eq!(split(&said).0, format!("no connection to {peer} in time"));
}

/// A certificate authority, and the acceptor of a server with a certificate of it.
fn certified(
    authority: &str,
    names: &[&str],
    years: [i32; 2],
) -> (CertifiedIssuer<'static, KeyPair>, TlsAcceptor) {
    let mut params = CertificateParams::new([]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, authority);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (ca, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn a_certificate_says_what_is_wrong_with_it() {
    let good = [2020, 2120];
    let here = &["127.0.0.1"][..];
    let of_name = "the other end's certificate is not for 127.0.0.1";
    let untrusted = "the other end's certificate is not trusted";
    for (names, years, trusted, expected) in [
        (
            here,
            [2020, 2021],
            None,
            "the other end's certificate has expired",
        ),
        (
            here,
            [2110, 2120],
            None,
            "the other end's certificate is not valid yet",
        ),
        (&["elsewhere.example"], good, None, of_name),
        (here, good, Some("another"), untrusted),
        (here, good, Some("ours"), untrusted),
    ] {
        let (ca, acceptor) = certified("ours", names, years);
        let another = trusted.map(|authority| certified(authority, names, years).0);
        let root = another.as_ref().unwrap_or(&ca);
        let refused = async |stream| _ = acceptor.accept(stream).await;
        let (said, _) = asked("https", Some(root.as_ref()), refused).await;
        let (ours, library) = split(&said);
        assert_eq!(ours, expected);
        assert!(library.contains("certificate"), "{said}");
    }
}

#[tokio::test]
async fn an_address_without_a_server_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = listener.local_addr().unwrap();
    drop(listener);
    let url: Url = format!("http://{peer}/token").parse().unwrap();
    let error = client(None).post(url.clone()).send().await.unwrap_err();
    let said = described(&error, &url);
    assert_eq!(split(&said).0, format!("{peer} refused the connection"));
    assert!(said.contains("refused (os error"), "{said}");

    // A part of a name has at most 63 characters, so that the resolver asks no server for this one.
    let name = format!("{}.invalid", "x".repeat(64));
    let url: Url = format!("http://{name}/token").parse().unwrap();
    let error = client(None).post(url.clone()).send().await.unwrap_err();
    let said = described(&error, &url);
    assert_eq!(split(&said).0, format!("the name {name} does not resolve"));
    assert!(!said.contains("token"), "{said}");
}
