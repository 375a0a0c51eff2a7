//! The doors: TCP ports and Unix sockets, and the loops that serve HTTP/1.1 and HTTP/2 on them.
//!
//! A listener outlives every error of a connection and every shortage of file descriptors. When told to drain it stops
//! accepting, answers what has already arrived, and ends; whoever drops it first cuts its connections.

mod access;
mod address;
mod answer;
mod crowd;
mod date;
mod http1;
mod http2;
mod metrics;
mod misdirected;
mod patience;
mod peer;
mod peers;
mod problem;
mod serve;
mod socket;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream, lookup_host};

pub use access::{AccessError, SocketAccess, open_folder};
pub use address::{Address, AddressError};
pub use answer::{Answer, Body, text};
pub use date::Dates;
pub use http1::serve_http;
pub use http2::{Calls, Limits, serve_http2};
pub use metrics::{Counts, Metrics};
pub use patience::Patience;
pub use peer::{Network, OVERFLOW, Overflow, Owner, Peer};
pub use peers::Peers;
pub use problem::{Problem, seconds_until};
pub use serve::{Connection, Names, Service};
pub use tls::{Handshakes, Tls};

use peers::Place;
use socket::Socket;

/// So many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Behind the name of a Unix socket until it has its group and mode and takes its place.
const FRESH_SUFFIX: &str = ".new";

/// Why a listener could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("{address} is in use by another process: stop that process, or listen on another port")]
    InUse {
        /// The address.
        address: Address,
    },
    /// Another process answers on the Unix socket.
    #[error("another process listens on {address}: stop it, or give this one another path")]
    Live {
        /// The address.
        address: Address,
    },
    /// Another user's socket has the name, and may not be asked whether somebody answers.
    #[error(
        "{address} belongs to another user, and may not be asked whether somebody listens there: remove it, or choose another path"
    )]
    Foreign {
        /// The address.
        address: Address,
    },
    /// The socket cannot be given to its group.
    #[error(
        "{address} cannot be given to group {group}: let bearerd's user be a member of it (SupplementaryGroups= in systemd, \
         supplementalGroups or fsGroup in a pod), or leave socket_group out"
    )]
    NotAMember {
        /// The address.
        address: Address,
        /// The group's number.
        group: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is not a socket has the name of the Unix socket.
    #[error("{address} names a file that is not a socket: move it away, or choose another path")]
    NotASocket {
        /// The address.
        address: Address,
    },
    /// The host is not known, or not an address of this machine.
    #[error("{address} is not an address of this machine: check the host")]
    NotHere {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The system says no.
    #[error(
        "may not listen on {address}: ports below 1024 and other users' folders need a privilege"
    )]
    Denied {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The folder of the Unix socket does not exist.
    #[error("the folder of {address} does not exist: create it, or choose another path")]
    NoFolder {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: &Address, source: io::Error) -> Self {
        let unix = matches!(address, Address::Unix(_));
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address, source },
            io::ErrorKind::PermissionDenied => Self::Denied { address, source },
            io::ErrorKind::NotFound if unix => Self::NoFolder { address, source },
            _ => Self::Other { address, source },
        }
    }
}

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
}

/// The usual patience, and no other bound.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            connections: usize::MAX,
            peers: None,
            counts: Counts::default(),
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

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
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
        match address {
            Address::Tcp { host, port } => bind_tcp(address, host, *port).await,
            Address::Unix(path) => bind_unix(address, path, access).await,
        }
    }

    /// Where it listens; a port 0 has become the real one.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// The next connection, without delay on its small packets.
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.door {
            Door::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // A caller that has gone already is noticed when it is read from.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Peer::of(from)))
            }
            Door::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let owner = stream.peer_cred()?;
                let (uid, gid) = (owner.uid(), owner.gid());
                Ok((Socket::Unix(stream), Peer::Unix(Owner { uid, gid })))
            }
        }
    }

    /// Lets nobody else find a Unix socket; who is connected already, stays so.
    fn hide(&mut self) {
        if let Door::Unix(_, file) = &mut self.door {
            file.remove();
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

async fn bind_tcp(address: &Address, host: &str, port: u16) -> Result<Listener, BindError> {
    let unknown = |source| BindError::NotHere {
        address: address.clone(),
        source,
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in lookup_host((host, port)).await.map_err(unknown)? {
        match open_tcp(candidate) {
            Ok(listener) => {
                let bound = listener
                    .local_addr()
                    .map_err(|source| BindError::new(address, source))?;
                let address = Address::Tcp {
                    host: bound.ip().to_string(),
                    port: bound.port(),
                };
                return Ok(Listener::new(Door::Tcp(listener), address));
            }
            Err(error) => last = error,
        }
    }
    Err(BindError::new(address, last))
}

fn open_tcp(candidate: SocketAddr) -> io::Result<TcpListener> {
    let socket = if candidate.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(candidate)?;
    socket.listen(BACKLOG)
}

/// Binds under a temporary name, sets group and mode there, and moves the socket to its place: at no moment does the name lead to
/// a socket that others may use, and what a dead process left is replaced in one step.
async fn bind_unix(
    address: &Address,
    path: &Path,
    access: SocketAccess,
) -> Result<Listener, BindError> {
    let failed = |source| BindError::new(address, source);
    refuse_taken(address, path).await?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(FRESH_SUFFIX);
    let fresh = PathBuf::from(fresh);
    if std::fs::symlink_metadata(&fresh).is_ok_and(|it| it.file_type().is_socket()) {
        std::fs::remove_file(&fresh).map_err(failed)?;
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let mut file = SocketFile::of(fresh.clone()).map_err(failed)?;
    access.grant(&fresh).map_err(|error| match error {
        AccessError::Group { group, source } => BindError::NotAMember {
            address: address.clone(),
            group,
            source,
        },
        AccessError::Mode(source) => failed(source),
    })?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    file.path = path.to_owned();
    Ok(Listener::new(Door::Unix(listener, file), address.clone()))
}

/// Asks whether somebody listens. It waits for nobody: a process that is stopped, with all places before it taken, is there too.
async fn refuse_taken(address: &Address, path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::new(address, source);
    let address = address.clone();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { address });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path)
        .await
        .map_err(|error| error.kind())
    {
        Err(io::ErrorKind::ConnectionRefused) => Ok(()),
        Err(io::ErrorKind::PermissionDenied) => Err(BindError::Foreign { address }),
        // Whatever else it says, somebody may be there.
        _ => Err(BindError::Live { address }),
    }
}

/// The file of a Unix socket, removed when dropped unless somebody else has put theirs in its place.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(&path)?;
        Ok(Self {
            path,
            device: found.dev(),
            inode: found.ino(),
        })
    }

    fn remove(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|it| (it.dev(), it.ino()) == (self.device, self.inode));
        if ours {
            // Nothing more can be done about it, and the next start copes with a file left behind.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
