//! A caller over HTTP/2 that hides nothing: the head of an answer, each message of it, and how it ended.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

/// Longer than any answer takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
pub(crate) struct Caller {
    send: SendRequest<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

/// A call that is under way. Dropping it cancels it.
pub(crate) struct Call {
    pub(crate) answer: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

/// An answer whose head is there.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
    body: RecvStream,
    read: BytesMut,
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

impl Caller {
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::with(&Builder::new(), io).await
    }

    /// A caller whose answers may have so many bytes on their way.
    pub(crate) async fn narrow(
        window: u32,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        Self::with(Builder::new().initial_window_size(window), io).await
    }

    async fn with(
        builder: &Builder,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (send, driver) = builder.handshake(io).await.unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(driver);
        Self { send, connection }
    }

    /// Begins a call without a message yet. Further headers replace the usual ones of the same name.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Call, h2::Error> {
        let mut method = "POST";
        let mut authority = "localhost";
        let mut rest = Vec::new();
        for (name, value) in headers {
            match *name {
                ":method" => method = value,
                ":authority" => authority = value,
                _ => rest.push((*name, *value)),
            }
        }
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{authority}{path}"));
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            if rest.iter().all(|(it, _)| *it != name) {
                rest.push((name, value));
            }
        }
        for (name, value) in rest.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let mut send = self.send.clone().ready().await?;
        let (answer, body) = send.send_request(request.body(()).unwrap(), false)?;
        Ok(Call { answer, body })
    }

    /// Begins a call with its whole message.
    pub(crate) async fn begin(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> Result<Call, h2::Error> {
        let mut call = self.open(path, headers).await?;
        match call.body.send_data(framed(message), true) {
            // It was answered before its message was sent: what the answer says is what counts.
            Err(error) if error.to_string().contains("inactive stream") => Ok(call),
            Err(error) => Err(error),
            Ok(()) => Ok(call),
        }
    }

    /// A call to its end: the messages, and the status.
    pub(crate) async fn ask(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> (Vec<Bytes>, Status) {
        let call = self.begin(path, headers, message).await.unwrap();
        call.answered().await.unwrap().all().await
    }

    /// Waits until the peer has closed the connection.
    pub(crate) async fn ended(mut self) -> Result<(), h2::Error> {
        drop(self.send);
        self.connection.join_next().await.unwrap().unwrap()
    }
}

impl Call {
    /// Waits for the head of the answer.
    pub(crate) async fn answered(self) -> Result<Answer, h2::Error> {
        Self::read(self.answer).await
    }

    /// The same, while the call's own half stays open.
    pub(crate) async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
        let answer = timeout(PATIENCE, answer).await.expect("an answer");
        let (head, body) = answer?.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: None,
            body,
            read: BytesMut::new(),
        })
    }
}

impl Answer {
    /// The next message; none once the answer has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            if let Some(length) = self.read.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.read.len() >= 5 + length {
                    assert_eq!(self.read[0], 0, "a compressed message");
                    self.read.advance(5);
                    return Ok(Some(self.read.split_to(length).freeze()));
                }
            }
            let data = timeout(PATIENCE, self.body.data()).await;
            let Some(data) = data.expect("a message, or the end") else {
                assert!(self.read.is_empty(), "half a message");
                self.trailers = self.body.trailers().await?;
                return Ok(None);
            };
            let data = data?;
            // A stream that has ended meanwhile wants no capacity.
            let _ended = self.body.flow_control().release_capacity(data.len());
            self.read.extend_from_slice(&data);
        }
    }

    /// All that is left, to the end.
    pub(crate) async fn all(mut self) -> (Vec<Bytes>, Status) {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await.unwrap() {
            messages.push(message);
        }
        (messages, self.end())
    }

    /// A body that is no gRPC.
    pub(crate) async fn text(&mut self) -> String {
        let mut text = Vec::new();
        while let Some(data) = self.body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    /// The status of an answer that was read to its end.
    pub(crate) fn end(&self) -> Status {
        let told = self.trailers.as_ref().unwrap_or(&self.headers);
        Status::from_header_map(told).expect("a status")
    }
}
