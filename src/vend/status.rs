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
    /// What an operator's refresh would come to now.
    pub refresh: Option<RefreshStatus>,
    /// Set while it is not known what was spent before the record began.
    pub unknown_history: Option<UnknownStatus>,
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
    /// What became of it; `by_hand` if an operator took it for a mint that was made elsewhere.
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

/// What `POST /refresh` would be answered.
#[derive(Clone, Debug, Serialize)]
pub struct RefreshStatus {
    /// The earliest moment of the mint, where that is known.
    #[serde(serialize_with = "maybe_wall")]
    pub at: Option<Stamp>,
    /// What it waits for, as in [`NextStatus`]; `nothing` if it may begin now.
    pub waiting_for: &'static str,
}

/// The past before the record is unknown, so mints keep the distance that is safe whatever it was.
#[derive(Clone, Debug, Serialize)]
pub struct UnknownStatus {
    /// Until then; without an end where the record itself does not last.
    #[serde(serialize_with = "maybe_wall")]
    pub until: Option<Stamp>,
    /// That distance, in seconds.
    #[serde(rename = "pace_seconds", serialize_with = "seconds")]
    pub pace: Duration,
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

/// To the millisecond: no clock of ours is better.
fn seconds<S: Serializer>(length: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64((length.as_secs_f64() * 1000.0).round() / 1000.0)
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
        let refresh = self.refresh.iter_mut().flat_map(|it| &mut it.at);
        let unknown = self.unknown_history.iter_mut().flat_map(|it| &mut it.until);
        refresh.chain(unknown).for_each(moved);
        self.parked
            .iter_mut()
            .for_each(|parked| moved(&mut parked.since));
        self
    }
}
