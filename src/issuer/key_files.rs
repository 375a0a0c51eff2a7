//! The files that keys are kept in, and what is wrong with one that holds none.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Key, Keys};
use crate::token::Secret;

/// Where the keys are kept. They are read anew whenever somebody asks, so that they can be replaced
/// at any time. A pair is there while both of its files hold a line; the others may come later.
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
    #[error("{} {wrong}", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
        /// Which rule it breaks.
        wrong: NotAKey,
    },
    /// There are no pairs.
    #[error("no key is configured")]
    None,
}

/// What of a file's content no key has. It never repeats a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// There is nothing, or only ends of lines.
    #[error("is empty")]
    Empty,
    /// As editors and shells on Windows write.
    #[error("begins with a byte order mark")]
    ByteOrderMark,
    /// UTF-16, or no text at all.
    #[error("is not UTF-8 text")]
    NotText,
    /// Its end is not one of them.
    #[error("holds more than one line")]
    Lines,
    /// Before the key, as from a copied column.
    #[error("begins with a blank")]
    BlankAtStart,
    /// Behind the key, as `echo` with a stray blank writes.
    #[error("ends with a blank")]
    BlankAtEnd,
    /// A longer line is something else, such as a certificate.
    #[error("is longer than {MOST_BYTES} characters")]
    TooLong,
    /// Everything else: blanks inside, letters beyond ASCII, control characters.
    #[error("holds a character that is not visible ASCII, at place {at}")]
    Invisible {
        /// Counted from one.
        at: usize,
    },
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

/// One line of visible ASCII; the line's end is not a part of it. A pipe or a device is not waited
/// for.
fn read_secret(path: &Path) -> Result<Secret, KeyError> {
    let unreadable = |why| KeyError::Unreadable {
        path: path.to_owned(),
        why,
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
    match key_in(&text) {
        Ok(key) => Ok(Secret::new(key.to_owned())),
        Err(wrong) => Err(KeyError::NotAKey {
            path: path.to_owned(),
            wrong,
        }),
    }
}

/// The key in a file's content, or the first rule that it breaks.
fn key_in(content: &[u8]) -> Result<&str, NotAKey> {
    const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    if BYTE_ORDER_MARKS
        .iter()
        .any(|mark| content.starts_with(mark))
    {
        return Err(NotAKey::ByteOrderMark);
    }
    let text = std::str::from_utf8(content).map_err(|error| match error.error_len() {
        // Cut off in the middle of a character.
        None if content.len() as u64 > MOST_BYTES => NotAKey::TooLong,
        _ => NotAKey::NotText,
    })?;
    let line = text.trim_end_matches(['\r', '\n']);
    let blank = |c: char| c.is_whitespace();
    if line.trim().is_empty() {
        Err(NotAKey::Empty)
    } else if line.contains(['\r', '\n']) {
        Err(NotAKey::Lines)
    } else if line.len() as u64 > MOST_BYTES {
        Err(NotAKey::TooLong)
    } else if line.starts_with(blank) {
        Err(NotAKey::BlankAtStart)
    } else if line.ends_with(blank) {
        Err(NotAKey::BlankAtEnd)
    } else {
        match line.chars().position(|c| !c.is_ascii_graphic()) {
            Some(place) => Err(NotAKey::Invisible { at: place + 1 }),
            None => Ok(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::tests::key;
    use std::fs;

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

        let long = "a".repeat(4097);
        let longer = "a".repeat(9000);
        for (bad, rule) in [
            ("", "is empty"),
            ("\n", "is empty"),
            (" \n", "is empty"),
            ("two\nlines\n", "holds more than one line"),
            ("\u{feff}the-key\n", "begins with a byte order mark"),
            (" the-key", "begins with a blank"),
            ("the-key \n", "ends with a blank"),
            ("the-key\t", "ends with a blank"),
            (
                "sp ace",
                "holds a character that is not visible ASCII, at place 3",
            ),
            (
                "nul\0",
                "holds a character that is not visible ASCII, at place 4",
            ),
            (
                "schlüssel",
                "holds a character that is not visible ASCII, at place 5",
            ),
            (&long, "is longer than 4096 characters"),
            (&longer, "is longer than 4096 characters"),
        ] {
            let files = KeyFiles {
                pairs: vec![(write("id", "the-id"), write("key", bad))],
            };
            let error = files.read().unwrap_err().to_string();
            assert!(error.ends_with(&format!("key {rule}")), "{error}");
        }
        for bytes in [&b"\xff\xfea\0"[..], b"caf\xe9"] {
            let path = folder.path().join("key");
            fs::write(&path, bytes).unwrap();
            let files = KeyFiles {
                pairs: vec![(write("id", "the-id"), path)],
            };
            let error = files.read().unwrap_err().to_string();
            assert!(
                error.ends_with("byte order mark") || error.ends_with("UTF-8 text"),
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
