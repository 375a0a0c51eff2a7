//! A register in a folder: one file, replaced whole, under a lock that every daemon on the folder takes.
//!
//! `record.json` is the record, 0600. `record.lock` is never renamed and holds nothing. `record.json.new` is what the next swap
//! writes and renames; a crash may leave it behind, and the next swap removes it. Two daemons on one folder share one token
//! and one budget.

mod folder;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::codec::Unreadable;
pub use folder::OpenError;
use folder::{may_lock, unnamed_file};

use super::{Loaded, Pending, Record, Register, RegisterError, Swapped, Version};

/// How long a swap waits for the lock before it gives up: a lock is held for a few milliseconds, unless its holder is frozen.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How often the file is looked at for the writes of others.
const POLL: Duration = Duration::from_millis(500);

/// A record is a few kilobytes; whatever is larger is none.
const MOST_BYTES: u64 = 1 << 20;

/// A folder that holds one record.
pub struct FileRegister {
    place: Arc<Place>,
    /// What the file looked like to the last load or swap whose caller was told.
    told: Mutex<Option<Look>>,
}

/// The folder's paths.
struct Place {
    record: PathBuf,
    fresh: PathBuf,
    lock: PathBuf,
    folder: PathBuf,
}

/// So much of a record is read without a second place for it, which would leave a copy of the token behind.
const USUAL_BYTES: usize = 16 * 1024;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl FileRegister {
    /// Makes the folder where it is missing, and checks that a record can be locked and written in it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let place = Place::new(folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|why| OpenError::missing(folder, why))?;
        let lock = place.open_lock();
        let lock = lock.map_err(|why| OpenError::no_lock(&place.lock, folder, why))?;
        if may_lock(&lock, folder)? {
            let probed = place.probe();
            probed.map_err(|why| OpenError::read_only(folder, why))?;
        }
        Ok(Self::at(place))
    }

    /// The same checks, made without leaving anything behind: a folder that is missing stays so.
    pub fn inspect(folder: &Path) -> Result<Self, OpenError> {
        let place = Place::new(folder);
        let unnamed = unnamed_file(folder)?;
        let existing = OpenOptions::new()
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(&place.lock);
        let lock = match existing {
            Ok(lock) => lock,
            Err(why) if why.kind() == io::ErrorKind::NotFound => unnamed,
            Err(why) => return Err(OpenError::no_lock(&place.lock, folder, why)),
        };
        may_lock(&lock, folder)?;
        Ok(Self::at(place))
    }

    fn at(place: Place) -> Self {
        Self {
            place: Arc::new(place),
            told: Mutex::new(None),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// Who owns what is there, the record first, and else the folder; `None` if nothing is there, or if it is a volume that was
    /// given to a group.
    pub fn owner(&self) -> Option<(&Path, u32)> {
        let place = &self.place;
        for path in [&place.record, &place.lock] {
            if let Ok(about) = fs::symlink_metadata(path) {
                return Some((path, about.uid()));
            }
        }
        let about = fs::metadata(&place.folder).ok()?;
        (about.mode() & 0o3000 == 0).then(|| (place.folder.as_path(), about.uid()))
    }

    /// Where the record is.
    pub fn path(&self) -> &Path {
        &self.place.record
    }

    /// Does this in a thread that may wait for the disk, which goes on if the caller leaves; then nobody was told.
    async fn visit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place, &mut Option<Look>) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let place = Arc::clone(&self.place);
        let visit = move || {
            let mut look = None;
            (work(&place, &mut look), look)
        };
        let (done, look) = tokio::task::spawn_blocking(visit).await?;
        *self.told() = look;
        Ok(done)
    }

    fn told(&self) -> MutexGuard<'_, Option<Look>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register for FileRegister {
    fn load(&self) -> Pending<'_, Result<Loaded, RegisterError>> {
        Box::pin(async move {
            let joined = self.visit(Place::load).await;
            joined.unwrap_or_else(|error| Err(failed("load the record", &error)))
        })
    }

    fn swap(&self, seen: Option<Version>, next: Record) -> Pending<'_, Swapped> {
        Box::pin(async move {
            let swap = move |place: &Place, look: &mut _| place.swap(seen.as_ref(), &next, look);
            let joined = self.visit(swap).await;
            joined.unwrap_or_else(|error| Swapped::Unknown(failed("write the record", &error)))
        })
    }

    fn changed(&self) -> Pending<'_, ()> {
        Box::pin(async {
            loop {
                sleep(POLL).await;
                // A disk that hangs must not hold up whoever waits.
                let place = Arc::clone(&self.place);
                let look = tokio::task::spawn_blocking(move || place.look()).await;
                if look.is_ok_and(|look| look != *self.told()) {
                    return;
                }
            }
        })
    }

    fn name(&self) -> &'static str {
        "file"
    }

    fn file(&self) -> Option<&Path> {
        Some(self.path())
    }
}

impl Place {
    fn new(folder: &Path) -> Self {
        Self {
            record: folder.join("record.json"),
            fresh: folder.join("record.json.new"),
            lock: folder.join("record.lock"),
            folder: folder.to_owned(),
        }
    }

    fn load(&self, look: &mut Option<Look>) -> Result<Loaded, RegisterError> {
        let found = self.read(look)?;
        match found {
            Ok(found) => Ok(Loaded {
                found,
                moved_aside: None,
            }),
            Err(_) => self.move_aside(look),
        }
    }

    /// Reads the file as it is: nothing, a record, or something that is none.
    fn read(
        &self,
        look: &mut Option<Look>,
    ) -> Result<Result<Option<(Record, Version)>, Unreadable>, RegisterError> {
        let io = |why: io::Error| failed(&format!("read {}", self.record.display()), &why);
        *look = self.look();
        let mut text = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
        match OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW | NO_WAIT)
            .open(&self.record)
        {
            Ok(file) if !file.metadata().map_err(io)?.is_file() => {
                return Err(io(io::Error::other("it is not a regular file")));
            }
            Ok(file) => file.take(MOST_BYTES).read_to_end(&mut text).map_err(io)?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(why) => return Err(io(why)),
        };
        match Record::parse(&text) {
            Ok(record) => Ok(Ok(Some((record, version_of(&text))))),
            Err(Unreadable::NewerFormat { found }) => Err(RegisterError::NewerFormat {
                place: self.record.display().to_string(),
                found,
            }),
            Err(torn) => Ok(Err(torn)),
        }
    }

    /// Puts a torn file where people can look at it, and leaves the register empty.
    fn move_aside(&self, look: &mut Option<Look>) -> Result<Loaded, RegisterError> {
        let _lock = self.locked()?;
        // Another daemon may have mended it while we waited.
        let torn = match self.read(look)? {
            Ok(found) => {
                return Ok(Loaded {
                    found,
                    moved_aside: None,
                });
            }
            Err(torn) => torn,
        };
        let aside = self.free_name_aside();
        let doing = format!(
            "move the torn {} to {}",
            self.record.display(),
            aside.display()
        );
        fs::rename(&self.record, &aside).map_err(|why| failed(&doing, &why))?;
        *look = self.look();
        let told = format!(
            "{} was moved to {}: {torn}",
            self.record.display(),
            aside.display()
        );
        Ok(Loaded {
            found: None,
            moved_aside: Some(told),
        })
    }

    fn free_name_aside(&self) -> PathBuf {
        let numbered = |number: u32| self.folder.join(format!("record.json.torn-{number}"));
        (1..)
            .map(numbered)
            .find(|path| !path.exists())
            .expect("fewer torn files than numbers")
    }

    fn swap(&self, seen: Option<&Version>, next: &Record, look: &mut Option<Look>) -> Swapped {
        let _lock = match self.locked() {
            Ok(lock) => lock,
            Err(error) => return Swapped::Unavailable(error),
        };
        match self.read(look) {
            Ok(Ok(current)) if current.as_ref().map(|(_, version)| version) == seen => {}
            Ok(_) => return Swapped::Conflict,
            Err(error) => return Swapped::Unavailable(error),
        }
        let text = next.to_text();
        if let Err(why) = self
            .write_fresh(&text)
            .and_then(|()| fs::rename(&self.fresh, &self.record))
        {
            let _ = fs::remove_file(&self.fresh);
            return Swapped::Unavailable(failed(&format!("write {}", self.record.display()), &why));
        }
        *look = self.look();
        match File::open(&self.folder).and_then(|folder| folder.sync_all()) {
            Ok(()) => Swapped::Done(version_of(&text)),
            Err(why) => Swapped::Unknown(failed(&format!("sync {}", self.folder.display()), &why)),
        }
    }

    fn write_fresh(&self, text: &[u8]) -> io::Result<()> {
        // What a crash left behind, or somebody put there, is neither followed nor written to, whatever its mode.
        match fs::remove_file(&self.fresh) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.fresh)?;
        // The umask may have taken even the owner's bits.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text)?;
        file.sync_all()
    }

    /// Finds out at the start whether files can be made here, rather than at the first mint. Called under the lock.
    fn probe(&self) -> io::Result<()> {
        self.write_fresh(b"probe")?;
        fs::remove_file(&self.fresh)
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&self.lock)
    }

    /// The folder's lock, which dropping gives back.
    fn locked(&self) -> Result<File, RegisterError> {
        let doing = || format!("lock {}", self.lock.display());
        let step = Duration::from_millis(5);
        for _ in 0..LOCK_PATIENCE.as_millis() / step.as_millis() {
            let lock = self.open_lock().map_err(|why| failed(&doing(), &why))?;
            match lock.try_lock() {
                Ok(()) if self.is_the_lock(&lock) => return Ok(lock),
                // Somebody removed the file between our opening and locking it: what we hold, nobody else asks for.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(step),
                Err(TryLockError::Error(why)) => return Err(failed(&doing(), &why)),
            }
        }
        Err(failed(
            &doing(),
            &"another process has held it for a second",
        ))
    }

    fn is_the_lock(&self, lock: &File) -> bool {
        match (lock.metadata(), fs::symlink_metadata(&self.lock)) {
            (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
            _ => false,
        }
    }

    fn look(&self) -> Option<Look> {
        let about = fs::symlink_metadata(&self.record).ok()?;
        Some(Look {
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            length: about.len(),
        })
    }
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "the flag is a small positive number"
)]
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

/// A pipe in the place of a file is opened at once, and then refused.
#[expect(
    clippy::cast_possible_wrap,
    reason = "the flag is a small positive number"
)]
const NO_WAIT: i32 = OFlags::NONBLOCK.bits() as i32;

fn version_of(text: &[u8]) -> Version {
    Version(Sha256::digest(text).to_vec())
}

fn failed(doing: &str, why: &impl ToString) -> RegisterError {
    RegisterError::Io {
        doing: doing.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests;
