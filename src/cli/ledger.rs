//! `ledger` and `unpark`: emergencies. They work on the record itself, with the daemon running or stopped, or ask the daemon for it.

mod show;

use std::time::Duration;

use super::register::{self, Desk, Failed, failed};
use super::{Console, Exit, Form, reach};
use crate::client::Door;
use crate::clock::{Clock as _, Stamp};
use crate::config::Sources;
use crate::record::Record;

/// Prints what the record remembers.
pub(super) fn show(sources: &Sources, form: Form, console: &mut Console<'_>) -> Exit {
    with_desk(sources, console, |desk, console| {
        let now = desk.clock.now();
        let record = desk.read(now)?;
        let shown = show::Shown::new(&record, desk, now);
        console.print(&match form {
            Form::Text => shown.to_text(),
            Form::Json => shown.to_json(),
        });
        Ok(())
    })
}

/// Takes slots for mints that were made elsewhere.
pub(super) fn spend(
    count: u32,
    admin: Option<&str>,
    sources: &Sources,
    console: &mut Console<'_>,
) -> Exit {
    let desk = match desk_or_daemon(admin, sources, console) {
        Ok(Reached::Desk(desk)) => desk,
        Ok(Reached::Daemon(door)) => {
            let path = format!("/spend?count={count}");
            return ask(&door, &path, console, |answer| {
                let [taken, limit] = ["taken", "limit"].map(|name| answer[name].to_string());
                let until = answer["frees_at"].as_str().unwrap_or_default();
                format!("{count} spent, until {until}; {taken} slots are taken, and {limit} may be")
            });
        }
        Err((exit, why)) => return console.end(exit, &why),
    };
    let written = desk.editor().and_then(|editor| {
        super::block_on(editor.spend(count, &desk.clock)).map_err(|error| failed(&error))
    });
    let record = match written {
        Ok(record) => record,
        Err((exit, why)) => return console.end(exit, &why),
    };
    let budget = &desk.config.rules.budget;
    // In whole seconds, rounded up: parts of one say nothing to a person.
    let seconds = budget.period().as_secs_f64().ceil();
    let period = humantime::format_duration(Duration::from_secs_f64(seconds));
    console.tell(&format!(
        "{count} spent, for {period} from now; {} slots are taken, and {} may be",
        record.ledger.len(),
        budget.limit
    ));
    Exit::Done
}

/// Forgets what was spent.
pub(super) fn reset(yes: bool, sources: &Sources, console: &mut Console<'_>) -> Exit {
    if !yes {
        return console.end(Exit::Usage, RESET_NEEDS_YES);
    }
    with_desk(sources, console, |desk, console| {
        if let Some(address) = super::block_on(reach::who_answers(sources))? {
            let why = format!(
                "a daemon answers at {address}, and would bring its slots back; stop every bearerd on this record, and run it again"
            );
            return Err((Exit::Failed, why));
        }
        desk.is_ours()?;
        let before = desk.read(desk.clock.now())?;
        let editor = desk.editor()?;
        super::block_on(editor.reset(&desk.clock)).map_err(|error| failed(&error))?;
        console.tell(&format!(
            "{} slots, the claim and the waits are forgotten; if the issuer still counts those mints, it may refuse the next ones",
            before.ledger.len()
        ));
        Ok(())
    })
}

const RESET_NEEDS_YES: &str = "\
reset makes bearerd forget every mint that it spent, who is minting, and the waits after failures; the token stays. If the issuer \
still counts those mints, the next ones can overrun its budget. Do it only when you know that they are not counted: with --yes. \
To begin anew with another account, set the record aside instead: stop every bearerd on its folder and mv record.json record.json.aside";

/// Lets every set of keys be tried again.
pub(super) fn unpark(admin: Option<&str>, sources: &Sources, console: &mut Console<'_>) -> Exit {
    let desk = match desk_or_daemon(admin, sources, console) {
        Ok(Reached::Desk(desk)) => desk,
        Ok(Reached::Daemon(door)) => {
            return ask(
                &door,
                "/unpark",
                console,
                |answer| match answer["outcome"].as_str() {
                    Some("unparked") => format!("{UNPARKED}; `bearerd status` says when"),
                    _ => NOT_PARKED.to_owned(),
                },
            );
        }
        Err((exit, why)) => return console.end(exit, &why),
    };
    let written = desk.editor().and_then(|editor| {
        super::block_on(editor.unpark(&desk.clock)).map_err(|error| failed(&error))
    });
    let record = match written {
        Ok(Some(record)) => record,
        Ok(None) => return console.end(Exit::Done, NOT_PARKED),
        Err((exit, why)) => return console.end(exit, &why),
    };
    let now = desk.clock.now();
    console.tell(&match waits(&record, &desk, now) {
        Some((until, why)) => format!(
            "{UNPARKED}, but not before {}, because of {why}",
            until.shown(now).strftime("%H:%M:%SZ")
        ),
        None => format!("{UNPARKED}, and a running daemon notices within a second"),
    });
    Exit::Done
}

const UNPARKED: &str = "unparked: each key is tried again";
const NOT_PARKED: &str = "it is not parked; nothing was changed";

/// What changes the record.
enum Reached {
    /// We do, in its folder.
    Desk(Box<Desk>),
    /// The daemon whose record it is.
    Daemon(Door),
}

/// The record where this user can write it, or else the daemon, which is asked at once where its address is given.
fn desk_or_daemon(
    admin: Option<&str>,
    sources: &Sources,
    console: &mut Console<'_>,
) -> Result<Reached, Failed> {
    let operators = reach::Side::Operators;
    if admin.is_some() {
        return Ok(Reached::Daemon(operators.door(admin, sources)?));
    }
    let desk = register::existing(sources, console);
    let (exit, why) = match desk.and_then(|desk| desk.is_ours().map(|()| desk)) {
        Ok(desk) => return Ok(Reached::Desk(Box::new(desk))),
        // Whoever names a folder means that one.
        Err(failed) if sources.has_flags() => return Err(failed),
        Err(failed) => failed,
    };
    let Some(socket) = operators.socket_in(sources) else {
        let why = format!(
            "{why}\nwith a Unix socket in admin.listen, such as \"{}\", the daemon could be asked instead",
            operators.socket()
        );
        return Err((exit, why));
    };
    let begin = why.lines().next().unwrap_or_default();
    console.tell(&format!(
        "the record is out of reach ({begin}); asking the daemon at {socket}"
    ));
    let door = Door::new(&socket).map_err(|failure| operators.told(&failure))?;
    Ok(Reached::Daemon(door))
}

/// Lets the daemon do it, and says what it came to.
fn ask(
    door: &Door,
    path: &str,
    console: &mut Console<'_>,
    told: impl Fn(&serde_json::Value) -> String,
) -> Exit {
    match super::block_on(door.post(path)) {
        Ok(body) => console.end(
            Exit::Done,
            &told(&serde_json::from_slice(&body).unwrap_or_default()),
        ),
        Err(failure) => {
            let (exit, why) = reach::Side::Operators.told(&failure);
            console.end(exit, &why)
        }
    }
}

/// What still holds an attempt with the set of the settings up, and until when.
fn waits(record: &Record, desk: &Desk, now: Stamp) -> Option<(Stamp, &'static str)> {
    record.waits(desk.set_at_hand().as_deref(), now, &desk.config.rules)
}

fn with_desk(
    sources: &Sources,
    console: &mut Console<'_>,
    work: impl FnOnce(&Desk, &mut Console<'_>) -> Result<(), (Exit, String)>,
) -> Exit {
    let desk = match register::existing(sources, console) {
        Ok(desk) => desk,
        Err((exit, why)) => return console.end(exit, &why),
    };
    match work(&desk, console) {
        Ok(()) => Exit::Done,
        Err((exit, why)) => console.end(exit, &why),
    }
}
