//! Who is at the other end of a connection.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

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

impl Owner {
    /// The user that a rule may go by; `None` if the system shows no user in particular.
    pub fn user(self) -> Option<u32> {
        (!OVERFLOW.is_user(self.uid)).then_some(self.uid)
    }

    /// The group that a rule may go by; `None` if the system shows no group in particular.
    pub fn group(self) -> Option<u32> {
        (!OVERFLOW.is_group(self.gid)).then_some(self.gid)
    }
}

/// The numbers that the kernel shows of every process whose user or group is not mapped into this process's user namespace. A rule
/// that went by them would let in all of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    uid: u32,
    gid: u32,
}

/// As they were when this process first asked.
pub static OVERFLOW: LazyLock<Overflow> = LazyLock::new(|| {
    let read = |file| fs::read_to_string(file).ok();
    Overflow::of(read(Overflow::UID_FILE), read(Overflow::GID_FILE))
});

impl Overflow {
    /// Where the kernel says which user that is.
    pub const UID_FILE: &str = "/proc/sys/kernel/overflowuid";
    /// Where the kernel says which group that is.
    pub const GID_FILE: &str = "/proc/sys/kernel/overflowgid";

    /// What a kernel takes that was told nothing else.
    const DEFAULT: u32 = 65_534;

    fn of(uid: Option<String>, gid: Option<String>) -> Self {
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
        Self {
            uid: number(uid).unwrap_or(Self::DEFAULT),
            gid: number(gid).unwrap_or(Self::DEFAULT),
        }
    }

    /// True for the number that stands for every unmapped user, and for the one that stands for none.
    pub fn is_user(self, uid: u32) -> bool {
        uid == self.uid || uid == u32::MAX
    }

    /// True for the number that stands for every unmapped group, and for the one that stands for none.
    pub fn is_group(self, gid: u32) -> bool {
        gid == self.gid || gid == u32::MAX
    }
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
    fn the_kernel_says_who_is_nobody_in_particular() {
        let text = |text: &str| Some(text.to_owned());
        let told = Overflow::of(text("70000\n"), text("70001\n"));
        assert!(told.is_user(70_000) && told.is_group(70_001));
        assert!(!told.is_user(70_001) && !told.is_group(70_000) && !told.is_user(65_534));
        for silent in [Overflow::of(None, text("")), Overflow::of(text("x"), None)] {
            assert!(silent.is_user(65_534) && silent.is_group(65_534));
            assert!(!silent.is_user(0) && !silent.is_group(0));
        }
        // What a socket shows that nobody has connected to.
        assert!(told.is_user(u32::MAX) && told.is_group(u32::MAX));
    }

    #[test]
    fn an_unmapped_process_has_no_user_that_a_rule_could_name() {
        let Overflow { uid, gid } = *OVERFLOW;
        let owner = |uid, gid| Owner { uid, gid };
        let of = |owner: Owner| (owner.user(), owner.group());
        assert_eq!(of(owner(uid, gid)), (None, None));
        assert_eq!(
            of(owner(0, gid)),
            (Some(0), None),
            "root of the namespace is mapped"
        );
        assert_eq!(of(owner(uid, 0)), (None, Some(0)));
        assert_eq!(of(owner(1000, 2000)), (Some(1000), Some(2000)));
    }

    #[test]
    fn the_addresses_of_one_network_are_one_place() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
