//! How long a connection may take for what: its pulse says what it is doing, and whoever sweeps through all of them finds the overdue.
//!
//! A pulse is stored to and never timed: it changes when something begins, and a sweep that finds it unchanged knows that so much time
//! has gone by since the last one. So a request costs two stores, and no clock and no timer. Nobody is ended early, for ages are counted
//! in whole sweeps since the first that saw it so; and a process that was stopped for a while does not take that time for its callers'.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::metrics::Counted;
use super::misdirected::Foreign;
use super::peers::Place;

/// How long a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From its beginning, and later from a head's first byte, until the head is whole; over HTTP/2 until the preface is. A handshake
    /// before it counts, too.
    pub header: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Without taking a byte of what is to be written.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            write: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// How long it may do that; for ever if it is being answered.
    pub(super) fn with(&self, doing: Doing) -> Duration {
        match doing {
            Doing::First | Doing::Head => self.header,
            Doing::Idle => self.idle,
            Doing::Writing => self.write,
            Doing::Answering => Duration::MAX,
        }
    }

    /// The time between two sweeps: a quarter of the shortest, so that nobody stays a half longer than meant, and a second at most.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.header.min(self.idle).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It has not asked for anything yet.
    First,
    /// A head after the first has begun and is not whole.
    Head,
    /// A request is being answered.
    Answering,
    /// Nothing is asked.
    Idle,
    /// The other end does not take what is written.
    Writing,
}

/// Stands in the low bits of a beat; above them is how often something began.
const FIRST: u32 = 0;
const HEAD: u32 = 1;
const ANSWERING: u32 = 2;
const IDLE: u32 = 3;
const WAITING: u32 = 4;
const PHASE: u32 = 7;
const ONE: u32 = PHASE + 1;

/// One connection's. Its own task stores, and the sweep looks.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    beat: AtomicU32,
    /// HTTP/2's calls that are open.
    open: AtomicU32,
    stalled: AtomicBool,
    told: AtomicBool,
    hung_up: AtomicBool,
    /// Of the connection's task, which keeps the same one.
    waker: OnceLock<Waker>,
}

impl Pulse {
    fn begin(&self, phase: u32) {
        let beat = self.beat.load(Relaxed) & !PHASE;
        self.beat.store(beat.wrapping_add(ONE) | phase, Relaxed);
    }

    /// A head has begun.
    pub(super) fn head(&self) {
        self.begin(HEAD);
    }

    /// A request is being answered.
    pub(super) fn answering(&self) {
        self.begin(ANSWERING);
    }

    /// The caller waits for its answer: whether it still does is looked for.
    pub(super) fn waiting(&self) {
        self.begin(WAITING);
    }

    /// True once a caller that waited has shut its writing half, or its connection.
    pub(super) fn has_hung_up(&self) -> bool {
        self.hung_up.load(Relaxed)
    }

    /// Nothing is asked from here on; what was answered is being written.
    pub(super) fn idle(&self) {
        self.begin(IDLE);
    }

    /// A call is open for as long as this is kept.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.begin(IDLE);
        self.open.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    /// The beat, and what it means.
    pub(super) fn look(&self) -> (u32, Doing) {
        let beat = self.beat.load(Relaxed);
        let doing = match beat & PHASE {
            _ if self.stalled.load(Relaxed) => Doing::Writing,
            FIRST => Doing::First,
            HEAD => Doing::Head,
            IDLE if self.open.load(Relaxed) == 0 => Doing::Idle,
            _ => Doing::Answering,
        };
        (beat, doing)
    }

    /// Asks the connection to take no further request and to end.
    pub(super) fn tell(&self) {
        self.told.store(true, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// True once it was asked to end; from the first look on it is woken for that.
    pub(super) fn is_told(&self, cx: &Context<'_>) -> bool {
        self.waker.get_or_init(|| cx.waker().clone());
        self.told.load(Relaxed)
    }
}

/// A call that is open.
pub(super) struct Open(Arc<Pulse>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// What a connection takes of what there is, given back with its socket.
pub(super) type Seat = (Counted, Place);

/// A connection's bytes, and its pulse: what is read and what cannot be written shows there.
pub(super) struct Watched<S> {
    socket: S,
    pulse: Arc<Pulse>,
    /// What is read while nothing is asked begins a head.
    heads: bool,
    /// Read while its caller waited; comes before all that is read later.
    ahead: Option<u8>,
    /// Something was read.
    begun: bool,
    /// What its caller speaks, if that is not HTTP/1.1.
    foreign: Option<Foreign>,
    _seat: Seat,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, pulse: Arc<Pulse>, seat: Seat) -> Self {
        Self {
            socket,
            pulse,
            heads: false,
            ahead: None,
            begun: false,
            foreign: None,
            _seat: seat,
        }
    }

    /// One request comes after the other on it. Over HTTP/2 calls begin within the stream of bytes.
    pub(super) fn in_turn(mut self) -> Self {
        self.heads = true;
        self
    }

    /// The protocol that its caller speaks instead of HTTP/1.1. Shutting down works from here on.
    pub(super) fn take_foreign(&mut self) -> Option<Foreign> {
        self.foreign.take()
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Something could be written, or not.
    fn wrote(&self, went: bool) {
        let stalled = self.pulse.stalled.load(Relaxed);
        if stalled && went {
            self.pulse.begin(self.pulse.beat.load(Relaxed) & PHASE);
            self.pulse.stalled.store(false, Relaxed);
        } else if !stalled && !went {
            self.pulse.stalled.store(true, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Checks whether a waiting caller has shut its half. With `half_close` hyper does not read
    /// while it answers, but it flushes at each turn. A byte of a pipelined request is kept.
    fn look_for_hang_up(&mut self, cx: &mut Context<'_>) {
        if self.ahead.is_some() || self.pulse.has_hung_up() {
            return;
        }
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.socket).poll_read(cx, &mut into) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !into.filled().is_empty() => self.ahead = Some(byte[0]),
            Poll::Ready(_) => {
                self.pulse.hung_up.store(true, Relaxed);
                // The wait has had its turn already.
                cx.waker().wake_by_ref();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        let before = into.filled().len();
        let read = match it.ahead.take() {
            None => Pin::new(&mut it.socket).poll_read(cx, into),
            Some(byte) => {
                into.put_slice(&[byte]);
                Poll::Ready(Ok(()))
            }
        };
        let came = &into.filled()[before..];
        if !it.heads || came.is_empty() {
            return read;
        }
        if !it.begun {
            it.begun = true;
            it.foreign = Foreign::of(came).filter(|it| *it != Foreign::Http1);
            if it.foreign.is_some() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        } else if it.pulse.beat.load(Relaxed) & PHASE == IDLE {
            it.pulse.head();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        let written = Pin::new(&mut it.socket).poll_write(cx, from);
        it.wrote(written.is_ready());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        let flushed = Pin::new(&mut it.socket).poll_flush(cx);
        // TLS takes what is written before the other end does.
        it.wrote(flushed.is_ready());
        if it.heads && it.pulse.beat.load(Relaxed) & PHASE == WAITING {
            it.look_for_hang_up(cx);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        match it.foreign {
            // Its answer is still to come.
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut it.socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::pin::pin;

    use crate::listener::Bounds;

    /// Takes whatever is written, and brings it to the other end only when that reads.
    struct Buffered {
        read: bool,
    }

    impl AsyncRead for Buffered {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(from.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.read {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_and_not_taken_shows_as_writing() {
        let pulse = Arc::new(Pulse::default());
        let seat = (Bounds::default().counts.opened(), Place::default());
        let socket = Buffered { read: false };
        let mut watched = pin!(Watched::new(socket, Arc::clone(&pulse), seat));
        let mut cx = Context::from_waker(Waker::noop());
        pulse.idle();
        assert!(
            watched
                .as_mut()
                .poll_write(&mut cx, b"an answer")
                .is_ready()
        );
        assert!(watched.as_mut().poll_flush(&mut cx).is_pending());
        assert_eq!(pulse.look().1, Doing::Writing);
        watched.socket.read = true;
        assert!(watched.as_mut().poll_flush(&mut cx).is_ready());
        assert_eq!(pulse.look().1, Doing::Idle);
    }
}
