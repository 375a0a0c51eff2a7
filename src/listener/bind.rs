//! Why an address cannot be taken.

use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::{Access, access};

use super::Address;

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
    pub(super) fn new(address: &Address, source: io::Error) -> Self {
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

/// What would keep this address from being taken as things are now, as far as can be told without
/// taking it: a daemon that runs has its ports.
pub fn foresee(address: &Address) -> Option<BindError> {
    let path = match address {
        Address::Unix(path) => path,
        Address::Tcp { .. } if address.is_localhost() => return None,
        Address::Tcp { host, port } => {
            let source = (host.as_str(), *port).to_socket_addrs().err()?;
            return Some(BindError::NotHere {
                address: address.clone(),
                source,
            });
        }
    };
    let found = std::fs::symlink_metadata(path);
    if found.is_ok_and(|it| !it.file_type().is_socket()) {
        let address = address.clone();
        return Some(BindError::NotASocket { address });
    }
    let folder = path.parent()?;
    let denied = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(BindError::new(address, denied.into()))
}
