//! What the keeper is told and what it asks to be done.

use std::time::Duration;

use jiff::Timestamp;

use crate::budget::Class;
use crate::issuer::Answer;
use crate::record::{Loaded, Record, RegisterError, Swapped, Version};
use crate::token::{Generation, Token};
use crate::vend::status::Trouble;
use crate::vend::{RefreshOutcome, ReportOutcome};

/// What happened.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is moved once"
)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// The register may hold something new.
    Changed,
    /// The answer to [`Output::Load`].
    Loaded(Result<Loaded, RegisterError>),
    /// The answer to [`Output::Swap`].
    Swapped(Swapped),
    /// The answer to [`Output::Mint`].
    Minted(Answer),
    /// A caller says that the token of this generation was refused.
    Report(Generation),
    /// An operator wants a new token.
    Refresh,
    /// The keys at hand, told at the start and whenever they change.
    Keys {
        /// The fingerprint of the set: the keys, and the address that they are sent to.
        fingerprint: String,
        /// How many there are.
        count: u32,
    },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Load the record.
    Load,
    /// Write this record over the version that was seen.
    Swap {
        /// What was seen.
        seen: Option<Version>,
        /// What is to be written.
        next: Box<Record>,
    },
    /// Mint, if the request can begin by then.
    Mint {
        /// The index of the key.
        key: u32,
        /// The boot time after which nothing is sent.
        send_by: Duration,
    },
    /// Vend this token from now on.
    Publish {
        /// The token.
        token: Token,
        /// It was reported refused.
        suspect: bool,
    },
    /// The answer to [`Input::Report`].
    Reported(ReportOutcome),
    /// The answer to [`Input::Refresh`].
    Refreshed(RefreshOutcome),
    /// An attempt has ended.
    Attempted {
        /// What it could spend.
        class: Class,
        /// The outcome's label.
        outcome: &'static str,
        /// From its reservation to its end.
        duration: Duration,
    },
    /// Something that people should read.
    Note(Note),
}

/// What people should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// There was no record, and a new one is made.
    NewRecord,
    /// The record was lost or replaced by an older copy while we held it; ours is merged back.
    RecordLost,
    /// The record comes from another boot or machine.
    OtherBoot,
    /// The record comes from this boot, and from a wall clock that stands otherwise to the boot clock.
    OtherClock,
    /// A file that is no record was moved aside.
    MovedAside(String),
    /// The register does not serve.
    RegisterDown(String),
    /// It serves again.
    RegisterUp,
    /// A token was minted.
    Minted(Generation),
    /// Another process minted a token.
    Found(Generation),
    /// An attempt failed.
    Failed(Trouble),
    /// The issuer refuses our keys.
    Parked(String),
    /// The issuer refused our keys before this process began.
    StillParked {
        /// What the issuer said.
        reason: String,
        /// When they are tried again, by the wall clock as it is.
        next: Timestamp,
    },
    /// The last attempt before this start came to this, and nothing is live.
    StillFailing(&'static str),
    /// The record was another account's, which never got a token; it is ours now.
    Adopted {
        /// Whose it was.
        from: String,
    },
    /// An answer was odd, though not fatal.
    Odd(String),
    /// A report is believed.
    Suspect(Generation),
}
