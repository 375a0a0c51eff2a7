//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end, as far as the socket itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, through the loopback interface.
    Loopback(SocketAddr),
    /// Another machine, or this one through an outward address.
    Other(SocketAddr),
    /// A process of this machine, through a Unix socket.
    Unix(Owner),
}

/// Whose process is at the other end of a Unix socket, as the system saw it when the process connected. Its number is not told: in a
/// pod it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group that the process had at that moment; the further groups of its user are not told.
    pub gid: u32,
}

impl Peer {
    pub(super) fn of(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match address.ip().is_loopback() {
            true => Self::Loopback(address),
            false => Self::Other(address),
        }
    }
}

/// As the audit shows it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) | Self::Other(address) => address.fmt(f),
            Self::Unix(Owner { uid, gid }) => write!(f, "uid {uid} gid {gid}"),
        }
    }
}
