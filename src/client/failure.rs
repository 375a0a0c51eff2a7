//! Why there is no token, and why a question got no answer.

use jiff::Timestamp;

use crate::listener::Address;
use crate::token::Generation;

/// Why one question to a daemon got no answer that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there.
    #[error("no daemon answers at {address} ({why})")]
    Unreachable {
        /// Who was asked.
        address: Address,
        /// What the system said.
        why: String,
    },
    /// Somebody listens there, and the answer broke off or did not come in time.
    #[error("no whole answer from {address} ({why})")]
    NoAnswer {
        /// Who was asked.
        address: Address,
        /// What went wrong.
        why: String,
    },
    /// The daemon says: not now.
    #[error("{detail}")]
    NotNow {
        /// The stable word: `no_token_yet`, `expired`, `draining`, `not_now`, ….
        word: String,
        /// What an operator should know.
        detail: String,
        /// After how many seconds it is worth asking again, where that is known.
        retry_after: Option<u64>,
    },
    /// The daemon does not do that.
    #[error("{address} refuses: {detail}")]
    Refused {
        /// Who was asked.
        address: Address,
        /// The HTTP status.
        status: u16,
        /// The stable word: `unmarked`, `not_found`, ….
        word: String,
        /// What to do about it.
        detail: String,
    },
    /// What answers there is no bearerd, or not this door of it.
    #[error("{address} does not answer as a bearerd does ({why})")]
    Strange {
        /// Who was asked.
        address: Address,
        /// What is odd.
        why: String,
    },
}

impl Failure {
    /// True if the same question may be answered later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::NotNow { .. } => true,
            Self::Refused { .. } | Self::Strange { .. } => false,
        }
    }
}

/// Why there is no token at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// None has come since the client was made.
    #[error("there is no token yet: {why}")]
    NotYet {
        /// What was wrong last.
        why: String,
    },
    /// The newest has reached its end.
    #[error("the token of generation {generation} expired at {at:.0}: {why}")]
    Expired {
        /// Its number.
        generation: Generation,
        /// Its end on the wall clock.
        at: Timestamp,
        /// Why there is no newer one.
        why: String,
    },
}

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has ended")]
pub struct Closed;
