//! A register that lasts as long as the process: for when there is nowhere to write.
//!
//! It has no history, so its records are [`Absent::Forgetful`](super::Absent::Forgetful): every mint keeps the blind pace.

use std::future::{pending, ready};
use std::sync::{Mutex, PoisonError};

use super::{Loaded, Pending, Record, Register, RegisterError, Swapped, Version};

/// One cell in memory.
#[derive(Default)]
pub struct MemoryRegister {
    cell: Mutex<Option<(Record, u64)>>,
}

impl MemoryRegister {
    /// An empty register.
    pub fn new() -> Self {
        Self::default()
    }
}

fn version(count: u64) -> Version {
    Version(count.to_be_bytes().to_vec())
}

impl Register for MemoryRegister {
    fn load(&self) -> Pending<'_, Result<Loaded, RegisterError>> {
        let cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cell
            .as_ref()
            .map(|(record, count)| (record.clone(), version(*count)));
        Box::pin(ready(Ok(Loaded {
            found,
            moved_aside: None,
        })))
    }

    fn swap(&self, seen: Option<Version>, next: Record) -> Pending<'_, Swapped> {
        let mut cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        let count = cell.as_ref().map_or(0, |(_, count)| *count);
        if seen != cell.as_ref().map(|(_, count)| version(*count)) {
            return Box::pin(ready(Swapped::Conflict));
        }
        *cell = Some((next, count + 1));
        Box::pin(ready(Swapped::Done(version(count + 1))))
    }

    fn changed(&self) -> Pending<'_, ()> {
        Box::pin(pending())
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}
