use super::*;

const LIFETIME: Duration = Duration::from_secs(3600);
const DATE_TEXT: &str = "Thu, 10 Jul 2025 06:59:06 GMT";

fn key() -> Key {
    Key {
        key_id: Secret::new("the-key-id".into()),
        api_key: Secret::new("the-api-key".into()),
    }
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
        ("https://the-api-key.example/", " to ….example"),
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

#[test]
fn the_operator_reads_the_slug_but_never_a_key() {
    let Answer::Refused { detail, .. } = judged(
        400,
        &[],
        r#"{"slug":"invalid-input","message":"api_key the-api-key of the-key-id\nis wrong"}"#,
    ) else {
        panic!("not refused")
    };
    let expected = format!("400 / invalid-input / api_key … of … is wrong ({LOOK_AT})");
    assert_eq!(detail, expected);
    let long = format!(r#"{{"slug":"x","message":"{}"}}"#, "y".repeat(5000));
    let Answer::Refused { detail, .. } = judged(400, &[], &long) else {
        panic!("not refused")
    };
    assert!(detail.len() < 350);
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
        lifetime: LIFETIME,
    };
    let now = journey().sent_at;
    let issuer = Truecaller::new(settings, Arc::new(Slept(std::sync::Mutex::new(now)))).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let patience = Some(Duration::from_secs(5));
        stream.set_read_timeout(patience).unwrap();
        let mut first = [0; 1];
        stream.read(&mut first).unwrap()
    });
    let answer = issuer.mint(&key(), now.boot).await;
    assert_eq!(server.join().unwrap(), 0, "a byte of the request arrived");
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
}
