//! Answers callers that speak another protocol than the listener, in that protocol, and names the
//! right port.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Listener;
use super::metrics::{Counts, Reason};
use super::problem::Problem;

/// How a client of HTTP/2 begins.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// With so many bytes [`Foreign::of`] knows all that it can.
pub(super) const MAX_FIRST: usize = HTTP2.len();

/// How long, and how much, is read after the answer: closing a socket with unread bytes resets the
/// connection, and the reset may overtake the answer.
const MAX_LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 64 * 1024;

/// A fatal alert, `protocol_version`: clients of TLS say its name.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];

/// The error codes of RFC 9113, section 7.
const INADEQUATE_SECURITY: u32 = 0xc;
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// A protocol that is not the listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    Http1,
    Http2,
    Tls,
}

impl Foreign {
    /// By the first bytes that were read. None if they are too few, or of none of these.
    pub(super) fn of(first: &[u8]) -> Option<Self> {
        match first {
            // A handshake record; its version is 3.x for all of TLS.
            [22] | [22, 3, ..] => Some(Self::Tls),
            _ if first.starts_with(HTTP2) => Some(Self::Http2),
            _ if HTTP2.starts_with(first) => None,
            [b'A'..=b'Z', ..] => Some(Self::Http1),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Tls => "TLS",
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Native {
    Http1,
    Http2,
    Tls,
}

impl Native {
    fn describe(self) -> &'static str {
        match self {
            Self::Http1 => "this port speaks HTTP/1.1",
            Self::Http2 => "this port speaks gRPC (HTTP/2 with prior knowledge)",
            Self::Tls => "this port speaks TLS: use https, or credentials for TLS",
        }
    }
}

impl Listener {
    /// Tells callers that speak another protocol where that is spoken, by this sentence.
    #[must_use]
    pub fn naming(mut self, elsewhere: &str) -> Self {
        self.elsewhere = Some(elsewhere.into());
        self
    }
}

/// What a listener tells callers that speak another protocol.
#[derive(Clone, Debug)]
pub(super) struct Misdirected {
    native: Native,
    /// Where the other protocol is spoken, as a sentence.
    elsewhere: Option<Arc<str>>,
    counts: Counts,
}

impl Misdirected {
    pub(super) fn new(native: Native, elsewhere: Option<Arc<str>>, counts: Counts) -> Self {
        Self {
            native,
            elsewhere,
            counts,
        }
    }

    /// Answers, counts, and closes the connection within [`MAX_LINGER`].
    pub(super) async fn answer<S>(&self, mut socket: S, foreign: Foreign)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.counts.closed(Reason::WrongProtocol);
        let (spoken, answer) = (foreign.as_str(), self.bytes(foreign));
        tracing::debug!(
            spoken,
            "a caller speaks another protocol than this listener"
        );
        let told = async {
            socket.write_all(&answer).await?;
            socket.shutdown().await?;
            let mut rest = (&mut socket).take(MAX_LINGER_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // A failed write means that the caller has gone.
        let _ = timeout(MAX_LINGER, told).await;
    }

    fn bytes(&self, foreign: Foreign) -> Vec<u8> {
        match foreign {
            Foreign::Http1 => self.bad_request(),
            Foreign::Http2 => self.goaway(),
            Foreign::Tls => ALERT.into(),
        }
    }

    fn detail(&self) -> String {
        match &self.elsewhere {
            None => self.native.describe().to_owned(),
            Some(elsewhere) => format!("{}; {elsewhere}", self.native.describe()),
        }
    }

    fn bad_request(&self) -> Vec<u8> {
        let problem = Problem {
            status: StatusCode::BAD_REQUEST,
            word: "wrong_protocol",
            title: "Another protocol is spoken here",
            detail: self.detail().into(),
            retry_after: None,
            allow: None,
        };
        let body = problem.body();
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }

    /// The server's preface, which are empty settings, and the goodbye. Clients show its text.
    fn goaway(&self) -> Vec<u8> {
        let code = match self.native {
            Native::Tls => INADEQUATE_SECURITY,
            Native::Http1 | Native::Http2 => HTTP_1_1_REQUIRED,
        };
        let text = self.detail();
        let length = u32::try_from(text.len() + 8).expect("the text is short");
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut frames = Vec::from(settings);
        frames.extend_from_slice(&length.to_be_bytes()[1..]);
        frames.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
        // No stream was looked at.
        frames.extend_from_slice(&0_u32.to_be_bytes());
        frames.extend_from_slice(&code.to_be_bytes());
        frames.extend_from_slice(text.as_bytes());
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_known_by_its_first_bytes() {
        let table: [(&[u8], Option<Foreign>); 11] = [
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Foreign::Http2)),
            (b"PRI * HTTP/1.1\r\n", Some(Foreign::Http1)),
            (b"POST / HTTP/1.1", Some(Foreign::Http1)),
            (b"GET /", Some(Foreign::Http1)),
            (&[22, 3, 1, 2, 0, 1], Some(Foreign::Tls)),
            (&[22, 4], None),
            (&[0xff; 9], None),
            (b"get /", None),
        ];
        for (first, expected) in table {
            assert_eq!(Foreign::of(first), expected, "{first:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_whole_though_the_caller_goes_on_writing() {
        let here = Misdirected::new(Native::Http2, None, Counts::default());
        let (server, mut client) = tokio::io::duplex(64 << 10);
        client.write_all(&[b'x'; 4096]).await.unwrap();
        let mut answer = Vec::new();
        let reads = async {
            client.read_to_end(&mut answer).await.unwrap();
            drop(client);
        };
        tokio::join!(here.answer(server, Foreign::Http1), reads);
        assert_eq!(answer, here.bytes(Foreign::Http1));
    }
}
