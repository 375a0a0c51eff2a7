//! `init`: a new record, where there is none.

use std::path::Path;

use super::{Console, Exit};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Register, Sources};
use crate::record::file::FileRegister;
use crate::record::{Record, Register as _, Swapped, Writer};

pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> Exit {
    let config = match config::read(sources) {
        Ok(reading) => reading.config,
        Err(problems) => return console.tell_problems(&problems, sources),
    };
    for warning in &config.warnings {
        console.tell(&format!("warning: {warning}"));
    }
    let Register::File { folder } = &config.register else {
        console.tell(
            "record.register: with \"memory\" there is no record to write; set it to \"file\"",
        );
        return Exit::BadSettings;
    };
    let register = match FileRegister::open(folder) {
        Ok(register) => register,
        Err(error) => {
            console.tell(&format!("record.file.folder: {error}"));
            return Exit::BadSettings;
        }
    };
    match super::block_on(write(&register, &config)) {
        Ok(moved_aside) => {
            if let Some(moved_aside) = moved_aside {
                console.tell(&format!("warning: {moved_aside}"));
            }
            console.print(&format!("{}\n", register.path().display()));
            Exit::Done
        }
        Err(why) => {
            console.tell(&why);
            Exit::Failed
        }
    }
}

/// Writes the record; gives what had to be moved aside for it.
async fn write(register: &FileRegister, config: &Config) -> Result<Option<String>, String> {
    let loaded = register.load().await.map_err(|error| error.to_string())?;
    if loaded.found.is_some() {
        return Err(exists(register.path()));
    }
    let clock = SystemClock::new();
    let writer = Writer {
        holder: format!("init-{}", std::process::id()),
        boot_id: clock.boot_id(),
        at: clock.now(),
    };
    let lineage = format!("{:032x}", fastrand::u128(..));
    let record = Record::new(
        &config.account,
        lineage,
        config.absent,
        writer,
        &config.rules,
    );
    match register.swap(None, record).await {
        Swapped::Done(_) => Ok(loaded.moved_aside),
        Swapped::Conflict => Err(exists(register.path())),
        Swapped::Unavailable(error) | Swapped::Unknown(error) => Err(error.to_string()),
    }
}

fn exists(path: &Path) -> String {
    let place = path.display();
    format!(
        "there is a record at {place}, and it remembers what was spent; to begin anew, stop every bearerd on this folder, move the record \
         away and run init again"
    )
}
