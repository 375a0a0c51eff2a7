//! Unix sockets whose names lead elsewhere: nobody who comes anew finds them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntGauge, Registry};

use super::{Address, BindError};
use crate::metrics::register;

/// Which sockets of a process are lost; shared by all its listeners.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    names: Arc<Mutex<BTreeSet<String>>>,
    gauge: Option<IntGauge>,
}

impl Lost {
    /// One per process.
    pub fn register(registry: &Registry) -> Self {
        let gauge = IntGauge::new(
            "bearerd_sockets_lost",
            "Unix sockets whose path does not lead to this process now.",
        );
        Self {
            names: Arc::default(),
            gauge: Some(register(registry, gauge)),
        }
    }

    /// Their addresses, as settings write them.
    pub fn names(&self) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().cloned().collect()
    }

    pub(super) fn lost(&self, address: &Address, error: &BindError) {
        if self.change(|names| names.insert(address.to_string())) {
            let error = error as &dyn std::error::Error;
            tracing::error!(%address, error, "the socket's path does not lead here any more, and cannot be taken again: callers do not find it");
        }
    }

    /// True if it was lost until now.
    pub(super) fn found(&self, address: &Address) -> bool {
        let was_lost = self.change(|names| names.remove(&address.to_string()));
        if was_lost {
            tracing::info!(%address, "the socket's path leads here again");
        }
        was_lost
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut names);
        if let Some(gauge) = &self.gauge {
            gauge.set(i64::try_from(names.len()).unwrap_or(i64::MAX));
        }
        changed
    }
}
