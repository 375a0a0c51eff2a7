//! The loop behind a listener.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, yield_now};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::crowd::Crowd;
use super::metrics::Reason;
use super::patience::{Pulse, Seat, Watched};
use super::socket::Socket;
use super::{Bounds, Door, Listener, Peer, unix};

/// How long accepting rests after an error that is not the connection's own, such as too many open files.
const REST: Duration = Duration::from_millis(50);

/// So many failures in a row are worth a warning each.
const WARNINGS: u32 = 3;

/// The connection that a request came by.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who is at its other end.
    pub peer: Peer,
    /// What the caller's certificate, which was checked, calls it; nothing where none was asked for.
    pub names: Option<Arc<Names>>,
    /// Cancelled when the listener drains: whoever waits on a caller's behalf, waits no longer.
    pub drain: CancellationToken,
}

/// The subject alternative names of a certificate, as far as rules can be written for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
}

/// What is spoken on a listener's connections.
pub(super) trait Protocol: Send + Sync + 'static {
    /// One connection, from its first request to its end. Once the listener is closing it takes no further request, and ends when
    /// those that have arrived are answered.
    fn talk(
        self: Arc<Self>,
        socket: Watched<Socket>,
        connection: Connection,
        closing: Arc<Closing>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Answers requests over HTTP/1.1.
pub trait Service: Clone + Send + Sync + 'static {
    /// What serves this connection, from its first request to its end; dropped when it has ended.
    #[must_use]
    fn on(&self, _connection: &Connection) -> Self {
        self.clone()
    }

    /// Answers one request.
    fn answer<B>(&self, request: Request<B>, connection: &Connection) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>;
}

/// Serves until the drain has begun and every request that had arrived by then is answered. Has no deadline of its own: dropping
/// it cuts the connections that are left.
pub(super) async fn serve<P: Protocol>(listener: Listener, protocol: P, drain: CancellationToken) {
    let mut room = Room::new(listener, protocol, drain.clone());
    let mut sweep = pin!(sleep(room.crowd.tick()));
    let mut look = pin!(sleep(unix::LOOK));
    let mut failures = 0;
    loop {
        room.bury();
        let admits = room.admits();
        let accepted = tokio::select! {
            accepted = room.listener.accept(), if admits => accepted,
            Some(ended) = room.connections.join_next_with_id() => {
                room.crowd.leave(note(&ended));
                continue;
            }
            () = sweep.as_mut(), if !room.connections.is_empty() => {
                room.sweep();
                sweep.as_mut().reset(Instant::now() + room.crowd.tick());
                continue;
            }
            () = look.as_mut(), if room.listener.has_name() => {
                room.look().await;
                look.as_mut().reset(Instant::now() + unix::LOOK);
                continue;
            }
            () = drain.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                if failures > 0 {
                    let address = room.listener.local_address();
                    tracing::info!(%address, failures, "accepting again");
                    failures = 0;
                }
                // The sweep rests while nobody is here.
                if room.connections.is_empty() {
                    sweep.as_mut().reset(Instant::now() + room.crowd.tick());
                }
                room.admit(socket, peer);
                if room.is_full() {
                    // Whoever has just come is looked at before it could have to go again.
                    yield_now().await;
                }
            }
            Err(error) if is_the_connections_own(&error) => {}
            Err(error) => {
                failures += 1;
                warn(&room.listener, &error, failures);
                tokio::select! {
                    () = sleep(REST) => {}
                    () = drain.cancelled() => break,
                }
            }
        }
    }
    room.closed().await;
}

/// A listener and its connections.
struct Room<P> {
    listener: Listener,
    bounds: Bounds,
    protocol: Arc<P>,
    drain: CancellationToken,
    closing: Arc<Closing>,
    connections: JoinSet<()>,
    crowd: Crowd,
    full: Full,
}

impl<P: Protocol> Room<P> {
    fn new(listener: Listener, protocol: P, drain: CancellationToken) -> Self {
        let bounds = listener.bounds.clone();
        Self {
            listener,
            protocol: Arc::new(protocol),
            drain,
            closing: Arc::default(),
            connections: JoinSet::new(),
            crowd: Crowd::new(bounds.patience),
            full: Full::default(),
            bounds,
        }
    }

    /// Gives back what connections took that have ended, however many are waiting to be accepted.
    fn bury(&mut self) {
        while let Some(ended) = self.connections.try_join_next_with_id() {
            self.crowd.leave(note(&ended));
        }
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.bounds.connections
    }

    /// True if there is a place for one more connection, or one can be made.
    fn admits(&mut self) -> bool {
        !self.is_full() || self.crowd.has_idlers()
    }

    /// Begins to talk, unless the peer has as many connections as it may.
    fn admit(&mut self, socket: Socket, peer: Peer) {
        let Some(place) = self.bounds.place(peer) else {
            self.bounds.counts.closed(Reason::PeerLimit);
            return;
        };
        if self.is_full() && self.crowd.make_room() {
            self.bounds.counts.closed(Reason::MadeRoom);
        }
        let pulse = Arc::new(Pulse::default());
        let watch = (Arc::clone(&pulse), (self.bounds.counts.opened(), place));
        let connection = Connection {
            peer,
            names: None,
            drain: self.drain.clone(),
        };
        let handle = self.begin(socket, watch, connection);
        self.crowd.enter(pulse, handle);
    }

    fn begin(
        &mut self,
        socket: Socket,
        (pulse, seat): (Arc<Pulse>, Seat),
        connection: Connection,
    ) -> AbortHandle {
        let (protocol, closing) = (Arc::clone(&self.protocol), Arc::clone(&self.closing));
        match (socket, self.listener.tls.clone()) {
            (Socket::Tcp(stream), Some(tls)) => {
                let (watch, patience) = ((pulse, seat), self.bounds.patience.header);
                let talking = tls.talk(stream, watch, patience, connection, protocol, closing);
                // In a box: the task of a connection without TLS is no larger for it.
                self.connections.spawn(Box::pin(talking))
            }
            (socket, _) => {
                let socket = Watched::new(socket, pulse, seat);
                self.connections
                    .spawn(protocol.talk(socket, connection, closing))
            }
        }
    }

    /// Has its name still, or again. Who had come before it was lost is not forgotten.
    async fn look(&mut self) {
        if let Some(before) = self.listener.look().await {
            for (socket, peer) in waiting(&before).await {
                self.admit(socket, peer);
            }
        }
    }

    fn sweep(&mut self) {
        self.crowd.sweep(|reason| self.bounds.counts.closed(reason));
        let is_full = self.is_full();
        if is_full {
            self.crowd.look_for_idlers();
        }
        self.full.tell(&self.listener, is_full);
    }

    /// Takes nobody else, and ends when those who are here are answered. Who has not asked by now, or only in part, does not hold it up.
    async fn closed(mut self) {
        self.listener.hide();
        self.closing.begin();
        for (socket, peer) in waiting(&self.listener.door).await {
            self.admit(socket, peer);
        }
        drop(self.listener);
        self.crowd.close();
        let mut sweep = pin!(sleep(self.crowd.tick()));
        loop {
            tokio::select! {
                ended = self.connections.join_next_with_id() => match ended {
                    Some(ended) => self.crowd.leave(note(&ended)),
                    None => return,
                },
                () = sweep.as_mut() => {
                    self.crowd.sweep(|reason| self.bounds.counts.closed(reason));
                    sweep.as_mut().reset(Instant::now() + self.crowd.tick());
                }
            }
        }
    }
}

/// The connections that were made before the drain and wait to be accepted. To close the listener over them would reset them.
async fn waiting(door: &Door) -> Vec<(Socket, Peer)> {
    let mut found = Vec::new();
    // The driver looks at its sockets between two turns, so what came before the drain is seen by the second.
    yield_now().await;
    loop {
        match poll_fn(|cx| Poll::Ready(door.poll_accept(cx))).await {
            Poll::Ready(Ok(connection)) => found.push(connection),
            Poll::Ready(Err(error)) if is_the_connections_own(&error) => {}
            Poll::Ready(Err(_)) | Poll::Pending => return found,
        }
    }
}

/// The listener has begun to drain. The token wakes its connections; the flag is what each request can afford to look at.
#[derive(Default)]
pub(super) struct Closing {
    begun: AtomicBool,
    pub(super) token: CancellationToken,
}

impl Closing {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Drives a connection until it has ended, which is true, or the listener is closing or has done with it. How a connection ends
    /// is its caller's business: there is nobody left to tell.
    pub(super) async fn outlived(
        &self,
        mut connection: Pin<&mut impl Future>,
        pulse: &Pulse,
    ) -> bool {
        let mut told = pin!(self.token.cancelled());
        let mut listens = false;
        let ended = poll_fn(|cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            // A task's waker stays the same, so it is left with the token once and not at every request.
            if self.has_begun()
                || pulse.is_told(cx)
                || (!listens && told.as_mut().poll(cx).is_ready())
            {
                return Poll::Ready(false);
            }
            listens = true;
            Poll::Pending
        });
        ended.await
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

/// Whether a listener has as many connections as it may; told when it begins and when it ends.
#[derive(Default)]
struct Full(bool);

impl Full {
    fn tell(&mut self, listener: &Listener, full: bool) {
        if full == self.0 {
            return;
        }
        self.0 = full;
        let (address, most) = (listener.local_address(), listener.bounds.connections);
        if full {
            tracing::warn!(%address, most, "as many connections as there may be; who comes now waits until an idle one has made room");
        } else {
            tracing::info!(%address, "there is room for connections again");
        }
    }
}

/// True if the error says only that the connection to be accepted has gone already.
fn is_the_connections_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn warn(listener: &Listener, error: &io::Error, failures: u32) {
    let address = listener.local_address();
    if failures <= WARNINGS {
        tracing::warn!(%address, %error, "a connection could not be accepted");
    } else {
        tracing::debug!(%address, %error, "a connection could not be accepted");
    }
}

/// Says which connection has ended.
fn note(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => {
            if error.is_panic() {
                tracing::error!("answering a request panicked; its connection is closed");
            }
            error.id()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_costs_no_rest_and_a_shortage_does() {
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert!(is_the_connections_own(&aborted));
        for shortage in [23, 24, 105, 12] {
            let error = io::Error::from_raw_os_error(shortage);
            assert!(!is_the_connections_own(&error), "{error}");
        }
    }
}
