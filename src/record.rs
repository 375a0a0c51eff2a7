//! The durable shared state, its rules and where it lives.
//!
//! A [`Record`] is one small document. All that may happen to it is a pure function from record to record, so that every register
//! obeys the same code and a crash can forget nothing: an attempt is *begun as if it were already lost*, and whatever is learnt
//! later can only improve on that.

mod attempt;
mod carry;
mod codec;
pub mod edit;
pub mod file;
pub mod memory;
mod operator;
mod restore;
mod rules;
mod sets;
mod slot;
mod unknown;
mod waits;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use attempt::{Attempt, Failure, Reservation, Taken};
pub use carry::{Carried, Reader};
pub use codec::{FORMAT, Unreadable};
pub use operator::{of_another_account, set_aside};
pub use rules::{Backoff, Rules, Wanted};
pub use sets::{Refusal, RefusedSet};
pub use slot::{Lengths, Outcome, Slot, Trigger};
pub use unknown::Probation;

use crate::budget::Spent;
use crate::clock::{BootId, Stamp};
use crate::token::{Generation, Token};

/// What is known of one account: its token, what it spent, and when it may spend again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The document's format, `major.minor`.
    #[serde(with = "codec::format")]
    pub format: (u32, u32),
    /// The account that the token and the budget belong to.
    pub account: String,
    /// Names this record from its birth on; another lineage means that the earlier record was lost.
    pub lineage: String,
    /// Counts the swaps. A lower one under the same lineage means that an older copy came back.
    pub revision: u64,
    /// Who wrote it last, and when.
    pub written: Writer,
    /// The last generation allotted.
    pub generation: Generation,
    /// The newest token, live or not.
    #[serde(with = "codec::kept_token")]
    pub token: Option<Token>,
    /// Who is minting right now.
    #[serde(deserialize_with = "codec::required")]
    pub claim: Option<Claim>,
    /// The slots taken and not yet free.
    pub ledger: Vec<Slot>,
    /// Failures in a row; they set the back-off.
    pub streak: Streak,
    /// No attempt of any class before this moment, but for a set that was not tried yet.
    #[serde(deserialize_with = "codec::required")]
    pub not_before: Option<Stamp>,
    /// What is not known of the past.
    #[serde(deserialize_with = "codec::required")]
    pub probation: Option<Probation>,
    /// Which of the keys is tried next.
    pub keys: KeyTrial,
    /// The issuer refuses the set that was tried last, and attempts with it are rare. Builds of format 1.0 know this one alone.
    #[serde(deserialize_with = "codec::required")]
    pub parked: Option<Parked>,
    /// The sets that the issuer refuses, newest last; since format 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedSet>,
    /// The fingerprints that were tried since the last token was minted, newest last; since format 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// No attempt of any class and any set before this moment; since format 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Stamp>,
    /// Which of the times were brought here from another boot clock; since format 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// Who wrote a record, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// The process that wrote.
    pub holder: String,
    /// The boot that the record's boot times belong to.
    pub boot_id: BootId,
    /// When it was written.
    pub at: Stamp,
}

/// A process's right to be the one that mints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The attempt that is under way.
    pub attempt: Generation,
    /// The process that makes it.
    pub holder: String,
    /// When others may take over.
    pub until: Stamp,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// Failures in a row, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// Attempts that may have been counted and gave no fresh token.
    pub lost: u32,
    /// Attempts that surely never left.
    pub unsent: u32,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// How far the trial of the keys has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTrial {
    /// The fingerprint of the set that was tried last: its keys, and the address that they were sent to.
    pub fingerprint: String,
    /// The index of the key that is tried next, modulo their number.
    pub cursor: u32,
    /// How many attempts in a row were refused.
    pub refused: u32,
    /// No attempt with this set before this moment, since the last request with it did not leave; since format 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Stamp>,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// Why and since when attempts are rare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// When the last key was refused.
    pub since: Stamp,
    /// When it is tried again with the same keys; `not_before` holds for every attempt, this for those alone.
    pub retry_at: Stamp,
    /// What the issuer said.
    pub reason: String,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// What a new record assumes about the past it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Up to three requests at once, each for a reason of its own, then one per blind pace for a period.
    New,
    /// No mint for a full period: exact, and slow.
    Wait,
    /// The record does not outlive the process: every mint, the first included, keeps the blind pace.
    Forgetful,
}

impl Record {
    /// The first record of an account, as seen by a process that found none.
    pub fn new(
        account: &str,
        lineage: String,
        absent: Absent,
        writer: Writer,
        rules: &Rules,
    ) -> Self {
        let now = writer.at;
        let birth = u64::try_from(now.wall.as_second()).unwrap_or(1);
        let ends = now.plus(rules.budget.period());
        let (not_before, until) = match absent {
            Absent::New => (None, Some(ends)),
            Absent::Wait => (Some(ends), Some(ends)),
            Absent::Forgetful => (Some(now.plus(rules.budget.blind_pace())), None),
        };
        let at_once = match absent {
            Absent::New => unknown::AT_ONCE,
            Absent::Wait | Absent::Forgetful => 0,
        };
        Self {
            format: FORMAT,
            account: account.to_owned(),
            lineage,
            revision: 0,
            written: writer,
            generation: Generation(birth),
            token: None,
            claim: None,
            ledger: Vec::new(),
            streak: Streak::default(),
            not_before,
            probation: Some(Probation {
                until,
                period: until.is_some().then(|| rules.budget.period()),
                at_once,
                newer: BTreeMap::new(),
            }),
            keys: KeyTrial::default(),
            parked: None,
            refused: Vec::new(),
            tried: Vec::new(),
            // Whatever is configured, the first mint waits.
            hold_until: not_before,
            carried: None,
            newer: BTreeMap::new(),
        }
    }

    /// The ledger as the guard sees it.
    pub fn spent(&self) -> Vec<Spent> {
        let seen = |slot: &Slot| Spent {
            class: slot.class,
            frees_at: slot.frees_at.boot,
        };
        self.ledger.iter().map(seen).collect()
    }
}

/// Names one state of a register: what a swap must have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub Vec<u8>);

/// What a swap came to.
#[derive(Debug)]
pub enum Swapped {
    /// It is durable, under this version.
    Done(Version),
    /// Somebody else wrote since the version that was seen.
    Conflict,
    /// It surely did not happen.
    Unavailable(RegisterError),
    /// It may have happened: load and look.
    Unknown(RegisterError),
}

/// Why a register did not serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegisterError {
    /// It cannot be reached, read or written now.
    #[error("{doing}: {why}")]
    Io {
        /// What was tried, with its place.
        doing: String,
        /// What the system said.
        why: String,
    },
    /// The record was written by a newer bearerd. It is left as it is.
    #[error("the record at {place} has format {found}, and this version reads up to {}.x; start a newer bearerd", FORMAT.0)]
    NewerFormat {
        /// Where the record lives.
        place: String,
        /// The format that it names.
        found: String,
    },
}

/// What a load found.
#[derive(Debug)]
pub struct Loaded {
    /// The record and its version; `None` where there is none.
    pub found: Option<(Record, Version)>,
    /// What had to be moved aside, told so that people can look: where it went and why.
    pub moved_aside: Option<String>,
}

/// What a register promises to give later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a record lives: one cell with compare-and-swap.
///
/// Dropping a pending call is allowed, and leaves a swap's outcome unknown.
pub trait Register: Send + Sync {
    /// What is there now.
    fn load(&self) -> Pending<'_, Result<Loaded, RegisterError>>;
    /// Writes `next` if the register still holds what was `seen` (`None`: nothing), and makes it durable before it answers.
    fn swap(&self, seen: Option<Version>, next: Record) -> Pending<'_, Swapped>;
    /// Ends when the register may hold something else than the last load or swap showed.
    fn changed(&self) -> Pending<'_, ()>;
    /// The register's name in metrics and status: `file`, `memory`, ….
    fn name(&self) -> &'static str;
    /// The file that holds the record, if it is one.
    fn file(&self) -> Option<&Path> {
        None
    }
}

#[cfg(test)]
mod tests;
