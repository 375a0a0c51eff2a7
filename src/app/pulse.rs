//! Whether the keeper goes on, and what it holds, in words for a service manager.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::lifecycle::notify::Pulse;
use crate::vend::{Status, Unavailable, Vend};

/// The keeper takes a step each second at least, and puts a new status out at each.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Pulses {
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    last: Arc<Status>,
    since: Instant,
}

impl Pulses {
    pub(super) fn new(vend: Arc<Vend>, clock: Arc<dyn Clock>) -> Self {
        Self {
            last: vend.status(),
            vend,
            clock,
            since: Instant::now(),
        }
    }

    pub(super) fn take(&mut self) -> Pulse {
        let now = Instant::now();
        let status = self.vend.status();
        if !Arc::ptr_eq(&status, &self.last) {
            self.last = status;
            self.since = now;
        }
        Pulse {
            goes_on: now < self.since + PATIENCE,
            status: self.words(),
        }
    }

    fn words(&self) -> String {
        let now = self.clock.now();
        match self.vend.current(now) {
            Ok(live) => format!(
                "vending generation {} until {:.0}",
                live.token.generation,
                live.token.expires_at.shown_expiry(now)
            ),
            Err(Unavailable::NoTokenYet) => "no token yet".to_owned(),
            Err(Unavailable::Expired) => "the token has expired; a new one is awaited".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_steps_no_more_is_noticed() {
        let (vend, _commands) = Vend::new(Status::default());
        let mut pulses = Pulses::new(Arc::clone(&vend), Arc::new(SystemClock::new()));
        assert_eq!(pulses.take().status, "no token yet");
        advance(PATIENCE / 2).await;
        vend.publish_status(Status::default());
        assert!(pulses.take().goes_on);
        advance(PATIENCE * 3 / 4).await;
        assert!(pulses.take().goes_on);
        advance(PATIENCE / 2).await;
        assert!(!pulses.take().goes_on);
        vend.publish_status(Status::default());
        assert!(pulses.take().goes_on);
    }
}
