//! Who is asking, and may they.

pub mod guard;
pub mod rule;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::metrics::register;
use guard::Refusal;

/// Counts the callers that were turned away: `bearerd_callers_refused_total`. One per process, shared by all listeners.
#[derive(Clone, Debug)]
pub struct Refusals([IntCounter; Refusal::ALL.len()]);

impl Refusals {
    /// Registers the metric; every reason is there from the start.
    pub fn register(registry: &Registry) -> Self {
        let refused = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_callers_refused_total",
                    "Requests turned away before they were looked at, by reason.",
                ),
                &["reason"],
            ),
        );
        Self(Refusal::ALL.map(|refusal| refused.with_label_values(&[refusal.word()])))
    }

    /// One more was turned away.
    pub fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].inc();
    }
}
