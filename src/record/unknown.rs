//! Unknown history: how far apart mints stay while it is not known what was spent before the record
//! began.
//!
//! The distance that is safe whatever was spent is the blind pace. A record that began with
//! [`Absent::New`](super::Absent::New) may make three requests without it: the first, one retry of
//! it, and one for a mended setting or key. The count is in the record, so a crash loop cannot
//! renew it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Record, Rules, codec};
use crate::clock::Stamp;

/// The requests that one unknown history may cost before the blind pace.
pub(super) const AT_ONCE: u32 = 3;

/// The past before this record is unknown, so mints keep the distance that is safe whatever it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probation {
    /// When everything unknown has freed itself; `None` where the record itself does not last.
    #[serde(deserialize_with = "codec::required")]
    pub until: Option<Stamp>,
    /// How long the past was to be unknown; `None` in a record of format 1.0. Since format 1.1.
    #[serde(
        rename = "period_ns",
        default,
        skip_serializing_if = "Option::is_none",
        with = "codec::maybe_nanoseconds"
    )]
    pub period: Option<Duration>,
    /// The requests that may still be made without the blind pace. Since format 1.1.
    #[serde(default, skip_serializing_if = "codec::is_zero")]
    pub at_once: u32,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

impl Record {
    /// The earliest boot time, not before `now`, at which the pace of an unknown past allows a
    /// mint. `untried`: the set at hand [was not tried yet](Record::is_untried).
    pub fn probation_allows(&self, untried: bool, now: Duration, rules: &Rules) -> Duration {
        let Some(probation) = &self.probation else {
            return now;
        };
        if probation.at_once > 0 && (untried || self.may_be_retried()) {
            return now;
        }
        self.blind_pace_allows(probation, now, rules)
    }

    fn blind_pace_allows(&self, probation: &Probation, now: Duration, rules: &Rules) -> Duration {
        let ends = probation.until.map_or(Duration::MAX, |until| until.boot);
        let last = self.ledger.iter().map(|slot| slot.reserved_at.boot).max();
        let paced = last.map_or(now, |last| last + rules.budget.blind_pace());
        now.max(paced.min(ends))
    }

    /// True if one request was made on an unknown history, so that the same set may try once more.
    pub(super) fn may_be_retried(&self) -> bool {
        let left = self.probation.as_ref().map_or(0, |unknown| unknown.at_once);
        left == AT_ONCE - 1 && self.ledger.len() == 1
    }

    /// Counts a request that begins at `now` if it is sooner than the blind pace allows; the ledger
    /// is that of before. True if it was one.
    pub(super) fn count_at_once(&mut self, now: Stamp, rules: &Rules) -> bool {
        let first = self.ledger.is_empty();
        let sooner = |unknown: &Probation| {
            first || self.blind_pace_allows(unknown, now.boot, rules) > now.boot
        };
        let counts = self
            .probation
            .as_ref()
            .is_some_and(|unknown| unknown.at_once > 0 && sooner(unknown));
        if counts && let Some(unknown) = &mut self.probation {
            unknown.at_once -= 1;
        }
        counts
    }

    /// Gives back what [`Record::count_at_once`] counted: that request did not leave.
    pub(super) fn uncount_at_once(&mut self) {
        if let Some(unknown) = &mut self.probation {
            unknown.at_once = (unknown.at_once + 1).min(AT_ONCE);
        }
    }

    /// Keeps every mint from here on at the blind pace, for as long as the history is unknown.
    pub(super) fn nothing_at_once(&mut self) {
        if let Some(unknown) = &mut self.probation {
            unknown.at_once = 0;
        }
    }
}
