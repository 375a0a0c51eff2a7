//! Whether a folder can hold a record, found out without leaving anything in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Why a folder cannot hold a record.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is missing and cannot be made.
    #[error(
        "the state folder {folder} cannot be made ({why}); make it, owned by the user that runs bearerd, or name another"
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Nothing can be written there.
    #[error(
        "the state folder {folder} cannot be written ({why}); give it to the user that runs bearerd, or name another"
    )]
    ReadOnly {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The lock is there, and belongs to somebody else.
    #[error(
        "{file} cannot be opened for writing ({why}); run this as its owner, give it to the user that runs bearerd, or name another folder"
    )]
    Lock {
        /// The lock.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file system gives no locks.
    #[error("the file system of {folder} gives no locks ({why}); name a folder on a local disk")]
    NoLocks {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

impl OpenError {
    pub(super) fn missing(folder: &Path, why: io::Error) -> Self {
        let folder = folder.to_owned();
        Self::Missing { folder, why }
    }

    pub(super) fn read_only(folder: &Path, why: io::Error) -> Self {
        let folder = folder.to_owned();
        Self::ReadOnly { folder, why }
    }

    /// Where the lock is missing, it is the folder that does not let it be made.
    pub(super) fn no_lock(lock: &Path, folder: &Path, why: io::Error) -> Self {
        match fs::symlink_metadata(lock) {
            Ok(_) => {
                let file = lock.to_owned();
                Self::Lock { file, why }
            }
            Err(_) => Self::read_only(folder, why),
        }
    }
}

/// True if this lock could be taken; false if another daemon holds it, which so can write here.
pub(super) fn may_lock(lock: &File, folder: &Path) -> Result<bool, OpenError> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(why)) => {
            let folder = folder.to_owned();
            Err(OpenError::NoLocks { folder, why })
        }
    }
}

/// A file that was written in this folder, or in the one that this would be made in, and that is
/// gone once it is closed.
pub(super) fn unnamed_file(folder: &Path) -> Result<File, OpenError> {
    let nearest = nearest(folder).map_err(|why| OpenError::missing(folder, why))?;
    written_in(nearest).map_err(|why| match nearest == folder {
        true => OpenError::read_only(folder, why),
        false => OpenError::missing(folder, why),
    })
}

/// The folder itself or, where it is missing, the nearest above it that is there.
fn nearest(folder: &Path) -> io::Result<&Path> {
    let mut at = folder;
    loop {
        match fs::metadata(at) {
            Ok(about) if about.is_dir() => return Ok(at),
            Ok(_) => return Err(Errno::NOTDIR.into()),
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            Err(why) => at = at.parent().ok_or(why)?,
        }
        if at.as_os_str().is_empty() {
            return Ok(Path::new("."));
        }
    }
}

/// A file that has been written in this folder and that the system forgets once it is closed.
fn written_in(folder: &Path) -> io::Result<File> {
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(UNNAMED)
        .open(folder);
    let mut file = match unnamed {
        Ok(file) => file,
        // Not every file system can; this one has a name for a moment.
        Err(why)
            if matches!(
                Errno::from_io_error(&why),
                Some(Errno::OPNOTSUPP | Errno::ISDIR)
            ) =>
        {
            named_for_a_moment(folder)?
        }
        Err(why) => return Err(why),
    };
    file.write_all(b"probe")?;
    Ok(file)
}

fn named_for_a_moment(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".bearerd-check-{:016x}", fastrand::u64(..)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "the flag is a small positive number"
)]
const UNNAMED: i32 = OFlags::TMPFILE.bits() as i32;
