//! HTTP/2 written by hand, frame by frame: also what no library would write.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::harness::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const GET: &str = "/bearerd.v1.TokenService/GetToken";
pub const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";

/// The codes of a GOAWAY.
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header that is not put into the table.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(text.len(), &mut bytes);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits.
fn length(mut value: usize, bytes: &mut Vec<u8>) {
    if value < 127 {
        return bytes.push(u8::try_from(value).unwrap());
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap());
}

/// The headers of a call.
pub fn call(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers
        .iter()
        .flat_map(|(name, value)| header(name, value))
        .collect()
}

/// A call with its whole, empty message.
pub fn whole_call(stream: u32, path: &str) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(path));
    bytes.extend(frame(DATA, END_STREAM, stream, &[0; 5]));
    bytes
}

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Reader {
    half: OwnedReadHalf,
}

impl Reader {
    /// The next frame; none once the connection has ended, however it did.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.half.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.half.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// Reads until a frame is as it should be; none if the connection ends before.
    pub async fn until(&mut self, mut is_so: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let found = async {
            loop {
                let frame = self.next().await?;
                if is_so(&frame) {
                    return Some(frame);
                }
            }
        };
        timeout(PATIENCE, found)
            .await
            .expect("the frame, or the end")
    }

    /// Waits until the other end has closed; says with which code it said goodbye, if it did.
    pub async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        let ended = self.until(|frame| {
            if frame.kind == GOAWAY {
                code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
            false
        });
        ended.await;
        code
    }
}

impl Raw {
    /// The socket alone; what was read of it is gone.
    pub fn into_stream(self) -> TcpStream {
        self.reader.half.reunite(self.writer).unwrap()
    }
}

/// One connection, after the preface and both sides' settings.
pub struct Raw {
    pub reader: Reader,
    pub writer: OwnedWriteHalf,
}

impl Raw {
    pub async fn connect(address: &str) -> Self {
        Self::with(address, &[]).await
    }

    /// With settings of its own.
    pub async fn with(address: &str, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (half, writer) = stream.into_split();
        let reader = Reader { half };
        let mut raw = Self { reader, writer };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| {
                let value = value.to_be_bytes();
                name.to_be_bytes().into_iter().chain(value)
            })
            .collect();
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &payload));
        hello.extend(frame(SETTINGS, ACK, 0, &[]));
        raw.send(&hello).await.unwrap();
        let acknowledged = |it: &Frame| it.kind == SETTINGS && it.flags == ACK;
        raw.reader
            .until(acknowledged)
            .await
            .expect("an acknowledgement");
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Writes again and again, and reads all that comes: the code of the goodbye if the connection has ended over it; none if it lives
    /// and has answered a ping behind all of it.
    pub async fn flood(mut self, bytes: &[u8], times: usize) -> Ended {
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let writing = async {
            for _ in 0..times {
                if writer.write_all(bytes).await.is_err() {
                    return;
                }
            }
            let _ended_already = writer.write_all(&frame(PING, 0, 0, b"are you?")).await;
        };
        let mut code = None;
        let is_answered = |it: &Frame| {
            if it.kind == GOAWAY {
                code = Some(u32::from_be_bytes(it.payload[4..8].try_into().unwrap()));
            }
            it.kind == PING && it.flags == ACK && it.payload == b"are you?"
        };
        let reading = reader.until(is_answered);
        let ((), answered) = tokio::join!(writing, reading);
        match answered {
            Some(_) => Ended::Never,
            None => code.map_or(Ended::Cut, Ended::With),
        }
    }
}

/// How a connection took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It goes on.
    Never,
    /// Without a goodbye, or with one that a reset has overtaken.
    Cut,
    /// With this code.
    With(u32),
}
