//! A call that counts as open until its answer has gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use hyper::Response;

use crate::listener::patience::Open;

/// An answer on its way, and then its body.
pub(super) struct Kept<T> {
    inner: T,
    open: Option<Open>,
}

impl<T> Kept<T> {
    pub(super) fn new(inner: T, open: Open) -> Self {
        let open = Some(open);
        Self { inner, open }
    }
}

impl<B, F> Future for Kept<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<Kept<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let it = self.get_mut();
        Pin::new(&mut it.inner).poll(cx).map_ok(|response| {
            let open = it.open.take();
            response.map(|inner| Kept { inner, open })
        })
    }
}

impl<B: Body + Unpin> Body for Kept<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
