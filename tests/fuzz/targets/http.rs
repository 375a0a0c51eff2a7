//! The HTTP request path: two bytes choose how things stand, the rest is what a caller sends on one connection.
//!
//! Every answer is well formed and kept by nobody; the token is in it only if the rules of the door were followed; a refusal is a
//! problem with a known type. Time is paused, so that long polls end at once.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::listener::{Answer, Connection, Owner, Peer, Service};
use bearerd::vend::ReportOutcome;
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::reply::{Asked, Reply, is_right};
use super::room::{self, Room};

/// The caller hangs up this long after its last byte: when the longest polls of a whole connection are over.
const HANGS_UP: Duration = Duration::from_secs(24 * 3600);

/// One end of a connection in memory.
struct Wire {
    sent: Vec<u8>,
    at: usize,
    piece: usize,
    hangs_up: Option<Pin<Box<Sleep>>>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.sent[self.at..];
        if left.is_empty() {
            let hangs_up = self
                .hangs_up
                .get_or_insert_with(|| Box::pin(sleep(HANGS_UP)));
            return hangs_up.as_mut().poll(cx).map(Ok);
        }
        let length = left.len().min(self.piece).min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.received.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How things stand, as the first two bytes choose.
pub(super) struct Story {
    pub(super) peer: Peer,
    /// The token of generation 5: when it ends, if there is one, and whether it is suspect.
    pub(super) token: Option<Duration>,
    suspect: bool,
    /// Another token comes after ten seconds.
    successor: bool,
    /// The drain begins after this.
    pub(super) drain: Option<Duration>,
    piece: usize,
}

impl Story {
    fn new(first: u8, second: u8) -> Self {
        let seconds = [None, Some(0), Some(30), Some(86_400 * 365)][usize::from(first & 3)];
        Self {
            peer: [
                Peer::Loopback(SocketAddr::from(([127, 0, 0, 1], 49_152))),
                Peer::Unix(Owner {
                    uid: 1000,
                    gid: 1000,
                }),
                Peer::Other(SocketAddr::from(([10, 0, 0, 1], 49_152))),
                Peer::Loopback(SocketAddr::from(([127, 0, 0, 1], 49_152))),
            ][usize::from(first >> 2 & 3)],
            token: seconds.map(Duration::from_secs),
            suspect: first & 16 != 0,
            successor: first & 32 != 0,
            drain: [None, Some(0), Some(5), None][usize::from(second & 3)].map(Duration::from_secs),
            piece: [usize::MAX, 1, 3, 64][usize::from(second >> 2 & 3)],
        }
    }
}

pub fn http(data: &[u8]) {
    let [first, second, sent @ ..] = data else {
        return;
    };
    let story = Story::new(*first, *second);
    let (asked, received) = room::run(told(&story, sent));
    let mut rest = &received[..];
    for asked in &asked {
        // A connection may break in the middle of a request's body; then nothing more comes.
        if rest.is_empty() {
            break;
        }
        let reply = Reply::read(&mut rest, asked.method == Method::HEAD);
        is_right(&story, asked, &reply);
    }
    if !rest.is_empty() {
        // What is no request is answered by the protocol itself, and ends the connection.
        let reply = Reply::read(&mut rest, false);
        assert!(
            [400, 414, 431].contains(&reply.status) && reply.body.is_empty(),
            "{}",
            reply.head
        );
        assert!(reply.header("connection") == Some("close") || reply.head.starts_with("HTTP/1.0"));
    }
    assert!(rest.is_empty(), "nothing follows the last answer");
}

/// Serves what was sent, and gives the requests that reached the room and all bytes that came back.
async fn told(story: &Story, sent: &[u8]) -> (Vec<Asked>, Vec<u8>) {
    let Room {
        vend,
        api,
        clock,
        commands,
    } = Room::open();
    if let Some(ends) = story.token {
        vend.publish(room::live(5, ends, story.suspect));
    }
    let asked = Mutex::new(Vec::new());
    let received = Arc::new(Mutex::new(Vec::new()));
    let wire = Wire {
        sent: sent.to_vec(),
        at: 0,
        piece: story.piece,
        hangs_up: None,
        received: Arc::clone(&received),
    };
    let connection = Connection {
        peer: story.peer,
        names: None,
        drain: CancellationToken::new(),
    };
    let answer = async |request: Request<Incoming>| {
        let (method, uri, version) = (
            request.method().clone(),
            request.uri().clone(),
            request.version(),
        );
        let headers = request.headers().clone();
        let response = match api.on(&connection).answer(request, &connection) {
            Answer::Now(response) => response,
            Answer::Later(later) | Answer::Wait(later, _) => later.await,
        };
        let now = clock.now();
        let live = vend.current(now).ok();
        let live = live.map(|it| {
            (
                it.etag.to_str().unwrap().to_owned(),
                it.token.expires_at.left(now).as_secs(),
            )
        });
        asked.lock().unwrap().push(Asked {
            method,
            uri,
            version,
            headers,
            live,
        });
        Ok::<_, Infallible>(response)
    };
    // As the listener serves it.
    let mut builder = http1::Builder::new();
    builder
        .writev(false)
        .half_close(true)
        .max_buf_size(16 * 1024);
    let connection_ends = builder.serve_connection(wire, service_fn(answer));
    let others = async {
        if let Some(drain) = story.drain {
            sleep(drain).await;
            connection.drain.cancel();
        }
        if story.successor {
            sleep(Duration::from_secs(10)).await;
            vend.publish(room::live(6, Duration::from_secs(86_400 * 365), false));
        }
        std::future::pending::<()>().await;
    };
    if story.drain == Some(Duration::ZERO) {
        connection.drain.cancel();
    }
    tokio::select! {
        _ = pin!(connection_ends) => {}
        () = others => unreachable!(),
        () = room::keep(commands, ReportOutcome::Refreshing, |_| {}) => unreachable!(),
    }
    let received = std::mem::take(&mut *received.lock().unwrap());
    (asked.into_inner().unwrap(), received)
}
