use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::*;
use crate::clock::BootId;

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// As fast as a test wants it.
const QUICK: Pace = Pace {
    wait: Duration::from_secs(30),
    least: Duration::from_millis(1),
    most: Duration::from_millis(5),
};

/// The system's clock, moved ahead by hand.
struct Moved(Mutex<Duration>, SystemClock);

impl Moved {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default(), SystemClock::new()))
    }

    fn ahead(&self, length: Duration) {
        *self.0.lock().unwrap() += length;
    }
}

impl Clock for Moved {
    fn now(&self) -> Stamp {
        self.1.now().plus(*self.0.lock().unwrap())
    }

    fn boot_id(&self) -> BootId {
        self.1.boot_id()
    }
}

/// What a scripted server does with one connection.
enum Act {
    /// Answers, and closes.
    Say(String),
    /// Closes without a word.
    HangUp,
}

/// A server that tells each request and does what it is told to.
struct Scripted {
    address: Address,
    requests: mpsc::UnboundedReceiver<String>,
    acts: mpsc::UnboundedSender<Act>,
    _task: JoinSet<()>,
}

impl Scripted {
    async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, requests) = mpsc::unbounded_channel();
        let (acts, mut next) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &told, &mut next).await;
            }
        });
        Self {
            address: address.parse().unwrap(),
            requests,
            acts,
            _task: task,
        }
    }

    fn unix(path: &std::path::Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (told, requests) = mpsc::unbounded_channel();
        let (acts, mut next) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &told, &mut next).await;
            }
        });
        Self {
            address: Address::Unix(path.to_owned()),
            requests,
            acts,
            _task: task,
        }
    }

    fn say(&self, answer: impl Into<String>) {
        self.acts.send(Act::Say(answer.into())).unwrap();
    }

    fn hang_up(&self) {
        self.acts.send(Act::HangUp).unwrap();
    }

    async fn request(&mut self) -> String {
        let asked = tokio::time::timeout(PATIENCE, self.requests.recv());
        asked.await.expect("it asks").unwrap()
    }

    fn client(&self, clock: &Arc<Moved>) -> Client {
        let clock: Arc<dyn Clock> = Arc::<Moved>::clone(clock);
        Client::connect_with(&self.address, QUICK, clock).unwrap()
    }

    fn door(&self) -> Door {
        Door::new(&self.address).unwrap()
    }
}

/// Reads a request, tells it, waits for what to do, and does it.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    told: &mpsc::UnboundedSender<String>,
    next: &mut mpsc::UnboundedReceiver<Act>,
) {
    let mut asked = Vec::new();
    let body_begins = loop {
        if let Some(at) = asked.windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&asked[..body_begins]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    while asked.len() < body_begins + length.unwrap_or(0) {
        assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
    }
    let _test_is_over = told.send(String::from_utf8(asked).unwrap());
    if let Some(Act::Say(answer)) = next.recv().await {
        let _hung_up = stream.write_all(answer.as_bytes()).await;
        let _hung_up = stream.shutdown().await;
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

/// The daemon's answer for a token that lives this long.
fn token(generation: u64, lives: Duration) -> String {
    let now = SystemClock::new().now();
    let (expires_at, issued_at) = (now.plus(lives).wall, now.wall);
    let body = format!(
        "{{\"access_token\":\"hush-{generation}\",\"token_type\":\"Bearer\",\"expires_in\":{},\"expires_at\":\"{expires_at}\",\
         \"issued_at\":\"{issued_at}\",\"generation\":{generation},\"suspect\":false}}\n",
        lives.as_secs()
    );
    let headers =
        format!("ETag: W/\"{generation}-0123abcd\"\r\nContent-Type: application/json\r\n");
    answer("200 OK", &headers, &body)
}

fn problem(status: &str, word: &str) -> String {
    let body = format!(
        "{{\"type\":\"urn:bearerd:problem:{word}\",\"title\":\"A title\",\"status\":0,\"detail\":\"what to do\"}}"
    );
    answer(status, "Retry-After: 7\r\n", &body)
}

const HOUR: Duration = Duration::from_secs(3600);

async fn next(watch: &mut Watch) -> u64 {
    let changed = tokio::time::timeout(PATIENCE, watch.changed());
    changed.await.expect("it is told").unwrap().generation().0
}

#[tokio::test]
async fn the_token_is_followed_over_tcp_and_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    for mut server in [
        Scripted::tcp().await,
        Scripted::unix(&folder.path().join("http.sock")),
    ] {
        let client = server.client(&Moved::new());
        let mut watch = client.watch();
        let why = client.current().unwrap_err();
        assert!(matches!(why, NoToken::NotYet { .. }), "{why}");
        let first = server.request().await.to_ascii_lowercase();
        assert!(first.starts_with("get /v1/token http/1.1\r\n"), "{first}");
        for header in [
            "x-bearerd-request: true",
            "prefer: wait=30",
            "accept: application/json",
        ] {
            assert!(first.contains(header), "{header} in {first}");
        }
        server.say(token(7, HOUR));
        assert_eq!(next(&mut watch).await, 7);
        let held = client.current().unwrap();
        assert_eq!(held.secret().expose(), "hush-7");
        assert!(!format!("{held:?}").contains("hush"), "{held:?}");

        let second = server.request().await.to_ascii_lowercase();
        assert!(
            second.contains("if-none-match: w/\"7-0123abcd\""),
            "{second}"
        );
        server.say(token(9, HOUR));
        assert_eq!(next(&mut watch).await, 9);
        // Whoever looks only now skips to the newest, and each is told once.
        let mut late = client.watch();
        assert_eq!(next(&mut late).await, 9);
        drop(client);
        assert_eq!(watch.changed().await, Err(Closed));
        assert_eq!(late.changed().await, Err(Closed));
    }
}

#[tokio::test]
async fn errors_and_older_tokens_replace_nothing() {
    let mut server = Scripted::tcp().await;
    let client = server.client(&Moved::new());
    server.request().await;
    server.say(token(7, HOUR));
    next(&mut client.watch()).await;
    let unhelpful = [
        problem("503 Service Unavailable", "draining"),
        answer("304 Not Modified", "", ""),
        token(7, HOUR),
        token(6, HOUR),
        answer(
            "200 OK",
            "ETag: W/\"8-0123abcd\"\r\n",
            "{\"access_token\":\"hush\"}",
        ),
        answer("500 Internal Server Error", "", "<html>"),
        "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{".to_owned(),
        "garbage".to_owned(),
    ];
    for unhelpful in unhelpful {
        server.request().await;
        server.say(unhelpful);
        assert_eq!(client.current().unwrap().generation(), Generation(7));
    }
    server.request().await;
    server.hang_up();
    server.request().await;
    assert_eq!(client.current().unwrap().generation(), Generation(7));
}

#[tokio::test]
async fn an_expired_token_is_never_given_and_the_error_says_why() {
    let mut server = Scripted::tcp().await;
    let clock = Moved::new();
    let client = server.client(&clock);
    server.request().await;
    server.say(token(7, HOUR));
    let held = client.ready(PATIENCE).await.unwrap();
    server.request().await;
    server.say(problem("503 Service Unavailable", "expired"));
    server.request().await;
    clock.ahead(HOUR - Duration::from_secs(60));
    assert_eq!(client.current().unwrap(), held);
    clock.ahead(Duration::from_secs(60));
    let told = client.current().unwrap_err().to_string();
    assert!(
        told.starts_with("the token of generation 7 expired at "),
        "{told}"
    );
    assert!(told.ends_with(": A title: what to do"), "{told}");
    // Any live token is better than an ended one.
    server.say(token(5, HOUR * 3));
    assert_eq!(next(&mut client.watch()).await, 5);
}

#[tokio::test]
async fn the_end_is_the_earlier_of_both_clocks() {
    let server = Scripted::tcp().await;
    let clock = SystemClock::new();
    for (wall, boot) in [(HOUR, 60), (Duration::from_secs(60), 3600)] {
        let now = clock.now();
        let at = now.plus(wall).wall;
        let body = format!(
            "{{\"access_token\":\"hush\",\"expires_in\":{boot},\"expires_at\":\"{at}\",\"issued_at\":\"{at}\",\"generation\":1}}"
        );
        server.say(answer("200 OK", "ETag: W/\"1-0123abcd\"\r\n", &body));
        let (token, document) = server.door().token(Duration::ZERO, &clock).await.unwrap();
        assert_eq!(*document, body.as_bytes());
        assert!(token.expires_at().left(now) <= Duration::from_secs(61));
        assert!(!token.expired(now.plus(Duration::from_secs(59))));
        assert!(token.expired(now.plus(Duration::from_secs(62))));
    }
    server.say(super::tests::token(1, Duration::ZERO));
    let late = server.door().token(Duration::ZERO, &clock).await;
    assert!(matches!(late, Err(Failure::NotNow { .. })), "{late:?}");
}

/// How many requests come while a server answers every one in this way for as long as `PACED` would allow ten.
async fn asked_in_a_while(answer: impl Fn() -> String) -> usize {
    const PACED: Pace = Pace {
        wait: Duration::from_secs(30),
        least: Duration::from_millis(50),
        most: Duration::from_secs(1),
    };
    let mut server = Scripted::tcp().await;
    let _client =
        Client::connect_with(&server.address, PACED, Arc::new(SystemClock::new())).unwrap();
    let end = tokio::time::Instant::now() + PACED.least * 10;
    let mut asked = 0;
    while tokio::time::timeout_at(end, server.requests.recv())
        .await
        .is_ok()
    {
        asked += 1;
        server.say(answer());
    }
    asked
}

#[tokio::test]
async fn no_server_makes_it_spin() {
    let count = Mutex::new(100);
    let newer_each_time = || {
        *count.lock().unwrap() += 1;
        token(*count.lock().unwrap(), HOUR)
    };
    assert!(asked_in_a_while(newer_each_time).await <= 11);
    // 50, 100, 200, 400 ms, each by half at the most less.
    assert!(asked_in_a_while(|| token(7, HOUR)).await <= 6);
    assert!(asked_in_a_while(|| answer("304 Not Modified", "", "")).await <= 6);
    assert!(asked_in_a_while(|| problem("503 Service Unavailable", "draining")).await <= 6);
}

#[tokio::test]
async fn a_question_that_fails_says_how() {
    let server = Scripted::tcp().await;
    let (door, clock) = (server.door(), SystemClock::new());
    let ask = async |said: &str| {
        server.say(said);
        door.token(Duration::ZERO, &clock).await.unwrap_err()
    };
    let failure = ask(&problem("503 Service Unavailable", "no_token_yet")).await;
    let Failure::NotNow {
        word,
        detail,
        retry_after,
    } = &failure
    else {
        panic!("{failure:?}")
    };
    assert_eq!(
        (word.as_str(), detail.as_str(), *retry_after),
        ("no_token_yet", "A title: what to do", Some(7))
    );
    assert!(failure.may_pass());
    let failure = ask(&problem("403 Forbidden", "unmarked")).await;
    assert!(
        matches!(&failure, Failure::Refused { status: 403, .. }),
        "{failure:?}"
    );
    for strange in [
        answer("200 OK", "", "{}"),
        answer("200 OK", "ETag: x\r\n", "hush"),
        answer("200 OK", "ETag: x\r\n", &"x".repeat(2 << 20)),
        answer("304 Not Modified", "", ""),
        answer("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
        token(1, HOUR).replace("hush-1", "no token"),
    ] {
        let failure = ask(&strange).await;
        assert!(matches!(&failure, Failure::Strange { .. }), "{failure:?}");
        assert!(
            !failure.may_pass() && !failure.to_string().contains("hush"),
            "{failure}"
        );
    }
    server.hang_up();
    let failure = door.token(Duration::ZERO, &clock).await.unwrap_err();
    assert!(matches!(&failure, Failure::NoAnswer { .. }), "{failure:?}");
    let nowhere = Door::new(&Address::Unix("/nowhere/at/all.sock".into())).unwrap();
    let failure = nowhere.token(Duration::ZERO, &clock).await.unwrap_err();
    assert!(
        matches!(&failure, Failure::Unreachable { .. }),
        "{failure:?}"
    );
    assert!(failure.may_pass());
}

#[tokio::test]
async fn a_report_names_its_generation_and_tells_the_outcome() {
    let mut server = Scripted::tcp().await;
    let door = server.door();
    for (said, expected) in [
        ("refreshing", Reported::Refreshing),
        ("stale_generation", Reported::StaleGeneration),
        ("too_young", Reported::TooYoung),
        (
            "paced",
            Reported::Paced {
                retry_after: Some(9),
            },
        ),
        ("not_a_refusal", Reported::NotARefusal),
        ("unheard_of", Reported::Other("unheard_of".into())),
    ] {
        let body = format!("{{\"outcome\":\"{said}\"}}");
        server.say(answer("202 Accepted", "Retry-After: 9\r\n", &body));
        let outcome = door.report(Generation(7), 500, Some("said \"no\"")).await;
        assert_eq!(outcome.unwrap(), expected);
        let request = server.request().await;
        let sent: serde_json::Value =
            serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let report = serde_json::json!({"generation": 7, "status": 500, "message": "said \"no\""});
        assert_eq!(sent, report);
    }
    server.say(problem("400 Bad Request", "bad_report"));
    let refused = door.report(Generation(7), 1, None).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused { status: 400, .. }));
}
