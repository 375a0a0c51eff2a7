mod attempt;
mod carry;
mod codec;
mod format;
mod ledger;
pub(super) mod machine;
mod operator;
pub(super) mod register;
mod restore;
mod sets;
mod transitions;
mod unknown;

use super::*;
use crate::budget::Class;
use crate::token::Secret;
use jiff::{SignedDuration, Timestamp};
use std::num::NonZeroU32;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const KEYS: &str = "keys";

/// The real account: period 33 minutes, blind pace 198 s, back-off 30 s to 225 s.
pub(super) fn rules() -> Rules {
    let limit = NonZeroU32::new(10).unwrap();
    Rules::new(&Wanted::new(60 * MINUTE, 30 * MINUTE, limit))
}

/// So many seconds after the start, on the boot "here" and with a wall clock that is right.
fn at(second: u64) -> Stamp {
    Stamp {
        wall: Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap(),
        boot: Duration::from_secs(50_000 + second),
    }
}

fn writer(second: u64) -> Writer {
    Writer {
        holder: "me".into(),
        boot_id: BootId::new("here"),
        at: at(second),
    }
}

/// A record whose past is known.
fn known() -> Record {
    let mut record = Record::new(
        "account",
        "lineage".into(),
        Absent::New,
        writer(0),
        &rules(),
    );
    record.probation = None;
    record
}

fn reservation<'a>(class: Class, trigger: Trigger) -> Reservation<'a> {
    Reservation {
        class,
        trigger,
        holder: "me",
        keys: KEYS,
        at_least: Generation(1),
        jitter: 1000,
    }
}

fn begin(record: &Record, second: u64) -> (Record, Attempt) {
    let asked = reservation(Class::Routine, Trigger::Schedule);
    record.begin(&asked, at(second), &rules())
}

fn token(of: &Attempt, second: u64) -> Token {
    Token {
        generation: of.generation,
        secret: Secret::new(format!("secret-{}", of.generation)),
        issued_at: at(second),
        refresh_at: at(second + 27 * 60),
        expires_at: at(second + 60 * 60),
    }
}

/// A record with a token that was minted at 0 and another slot that was lost at 200.
pub(super) fn lived() -> Record {
    let (record, first) = begin(&known(), 0);
    let record = record.commit(&first, &token(&first, 0), at(1), at(1), &rules());
    let (record, lost) = begin(&record, 200);
    record.abort(&lost, &Failure::Lost { answered: false }, at(210), &rules())
}
