//! What the tests of all rooms behind a listener need: a clock that stands still, and clients that show all that comes back.

pub(crate) mod calls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{Address, Owner, Peer};
use crate::clock::{BootId, Clock, Stamp};

/// A caller of this machine.
pub(crate) const LOOPBACK: Peer =
    Peer::Loopback(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 49_152));

/// A caller through a Unix socket.
pub(crate) const UNIX: Peer = Peer::Unix(Owner {
    uid: 1000,
    gid: 1000,
});

/// So many seconds after the beginning of the tests' time.
pub(crate) fn at(second: u64) -> Stamp {
    let start = Stamp {
        wall: Timestamp::from_second(1_800_000_000).unwrap(),
        boot: Duration::from_secs(1_000),
    };
    start.plus(Duration::from_secs(second))
}

/// A clock that moves when it is told to.
pub(crate) struct HandClock(Mutex<Stamp>);

impl HandClock {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(at(0)))
    }

    pub(crate) fn set(&self, to: Stamp) {
        *self.0.lock().unwrap() = to;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Stamp {
        *self.0.lock().unwrap()
    }

    fn boot_id(&self) -> BootId {
        BootId::new("test")
    }
}

/// The value of one line of `/metrics`, 0 if it is not there.
pub(crate) fn metric(registry: &Registry, line: &str) -> f64 {
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    text.lines()
        .find_map(|it| it.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or(0.0)
}

/// Lets everybody else go on until it is so.
pub(crate) async fn until(so: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to be so");
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// One connection.
pub(crate) struct Client {
    stream: Pin<Box<dyn Stream>>,
    read: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The last word of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status);
        let kind = body["type"].as_str().unwrap();
        kind.strip_prefix("urn:bearerd:problem:").unwrap().into()
    }
}

/// A request as a good caller sends it.
pub(crate) fn request(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n{more}\r\n")
}

impl Client {
    pub(crate) async fn connect(address: &Address) -> Self {
        let stream: Pin<Box<dyn Stream>> = match address {
            Address::Tcp { host, port } => {
                Box::pin(TcpStream::connect((host.as_str(), *port)).await.unwrap())
            }
            Address::Unix(path) => Box::pin(UnixStream::connect(path).await.unwrap()),
        };
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends nothing more, and goes on reading.
    pub(crate) async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends a good caller's request without a body, and reads the answer.
    pub(crate) async fn ask(&mut self, line: &str, more: &str) -> Reply {
        self.send(&request(line, more)).await;
        if line.starts_with("HEAD ") {
            self.head().await
        } else {
            self.reply().await
        }
    }

    /// Sends a good caller's JSON, and reads the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Reply {
        let more = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let head = request(&format!("POST {path}"), &more);
        self.send(&format!("{head}{body}")).await;
        self.reply().await
    }

    /// The answer to a HEAD, which has no body.
    pub(crate) async fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|it| it == b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill().await, "the connection ended before the answer");
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        Reply {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::new(),
        }
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let length = reply
            .header("content-length")
            .map_or(0, |it| it.parse().unwrap());
        while self.read.len() < length {
            assert!(self.fill().await, "the connection ended within the answer");
        }
        let body = self.read.drain(..length).collect();
        reply.body = String::from_utf8(body).unwrap();
        reply
    }

    /// Waits for the end of the connection; nothing more may come before it.
    pub(crate) async fn ended(&mut self) {
        while self.fill().await {}
        assert_eq!(String::from_utf8_lossy(&self.read), "");
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
    }
}
