//! Changes of a record that an operator asks for, on top of whatever the daemons on it write
//! meanwhile.

use std::path::Path;
use std::sync::Arc;

use super::slot::BY_HAND;
use super::{FORMAT, Reader, Record, Register, RegisterError, Rules, Swapped, Writer};
use crate::clock::{Clock, Stamp};

/// A swap is tried again this often when a daemon wrote in between.
const MAX_TRIES: u32 = 20;

/// Why a record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The register does not serve; nothing was written.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Nobody knows whether it was written.
    #[error(
        "{0}; it is not known whether it was written: look with `bearerd ledger show` or at /status before you try again"
    )]
    Unconfirmed(RegisterError),
    /// There is nothing to change.
    #[error("there is no record yet, or it has just gone away")]
    NoRecord,
    /// The record is another account's.
    #[error("{0}")]
    OtherAccount(String),
    /// More slots than there are, or none.
    #[error("spend takes 1 to {limit} slots: budget.limit is {limit}")]
    Count {
        /// The account's.
        limit: u32,
    },
    /// Others wrote each time.
    #[error("others wrote the record each time before it could be written; try again")]
    Busy,
}

/// Makes an operator's changes in one register.
pub struct Editor {
    register: Arc<dyn Register>,
    account: String,
    rules: Rules,
}

impl Editor {
    /// Changes what this register holds for this account. The register is its own: a daemon that
    /// shared it would not notice.
    pub fn new(register: Arc<dyn Register>, account: String, rules: Rules) -> Self {
        Self {
            register,
            account,
            rules,
        }
    }

    /// The limit of the budget.
    pub fn limit(&self) -> u32 {
        self.rules.budget.limit.get()
    }

    /// A record of this account, or of one that never held a token, on this boot's clock. It is not
    /// clamped: nothing in it may end sooner because we have other settings than the daemon that
    /// wrote it.
    pub fn here(&self, record: Record, clock: &dyn Clock, now: Stamp) -> Result<Record, EditError> {
        let (found, expected) = (&record.account, &self.account);
        if found != expected && record.adopted_by(expected).is_none() {
            let place = self.register.file();
            let place = place.unwrap_or_else(|| Path::new(self.register.name()));
            let why = super::of_another_account(place, found, expected);
            return Err(EditError::OtherAccount(why));
        }
        let reader = Reader {
            holder: "",
            boot_id: &clock.boot_id(),
            offsets: &[now.offset()],
        };
        let moved = record.read_by(&reader, now, &self.rules);
        Ok(moved.unwrap_or(record))
    }

    /// Takes slots for mints that were made elsewhere; returns what was written.
    pub async fn spend(&self, count: u32, clock: &dyn Clock) -> Result<Record, EditError> {
        let limit = self.limit();
        if !(1..=limit).contains(&count) {
            return Err(EditError::Count { limit });
        }
        let holder = holder();
        let spent =
            |record: &Record, now| Some(record.spent_by_hand(count, &holder, now, &self.rules));
        let written = self.change(clock, spent).await?;
        Ok(written.expect("a slot more is a change"))
    }

    /// Lets every set of keys be tried again; returns what was written, or `None` if the record is
    /// not parked.
    pub async fn unpark(&self, clock: &dyn Clock) -> Result<Option<Record>, EditError> {
        self.change(clock, |record, _| record.unparked()).await
    }

    /// Forgets what was spent; see [`Record::emptied`].
    pub async fn reset(&self, clock: &dyn Clock) -> Result<(), EditError> {
        self.change(clock, |record, _| Some(record.emptied()))
            .await?;
        Ok(())
    }

    async fn change(
        &self,
        clock: &dyn Clock,
        change: impl Fn(&Record, Stamp) -> Option<Record> + Send + Sync,
    ) -> Result<Option<Record>, EditError> {
        for _ in 0..MAX_TRIES {
            let loaded = self.register.load().await?;
            let (record, version) = loaded.found.ok_or(EditError::NoRecord)?;
            let now = clock.now();
            let Some(mut next) = change(&self.here(record, clock, now)?, now) else {
                return Ok(None);
            };
            next.revision += 1;
            next.format = next.format.max(FORMAT);
            next.written = Writer {
                holder: holder(),
                boot_id: clock.boot_id(),
                at: now,
            };
            match self.register.swap(Some(version), next.clone()).await {
                Swapped::Done(_) => return Ok(Some(next)),
                Swapped::Conflict => {}
                Swapped::Unavailable(error) => return Err(error.into()),
                Swapped::Unknown(error) => return Err(EditError::Unconfirmed(error)),
            }
        }
        Err(EditError::Busy)
    }
}

fn holder() -> String {
    format!("{BY_HAND}{}", std::process::id())
}
