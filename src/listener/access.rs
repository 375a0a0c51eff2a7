//! Who may connect to a Unix socket, as far as its file says.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// The rights on the file of a Unix socket. Whoever may write to it may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Its mode.
    pub mode: u32,
    /// Its group's number; the process's own group if there is none.
    pub group: Option<u32>,
}

/// Its own user only.
impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: 0o600,
            group: None,
        }
    }
}

/// What could not be set.
#[derive(Debug)]
pub enum AccessError {
    /// The group.
    Group {
        /// Which.
        group: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The mode.
    Mode(io::Error),
}

impl SocketAccess {
    /// True if every user of the machine may connect.
    pub fn is_for_everybody(self) -> bool {
        self.mode & 0o002 != 0
    }

    /// Gives a socket that nobody knows yet to its group, and only then opens it.
    pub(super) fn grant(self, socket: &Path) -> Result<(), AccessError> {
        if let Some(group) = self.group {
            lchown(socket, None, Some(group))
                .map_err(|source| AccessError::Group { group, source })?;
        }
        std::fs::set_permissions(socket, Permissions::from_mode(self.mode))
            .map_err(AccessError::Mode)
    }
}

/// The folder of this socket, if every user of the machine may rename what is in it: any of them could put a socket of their own in
/// its place. Not a volume as Kubernetes makes it for a pod's group, 2777: whoever has that mounted was given it.
pub fn open_folder(socket: &Path) -> Option<PathBuf> {
    let folder = socket.parent()?;
    let mode = std::fs::metadata(folder).ok()?.mode();
    (mode & 0o002 != 0 && mode & 0o3000 == 0).then(|| folder.to_owned())
}
