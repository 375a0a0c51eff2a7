//! The three files: how they are read, and how a change is noticed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::problem::{Fault, Problem};

/// A chain has a few kilobytes, and all authorities of the web a quarter of a megabyte.
pub(super) const MOST_BYTES: u64 = 1 << 20;

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs callers' certificates; where this is set, callers need one.
    pub client_ca: Option<PathBuf>,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of callers' certificates.
    ClientCa,
}

impl File {
    /// The setting that names it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Certificate => "tls.certificate_file",
            Self::Key => "tls.key_file",
            Self::ClientCa => "tls.client_ca_file",
        }
    }
}

/// What the files held at one moment. It is wiped when dropped.
pub(super) struct Contents {
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) client_ca: Option<Text>,
}

/// What a file held, or why that is not known.
pub(super) type Text = Result<Zeroizing<Vec<u8>>, Fault>;

/// Tells one state of the files from another without reading them. Links are followed, so that a link that leads elsewhere counts as a
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity([Option<Look>; 3]);

/// Device, inode, size, and when contents and attributes last changed.
type Look = (u64, u64, u64, (i64, i64), (i64, i64));

impl Files {
    pub(super) fn identity(&self) -> Identity {
        let look = |path: &Path| {
            let it = fs::metadata(path).ok()?;
            let (modified, changed) =
                ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
            Some((it.dev(), it.ino(), it.size(), modified, changed))
        };
        let client_ca = self.client_ca.as_deref().and_then(look);
        Identity([look(&self.certificate), look(&self.key), client_ca])
    }

    pub(super) fn contents(&self) -> Contents {
        Contents {
            certificate: read(&self.certificate),
            key: read(&self.key),
            client_ca: self.client_ca.as_deref().map(read),
        }
    }

    pub(super) fn problem(&self, file: File, fault: Fault) -> Problem {
        let path = match file {
            File::Certificate => &self.certificate,
            File::Key => &self.key,
            File::ClientCa => self.client_ca.as_ref().unwrap_or(&self.certificate),
        };
        Problem {
            file,
            path: path.clone(),
            fault,
        }
    }
}

impl Contents {
    /// The same for the same contents only.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let all = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ];
        for text in all.into_iter().flatten() {
            let why = text
                .as_ref()
                .map_or_else(ToString::to_string, |_| String::new());
            let bytes = text
                .as_ref()
                .map_or(why.as_bytes(), |bytes| bytes.as_slice());
            digest.update([u8::from(text.is_ok())]);
            digest.update(bytes.len().to_be_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

/// A pipe or a device is not waited for.
fn read(path: &Path) -> Text {
    let unreadable = |why: io::Error| Fault::Unreadable {
        why: why.to_string(),
    };
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the flag is a small positive number"
    )]
    let no_wait = OFlags::NONBLOCK.bits() as i32;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(no_wait).open(path);
    let file = file.map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let mut text = Zeroizing::new(Vec::new());
    let mut bounded = file.take(MOST_BYTES + 1);
    bounded.read_to_end(&mut text).map_err(unreadable)?;
    match text.len() as u64 {
        0 => Err(Fault::Empty),
        1..=MOST_BYTES => Ok(text),
        _ => Err(Fault::TooLong),
    }
}
