//! Who is asking, and may they.
//!
//! A connection is asked once who is at its other end, by what nobody can make up: the system's word about a process, or a certificate
//! that was checked. Everything after that is about a caller with a name, whichever way it comes and however often.

pub mod audit;
mod directory;
pub mod guard;
mod limit;
pub mod rule;
mod share;
mod stream;
mod visitor;

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

pub use directory::{Callers, Settings};
pub use stream::{Stream, Watching};
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
    /// It asks more often than it may.
    RateLimited {
        /// Who it is, if it is the caller's limit and not that of the machine it asks from.
        caller: Option<Arc<str>>,
        /// After so many seconds it may ask again.
        retry_after: u64,
    },
    /// It has as many watches and waits open as it may.
    TooManyStreams {
        /// Who it is.
        caller: Arc<str>,
        /// How many that is.
        most: u32,
    },
}

impl Denial {
    /// The words for them all.
    pub const WORDS: [&str; 4] = [
        "unknown_caller",
        "not_permitted",
        "rate_limited",
        "too_many_streams",
    ];

    /// The word that metrics, problems and the audit use.
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.place()]
    }

    fn place(&self) -> usize {
        match self {
            Self::UnknownCaller => 0,
            Self::NotPermitted { .. } => 1,
            Self::RateLimited { .. } => 2,
            Self::TooManyStreams { .. } => 3,
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
