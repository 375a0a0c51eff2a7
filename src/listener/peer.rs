//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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

/// One machine as far as addresses tell it from others: an IPv4 address, or the 64 bits of an IPv6 network, since who has one address
/// of it has them all. So link-local neighbours are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// The address.
    V4(u32),
    /// The first half of the address.
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d].map(u64::from);
                Self::V6(network.into_iter().fold(0, |all, it| all << 16 | it))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_network_are_one_place() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
