//! `init`: a new record, where there is none.

use std::path::Path;

use super::register::{self, Desk};
use super::{Console, Exit};
use crate::config::Sources;
use crate::record::{self, Record, Register as _, Swapped};

pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> Exit {
    let desk = match register::open(sources, console) {
        Ok(desk) => desk,
        Err(exit) => return exit,
    };
    match super::block_on(write(&desk)) {
        Ok(moved_aside) => {
            if let Some(moved_aside) = moved_aside {
                console.tell(&format!("warning: {moved_aside}"));
            }
            console.print(&format!("{}\n", desk.register.path().display()));
            Exit::Done
        }
        Err(why) => {
            console.tell(&why);
            Exit::Failed
        }
    }
}

/// Writes the record; gives what had to be moved aside for it.
async fn write(desk: &Desk) -> Result<Option<String>, String> {
    let Desk {
        config, register, ..
    } = desk;
    let loaded = register.load().await.map_err(|error| error.to_string())?;
    if loaded.found.is_some() {
        return Err(exists(register.path()));
    }
    let lineage = format!("{:032x}", fastrand::u128(..));
    let record = Record::new(
        &config.account,
        lineage,
        config.absent,
        desk.writer("init"),
        &config.rules,
    );
    match register.swap(None, record).await {
        Swapped::Done(_) => Ok(loaded.moved_aside),
        Swapped::Conflict => Err(exists(register.path())),
        Swapped::Unavailable(error) | Swapped::Unknown(error) => Err(error.to_string()),
    }
}

fn exists(path: &Path) -> String {
    let (place, command) = (path.display(), record::set_aside(path));
    format!(
        "there is a record at {place}, and it remembers what was spent; to begin anew, stop every bearerd on this folder, run: {command}, \
         and run init again"
    )
}
