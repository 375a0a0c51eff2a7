//! An answer: there at once, or later.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::patience::Pulse;
use super::serve::Closing;

/// Every answer is one piece.
pub type Body = Full<Bytes>;

/// What a service gives for a request. What is there at once costs no allocation.
pub enum Answer {
    /// It is there.
    Now(Response<Body>),
    /// Somebody has to wait for it, or for the request's body. Dropping it cancels nothing for others.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    /// A long poll: the request has no body. The token is cancelled once the caller has shut its
    /// writing half or its connection; the answer should then follow at once.
    Wait(
        Pin<Box<dyn Future<Output = Response<Body>> + Send>>,
        CancellationToken,
    ),
}

impl Answer {
    /// An answer that its caller waits for until `hung_up` is cancelled.
    pub fn wait(
        hung_up: CancellationToken,
        answer: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Self {
        Self::Wait(Box::pin(answer), hung_up)
    }

    /// An answer that takes its time.
    pub fn later(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self::Now(response)
    }
}

/// An answer of plain text that nobody keeps.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer on its way through hyper. Once the drain has begun it says that the connection ends with it.
pub(super) enum Answering {
    Now(Option<Response<Body>>),
    Later(
        Pin<Box<dyn Future<Output = Response<Body>> + Send>>,
        CancellationToken,
        Arc<Pulse>,
        Option<CancellationToken>,
    ),
}

impl Answering {
    pub(super) fn new(
        answer: Answer,
        closing: &Closing,
        drain: &CancellationToken,
        pulse: &Arc<Pulse>,
    ) -> Self {
        match answer {
            Answer::Now(mut response) => {
                pulse.idle();
                if closing.has_begun() {
                    say_close(&mut response);
                }
                Self::Now(Some(response))
            }
            Answer::Later(answer) => {
                pulse.answering();
                Self::Later(answer, drain.clone(), Arc::clone(pulse), None)
            }
            Answer::Wait(answer, hung_up) => {
                pulse.waiting();
                Self::Later(answer, drain.clone(), Arc::clone(pulse), Some(hung_up))
            }
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => {
                Poll::Ready(Ok(response.take().expect("an answer is taken once")))
            }
            Self::Later(answer, drain, pulse, hung_up) => {
                if let Some(hung_up) = hung_up
                    && pulse.has_hung_up()
                {
                    hung_up.cancel();
                }
                answer.as_mut().poll(cx).map(|mut response| {
                    pulse.idle();
                    if drain.is_cancelled() {
                        say_close(&mut response);
                    }
                    Ok(response)
                })
            }
        }
    }
}

fn say_close(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}
