//! `check`: everything that can be wrong before a start, found in one run.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Console, Exit, Form, with_causes};
use crate::app;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Register, Sources};
use crate::issuer::truecaller::missing_roots;
use crate::listener::{Address, foresee};
use crate::record::file::FileRegister;
use crate::record::{self, Absent, Record, Unreadable};
use crate::telemetry::could_open;
use crate::tls;

/// What the state folder holds, as far as it matters to a start.
enum Found {
    /// Nothing stands in the way; a word about it.
    Fine(String),
    /// Somebody should look.
    Odd(String),
    /// `serve` would refuse to start.
    Wrong(String),
}

pub(super) fn run(sources: &Sources, format: Form, console: &mut Console<'_>) -> Exit {
    let reading = match config::read(sources) {
        Ok(reading) => reading,
        Err(problems) => return console.tell_problems(&problems, sources),
    };
    let effective = &reading.effective;
    console.print(&match format {
        Form::Text => effective.to_text(),
        Form::Json => format!("{:#}\n", effective.to_json()),
    });
    for warning in &reading.config.warnings {
        console.tell(&format!("warning: {warning}"));
    }
    let obstacles = obstacles(&reading.config);
    for obstacle in &obstacles {
        console.tell(&format!(
            "warning: as this machine is now, serve would not start: {obstacle}"
        ));
    }
    if let Some(Ok(facts)) = certificate(&reading.config) {
        console.tell(&format!("the certificate of TLS is {facts}"));
    }
    let audit = audit(&reading.config);
    if let Some(wrong) = &audit {
        console.tell(wrong);
    }
    let found = state(&reading.config);
    if may_cost_more(&reading.config) && !matches!(found, Found::Wrong(_)) {
        console.tell(LOST_RECORD);
    }
    match found {
        Found::Fine(word) if obstacles.is_empty() && audit.is_none() => {
            console.tell(&format!("the settings are good; {word}"));
        }
        Found::Fine(word) => console.tell(&format!(
            "the settings can be read, but serve would not start with them here (see above); {word}"
        )),
        Found::Odd(word) => console.tell(&format!("warning: {word}")),
        Found::Wrong(word) => {
            console.tell(&word);
            return Exit::BadSettings;
        }
    }
    if audit.is_some() {
        return Exit::BadSettings;
    }
    Exit::Done
}

/// What a start needs of the machine, and does not find now.
fn obstacles(config: &Config) -> Vec<String> {
    let sections = [
        ("http.listen", &config.http.listen),
        ("grpc.listen", &config.grpc.listen),
        ("admin.listen", &config.admin.listen),
    ];
    let each = |(path, listen): (&str, &Vec<Address>)| {
        let errors = listen.iter().filter_map(foresee);
        errors
            .map(|error| format!("{path}: {}", with_causes(&error)))
            .collect::<Vec<_>>()
    };
    let roots = match config.issuer.mint_url.scheme() {
        "http" => None,
        _ => missing_roots().map(|error| with_causes(&app::BindError::Client(error))),
    };
    sections.into_iter().flat_map(each).chain(roots).collect()
}

/// Why the audit's file cannot be written, if it cannot.
fn audit(config: &Config) -> Option<String> {
    let error = could_open(config.audit_file()?).err()?;
    Some(with_causes(&app::BindError::Audit(error)))
}

/// True if a start without a record makes requests at once.
fn may_cost_more(config: &Config) -> bool {
    matches!(config.register, Register::File { .. }) && config.absent == Absent::New
}

/// What a lost record can cost; it is an operator's to choose.
const LOST_RECORD: &str = "\
record.absent = \"new\": a start without a record makes up to 3 requests at once (the first, one retry, one after a mend), so a record \
that is lost at N starts within a window can cost 3N; \"wait\" makes none for a whole period";

/// What reading the settings has found to be good.
fn certificate(config: &Config) -> Option<Result<tls::Facts, tls::Problem>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Some(config.tls.as_ref()?.check(&clock))
}

fn state(config: &Config) -> Found {
    let Register::File { folder } = &config.register else {
        return Found::Fine("the record is kept in memory only".into());
    };
    match FileRegister::inspect(folder) {
        // It is read here rather than loaded, since a load moves a torn record aside.
        Ok(register) => match record(register.path(), &config.account) {
            Found::Fine(word) => another_user(&register).unwrap_or(Found::Fine(word)),
            found => found,
        },
        Err(error) => Found::Wrong(format!("record.file.folder: {error}")),
    }
}

/// What one user may read and write says nothing about another.
fn another_user(register: &FileRegister) -> Option<Found> {
    let us = rustix::process::geteuid().as_raw();
    let (path, owner) = register.owner().filter(|(_, owner)| *owner != us)?;
    Some(Found::Odd(format!(
        "{} belongs to user {owner}, and this is user {us}: the settings are good for this user, and whether user {owner} can read the \
         key files and write the record is not known; run check as the user that runs bearerd",
        path.display()
    )))
}

fn record(path: &Path, account: &str) -> Found {
    let place = path.display();
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(why) if why.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.exists());
            return Found::Fine(match folder {
                Some(folder) => format!("serve will make the state folder {}", folder.display()),
                None => format!("there is no record at {place} yet"),
            });
        }
        Err(why) => {
            return Found::Wrong(format!(
                "record.file.folder: {place} cannot be read ({why}); run check as the user that runs bearerd, or give the file to it"
            ));
        }
    };
    match Record::parse(&text) {
        Ok(record) if record.account == account => {
            Found::Fine(format!("the record at {place} is this account's"))
        }
        Ok(record) if record.adopted_by(account).is_some() => Found::Odd(format!(
            "record.file.folder: the record at {place} is account {:?}'s, which never held a token; serve will take it over for {account:?} \
             and forget no slot",
            record.account
        )),
        Ok(record) => Found::Wrong(format!(
            "record.file.folder: {}",
            record::of_another_account(path, &record.account, account)
        )),
        Err(Unreadable::NewerFormat { found }) => Found::Wrong(format!(
            "record.file.folder: the record at {place} has the newer format {found}; start a newer bearerd, or name another folder"
        )),
        Err(torn @ Unreadable::Torn { .. }) => Found::Odd(format!(
            "record.file.folder: {place}: {torn}; serve will move it aside and begin as record.absent says"
        )),
    }
}
