use super::*;

use std::pin::Pin;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::testing::calls::{Call, Caller};
use super::super::text;
use super::greeting::PREFACE;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const NO_FRAME: [u8; 9] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];

/// Answers with the path; under `/slow` once a permit is there.
#[derive(Clone)]
struct Echo {
    permits: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Calls for Echo {
    type Body = super::super::Body;
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Self::Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>, _: &Connection) -> Self::Answer {
        let echo = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if path == "/slow" {
                echo.waiting.add_permits(1);
                echo.permits.acquire().await.unwrap().forget();
            }
            Ok(text(StatusCode::OK, path))
        })
    }
}

struct House {
    echo: Echo,
    address: String,
    drain: CancellationToken,
    task: JoinSet<()>,
}

impl House {
    async fn open() -> Self {
        Self::with(Duration::from_secs(3600)).await
    }

    async fn with(keepalive: Duration) -> Self {
        let (mut house, listener) = Self::closed().await;
        let (echo, drain) = (house.echo.clone(), house.drain.clone());
        house.task.spawn(async move {
            serve_http2(listener, echo, &limits(keepalive), drain).await;
        });
        house
    }

    /// Callers can connect, and nobody accepts them yet.
    async fn closed() -> (Self, Listener) {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&address).await.unwrap();
        let house = Self {
            echo: Echo {
                permits: Arc::new(Semaphore::new(0)),
                waiting: Arc::new(Semaphore::new(0)),
            },
            address: listener.local_address().to_string(),
            drain: CancellationToken::new(),
            task: JoinSet::new(),
        };
        (house, listener)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    async fn caller(&self) -> Caller {
        Caller::over(self.connect().await).await
    }

    async fn slow(&self, caller: &Caller) -> Call {
        let call = caller.begin("/slow", &[], b"").await.unwrap();
        self.echo.waiting.acquire().await.unwrap().forget();
        call
    }

    async fn ended(mut self) {
        self.task.join_next().await.unwrap().unwrap();
    }
}

fn limits(keepalive: Duration) -> Limits {
    Limits {
        streams: 77,
        keepalive,
        patience: keepalive,
    }
}

async fn status(call: Call) -> Result<u16, h2::Error> {
    call.answered().await.map(|answer| answer.status)
}

/// The kind, the flags and the payload of the next frame; none at the end of the connection.
async fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

#[tokio::test]
async fn callers_are_told_how_many_calls_a_connection_may_have() {
    let house = House::open().await;
    let mut stream = house.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&NO_FRAME).await.unwrap();
    let (kind, _, payload) = frame(&mut stream).await.unwrap();
    assert_eq!(kind, SETTINGS);
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|it| {
            let id = u16::from_be_bytes([it[0], it[1]]);
            (id, u32::from_be_bytes([it[2], it[3], it[4], it[5]]))
        })
        .collect();
    assert!(settings.contains(&(3, 77)), "{settings:?}");
    assert!(settings.contains(&(4, STREAM_WINDOW)), "{settings:?}");
    assert!(settings.contains(&(6, HEAD_LIMIT)), "{settings:?}");
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_cut_off() {
    let house = House::with(Duration::from_millis(100)).await;
    let mut dead = house.connect().await;
    dead.write_all(PREFACE).await.unwrap();
    dead.write_all(&NO_FRAME).await.unwrap();
    let mut pinged = false;
    while let Some((kind, flags, _)) = frame(&mut dead).await {
        pinged |= kind == PING && flags == 0;
    }
    assert!(pinged, "it was cut off without a ping");
}

#[tokio::test]
async fn a_silent_peer_that_answers_pings_is_kept() {
    let house = House::with(Duration::from_millis(100)).await;
    let mut silent = house.connect().await;
    silent.write_all(PREFACE).await.unwrap();
    silent.write_all(&NO_FRAME).await.unwrap();
    let mut pings = 0;
    while pings < 5 {
        let (kind, flags, payload) = frame(&mut silent).await.expect("kept");
        if kind == PING && flags == 0 {
            pings += 1;
            let mut pong = vec![0, 0, 8, PING, 1, 0, 0, 0, 0];
            pong.extend_from_slice(&payload);
            silent.write_all(&pong).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_drain_sends_callers_elsewhere_and_lets_their_calls_end() {
    let house = House::open().await;
    let (busy, idle) = (house.caller().await, house.caller().await);
    assert_eq!(
        status(idle.begin("/a", &[], b"").await.unwrap())
            .await
            .unwrap(),
        200
    );
    let slow = house.slow(&busy).await;
    house.drain.cancel();
    idle.ended().await.unwrap();
    // Told to go, it can begin no call; until then one may be answered still.
    loop {
        let Ok(call) = busy.begin("/a", &[], b"").await else {
            break;
        };
        match status(call).await {
            Ok(status) => assert_eq!(status, 200),
            Err(error) => {
                assert!(
                    error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM),
                    "{error}"
                );
                break;
            }
        }
    }
    house.echo.permits.add_permits(1);
    assert_eq!(status(slow).await.unwrap(), 200);
    busy.ended().await.unwrap();
    house.ended().await;
}

#[tokio::test]
async fn a_connection_that_has_not_begun_to_speak_holds_no_drain_up() {
    for said in [&b""[..], b"PRI", &PREFACE[..23]] {
        let house = House::open().await;
        let mut silent = house.connect().await;
        silent.write_all(said).await.unwrap();
        // An answer on another connection: by then this one was accepted.
        let caller = house.caller().await;
        assert_eq!(
            status(caller.begin("/a", &[], b"").await.unwrap())
                .await
                .unwrap(),
            200
        );
        house.drain.cancel();
        caller.ended().await.unwrap();
        house.ended().await;
        let _ = silent.read(&mut [0; 64]).await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_hear_that_it_should_go_holds_no_drain_up() {
    let half_a_head = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
    for said in [
        &[PREFACE][..],
        &[PREFACE, &NO_FRAME],
        &[PREFACE, &NO_FRAME, &half_a_head],
    ] {
        let (mut house, listener) = House::closed().await;
        let patience = super::super::Patience {
            header: Duration::from_millis(200),
            ..super::super::Patience::default()
        };
        let listener = listener.within(super::super::Bounds {
            patience,
            ..super::super::Bounds::default()
        });
        let (echo, drain) = (house.echo.clone(), house.drain.clone());
        house.task.spawn(async move {
            serve_http2(listener, echo, &limits(Duration::from_secs(3600)), drain).await;
        });
        let mut deaf = house.connect().await;
        deaf.write_all(&said.concat()).await.unwrap();
        // It says no more, and reads no more than that it is being listened to.
        frame(&mut deaf).await.unwrap();
        house.drain.cancel();
        house.ended().await;
    }
}

#[tokio::test]
async fn another_protocol_is_answered_in_kind_and_closed() {
    let house = House::open().await;
    let rows: [(&[u8], &[u8]); 5] = [
        (
            b"GET /v1/token HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
        ),
        (b"POST / HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        (b"\x16\x03\x01\x02\x00\x01", &[21, 3, 3, 0, 2, 2, 70]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b""),
        (&[0xff; 30], b""),
    ];
    for (said, begins) in rows {
        let mut stream = house.connect().await;
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_closed = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(begins), "{said:?} {answer:?}");
        assert_eq!(answer.is_empty(), begins.is_empty(), "{said:?} {answer:?}");
    }
}

#[tokio::test]
async fn who_waited_to_be_accepted_before_the_drain_is_answered() {
    let (house, listener) = House::closed().await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let caller = house.caller().await;
        let call = caller.begin("/a", &[], b"").await.unwrap();
        calls.push((caller, call));
    }
    // Each caller's own task has sent what it has to.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    house.drain.cancel();
    let limits = limits(Duration::from_secs(3600));
    let serving = serve_http2(listener, house.echo.clone(), &limits, house.drain.clone());
    let answers = async {
        for (caller, call) in calls {
            assert_eq!(status(call).await.unwrap(), 200);
            caller.ended().await.unwrap();
        }
    };
    tokio::join!(serving, answers);
}

#[tokio::test]
async fn whoever_drops_the_loop_cuts_its_connections() {
    let mut house = House::open().await;
    let caller = house.caller().await;
    let slow = house.slow(&caller).await;
    house.task.shutdown().await;
    assert!(status(slow).await.is_err());
    let _cut = caller.ended().await;
}

#[tokio::test]
async fn a_cancelled_call_frees_what_waited_for_it() {
    let house = House::open().await;
    let caller = house.caller().await;
    let slow = house.slow(&caller).await;
    let held = Arc::strong_count(&house.echo.permits);
    drop(slow);
    super::super::testing::until(|| Arc::strong_count(&house.echo.permits) < held).await;
}
