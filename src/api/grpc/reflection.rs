//! `grpc.reflection`, version 1 and the alpha that older clients ask for. Made at the first question: most never ask.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use hyper::{HeaderMap, Request, Response};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower_service::Service;

use super::LONGEST;
use super::quick::Peeked;
use crate::api::failure::Failure;
use crate::caller::Stream;

/// What `proto` says.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Answerer = Box<dyn Fn(Request<Peeked>) -> Answer + Send + Sync>;

/// Both versions, once they were asked for.
#[derive(Default)]
pub(super) struct Reflection {
    first: OnceLock<Answerer>,
    alpha: OnceLock<Answerer>,
}

impl Reflection {
    pub(super) fn first(&self, request: Request<Peeked>) -> Answer {
        let made = || {
            answerer(
                builder()
                    .build_v1()
                    .expect(SOUND)
                    .max_decoding_message_size(LONGEST),
            )
        };
        self.first.get_or_init(made)(request)
    }

    pub(super) fn alpha(&self, request: Request<Peeked>) -> Answer {
        let made = || {
            answerer(
                builder()
                    .build_v1alpha()
                    .expect(SOUND)
                    .max_decoding_message_size(LONGEST),
            )
        };
        self.alpha.get_or_init(made)(request)
    }
}

const SOUND: &str = "the compiler of the .proto files wrote the descriptors";

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // What statuses carry: grpcurl and buf show it if they can ask what it is.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

fn answerer<S>(service: S) -> Answerer
where
    S: Service<Request<Peeked>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}

/// A stream that its caller would keep open ends with the drain, and counts as one of the caller's until then.
pub(super) fn until(
    drain: &CancellationToken,
    open: Stream,
    response: Response<Body>,
) -> Response<Body> {
    response.map(|body| {
        Body::new(Ending {
            body,
            _open: open,
            drain: Some(Box::pin(drain.clone().cancelled_owned())),
        })
    })
}

struct Ending {
    body: Body,
    _open: Stream,
    /// None once the end was told.
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(drain) = &mut self.drain else {
            return Poll::Ready(None);
        };
        let drained = drain.as_mut().poll(cx).is_ready();
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if !drained {
            return Poll::Pending;
        }
        self.drain = None;
        let mut trailers = HeaderMap::new();
        let told = Failure::Draining.status().add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }
}
