//! A watcher's stream: the token that is live, then each successor, until the drain.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::Room;
use super::message::{Vended, framed};
use crate::api::Watcher;
use crate::api::failure::Failure;
use crate::caller::Watching;
use crate::token::Generation;

/// Looks at the snapshot when it is asked for the next message, which is when the connection has room for one: a slow reader skips
/// what it was too slow for, and holds nothing back but itself.
pub(super) struct Watch {
    room: Arc<Room>,
    changes: WatchStream<Option<Generation>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    last: Option<(Generation, bool)>,
    ended: bool,
    _watcher: Watcher,
    watching: Watching,
}

impl Watch {
    pub(super) fn new(room: Arc<Room>, watching: Watching, drain: CancellationToken) -> Self {
        Self {
            changes: WatchStream::new(room.vend.watch()),
            drain: Box::pin(drain.cancelled_owned()),
            last: None,
            ended: false,
            _watcher: Watcher::new(&room.watchers),
            watching,
            room,
        }
    }

    /// The frame of the live token, if it was not sent yet, with the times of this moment.
    fn news(&mut self) -> Option<Bytes> {
        let now = self.room.clock.now();
        let live = self.room.vend.current(now).ok()?;
        let found = Some((live.token.generation, live.suspect));
        if found == self.last {
            return None;
        }
        self.last = found;
        self.room.vends.ok();
        self.watching.sent(&live.token);
        Some(framed(&live, now))
    }
}

/// The same as tonic takes it.
pub(super) struct Messages(pub(super) Watch);

impl Stream for Messages {
    type Item = Result<Vended, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.0).poll_next(cx);
        next.map(|next| next.map(|frame| frame.map(|frame| Vended::from_frame(&frame))))
    }
}

impl Stream for Watch {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            // Every change is taken before the look, so that none is missed after it.
            match Pin::new(&mut self.changes).poll_next(cx) {
                Poll::Ready(Some(_)) => {
                    if let Some(news) = self.news() {
                        return Poll::Ready(Some(Ok(news)));
                    }
                }
                Poll::Ready(None) => break,
                Poll::Pending => match self.drain.as_mut().poll(cx) {
                    Poll::Ready(()) => break,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        self.ended = true;
        self.watching.ended(Failure::Draining.word());
        Poll::Ready(Some(Err(self.room.draining())))
    }
}
