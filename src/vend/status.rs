//! How things stand, as `/status` shows it: plain values, and never a secret.
//!
//! Its moments are kept on both clocks, and are converted when they are shown: see [`Status::as_of`].

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::Stamp;
use crate::token::Generation;

/// Everything an operator may want to know. The JSON of `/status` is this document.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// This program's version.
    pub version: &'static str,
    /// The account whose token this is.
    pub account: String,
    /// When this was written; in what [`Status::as_of`] gives, the moment that it is shown for.
    #[serde(serialize_with = "maybe_wall")]
    pub at: Option<Stamp>,
    /// The newest token, live or not.
    pub token: Option<TokenStatus>,
    /// The slots.
    pub budget: BudgetStatus,
    /// The attempt under way, if there is one.
    pub minting: Option<Generation>,
    /// The next attempt.
    pub next: Option<NextStatus>,
    /// The last 50 attempts that this process made, newest first.
    pub attempts: Vec<AttemptStatus>,
    /// Where the record lives.
    pub register: RegisterStatus,
    /// Set while the issuer refuses our keys.
    pub parked: Option<ParkedStatus>,
    /// What went wrong last, until something goes right.
    pub trouble: Option<Trouble>,
    /// The largest step of the wall clock against the boot clock seen so far, in seconds.
    pub clock_step_seconds: f64,
    /// The lead is shorter than the window, so a spent budget can outlast the token (`refresh.allow_short_lead`).
    pub short_lead: bool,
}

/// A token without its secret.
#[derive(Clone, Debug, Serialize)]
pub struct TokenStatus {
    /// Its number.
    pub generation: Generation,
    /// The first eight hex digits of its SHA-256.
    pub fingerprint: String,
    /// When the request that minted it was sent.
    #[serde(serialize_with = "wall")]
    pub issued_at: Stamp,
    /// When its successor is due.
    #[serde(serialize_with = "wall")]
    pub refresh_at: Stamp,
    /// From when on it is not vended.
    #[serde(serialize_with = "wall")]
    pub expires_at: Stamp,
    /// A caller reported it refused.
    pub suspect: bool,
}

/// The budget and its slots.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BudgetStatus {
    /// The most mints in any closed window.
    pub limit: u32,
    /// Slots that routine mints leave free.
    pub reserve: u32,
    /// The issuer's window, in seconds.
    #[serde(rename = "window_seconds", serialize_with = "seconds")]
    pub window: Duration,
    /// How long a slot counts here, in seconds.
    #[serde(rename = "period_seconds", serialize_with = "seconds")]
    pub period: Duration,
    /// How many mints of each class could begin now.
    pub free: FreeStatus,
    /// The slots that are taken, oldest first; the rest of `limit` is free.
    pub slots: Vec<SlotStatus>,
}

/// Free slots by class.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FreeStatus {
    /// For scheduled refreshes.
    pub routine: u32,
    /// For reported tokens.
    pub reported: u32,
    /// For when the token is about to expire.
    pub urgent: u32,
}

/// One slot that is taken.
#[derive(Clone, Debug, Serialize)]
pub struct SlotStatus {
    /// The attempt that took it.
    pub attempt: Generation,
    /// What it was taken for.
    pub class: &'static str,
    /// What set the attempt off.
    pub trigger: &'static str,
    /// What became of it.
    pub outcome: &'static str,
    /// When it was taken.
    #[serde(serialize_with = "wall")]
    pub reserved_at: Stamp,
    /// When it is free again.
    #[serde(serialize_with = "wall")]
    pub frees_at: Stamp,
}

/// One attempt of this process.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptStatus {
    /// Its number.
    pub attempt: Generation,
    /// What it could spend.
    pub class: &'static str,
    /// What set it off.
    pub trigger: &'static str,
    /// Which key it used, counted from one.
    pub key: u32,
    /// When its slot was reserved.
    #[serde(serialize_with = "wall")]
    pub began_at: Stamp,
    /// How long it took from then to its end, in seconds.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// `minted`, `repeated`, `not_sent`, `lost`, `intermediary`, `throttled` or `refused`.
    pub outcome: &'static str,
    /// What the issuer or the system said.
    pub detail: Option<String>,
}

/// When and why the next attempt comes.
#[derive(Clone, Debug, Serialize)]
pub struct NextStatus {
    /// The earliest moment.
    #[serde(serialize_with = "wall")]
    pub at: Stamp,
    /// What it may spend.
    pub class: &'static str,
    /// What sets it off.
    pub trigger: &'static str,
    /// What it waits for: `schedule`, `pace`, `backoff`, `budget`, `probation`, `claim`, `register`, `parked`,
    /// `intermediary`.
    pub waiting_for: &'static str,
}

/// Where the record lives and whether it answers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RegisterStatus {
    /// `file`, `memory`, ….
    pub kind: &'static str,
    /// Whether its last operation succeeded.
    pub up: bool,
    /// What its last failure was, while it lasts.
    pub detail: Option<String>,
    /// What had to be moved aside since the start.
    pub moved_aside: Option<String>,
}

/// The issuer refuses our keys.
#[derive(Clone, Debug, Serialize)]
pub struct ParkedStatus {
    /// Since when.
    #[serde(serialize_with = "wall")]
    pub since: Stamp,
    /// What the issuer said.
    pub reason: String,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// A word for it: `not_sent`, `lost`, `throttled`, `refused`, `register_unavailable`, ….
    pub code: &'static str,
    /// A sentence for the operator.
    pub detail: String,
}

fn seconds<S: Serializer>(length: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(length.as_secs_f64())
}

fn wall<S: Serializer>(at: &Stamp, out: S) -> Result<S::Ok, S::Error> {
    at.wall.serialize(out)
}

fn maybe_wall<S: Serializer>(at: &Option<Stamp>, out: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.wall).serialize(out)
}

impl Status {
    /// The same with every moment's wall time as it is to be shown at `now`. Whoever shows any of
    /// them as text, JSON or a number takes it from here.
    #[must_use]
    pub fn as_of(mut self, now: Stamp) -> Self {
        let moved = |at: &mut Stamp| at.wall = at.shown(now);
        let moved_end = |at: &mut Stamp| at.wall = at.shown_expiry(now);
        self.at = Some(now);
        if let Some(token) = &mut self.token {
            moved(&mut token.issued_at);
            moved_end(&mut token.refresh_at);
            moved_end(&mut token.expires_at);
        }
        for slot in &mut self.budget.slots {
            moved(&mut slot.reserved_at);
            moved(&mut slot.frees_at);
        }
        for attempt in &mut self.attempts {
            moved(&mut attempt.began_at);
        }
        self.next.iter_mut().for_each(|next| moved(&mut next.at));
        self.parked
            .iter_mut()
            .for_each(|parked| moved(&mut parked.since));
        self
    }
}
