//! `ledger` and `unpark`: emergencies. They work on the record itself, with the daemon running or stopped.

mod show;

use std::time::Duration;

use super::register::{self, Desk};
use super::{Console, Exit, Form, reach};
use crate::clock::{Clock as _, Stamp};
use crate::config::Sources;
use crate::record::Record;

/// What every change by hand is written as.
const HOLDER: &str = "operator";

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
pub(super) fn spend(count: u32, sources: &Sources, console: &mut Console<'_>) -> Exit {
    with_desk(sources, console, |desk, console| {
        let limit = desk.config.rules.budget.limit.get();
        if !(1..=limit).contains(&count) {
            let why = format!("spend takes 1 to {limit} slots: budget.limit is {limit}");
            return Err((Exit::Usage, why));
        }
        let writer = desk.writer(HOLDER);
        let rules = &desk.config.rules;
        let written = super::block_on(desk.change(&writer, |record, now| {
            Some(record.spent_by_hand(count, &writer.holder, now, rules))
        }))?;
        // In whole seconds, rounded up: parts of one say nothing to a person.
        let seconds = rules.budget.period().as_secs_f64().ceil();
        let period = humantime::format_duration(Duration::from_secs_f64(seconds));
        let taken = written.map_or(0, |record| record.ledger.len());
        console.tell(&format!(
            "{count} spent, for {period} from now; {taken} slots are taken, and {limit} may be"
        ));
        Ok(())
    })
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
        let writer = desk.writer(HOLDER);
        let before = desk.read(desk.clock.now())?;
        super::block_on(desk.change(&writer, |record, _| Some(record.emptied())))?;
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
pub(super) fn unpark(sources: &Sources, console: &mut Console<'_>) -> Exit {
    with_desk(sources, console, |desk, console| {
        let writer = desk.writer(HOLDER);
        let written = super::block_on(desk.change(&writer, |record, _| Record::unparked(record)))?;
        let Some(record) = written else {
            console.tell("it is not parked; nothing was changed");
            return Ok(());
        };
        let now = desk.clock.now();
        console.tell(&match waits(&record, desk, now) {
            Some((until, why)) => format!(
                "unparked: each key is tried again, but not before {}, because of {why}",
                until.shown(now).strftime("%H:%M:%SZ")
            ),
            None => {
                "unparked: each key is tried again, and a running daemon notices within a second"
                    .into()
            }
        });
        Ok(())
    })
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
        Err(exit) => return exit,
    };
    match work(&desk, console) {
        Ok(()) => Exit::Done,
        Err((exit, why)) => console.end(exit, &why),
    }
}
