use super::connection::{Connection, Entrance};
use super::*;

const LIFETIME: Duration = Duration::from_secs(3600);
const DATE_TEXT: &str = "Thu, 10 Jul 2025 06:59:06 GMT";

fn key() -> Key {
    crate::issuer::tests::key("the-key-id", "the-api-key")
}

fn journey() -> Journey {
    let sent_at = Stamp {
        wall: "2025-07-10T06:59:05Z".parse().unwrap(),
        boot: Duration::from_secs(500),
    };
    Journey {
        sent_at,
        answered_at: sent_at.plus(Duration::from_secs(1)),
    }
}

fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    let mut all = HeaderMap::from_iter([(DATE, HeaderValue::from_static(DATE_TEXT))]);
    for (name, value) in headers {
        all.insert(*name, HeaderValue::from_static(value));
    }
    let body = Zeroizing::new(body.as_bytes().to_vec());
    judge(
        &Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: all,
            body,
        },
        journey(),
        &key(),
        LIFETIME,
    )
}

fn aged(created_at: &str) -> (Duration, Option<String>) {
    match judged(
        200,
        &[],
        &format!(r#"{{"token":"abc","created_at":{created_at}}}"#),
    ) {
        Answer::Minted(minted) => (minted.aged, minted.note),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_documented_answer_is_a_token() {
    let Answer::Minted(minted) = judged(
        200,
        &[],
        r#"{"token":"abc","created_at":"2025-07-10T06:59:05.72Z"}"#,
    ) else {
        panic!("no token")
    };
    assert_eq!(minted.secret.expose(), "abc");
    assert_eq!(minted.sent_at, journey().sent_at);
    assert_eq!((minted.aged, minted.note), (Duration::ZERO, None));
}

#[test]
fn a_token_that_the_issuer_shows_to_be_older_ends_earlier() {
    assert_eq!(
        aged(r#""2025-07-10T06:59:00Z""#).0,
        Duration::ZERO,
        "within the tolerance and the journey"
    );
    assert_eq!(
        aged(r#""2025-07-10T06:49:06Z""#).0,
        Duration::from_secs(601)
    );
}

#[test]
fn an_absurd_created_at_is_noted_and_not_believed() {
    for (odd, note) in [
        (r#""1970-01-01T00:00:00Z""#, "further back"),
        (r#""2031-01-01T00:00:00Z""#, "future"),
        (r#""yesterday""#, "not a time"),
        ("12", "not a time"),
        ("null", "no created_at"),
    ] {
        let (aged, told) = aged(odd);
        assert_eq!(aged, Duration::ZERO);
        assert!(told.unwrap().contains(note), "{odd}");
    }
}

#[test]
fn an_object_that_holds_no_token_may_have_been_counted() {
    for body in [
        "{}",
        r#"{"token":""}"#,
        r#"{"token":"two words"}"#,
        "{\"token\":\"t\u{f6}ken\"}",
        r#"{"token":7}"#,
    ] {
        let answer = judged(200, &[], body);
        assert!(
            matches!(answer, Answer::Lost { answered: true, .. }),
            "{body}: {answer:?}"
        );
    }
}

/// What an answer is taken for, in one word, and whether its detail tells whose it is.
fn name(answer: &Answer) -> &'static str {
    match answer {
        Answer::Minted(_) => "minted",
        Answer::NotSent { .. } => "not sent",
        Answer::Lost { .. } => "lost",
        Answer::Intermediary { .. } => "intermediary",
        Answer::Throttled { .. } => "throttled",
        Answer::Refused {
            key_at_fault: true, ..
        } => "key refused",
        Answer::Refused {
            key_at_fault: false,
            ..
        } => "refused",
    }
}

const SLUG: &str = r#"{"slug":"some-error","message":"why"}"#;

#[test]
fn each_status_with_a_slug_has_its_meaning() {
    for (status, meaning) in [
        (400, "refused"),
        (401, "key refused"),
        (403, "key refused"),
        (404, "refused"),
        (405, "intermediary"),
        (408, "lost"),
        (410, "intermediary"),
        (421, "intermediary"),
        (425, "lost"),
        (429, "throttled"),
        (500, "lost"),
        (503, "lost"),
        (301, "intermediary"),
        (304, "intermediary"),
        (100, "intermediary"),
    ] {
        assert_eq!(name(&judged(status, &[], SLUG)), meaning, "{status}");
    }
}

#[test]
fn what_is_no_json_with_a_slug_is_an_intermediarys_whatever_its_status() {
    let bodies = [
        "",
        "<html><h1>502 Bad Gateway</h1></html>",
        "Forbidden",
        "{",
        "[]",
        "{}",
        r#"["some-error","why"]"#,
        r#"{"message":"Forbidden"}"#,
        r#"{"slug":""}"#,
        r#"{"slug":7}"#,
        r#"{"slug":null}"#,
        "\"slug\"",
        r#"{"slug":"a"} trailing"#,
    ];
    for status in [
        301, 302, 307, 308, 400, 401, 403, 404, 405, 407, 408, 421, 425, 451, 500, 502, 503, 504,
        511,
    ] {
        for body in bodies {
            let answer = judged(status, &[], body);
            assert_eq!(name(&answer), "intermediary", "{status} {body}");
        }
    }
    // The status alone says that the issuer counts too many, and a success of a portal is none.
    for body in bodies {
        assert_eq!(name(&judged(429, &[], body)), "throttled", "{body}");
    }
    let no_objects = ["", "<html>log in</html>", "{", "[]", r#"["abc","x"]"#];
    for (status, body) in no_objects.map(|body| (200, body)) {
        assert_eq!(name(&judged(status, &[], body)), "intermediary", "{body}");
    }
    assert_eq!(name(&judged(204, &[], "")), "intermediary");
}

#[test]
fn an_intermediarys_redirect_names_its_host_alone_and_no_key() {
    let detail = |status, location| match judged(status, &[("location", location)], "") {
        Answer::Intermediary { detail } => detail,
        other => panic!("{other:?}"),
    };
    let to = |host: &str| format!("the answer does not look like Truecaller's: 302{host} (look at");
    for (location, host) in [
        (
            "https://user:secret@portal.example/login?key=the-api-key",
            " to portal.example",
        ),
        ("https://the-api-key.example/", " to …"),
        ("/login", ""),
        ("not a url", ""),
    ] {
        let detail = detail(302, location);
        assert!(detail.starts_with(&to(host)), "{detail}");
        assert!(
            !detail.contains("secret") && !detail.contains("the-api-key"),
            "{detail}"
        );
    }
    let gateway = detail(502, "https://elsewhere.example/");
    assert!(gateway.starts_with("the answer does not look like Truecaller's: 502 (look at"));
}

#[test]
fn retry_after_is_read_as_seconds_or_as_a_date() {
    let wait = |value| match judged(429, &[("retry-after", value)], "") {
        Answer::Throttled { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    assert_eq!(
        wait("Thu, 10 Jul 2025 07:00:06 GMT"),
        Some(Duration::from_secs(60))
    );
    assert_eq!(wait("Thu, 10 Jul 2025 06:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(wait("soon"), None);
}

/// A clock that stands still.
struct Still(Stamp);

impl Clock for Still {
    fn now(&self) -> Stamp {
        self.0
    }

    fn boot_id(&self) -> crate::clock::BootId {
        crate::clock::BootId::new("boot")
    }
}

#[tokio::test]
async fn nothing_is_sent_once_the_reservation_is_too_old() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let settings = Settings {
        mint_url: format!("http://{}/token", listener.local_addr().unwrap())
            .parse()
            .unwrap(),
        timeout: Duration::from_millis(200),
        in_flight: Duration::from_secs(1),
        lifetime: LIFETIME,
    };
    let now = journey().sent_at;
    let issuer = Truecaller::new(settings, Arc::new(Still(now))).unwrap();
    let just_before = now.boot - Duration::from_nanos(1);
    let answer = issuer.mint(&key(), just_before).await;
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
    let nobody = listener.accept().unwrap_err();
    assert_eq!(
        nobody.kind(),
        std::io::ErrorKind::WouldBlock,
        "not even a connection was made"
    );

    // A nanosecond later it is in time, and the listener that never answers makes it a loss.
    let answer = issuer.mint(&key(), now.boot).await;
    assert!(
        matches!(
            answer,
            Answer::Lost {
                answered: false,
                ..
            }
        ),
        "{answer:?}"
    );
    assert!(listener.accept().is_ok());
}

/// A clock that shows one moment once, and an hour later from then on: the machine slept behind the first look.
struct Slept(std::sync::Mutex<Stamp>);

impl Clock for Slept {
    fn now(&self) -> Stamp {
        let mut at = self.0.lock().unwrap();
        let shown = *at;
        *at = shown.plus(Duration::from_secs(3600));
        shown
    }

    fn boot_id(&self) -> crate::clock::BootId {
        crate::clock::BootId::new("boot")
    }
}

#[tokio::test]
async fn nothing_is_sent_by_a_machine_that_slept_while_it_connected() {
    use std::io::Read;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        mint_url: format!("http://{}/token", listener.local_addr().unwrap())
            .parse()
            .unwrap(),
        timeout: Duration::from_secs(5),
        in_flight: Duration::from_secs(60),
        lifetime: LIFETIME,
    };
    let now = journey().sent_at;
    let issuer = Truecaller::new(settings, Arc::new(Slept(std::sync::Mutex::new(now)))).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let patience = Some(Duration::from_secs(5));
        stream.set_read_timeout(patience).unwrap();
        let mut first = [0; 1];
        stream.read(&mut first).is_ok_and(|count| count > 0)
    });
    let answer = issuer.mint(&key(), now.boot).await;
    assert!(!server.join().unwrap(), "a byte of the request arrived");
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
}

/// An issuer of these lengths at this address, for which time stands still.
fn issuer(listener: &std::net::TcpListener, timeout: Duration, in_flight: Duration) -> Truecaller {
    let settings = Settings {
        mint_url: format!("http://{}/token", listener.local_addr().unwrap())
            .parse()
            .unwrap(),
        timeout,
        in_flight,
        lifetime: LIFETIME,
    };
    Truecaller::new(settings, Arc::new(Still(journey().sent_at))).unwrap()
}

#[tokio::test]
async fn the_system_repeats_a_request_no_longer_than_its_slot_counts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (timeout, in_flight) = (Duration::from_secs(10), Duration::from_secs(60));
    let issuer = issuer(&listener, timeout, in_flight);
    let reserved_at = journey().sent_at.boot;
    let after = |wait: u64| {
        let sent_at = journey().sent_at.plus(Duration::from_secs(wait));
        issuer.delivery(reserved_at + timeout, sent_at).user_timeout
    };
    // Half of what is left of the slot's time, and no more than an attempt takes anyway.
    assert_eq!(after(0), Duration::from_secs(10));
    assert_eq!(after(9), Duration::from_secs(10));
    let tight = Truecaller {
        settings: Settings {
            in_flight: timeout * 2,
            ..issuer.settings.clone()
        },
        ..issuer
    };
    let left = |wait| {
        let sent_at = journey().sent_at.plus(Duration::from_secs(wait));
        tight.delivery(reserved_at + timeout, sent_at).user_timeout
    };
    assert_eq!(left(0), Duration::from_secs(5));
    assert_eq!(left(10), Duration::ZERO);
}

#[tokio::test]
async fn a_connection_is_reset_by_whatever_closes_it_before_an_answer() {
    use crate::issuer::Delivery;
    use rustix::net::sockopt::{socket_linger, tcp_user_timeout};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let url: Url = url.parse().unwrap();
    let second = Duration::from_secs(1);
    for (wanted, milliseconds) in [(second, 1_000), (Duration::ZERO, 1)] {
        let delivery = Delivery {
            resets: true,
            user_timeout: wanted,
        };
        let connection = Connection::open(&url, second, delivery).await.unwrap();
        let socket = connection.socket();
        assert_eq!(socket_linger(socket).unwrap(), Some(Duration::ZERO));
        assert_eq!(tcp_user_timeout(socket).unwrap(), milliseconds);
    }
}

#[tokio::test]
async fn whatever_comes_before_an_answer_is_read_only_so_far() {
    use std::io::{Read, Write};

    let floods: [(&str, &[u8]); 3] = [
        ("", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        ("HTTP/1.1 200 OK\r\nX-More: ", b"aaaaaaaa"),
    ];
    for (head, piece) in floods {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = issuer(&listener, Duration::from_secs(30), Duration::from_secs(60));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let pieces = piece.repeat(1_000);
            while stream.write_all(&pieces).is_ok() {}
        });
        let answer = issuer.mint(&key(), journey().sent_at.boot).await;
        server.join().unwrap();
        let Answer::Lost {
            answered: false,
            detail,
        } = answer
        else {
            panic!("{answer:?}")
        };
        println!("{detail}");
    }
}

#[tokio::test]
async fn no_other_process_is_let_in_where_the_client_goes() {
    let entrance = Entrance::new().unwrap();
    let name = entrance.name().trim_start_matches('\0').to_owned();
    let script = "import socket, sys\n\
                  it = socket.socket(socket.AF_UNIX)\n\
                  it.connect('\\0' + sys.argv[1])\n\
                  print(it.recv(1), flush=True)";
    let mut stranger = tokio::process::Command::new("python3");
    stranger.args(["-c", script, &name]);
    let stranger = stranger
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let name = entrance.name().to_owned();
    let accepted = entrance.accept();
    tokio::pin!(accepted);
    let said = tokio::select! {
        said = stranger.wait_with_output() => said.unwrap(),
        _ = &mut accepted => panic!("the stranger was let in"),
    };
    assert_eq!(String::from_utf8_lossy(&said.stdout), "b''\n");
    let (accepted, connected) = tokio::join!(accepted, tokio::net::UnixStream::connect(&name));
    assert!(accepted.is_ok() && connected.is_ok());
}
