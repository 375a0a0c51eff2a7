//! Who is asking, and may they.
//!
//! A connection is asked once who is at its other end, by what nobody can make up: the system's word about a process, or a certificate
//! that was checked. Everything after that is about a caller with a name, whichever way it comes and however often.

mod directory;
pub mod guard;
pub mod rule;
mod visitor;

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

pub use directory::{Callers, Settings};
pub use visitor::Visitor;

use crate::metrics::register;
use guard::Refusal;
use rule::Right;

/// Why a caller whose request is in order got no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No rule names it.
    UnknownCaller,
    /// It is named, and this is not among what it may do.
    NotPermitted {
        /// Who it is.
        caller: Arc<str>,
        /// What it lacks.
        right: Right,
    },
}

impl Denial {
    /// The words for them all.
    pub const WORDS: [&str; 2] = ["unknown_caller", "not_permitted"];

    /// The word that metrics, problems and the audit use.
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.place()]
    }

    fn place(&self) -> usize {
        match self {
            Self::UnknownCaller => 0,
            Self::NotPermitted { .. } => 1,
        }
    }
}

/// Counts the callers that were turned away: `bearerd_callers_refused_total`. One per process, shared by all listeners.
#[derive(Clone, Debug)]
pub struct Refusals {
    refused: [IntCounter; Refusal::ALL.len()],
    denied: [IntCounter; Denial::WORDS.len()],
}

impl Refusals {
    /// Registers the metric; every reason is there from the start.
    pub fn register(registry: &Registry) -> Self {
        let refused = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_callers_refused_total",
                    "Requests turned away, by reason: by the rules of the door, or by those of their caller.",
                ),
                &["reason"],
            ),
        );
        let counter = |word| refused.with_label_values(&[word]);
        Self {
            refused: Refusal::ALL.map(|refusal| counter(refusal.word())),
            denied: Denial::WORDS.map(counter),
        }
    }

    /// One more was turned away at the door.
    pub fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].inc();
    }

    fn count_denied(&self, denial: &Denial) {
        self.denied[denial.place()].inc();
    }
}
