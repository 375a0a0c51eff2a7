//! Who mints: one request, one answer, and what that answer means for the budget.

mod delivery;
pub mod truecaller;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::Stamp;
use crate::token::Secret;
pub use delivery::Delivery;

/// What an attempt to mint came to, told by what the issuer may have counted.
#[derive(Debug)]
pub enum Answer {
    /// A token.
    Minted(Minted),
    /// No byte of the request left this machine: nothing was counted.
    NotSent {
        /// What the system said.
        detail: String,
    },
    /// It may have been counted, and gave no token that can be used.
    Lost {
        /// Whether the issuer answered: then it is counted by now, if ever.
        answered: bool,
        /// What happened.
        detail: String,
    },
    /// The answer is not the issuer's: something that stands before it gave it. The request may have been counted, or may be yet.
    Intermediary {
        /// What it looked like.
        detail: String,
    },
    /// The issuer counts too many (429).
    Throttled {
        /// Its `Retry-After`, if it sent one that can be read.
        retry_after: Option<Duration>,
        /// What it said.
        detail: String,
    },
    /// The issuer refused, and will refuse the same request again.
    Refused {
        /// It was about the key (401, 403): another may do better.
        key_at_fault: bool,
        /// What it said.
        detail: String,
    },
}

/// A token as the issuer gave it.
#[derive(Debug)]
pub struct Minted {
    /// What callers will send.
    pub secret: Secret,
    /// The moment before the request was sent.
    pub sent_at: Stamp,
    /// How much older than `sent_at` the answer showed the token to be; zero where it did not.
    pub aged: Duration,
    /// What was odd about the answer, though not fatal.
    pub note: Option<String>,
}

/// What an issuer promises to answer later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Mints tokens.
pub trait Issuer: Send + Sync {
    /// Sends at most one request, and none once the boot clock has passed `send_by`. Dropping the call leaves the outcome unknown.
    fn mint<'a>(&'a self, key: &'a Key, send_by: Duration) -> Pending<'a, Answer>;
}

/// One pair that may ask for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key's id.
    pub key_id: Secret,
    /// The key itself.
    pub api_key: Secret,
}

/// The keys at hand, in the order in which they are tried. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// A set of keys; `None` where there is none.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The key with this index, modulo their number.
    pub fn pick(&self, index: u32) -> &Key {
        &self.0[index as usize % self.0.len()]
    }

    /// Tells one set of keys and address from another: sixteen hex digits of a SHA-256 over all of it.
    pub fn fingerprint_at(&self, mint_url: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(mint_url.len().to_be_bytes());
        digest.update(mint_url.as_bytes());
        for key in &self.0 {
            for part in [&key.key_id, &key.api_key] {
                digest.update(part.expose().len().to_be_bytes());
                digest.update(part.expose().as_bytes());
            }
        }
        digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Where the keys are kept. They are read anew whenever somebody asks, so that they can be replaced at any time. A pair is there
/// while both of its files hold a line; the others may come later.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// For each key the file of its id and the file of the key itself.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

/// Why a key could not be read. It never shows what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{} cannot be read ({why})", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file holds nothing, or what cannot be a key.
    #[error("{} must hold one line of visible ASCII characters", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// There are no pairs.
    #[error("no key is configured")]
    None,
}

impl KeyFiles {
    /// Reads all of them, once.
    pub fn look(&self) -> Look {
        let pair = |(id, key): &(PathBuf, PathBuf)| {
            Ok(Key {
                key_id: read_secret(id)?,
                api_key: read_secret(key)?,
            })
        };
        Look(self.pairs.iter().map(pair).collect())
    }

    /// The pairs that are there.
    ///
    /// # Errors
    /// Why the first one is not, if none is.
    pub fn read(&self) -> Result<Keys, KeyError> {
        self.look().into_keys()
    }
}

/// What the files held, pair by pair, in the order of the settings.
#[derive(Debug)]
pub struct Look(Vec<Result<Key, KeyError>>);

impl Look {
    /// The pairs that are there; why the first one is not, if none is.
    pub fn into_keys(self) -> Result<Keys, KeyError> {
        let (mut there, mut why) = (Vec::new(), None);
        for pair in self.0 {
            match pair {
                Ok(key) => there.push(key),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Keys::new(there).ok_or(why.unwrap_or(KeyError::None))
    }

    /// For each pair whether it is there.
    pub fn complete(&self) -> Vec<bool> {
        self.0.iter().map(Result::is_ok).collect()
    }
}

/// The longest line that may be a key.
const MOST_BYTES: u64 = 4096;

/// One line of visible ASCII; the line's end is not a part of it. A pipe or a device is not waited for.
fn read_secret(path: &Path) -> Result<Secret, KeyError> {
    let unreadable = |why| KeyError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let not_a_key = || KeyError::NotAKey {
        path: path.to_owned(),
    };
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the flag is a small positive number"
    )]
    let no_wait = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_wait)
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 3));
    file.take(MOST_BYTES + 2)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let line = std::str::from_utf8(&text)
        .map_err(|_| not_a_key())?
        .trim_end_matches(['\r', '\n']);
    let fits = (1..=MOST_BYTES as usize).contains(&line.len());
    if !fits || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_a_key());
    }
    Ok(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn key(id: &str, key: &str) -> Key {
        Key {
            key_id: Secret::new(id.into()),
            api_key: Secret::new(key.into()),
        }
    }

    #[test]
    fn keys_are_picked_in_turn_and_told_apart() {
        let keys = Keys::new(vec![key("a", "1"), key("b", "2")]).unwrap();
        assert_eq!(keys.pick(3), &key("b", "2"));
        let of = |keys: Vec<Key>, url: &str| Keys::new(keys).unwrap().fingerprint_at(url);
        let here = of(vec![key("a", "1"), key("b", "2")], "https://here/1");
        assert_eq!(here, keys.fingerprint_at("https://here/1"));
        for other in [
            of(vec![key("b", "2"), key("a", "1")], "https://here/1"),
            of(vec![key("a", "1"), key("b", "2")], "https://here/2"),
            of(vec![key("a", "1")], "https://here/1"),
        ] {
            assert_ne!(here, other);
        }
        assert_ne!(of(vec![key("ab", "c")], "x"), of(vec![key("a", "bc")], "x"));
        assert!(Keys::new(Vec::new()).is_none());
    }

    #[test]
    fn key_files_are_read_without_their_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = KeyFiles {
            pairs: vec![(write("id", "the-id\r\n"), write("key", "the-key\n"))],
        };
        assert_eq!(files.read().unwrap().pick(0), &key("the-id", "the-key"));

        for bad in ["", "\n", "two\nlines\n", "sp ace", "nul\0"] {
            let files = KeyFiles {
                pairs: vec![(write("id", "the-id"), write("key", bad))],
            };
            let error = files.read().unwrap_err().to_string();
            assert!(
                error.contains("one line of visible ASCII") && !error.contains("space"),
                "{error}"
            );
        }
        let missing = KeyFiles {
            pairs: vec![(folder.path().join("none"), folder.path().join("none"))],
        };
        assert!(
            missing
                .read()
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }

    #[test]
    fn a_pair_that_is_not_there_yet_leaves_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let absent = folder.path().join("absent");
        let half = write("half", "");
        let (id, other) = (write("id", "the-id"), write("other", "the-key"));
        let files = KeyFiles {
            pairs: vec![
                (absent.clone(), absent.clone()),
                (id.clone(), other.clone()),
                (id.clone(), half),
            ],
        };
        let look = files.look();
        assert_eq!(look.complete(), [false, true, false]);
        let keys = look.into_keys().unwrap();
        assert_eq!(keys, Keys::new(vec![key("the-id", "the-key")]).unwrap());
        let none = KeyFiles {
            pairs: vec![(absent.clone(), id)],
        };
        let told = none.read().unwrap_err().to_string();
        assert!(told.contains("absent cannot be read"), "{told}");
    }

    #[test]
    fn a_pipe_or_a_device_in_the_place_of_a_key_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap();
        assert!(made.success());
        for path in [pipe, PathBuf::from("/dev/zero"), folder.path().to_owned()] {
            let files = KeyFiles {
                pairs: vec![(path.clone(), path)],
            };
            assert!(matches!(files.read(), Err(KeyError::Unreadable { .. })));
        }
    }
}
