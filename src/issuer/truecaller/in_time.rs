//! The body of the one POST, which is given out only while the request may still be sent.
//!
//! The client asks for it when the connection stands and the request's head is ready to be written with it, so this is the last
//! look at the clock before the first byte leaves. The machine may have slept while it looked up the name, connected or agreed on
//! keys, and the runtime's timers sleep with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::clock::Clock;

/// The body, until it is taken.
pub(super) struct InTime {
    pub(super) bytes: Option<Bytes>,
    pub(super) clock: Arc<dyn Clock>,
    /// The boot time after which it is withheld, and the request's head with it.
    pub(super) until: Duration,
}

/// The request was withheld: no byte of it has left.
#[derive(Debug, thiserror::Error)]
#[error("the machine stood still for too long after its reservation")]
pub(super) struct TooLate;

impl Body for InTime {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let late = self.clock.now().boot > self.until;
        let frame = self.bytes.take().map(|bytes| match late {
            true => Err(TooLate),
            false => Ok(Frame::data(bytes)),
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// True if an error of the client comes from a withheld request.
pub(super) fn was_withheld(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(<dyn std::error::Error>::is::<TooLate>)
}
