//! Taking the names of Unix sockets, and having them still.
//!
//! A socket is bound under the name that it keeps, since that is the one which the system shows
//! (`/proc/net/unix`, `ss`) and by which others leave a live socket alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::sleep;

use super::access::AccessError;
use super::{Address, BACKLOG, BindError, SocketAccess};

/// How often it is looked whether the name still leads here.
pub(super) const LOOK: Duration = Duration::from_secs(3);

/// So often, and so long apart, the folder is asked for while another process takes a name in it.
const TURNS: (u32, Duration) = (20, Duration::from_millis(10));

/// A Unix socket that listens, and its file.
pub(super) struct UnixDoor {
    listener: UnixListener,
    file: SocketFile,
    access: SocketAccess,
}

impl UnixDoor {
    /// Takes the name, for whom `access` says: for nobody else at any moment, and for our own user
    /// alone until that is set.
    ///
    /// The file that a dead process left is replaced; a socket on which somebody answers is not.
    pub(super) async fn bind(
        address: &Address,
        path: &Path,
        access: SocketAccess,
    ) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Live {
                address: address.clone(),
            },
            _ => BindError::new(address, source),
        };
        let _alone = alone_in(path).await;
        clear(address, path).await?;
        let socket = UnixSocket::new_stream().map_err(failed)?;
        // The file gets the mode that the socket has.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
        socket.bind(path).map_err(failed)?;
        let file = SocketFile::of(path).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        access.grant(path).map_err(|error| match error {
            AccessError::Group { group, source } => BindError::NotAMember {
                address: address.clone(),
                group,
                source,
            },
            AccessError::Mode(source) => failed(source),
        })?;
        Ok(Self {
            listener,
            file,
            access,
        })
    }

    /// The same name once more, where nobody has it.
    pub(super) async fn again(&self, address: &Address) -> Result<Self, BindError> {
        Self::bind(address, &self.file.path, self.access).await
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// True if the name leads here.
    pub(super) fn is_found(&self) -> bool {
        self.file.is_there()
    }

    /// Removes the file; who is connected already, stays so.
    pub(super) fn hide(&mut self) {
        self.file.remove();
    }

    /// The file is gone, and what has its name now is not to be touched.
    pub(super) fn forget(&mut self) {
        self.file.removed = true;
    }
}

/// Keeps other processes of ours out of the folder while one of them takes a name in it. Who cannot
/// have it goes on without: the system lets only one bind a name.
async fn alone_in(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    let (turns, pause) = TURNS;
    for _ in 0..turns {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(std::fs::TryLockError::WouldBlock) => sleep(pause).await,
            Err(std::fs::TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// Removes the file that a process left which is gone. It waits for nobody: a process that is
/// stopped, with all places before it taken, is there too.
async fn clear(address: &Address, path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::new(address, source);
    let address = address.clone();
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { address });
        }
        Ok(_) => Identity::of(path).map_err(failed)?,
    };
    match UnixStream::connect(path)
        .await
        .map_err(|error| error.kind())
    {
        Err(io::ErrorKind::ConnectionRefused) if found.is_at(path) => {
            std::fs::remove_file(path).map_err(failed)
        }
        // It went while it was asked.
        Err(io::ErrorKind::NotFound) => Ok(()),
        Err(io::ErrorKind::PermissionDenied) => Err(BindError::Foreign { address }),
        // Whatever else it says, somebody may be there.
        _ => Err(BindError::Live { address }),
    }
}

/// The file of a Unix socket, removed when dropped unless somebody else has put theirs in its
/// place.
struct SocketFile {
    path: PathBuf,
    identity: Identity,
    removed: bool,
}

/// Which file it is. Its number alone may be another one's by now.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|it| it == *self)
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Identity::of(path)?,
            removed: false,
        })
    }

    fn is_there(&self) -> bool {
        self.identity.is_at(&self.path)
    }

    fn remove(&mut self) {
        if !std::mem::replace(&mut self.removed, true) && self.is_there() {
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
