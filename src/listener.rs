//! The doors: TCP ports and Unix sockets, and the loops that serve HTTP/1.1 and HTTP/2 on them.
//!
//! A listener outlives every error of a connection and every shortage of file descriptors. When told to drain it stops
//! accepting, answers what has already arrived, and ends; whoever drops it first cuts its connections.

mod access;
mod address;
mod answer;
mod bind;
mod crowd;
mod date;
mod http1;
mod http2;
mod lost;
mod metrics;
mod misdirected;
mod patience;
mod peer;
mod peers;
mod problem;
mod serve;
mod socket;
mod tcp;
mod tls;
mod unix;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::TcpListener;

pub use access::{AccessError, SocketAccess, open_folder};
pub use address::{Address, AddressError};
pub use answer::{Answer, Body, text};
pub use bind::{BindError, foresee};
pub use date::Dates;
pub use http1::serve_http;
pub use http2::{Calls, Limits, serve_http2};
pub use lost::Lost;
pub use metrics::{Counts, Metrics};
pub use patience::Patience;
pub use peer::{Network, OVERFLOW, Overflow, Owner, Peer};
pub use peers::Peers;
pub use problem::{Problem, seconds_until};
pub use serve::{Connection, Names, Service};
pub use tls::{Handshakes, Tls};

use peers::Place;
use socket::Socket;
use unix::UnixDoor;

/// So many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// An open door. Dropping it closes the port, and removes the file of a Unix socket.
pub struct Listener {
    door: Door,
    address: Address,
    bounds: Bounds,
    dates: Dates,
    tls: Option<Tls>,
    elsewhere: Option<Arc<str>>,
}

/// What the connections of a listener may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long each may take.
    pub patience: Patience,
    /// So many may be open at a time. Who comes later takes the place of one that asks for nothing, or waits to be accepted.
    pub connections: usize,
    /// How many each peer may have; who comes with one more is turned away. None for no such limit.
    pub peers: Option<Peers>,
    /// What is counted.
    pub counts: Counts,
    /// Where it is said that the name of a Unix socket leads elsewhere.
    pub lost: Lost,
}

/// The usual patience, and no other bound.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            connections: usize::MAX,
            peers: None,
            counts: Counts::default(),
            lost: Lost::default(),
        }
    }
}

impl Bounds {
    /// A place for a connection of this peer; none if it has as many as it may.
    fn place(&self, peer: Peer) -> Option<Place> {
        match &self.peers {
            None => Some(Place::default()),
            Some(peers) => peers.enter(peer),
        }
    }
}

/// What connections come through.
enum Door {
    /// A port; more than one socket where a name means each loopback address.
    Tcp(Vec<TcpListener>),
    Unix(UnixDoor),
}

impl Door {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        match self {
            Self::Tcp(listeners) => {
                let mut accepted = listeners.iter().map(|it| it.poll_accept(cx));
                let Some(Poll::Ready(accepted)) = accepted.find(Poll::is_ready) else {
                    return Poll::Pending;
                };
                let (stream, from) = accepted?;
                // A caller that has gone already is noticed when it is read from.
                let _ = stream.set_nodelay(true);
                Poll::Ready(Ok((Socket::Tcp(stream), Peer::of(from))))
            }
            Self::Unix(door) => {
                let (stream, _) = std::task::ready!(door.listener().poll_accept(cx))?;
                let owner = stream.peer_cred()?;
                let (uid, gid) = (owner.uid(), owner.gid());
                let peer = Peer::Unix(Owner { uid, gid });
                Poll::Ready(Ok((Socket::Unix(stream), peer)))
            }
        }
    }
}

impl Listener {
    fn new(door: Door, address: Address) -> Self {
        Self {
            door,
            address,
            bounds: Bounds::default(),
            dates: Dates::default(),
            tls: None,
            elsewhere: None,
        }
    }

    /// Holds its connections to these bounds, and not to the usual ones.
    #[must_use]
    pub fn within(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Speaks TLS with whoever comes through a TCP port. A Unix socket stays as it is.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// True if callers have to speak TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some() && matches!(self.door, Door::Tcp(_))
    }

    /// Opens the address; on a Unix socket only its own user may connect.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        Self::bind_with(address, SocketAccess::default()).await
    }

    /// Opens the address; if it is a Unix socket, for whom `access` says. The file that a dead process left behind is replaced; a
    /// socket on which somebody answers is not.
    pub async fn bind_with(address: &Address, access: SocketAccess) -> Result<Self, BindError> {
        let (door, address) = match address {
            Address::Tcp { host, port } => {
                let (listeners, address) = tcp::bind(address, host, *port).await?;
                (Door::Tcp(listeners), address)
            }
            Address::Unix(path) => {
                let door = UnixDoor::bind(address, path, access).await?;
                (Door::Unix(door), address.clone())
            }
        };
        Ok(Self::new(door, address))
    }

    /// Where it listens; a port 0 has become the real one.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// The next connection, without delay on its small packets.
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        poll_fn(|cx| self.door.poll_accept(cx)).await
    }

    /// True if it has a name that others can take away.
    fn has_name(&self) -> bool {
        matches!(self.door, Door::Unix(_))
    }

    /// Looks whether a Unix socket's name still leads here, and takes it again where nobody has it: then the door of before is
    /// given back, whose connections have not been accepted.
    async fn look(&mut self) -> Option<Door> {
        let Door::Unix(door) = &mut self.door else {
            return None;
        };
        let lost = &self.bounds.lost;
        if door.is_found() {
            lost.found(&self.address);
            return None;
        }
        match door.again(&self.address).await {
            Ok(fresh) => {
                // What was told to be lost is told to be found, and nothing else.
                if !lost.found(&self.address) {
                    let address = &self.address;
                    tracing::warn!(%address, "the socket's file was gone, and is made again: find out what removes it");
                }
                let mut old = std::mem::replace(&mut self.door, Door::Unix(fresh));
                if let Door::Unix(old) = &mut old {
                    old.forget();
                }
                Some(old)
            }
            Err(error) => {
                lost.lost(&self.address, &error);
                None
            }
        }
    }

    /// Lets nobody else find a Unix socket; who is connected already, stays so.
    fn hide(&mut self) {
        if let Door::Unix(door) = &mut self.door {
            door.hide();
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
