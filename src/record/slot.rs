//! One mint in the ledger, and its text.
//!
//! What a later version writes into a slot, fields and words alike, is kept as it came.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::codec;
use crate::budget::{Budget, Class};
use crate::clock::Stamp;
use crate::token::Generation;

/// One mint that was, or may have been, counted by the issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Text", into = "Text")]
pub struct Slot {
    /// The attempt that took it.
    pub attempt: Generation,
    /// The process that took it. Two that race may take the same number, one of them without knowing that it failed.
    pub holder: String,
    /// What it was taken for.
    pub class: Class,
    /// What set the attempt off.
    pub trigger: Trigger,
    /// When it was reserved.
    pub reserved_at: Stamp,
    /// From when on it no longer counts.
    pub frees_at: Stamp,
    /// What became of the attempt.
    pub outcome: Outcome,
    /// How long it was to count; `None` in a slot of format 1.0.
    pub lengths: Option<Lengths>,
    /// Its times were brought from another boot clock, with the skew in them already.
    pub carried: bool,
    /// What a later version wrote that this one does not know.
    pub newer: Newer,
}

/// For how long a slot counts, by the settings it was written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// From its reservation.
    #[serde(rename = "period_ns", with = "codec::nanoseconds")]
    pub period: Duration,
    /// From the moment by which the issuer is known to have counted it.
    #[serde(rename = "once_counted_ns", with = "codec::nanoseconds")]
    pub once_counted: Duration,
}

/// The parts of a slot that this version does not know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newer {
    class: Option<String>,
    trigger: Option<String>,
    outcome: Option<String>,
    fields: BTreeMap<String, Value>,
}

impl Slot {
    /// True if an operator took it for a mint that was made elsewhere.
    pub fn is_by_hand(&self) -> bool {
        self.trigger == Trigger::Operator && self.holder.starts_with(BY_HAND)
    }

    /// What became of it, for people: one that was taken by hand is no failure.
    pub fn outcome_shown(&self) -> &'static str {
        match self.is_by_hand() {
            true => "by_hand",
            false => self.outcome.name(),
        }
    }
}

/// How the holders of slots that operators took begin.
pub(super) const BY_HAND: &str = "operator-";

impl Lengths {
    /// The longer of the two, each by itself.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        Self {
            period: self.period.max(other.period),
            once_counted: self.once_counted.max(other.once_counted),
        }
    }

    /// The lengths of this budget.
    pub fn of(budget: &Budget) -> Self {
        Self {
            period: budget.period(),
            once_counted: budget.period_once_counted(),
        }
    }
}

impl Slot {
    /// True if both were taken by the same attempt.
    pub fn is_of(&self, other: &Self) -> bool {
        self.attempt == other.attempt && self.holder == other.holder
    }

    /// How long it counts at least, from its reservation on.
    fn counts_for(&self) -> Duration {
        let by_wall = self.frees_at.wall.duration_since(self.reserved_at.wall);
        let by_wall = Duration::try_from(by_wall).unwrap_or_default();
        // The boot clock has no number for what was before it began.
        match self.reserved_at.boot {
            Duration::ZERO => by_wall,
            reserved => by_wall.min(self.frees_at.boot.saturating_sub(reserved)),
        }
    }

    /// Frees it later if these lengths are longer than those it was written under. Shorter ones move nothing.
    pub(super) fn lengthen(&mut self, lengths: Lengths) {
        let Some(own) = self.lengths else {
            // Format 1.0 does not say. Whatever it was, nothing counts for longer than a period from its reservation.
            self.frees_at = self
                .frees_at
                .plus(lengths.period.saturating_sub(self.counts_for()));
            self.lengths = Some(lengths);
            return;
        };
        let longer = |new: Duration, old: Duration| new.saturating_sub(old);
        let by =
            longer(lengths.period, own.period).max(longer(lengths.once_counted, own.once_counted));
        self.frees_at = self.frees_at.plus(by);
        self.lengths = Some(own.longer(lengths));
    }
}

/// What set an attempt off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// There has been no token yet.
    FirstToken,
    /// The token is due.
    Schedule,
    /// The token has expired, or is about to.
    Expiry,
    /// A caller reported that the token was refused.
    Report,
    /// An operator asked.
    Operator,
    /// The rare attempt while parked.
    Parked,
    /// Something that a newer version knows.
    Other,
}

impl Trigger {
    const ALL: [Self; 6] = [
        Self::FirstToken,
        Self::Schedule,
        Self::Expiry,
        Self::Report,
        Self::Operator,
        Self::Parked,
    ];

    /// The word in the record, the status and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token",
            Self::Schedule => "schedule",
            Self::Expiry => "expiry",
            Self::Report => "report",
            Self::Operator => "operator",
            Self::Parked => "parked",
            Self::Other => "other",
        }
    }
}

/// What became of an attempt, as far as the record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Reserved; nothing is known yet. If it stays so, it was lost with its process.
    Begun,
    /// It gave a token.
    Minted,
    /// It may have been counted, and gave nothing.
    Lost,
    /// Something before the issuer answered in its place; it may have been counted. Since format 1.1.
    Intermediary,
    /// The issuer said: too many.
    Throttled,
    /// The issuer refused the request or its key.
    Refused,
    /// Something that a newer version knows.
    Other,
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Begun,
        Self::Minted,
        Self::Lost,
        Self::Intermediary,
        Self::Throttled,
        Self::Refused,
    ];

    /// The word in the record and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Minted => "minted",
            Self::Lost => "lost",
            Self::Intermediary => "intermediary",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

/// A slot as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    attempt: Generation,
    holder: String,
    class: String,
    trigger: String,
    reserved_at: Stamp,
    frees_at: Stamp,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lengths: Option<Lengths>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    carried: bool,
    #[serde(flatten)]
    newer: BTreeMap<String, Value>,
}

impl From<Text> for Slot {
    fn from(text: Text) -> Self {
        let class = Class::ALL.into_iter().find(|it| it.name() == text.class);
        let trigger = Trigger::ALL
            .into_iter()
            .find(|it| it.name() == text.trigger);
        let outcome = Outcome::ALL
            .into_iter()
            .find(|it| it.name() == text.outcome);
        Self {
            attempt: text.attempt,
            holder: text.holder,
            // Of all classes this one counts against most.
            class: class.unwrap_or(Class::Reported),
            trigger: trigger.unwrap_or(Trigger::Other),
            reserved_at: text.reserved_at,
            frees_at: text.frees_at,
            outcome: outcome.unwrap_or(Outcome::Other),
            lengths: text.lengths,
            carried: text.carried,
            newer: Newer {
                class: class.is_none().then_some(text.class),
                trigger: trigger.is_none().then_some(text.trigger),
                outcome: outcome.is_none().then_some(text.outcome),
                fields: text.newer,
            },
        }
    }
}

impl From<Slot> for Text {
    fn from(slot: Slot) -> Self {
        let newer = slot.newer;
        let outcome = newer.outcome.filter(|_| slot.outcome == Outcome::Other);
        Self {
            attempt: slot.attempt,
            holder: slot.holder,
            class: newer.class.unwrap_or_else(|| slot.class.name().to_owned()),
            trigger: newer
                .trigger
                .unwrap_or_else(|| slot.trigger.name().to_owned()),
            reserved_at: slot.reserved_at,
            frees_at: slot.frees_at,
            outcome: outcome.unwrap_or_else(|| slot.outcome.name().to_owned()),
            lengths: slot.lengths,
            carried: slot.carried,
            newer: newer.fields,
        }
    }
}
