//! The register of the settings, for commands that work on the record itself, with or without a daemon.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{Console, Exit};
use crate::clock::{Clock as _, Stamp, SystemClock};
use crate::config::{self, Config, Register, Sources};
use crate::record::file::{FileRegister, OpenError};
use crate::record::{self, FORMAT, Reader, Record, Register as _, Swapped, Writer};

/// So many times a swap is tried again when a daemon wrote in between.
const MOST_TRIES: u32 = 20;

/// A register that is open, and what belongs to it.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) register: FileRegister,
    pub(super) clock: SystemClock,
}

/// Reads the settings and opens their register, whose folder is made where it is missing, or says why that cannot be.
pub(super) fn open(sources: &Sources, console: &mut Console<'_>) -> Result<Desk, Exit> {
    open_with(sources, console, FileRegister::open)
}

/// The same for a record that is there already: nothing is made.
pub(super) fn existing(sources: &Sources, console: &mut Console<'_>) -> Result<Desk, Exit> {
    open_with(sources, console, FileRegister::inspect)
}

fn open_with(
    sources: &Sources,
    console: &mut Console<'_>,
    open: fn(&Path) -> Result<FileRegister, OpenError>,
) -> Result<Desk, Exit> {
    let config = match config::read(sources) {
        Ok(reading) => reading.config,
        Err(problems) => return Err(console.tell_problems(&problems, sources)),
    };
    for warning in &config.warnings {
        console.tell(&format!("warning: {warning}"));
    }
    let Register::File { folder } = &config.register else {
        let why =
            "record.register: with \"memory\" there is no record on the disk; set it to \"file\"";
        return Err(console.end(Exit::BadSettings, why));
    };
    match open(folder) {
        Ok(register) => Ok(Desk {
            config,
            register,
            clock: SystemClock::new(),
        }),
        Err(error) => Err(console.end(Exit::BadSettings, &format!("record.file.folder: {error}"))),
    }
}

impl Desk {
    /// Who writes, as the record remembers it.
    pub(super) fn writer(&self, command: &str) -> Writer {
        Writer {
            holder: format!("{command}-{}", std::process::id()),
            boot_id: self.clock.boot_id(),
            at: self.clock.now(),
        }
    }

    /// The fingerprint of the keys and the address of the settings; `None` where the keys cannot be read.
    pub(super) fn set_at_hand(&self) -> Option<String> {
        let mint_url = self.config.issuer.mint_url.as_str();
        let keys = self.config.keys.read().ok();
        keys.map(|keys| keys.fingerprint_at(mint_url))
    }

    /// The record as it is, on this boot's clock. Nothing is written or moved, whatever is there.
    pub(super) fn read(&self, now: Stamp) -> Result<Record, (Exit, String)> {
        let place = self.register.path().display();
        let failed = |why: String| (Exit::Failed, why);
        let text = match fs::read(self.register.path()) {
            Ok(text) => Zeroizing::new(text),
            Err(why) if why.kind() == ErrorKind::NotFound => {
                return Err(failed(format!(
                    "there is no record at {place}; `bearerd init` writes one, and so does `bearerd serve`"
                )));
            }
            Err(why) => return Err(failed(format!("{place} cannot be read ({why})"))),
        };
        let record = Record::parse(&text)
            .map_err(|error| failed(format!("the record at {place}: {error}")))?;
        self.here(record, now)
    }

    /// What one user writes another cannot read, and a daemon that cannot read its record mints nothing.
    fn is_ours(&self) -> Result<(), (Exit, String)> {
        let path = self.register.path();
        let owner = fs::metadata(path).map(|it| it.uid());
        let (place, us) = (path.display(), rustix::process::geteuid().as_raw());
        match owner {
            Ok(owner) if owner != us => {
                let why = format!(
                    "{place} belongs to user {owner}, and this is user {us}: run it as the user that runs bearerd"
                );
                Err((Exit::Failed, why))
            }
            _ => Ok(()),
        }
    }

    /// A record of this account, or of one that never held a token, on this boot's clock. It is not clamped: nothing in it may end sooner because this command has other
    /// settings than the daemon that wrote it.
    fn here(&self, record: Record, now: Stamp) -> Result<Record, (Exit, String)> {
        let (found, expected) = (&record.account, &self.config.account);
        if found != expected && record.adopted_by(expected).is_none() {
            let why = record::of_another_account(self.register.path(), found, expected);
            return Err((Exit::BadSettings, why));
        }
        let reader = Reader {
            holder: "",
            boot_id: &self.clock.boot_id(),
            offsets: &[now.offset()],
        };
        let moved = record.read_by(&reader, now, &self.config.rules);
        Ok(moved.unwrap_or(record))
    }

    /// Writes what `change` makes of the record, on top of whatever others write meanwhile; gives what was written, or `None` where
    /// there was nothing to change.
    pub(super) async fn change(
        &self,
        writer: &Writer,
        change: impl Fn(&Record, Stamp) -> Option<Record>,
    ) -> Result<Option<Record>, (Exit, String)> {
        // A load moves aside what is no record; that is for a daemon to do.
        self.read(self.clock.now())?;
        self.is_ours()?;
        for _ in 0..MOST_TRIES {
            let loaded = self
                .register
                .load()
                .await
                .map_err(|error| (Exit::Failed, error.to_string()))?;
            let Some((record, version)) = loaded.found else {
                return Err((Exit::Failed, "the record has just gone away".into()));
            };
            let now = self.clock.now();
            let Some(mut next) = change(&self.here(record, now)?, now) else {
                return Ok(None);
            };
            next.revision += 1;
            next.format = next.format.max(FORMAT);
            next.written = Writer {
                at: now,
                ..writer.clone()
            };
            match self.register.swap(Some(version), next.clone()).await {
                Swapped::Done(_) => return Ok(Some(next)),
                Swapped::Conflict => {}
                Swapped::Unavailable(error) => return Err((Exit::Failed, error.to_string())),
                Swapped::Unknown(error) => {
                    let why = format!(
                        "{error}; it is not known whether it was written: look with `bearerd ledger show` before you try again"
                    );
                    return Err((Exit::Failed, why));
                }
            }
        }
        let why = "others wrote the record each time before it could be written; try again";
        Err((Exit::TryAgain, why.into()))
    }
}
