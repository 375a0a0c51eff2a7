//! What holds for every call, whichever service answers it: what is no gRPC is told so over HTTP, a caller's deadline ends its call, a
//! message must arrive in time, and what tonic refuses by itself is told by the one table.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response};
use tokio::time::{Sleep, sleep, timeout};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::api::failure::Failure;

/// How long a call's message may take to arrive, once it has been waited for.
const PATIENCE: Duration = Duration::from_secs(5);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Lets a call in that the rules do not turn away, and sees to it that it ends as the table says.
pub(super) async fn pass<B, A>(
    request: Request<B>,
    judged: Result<(), Failure>,
    answer: impl FnOnce(Request<B>) -> A,
) -> Response<Body>
where
    A: Future<Output = Response<Body>>,
{
    if let Some(failure) = no_call(&request) {
        let failure = judged.err().unwrap_or(failure);
        return failure.response().map(Body::new);
    }
    if let Err(failure) = judged {
        return failure.status().into_http();
    }
    match deadline(request.headers()) {
        Ok(None) => told(answer(request).await),
        Ok(Some(length)) => match timeout(length, answer(request)).await {
            Ok(response) => told(response),
            Err(_) => Failure::Deadline.status().into_http(),
        },
        Err(failure) => failure.status().into_http(),
    }
}

/// Why a request is no gRPC call, if it is none.
fn no_call<B>(request: &Request<B>) -> Option<Failure> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let ours = kind.is_some_and(|kind| {
        let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii();
        kind.eq_ignore_ascii_case(b"application/grpc")
            || kind.eq_ignore_ascii_case(b"application/grpc+proto")
    });
    if !ours {
        return Some(Failure::NotGrpc);
    }
    (request.method() != Method::POST).then_some(Failure::WrongMethod { allow: "POST" })
}

/// How long the caller will wait for its answer, if it said so.
pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(written) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let length = length(written.as_bytes()).ok_or(Failure::BadMessage)?;
    Ok(Some(length))
}

/// At most eight digits and a unit.
fn length(written: &[u8]) -> Option<Duration> {
    let (unit, digits) = written.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The same answer, or the table's, if it is a refusal that tonic made by itself.
fn told(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key(GRPC_STATUS) || headers.contains_key(GRPC_DETAILS) {
        return response;
    }
    let failure = match Status::from_header_map(headers).map(|status| status.code()) {
        None | Some(Code::Ok) => return response,
        Some(Code::Unimplemented) if headers.contains_key(GRPC_ACCEPT_ENCODING) => {
            Failure::Compressed
        }
        Some(Code::Unimplemented) => Failure::UnknownCall,
        Some(Code::OutOfRange | Code::ResourceExhausted) => Failure::TooLong,
        Some(_) => Failure::BadMessage,
    };
    let accepted = response.headers_mut().remove(GRPC_ACCEPT_ENCODING);
    let mut response = failure.status().into_http();
    if let Some(accepted) = accepted {
        response
            .headers_mut()
            .insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    response
}

/// A call's message, which must arrive in time.
pub(super) struct Timely<B> {
    body: B,
    /// From when on it is too slow; none until it is waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Timely<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, late: None }
    }
}

impl<B> http_body::Body for Timely<B>
where
    B: http_body::Body<Error: Into<tonic::codegen::StdError>> + Unpin,
{
    type Data = B::Data;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        late.as_mut()
            .poll(cx)
            .map(|()| Some(Err(Failure::TooSlow.status().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use http_body_util::BodyExt;

    /// The beginning of a message, and nothing more.
    struct Half(Option<Bytes>);

    impl http_body::Body for Half {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.0.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_arrive_is_given_up() {
        let began = tokio::time::Instant::now();
        let mut body = Timely::new(Half(Some(Bytes::from_static(b"\0\0\0"))));
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "\0\0\0");
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(began.elapsed(), PATIENCE);
        let status = error.downcast::<Status>().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[test]
    fn a_length_is_as_the_protocol_writes_it() {
        for (written, nanoseconds) in [
            ("2H", 7_200_000_000_000),
            ("2M", 120_000_000_000),
            ("2S", 2_000_000_000),
            ("2m", 2_000_000),
            ("2u", 2_000),
            ("2n", 2),
            ("0m", 0),
            ("99999999H", 359_999_996_400_000_000_000),
        ] {
            let length = length(written.as_bytes()).unwrap();
            assert_eq!(length.as_nanos(), nanoseconds, "{written}");
        }
        for written in [
            "",
            "2",
            "H",
            "123456789m",
            "-1m",
            "+1m",
            "1.5S",
            "2 m",
            "2h",
            "2mm",
            "2\u{b5}",
        ] {
            assert_eq!(length(written.as_bytes()), None, "{written}");
        }
    }
}
