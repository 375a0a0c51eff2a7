//! The plain calls: `GetToken` without a wait, by far the most frequent one, and `WatchToken`, which may be open ten thousand times.
//! What they are sent is framed once a second for all callers, and tonic would only copy it. Whatever is not exactly such a call goes on to
//! tonic, as it came.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response};
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;

use super::Room;
use super::door;
use super::message::framed;
use super::watch::Watch;
use crate::api::failure::Failure;
use crate::caller::Visitor;

/// The calls' paths.
const GET: &str = "/bearerd.v1.TokenService/GetToken";
const WATCH: &str = "/bearerd.v1.TokenService/WatchToken";

/// An empty message: not compressed, no bytes.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const OK: HeaderValue = HeaderValue::from_static("0");

/// What a body gave: a frame, an error, or its end.
type Taken = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A call's body, whose first frame may have been looked at.
pub(super) struct Peeked {
    first: Option<Taken>,
    rest: Incoming,
}

/// What a first look at a call finds.
pub(super) enum Look {
    /// It asks for the live token, now, and for nothing else.
    Get,
    /// It asks for the live token and all that follow.
    Watch,
    /// Anything else, and the frame that was taken for the look.
    Other(Option<Taken>),
}

/// Looks at a call that is let in. What has not arrived yet is not waited for: a call whose end is still under way takes the long way,
/// which reads to the end. If it were answered before, its end would meet a stream that is gone, and a connection is given up after a
/// thousand of those.
pub(super) fn look(request: &mut Request<Incoming>, cx: &mut Context<'_>) -> Look {
    let headers = request.headers();
    let found = match request.uri().path() {
        GET => Look::Get,
        WATCH => Look::Watch,
        _ => return Look::Other(None),
    };
    let plain = request.method() == Method::POST
        && headers.get(CONTENT_TYPE) == Some(&GRPC)
        && !headers.contains_key(&ENCODING)
        && door::deadline(headers).is_ok();
    if !plain {
        return Look::Other(None);
    }
    match Pin::new(request.body_mut()).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame)))
            if frame.data_ref().is_some_and(|it| it == EMPTY) && request.body().is_end_stream() =>
        {
            found
        }
        Poll::Ready(frame) => Look::Other(Some(frame)),
        Poll::Pending => Look::Other(None),
    }
}

impl Peeked {
    /// The request with the frame put back.
    pub(super) fn whole(request: Request<Incoming>, first: Option<Taken>) -> Request<Self> {
        request.map(|rest| Self { first, rest })
    }
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
    pub(super) fn given(&self, visitor: &Visitor) -> Response<Reply> {
        let now = self.clock.now();
        match self.vend.current(now) {
            Ok(live) => {
                self.vends.ok();
                visitor.vended(&live.token);
                answer(Reply::Token(Some(framed(&live, now))))
            }
            Err(why) => self.failed(why, now).into_http().map(Reply::Tonic),
        }
    }
}

/// The live token and all that follow.
pub(super) fn watched(watch: Watch) -> Response<Reply> {
    answer(Reply::Watch(Box::pin(watch)))
}

/// Why there is nothing for this caller.
pub(super) fn refused(failure: &Failure) -> Response<Reply> {
    failure.status().into_http().map(Reply::Tonic)
}

fn answer(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The body of an answer.
pub(super) enum Reply {
    /// A prepared frame, and then its trailers.
    Token(Option<Bytes>),
    /// A prepared frame for each token, and then why there are no more.
    Watch(Pin<Box<Watch>>),
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
            Self::Watch(watch) => watch.as_mut().poll_next(cx).map(|next| match next? {
                Ok(frame) => Some(Ok(Frame::data(frame))),
                Err(status) => {
                    let mut trailers = HeaderMap::new();
                    Some(
                        status
                            .add_header(&mut trailers)
                            .map(|()| Frame::trailers(trailers)),
                    )
                }
            }),
            Self::Ended => Poll::Ready(None),
            Self::Tonic(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Token(_) | Self::Watch(_) => false,
            Self::Ended => true,
            Self::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Token(_) | Self::Watch(_) | Self::Ended => SizeHint::default(),
            Self::Tonic(body) => body.size_hint(),
        }
    }
}
