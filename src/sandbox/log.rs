//! The true log: every mint call that arrived, and what became of it. It holds no token and no key.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// How many entries are kept; the totals go on.
const MOST_ENTRIES: usize = 100_000;

/// What became of a mint call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A new token was issued, whether or not its answer got through.
    Minted {
        /// The first eight hexadecimal digits of the token's SHA-256.
        fingerprint: String,
        /// Counts the issued tokens from one.
        generation: u64,
    },
    /// An earlier token was answered again; it counts, and lives no longer for it.
    Repeated {
        /// The earlier token's fingerprint.
        fingerprint: String,
        /// The earlier token's generation.
        generation: u64,
    },
    /// The budget was spent.
    OverBudget,
    /// The call was not in order.
    Refused {
        /// The slug of the answer.
        slug: String,
    },
    /// A scripted fault took the place of a mint.
    Faulted,
    /// The sandbox was down and closed the connection.
    Down,
}

impl Outcome {
    /// The outcome's name, as in the JSON log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Minted { .. } => "minted",
            Self::Repeated { .. } => "repeated",
            Self::OverBudget => "over_budget",
            Self::Refused { .. } => "refused",
            Self::Faulted => "faulted",
            Self::Down => "down",
        }
    }
}

/// One mint call that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MintEntry {
    /// Counts the arrivals from one.
    pub sequence: u64,
    /// When it arrived, since the sandbox began, by its monotonic clock; seconds in JSON.
    #[serde(serialize_with = "seconds")]
    pub arrived: Duration,
    /// When it arrived, by the wall clock.
    pub wall: Timestamp,
    /// The slot of the key it carried, if that key was right.
    pub key: Option<usize>,
    /// Whether it took one of the budget's slots.
    pub counted: bool,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The scripted fault that it met.
    pub fault: Option<&'static str>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// A snapshot of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MintLog {
    /// Oldest first.
    pub entries: Vec<MintEntry>,
    /// How many older entries were let go.
    pub forgotten: u64,
}

impl MintLog {
    /// The entries that took a slot of the budget.
    pub fn counted(&self) -> impl Iterator<Item = &MintEntry> {
        self.entries.iter().filter(|entry| entry.counted)
    }
}

/// The log as it grows.
#[derive(Default)]
pub(super) struct Journal {
    entries: VecDeque<MintEntry>,
    arrivals: u64,
    mints: u64,
}

impl Journal {
    /// Appends an entry and gives it its sequence number.
    pub(super) fn append(&mut self, mut entry: MintEntry) {
        self.arrivals += 1;
        self.mints += u64::from(matches!(entry.outcome, Outcome::Minted { .. }));
        entry.sequence = self.arrivals;
        if self.entries.len() == MOST_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    pub(super) fn mints(&self) -> u64 {
        self.mints
    }

    pub(super) fn snapshot(&self) -> MintLog {
        MintLog {
            entries: self.entries.iter().cloned().collect(),
            forgotten: self.arrivals - self.entries.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(outcome: Outcome) -> MintEntry {
        MintEntry {
            sequence: 0,
            arrived: Duration::from_millis(1500),
            wall: Timestamp::UNIX_EPOCH,
            key: Some(0),
            counted: true,
            outcome,
            fault: None,
        }
    }

    #[test]
    fn an_entry_reads_flat_in_json() {
        let mut journal = Journal::default();
        journal.append(entry(Outcome::Refused {
            slug: "invalid-input".into(),
        }));
        let json = serde_json::to_value(journal.snapshot()).unwrap();
        assert_eq!(
            json["entries"][0],
            serde_json::json!({
                "sequence": 1, "arrived": 1.5, "wall": "1970-01-01T00:00:00Z", "key": 0,
                "counted": true, "outcome": "refused", "slug": "invalid-input", "fault": null,
            })
        );
    }

    #[test]
    fn the_totals_outlive_the_entries() {
        let mut journal = Journal::default();
        for _ in 0..=MOST_ENTRIES {
            journal.append(entry(Outcome::Minted {
                fingerprint: "00".into(),
                generation: 1,
            }));
        }
        let log = journal.snapshot();
        assert_eq!((log.entries.len(), log.forgotten), (MOST_ENTRIES, 1));
        assert_eq!(journal.mints(), MOST_ENTRIES as u64 + 1);
        assert_eq!(log.entries[0].sequence, 2);
    }
}
