//! A connection on which anything can be written.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// A request as a good caller writes it.
pub fn good(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Bearerd-Request: true\r\n{more}\r\n")
}

pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub fn over(stream: TcpStream) -> Self {
        let read = Vec::new();
        Self { stream, read }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer's status; none if the connection has ended.
    pub async fn status(&mut self) -> Option<u16> {
        loop {
            if let Some((status, length)) = first(&self.read) {
                self.read.drain(..length);
                return Some(status);
            }
            if !matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// All that comes until the other end closes, however it does.
    pub async fn rest(&mut self) -> Vec<u8> {
        let ended = timeout(PATIENCE, async {
            while matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {}
        });
        ended.await.expect("the connection ends");
        std::mem::take(&mut self.read)
    }

    /// True if the other end has closed by then.
    pub async fn ended_within(&mut self, length: Duration) -> bool {
        let ended = timeout(length, async {
            while matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {}
        });
        ended.await.is_ok()
    }

    /// Lets the system reset the connection when it is dropped.
    pub fn reset_on_drop(&self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// Writes all of it and says what came back until the other end closed. What cannot be written any more is left.
pub async fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Wire::connect(address).await;
    let (mut reading, mut writing) = wire.stream.split();
    let mut read = Vec::new();
    let all = async {
        let written = async {
            let _the_other_end_has_heard_enough = writing.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = written => {}
            () = async { while matches!(reading.read_buf(&mut read).await, Ok(1..)) {} } => {}
        }
    };
    timeout(PATIENCE, all).await.expect("the connection ends");
    read
}

/// The statuses of all whole answers; what is none is 0.
pub fn statuses(mut answers: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while !answers.is_empty() {
        let Some((status, length)) = first(answers) else {
            found.push(0);
            break;
        };
        found.push(status);
        answers = &answers[length..];
    }
    found
}

/// The first answer's status and length, if it is whole.
fn first(answers: &[u8]) -> Option<(u16, usize)> {
    let end = answers.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answers[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is = name.eq_ignore_ascii_case("content-length");
        is.then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = end + length.unwrap_or(0);
    (answers.len() >= whole).then_some((status, whole))
}
