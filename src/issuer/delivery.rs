//! How long the system may go on delivering a request by itself: the rule for its socket.

use std::time::Duration;

/// What is set on the socket of one attempt before its request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The socket is reset when the attempt is given up or its process dies: the system forgets at
    /// that instant what it has not delivered. Closed plainly, it goes on for minutes.
    pub resets: bool,
    /// How long the system repeats the request from its first repetition on, where this process
    /// stands still and cannot reset the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
}

impl Delivery {
    /// The rule for an attempt with these lengths whose slot lets it begin until `send_by`, and
    /// that begins at `sent_at`; both are boot times.
    ///
    /// The system counts from its first repetition, which comes a round trip or three after the
    /// request: half of what is left of the slot's time in flight is kept for that.
    pub fn of(
        timeout: Duration,
        in_flight: Duration,
        send_by: Duration,
        sent_at: Duration,
    ) -> Self {
        let counted_until = (send_by + in_flight).saturating_sub(timeout);
        let left = counted_until.saturating_sub(sent_at + timeout);
        Self {
            resets: true,
            user_timeout: timeout.min(left / 2),
        }
    }
}
