//! The register of the settings, for commands that work on the record itself, with or without a daemon.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Console, Exit};
use crate::clock::{Clock as _, Stamp, SystemClock};
use crate::config::{self, Config, Register, Sources};
use crate::record::edit::{EditError, Editor};
use crate::record::file::{FileRegister, OpenError};
use crate::record::{self, Record, Writer};

/// A register that is open, and what belongs to it.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) register: Arc<FileRegister>,
    pub(super) clock: SystemClock,
    editor: Editor,
}

/// How to end, and what to say.
pub(super) type Failed = (Exit, String);

/// Reads the settings and opens their register, whose folder is made where it is missing, or says why that cannot be.
pub(super) fn open(sources: &Sources, console: &mut Console<'_>) -> Result<Desk, Exit> {
    open_with(sources, console, FileRegister::open).map_err(|(exit, why)| console.end(exit, &why))
}

/// The same for a record that is there already: nothing is made, and nothing is said about what is in the way.
pub(super) fn existing(sources: &Sources, console: &mut Console<'_>) -> Result<Desk, Failed> {
    open_with(sources, console, FileRegister::inspect)
}

fn open_with(
    sources: &Sources,
    console: &mut Console<'_>,
    open: fn(&Path) -> Result<FileRegister, OpenError>,
) -> Result<Desk, Failed> {
    let bad = |why: String| (Exit::BadSettings, why);
    let config = match config::read(sources) {
        Ok(reading) => reading.config,
        Err(problems) => return Err(bad(super::problems_told(&problems, sources))),
    };
    for warning in &config.warnings {
        console.tell(&format!("warning: {warning}"));
    }
    let Register::File { folder } = &config.register else {
        let why =
            "record.register: with \"memory\" there is no record on the disk; set it to \"file\"";
        return Err(bad(why.to_owned()));
    };
    let register = open(folder).map_err(|error| bad(format!("record.file.folder: {error}")))?;
    let register = Arc::new(register);
    let (account, rules) = (config.account.clone(), config.rules.clone());
    Ok(Desk {
        editor: Editor::new(
            Arc::clone(&register) as Arc<dyn record::Register>,
            account,
            rules,
        ),
        config,
        register,
        clock: SystemClock::new(),
    })
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
        let moved = self.editor.here(record, &self.clock, now);
        moved.map_err(|error| self::failed(&error))
    }

    /// What one user writes another cannot read, and a daemon that cannot read its record mints nothing.
    pub(super) fn is_ours(&self) -> Result<(), Failed> {
        let owner = fs::metadata(self.register.path()).map(|it| it.uid());
        let us = rustix::process::geteuid().as_raw();
        match owner {
            Ok(owner) if owner != us => {
                let place = self.register.path().display();
                let why = format!(
                    "{place} belongs to user {owner}, and this is user {us}: run it as the user that runs bearerd"
                );
                Err((Exit::Failed, why))
            }
            _ => Ok(()),
        }
    }

    /// What changes the record, if it is a whole one: a load moves aside what is none, and that is for a daemon to do.
    pub(super) fn editor(&self) -> Result<&Editor, Failed> {
        self.read(self.clock.now())?;
        Ok(&self.editor)
    }
}

/// How to end after this, and what to say.
pub(super) fn failed(error: &EditError) -> Failed {
    let exit = match error {
        EditError::OtherAccount(_) => Exit::BadSettings,
        EditError::Count { .. } => Exit::Usage,
        EditError::Busy => Exit::TryAgain,
        EditError::Register(_) | EditError::Unconfirmed(_) | EditError::NoRecord => Exit::Failed,
    };
    (exit, error.to_string())
}
