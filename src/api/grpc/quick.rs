//! The plain read: `GetToken` without a wait, by far the most frequent call. Its answer is one frame that was prepared for all
//! callers, and tonic would only copy it. Whatever is not exactly this call goes on to tonic, as it came.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response};
use tonic::Status;
use tonic::body::Body;

use super::door;
use super::message::framed;
use super::{Outcome, Room};

/// The call's path.
const PATH: &str = "/bearerd.v1.TokenService/GetToken";

/// An empty message: not compressed, no bytes.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A call's body, whose first frame may have been looked at.
pub(super) struct Peeked {
    first: Option<Option<Result<Frame<Bytes>, hyper::Error>>>,
    rest: Incoming,
}

/// A request on its way to whoever answers it.
pub(super) enum Asked {
    /// It asks for the live token, now, and for nothing else.
    Plainly,
    /// Anything else, which is still all there.
    Otherwise(Request<Peeked>),
}

/// Sorts a call that is let in. What has not arrived yet is not waited for.
pub(super) async fn sort(request: Request<Incoming>, let_in: bool) -> Asked {
    let plain = let_in
        && request.uri().path() == PATH
        && request.method() == Method::POST
        && request.headers().get(CONTENT_TYPE) == Some(&GRPC)
        && !request.headers().contains_key(&ENCODING)
        && door::deadline(request.headers()).is_ok();
    let (head, mut rest) = request.into_parts();
    let mut first = None;
    if plain {
        let look = poll_fn(|cx| Poll::Ready(Pin::new(&mut rest).poll_frame(cx)));
        first = match look.await {
            Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|it| it == EMPTY) => {
                return Asked::Plainly;
            }
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        };
    }
    Asked::Otherwise(Request::from_parts(head, Peeked { first, rest }))
}

impl http_body::Body for Peeked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.first.take() {
            Some(frame) => Poll::Ready(frame),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.first {
            Some(_) => SizeHint::default(),
            None => self.rest.size_hint(),
        }
    }
}

impl Room {
    /// The live token, or why there is none.
    pub(super) fn given(&self) -> Response<Reply> {
        let now = self.clock.now();
        match self.vend.current(now) {
            Ok(live) => {
                self.count(Outcome::Ok);
                let mut response = Response::new(Reply::Token(Some(framed(&live))));
                response.headers_mut().insert(CONTENT_TYPE, GRPC);
                response
            }
            Err(why) => self.failed(why, now).into_http().map(Reply::Tonic),
        }
    }
}

/// The body of an answer.
pub(super) enum Reply {
    /// A prepared frame, and then its trailers.
    Token(Option<Bytes>),
    /// Nothing comes any more.
    Ended,
    /// What tonic makes.
    Tonic(Body),
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Token(frame) => match frame.take() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
                None => {
                    *self = Self::Ended;
                    let trailers = HeaderMap::from_iter([(STATUS, OK)]);
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Self::Ended => Poll::Ready(None),
            Self::Tonic(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Token(_) => false,
            Self::Ended => true,
            Self::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Token(_) | Self::Ended => SizeHint::default(),
            Self::Tonic(body) => body.size_hint(),
        }
    }
}
