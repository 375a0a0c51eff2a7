//! A front between the daemon and the sandbox, which passes on what comes or behaves as badly as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is passed on to the sandbox, and its answer back.
    Pass,
    /// The connection is accepted and closed at once.
    Slam,
    /// The connection is accepted and nothing more: no answer ever.
    Silence,
    /// A byte of the answer each second.
    Drip,
    /// The connection is reset in the middle of the answer's head.
    ResetInHead,
    /// The connection is reset in the middle of the answer's body.
    ResetInBody,
    /// A body of a gigabyte, with its length told.
    Gigabyte,
    /// A body without an end, in chunks.
    Endless,
    /// A gigabyte of headers.
    Headers,
}

/// One connection, as the front saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub manner: Manner,
    pub opened: Instant,
    /// How long it was open; `None` while it is.
    pub open_for: Option<Duration>,
    /// How often a request began on it.
    pub posts: usize,
    /// The request's head.
    pub head: String,
    /// Bytes that the system took of the answer.
    pub sent: u64,
}

/// The front.
pub struct Front {
    pub url: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    sandbox: SocketAddr,
    manner: Mutex<Manner>,
    seen: Mutex<Vec<Seen>>,
}

impl Front {
    pub async fn start(sandbox: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            sandbox: sandbox.trim_start_matches("http://").parse().unwrap(),
            manner: Mutex::new(Manner::Pass),
            seen: Mutex::default(),
        });
        let mut task = JoinSet::new();
        let accepting = Arc::clone(&shared);
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(Arc::clone(&accepting).attend(stream));
            }
        });
        Self {
            url,
            shared,
            _task: task,
        }
    }

    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The most connections that any closed window of this width has held. Each is an attempt.
    pub fn worst_window(&self, window: Duration) -> usize {
        let at: Vec<Instant> = self.seen().iter().map(|seen| seen.opened).collect();
        let within = |from: &Instant| {
            let inside = at
                .iter()
                .filter(|it| **it >= *from && **it - *from <= window);
            inside.count()
        };
        at.iter().map(within).max().unwrap_or(0)
    }
}

impl Shared {
    async fn attend(self: Arc<Self>, mut stream: TcpStream) {
        let manner = *self.manner.lock().unwrap();
        let opened = Instant::now();
        let index = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(Seen {
                manner,
                opened,
                open_for: None,
                posts: 0,
                head: String::new(),
                sent: 0,
            });
            seen.len() - 1
        };
        if manner != Manner::Slam {
            let request = whole_request(&mut stream).await;
            self.note(index, |seen| {
                let text = String::from_utf8_lossy(&request);
                seen.posts = text.matches("POST /").count();
                seen.head = text.split("\r\n\r\n").next().unwrap().to_owned();
            });
            let answered = self.answer(manner, &mut stream, &request, index).await;
            // That the other side hung up is how most of these end.
            let _hung_up = answered;
        }
        self.note(index, |seen| seen.open_for = Some(opened.elapsed()));
    }

    fn note(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap()[index]);
    }

    async fn answer(
        &self,
        manner: Manner,
        stream: &mut TcpStream,
        request: &[u8],
        index: usize,
    ) -> std::io::Result<()> {
        const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        match manner {
            Manner::Slam => {}
            Manner::Pass => {
                let mut sandbox = TcpStream::connect(self.sandbox).await?;
                sandbox.write_all(request).await?;
                copy_bidirectional(stream, &mut sandbox).await?;
            }
            Manner::Silence => {
                let mut more = Vec::new();
                stream.read_to_end(&mut more).await?;
                // Whatever came behind the request.
                let again = String::from_utf8_lossy(&more).matches("POST /").count();
                self.note(index, |seen| seen.posts += again);
            }
            Manner::Drip => {
                for byte in OK.as_bytes() {
                    stream.write_all(&[*byte]).await?;
                    self.note(index, |seen| seen.sent += 1);
                    let hung_up = timeout(Duration::from_secs(1), stream.read_u8()).await;
                    if hung_up.is_ok() {
                        break;
                    }
                }
            }
            Manner::ResetInHead => {
                stream.write_all(&OK.as_bytes()[..20]).await?;
                stream.set_zero_linger()?;
            }
            Manner::ResetInBody => {
                let half = format!("{OK}Content-Length: 200\r\n\r\n{{\"token\":\"");
                stream.write_all(half.as_bytes()).await?;
                stream.set_zero_linger()?;
            }
            Manner::Gigabyte => {
                let head = format!("{OK}Content-Length: {}\r\n\r\n", 1 << 30);
                self.flood(stream, &head, &[b' '; 65_536], index).await?;
            }
            Manner::Endless => {
                let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n");
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536));
                self.flood(stream, &head, chunk.as_bytes(), index).await?;
            }
            Manner::Headers => {
                let header = format!("X-More: {}\r\n", "a".repeat(1_000));
                let headers = header.repeat(64);
                self.flood(stream, OK, headers.as_bytes(), index).await?;
            }
        }
        Ok(())
    }

    /// Sends the same again and again, up to a gigabyte, for as long as the other side takes it.
    async fn flood(
        &self,
        stream: &mut TcpStream,
        head: &str,
        piece: &[u8],
        index: usize,
    ) -> std::io::Result<()> {
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..(1 << 30) / piece.len() {
            stream.write_all(piece).await?;
            self.note(index, |seen| seen.sent += piece.len() as u64);
        }
        Ok(())
    }
}

/// Reads a request to the end of its body, or what there is of it.
pub async fn whole_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().unwrap())
            });
            if length.is_some_and(|length| body.len() >= length) {
                return request;
            }
        }
        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return request;
        }
    }
}
