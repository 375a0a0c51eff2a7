//! `POST /refresh`: an operator wants a new token now.

use hyper::{Response, StatusCode};

use super::failure::Failure;
use super::{Room, document};
use crate::listener::{Body, Peer, seconds_until};
use crate::vend::RefreshOutcome;

impl Room {
    pub(super) async fn refresh(&self, peer: Peer) -> Response<Body> {
        let asked = self.vend.refresh().await;
        let outcome = match &asked {
            Ok(RefreshOutcome::Refreshing) => "refreshing",
            Ok(RefreshOutcome::Refused { .. }) => "not_now",
            Err(_) => Failure::Draining.word(),
        };
        self.callers.operated(peer, "refresh", outcome);
        match asked {
            Ok(RefreshOutcome::Refreshing) => {
                let mut response =
                    document("application/json", &b"{\"outcome\":\"refreshing\"}\n"[..]);
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            Ok(RefreshOutcome::Refused { waiting_for, until }) => {
                let now = self.clock.now();
                let failure = Failure::NotNow {
                    waiting_for,
                    until: until.map(|until| until.shown(now)),
                    retry_after: until.map(|until| seconds_until(until, now)),
                };
                failure.response()
            }
            Err(_) => Failure::Draining.response(),
        }
    }
}
