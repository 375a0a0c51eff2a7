//! What the listeners of a process count together.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::register;

/// Why a listener ended a connection that had not ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A head, a preface or a handshake was not whole in time.
    HeaderTimeout,
    /// Nothing was asked for long.
    IdleTimeout,
    /// What was written was not taken.
    WriteTimeout,
    /// The peer had as many as it may have.
    PeerLimit,
    /// Another one needed its place.
    MadeRoom,
    /// Another protocol was spoken than the listener's.
    WrongProtocol,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::HeaderTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::PeerLimit,
        Self::MadeRoom,
        Self::WrongProtocol,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::HeaderTimeout => "header_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::PeerLimit => "peer_limit",
            Self::MadeRoom => "made_room",
            Self::WrongProtocol => "wrong_protocol",
        }
    }
}

/// The metrics of all listeners. One per process.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: IntGaugeVec,
    closed: [IntCounter; Reason::ALL.len()],
    malformed: IntCounter,
}

impl Metrics {
    /// Registers the metrics; every reason is there from the start.
    pub fn register(registry: &Registry) -> Self {
        let open = register(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "bearerd_connections",
                    "Connections that are open now, by transport.",
                ),
                &["transport"],
            ),
        );
        let closed = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_connections_closed_total",
                    "Connections that bearerd ended before their callers did, by reason.",
                ),
                &["reason"],
            ),
        );
        let malformed = register(
            registry,
            IntCounter::new(
                "bearerd_malformed_calls_total",
                "Calls that HTTP/2 reset before bearerd could answer them, such as those whose :authority is a path.",
            ),
        );
        Self {
            open,
            malformed,
            closed: Reason::ALL.map(|reason| closed.with_label_values(&[reason.word()])),
        }
    }

    /// What the listeners of this transport count.
    pub fn on(&self, transport: &str) -> Counts {
        Counts(Some(Counters {
            open: self.open.with_label_values(&[transport]),
            closed: self.closed.clone(),
            malformed: self.malformed.clone(),
        }))
    }
}

/// What one transport's listeners count; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Counts(Option<Counters>);

#[derive(Clone, Debug)]
struct Counters {
    open: IntGauge,
    closed: [IntCounter; Reason::ALL.len()],
    malformed: IntCounter,
}

impl Counts {
    /// Counts a connection among the open ones for as long as this is kept.
    pub(super) fn opened(&self) -> Counted {
        let open = self.0.as_ref().map(|it| it.open.clone());
        if let Some(open) = &open {
            open.inc();
        }
        Counted(open)
    }

    pub(super) fn closed(&self, reason: Reason) {
        if let Some(counters) = &self.0 {
            counters.closed[reason as usize].inc();
        }
    }

    /// So many calls were reset. True for the first ones of the process.
    pub(super) fn malformed(&self, calls: u64) -> bool {
        let Some(Counters { malformed, .. }) = &self.0 else {
            return false;
        };
        let is_first = malformed.get() == 0;
        malformed.inc_by(calls);
        is_first
    }
}

/// A connection that is counted.
pub(super) struct Counted(Option<IntGauge>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
