//! `POST /refresh`: an operator wants a new token now.

use std::sync::Arc;

use hyper::{Request, Response, StatusCode};

use super::failure::Failure;
use super::{Room, document};
use crate::caller::guard;
use crate::listener::{Answer, Body, Peer, seconds_until};
use crate::vend::RefreshOutcome;

impl Room {
    pub(super) fn refresh<B>(self: &Arc<Self>, request: &Request<B>, peer: Peer) -> Answer {
        if let Peer::Other(_) = peer {
            return Failure::NotLocal.response().into();
        }
        if let Err(refusal) = guard::check(request, peer, &self.rules) {
            self.refusals.count(refusal);
            return Failure::Refused(refusal).response().into();
        }
        let room = Arc::clone(self);
        Answer::later(async move { room.refreshed().await })
    }

    async fn refreshed(&self) -> Response<Body> {
        match self.vend.refresh().await {
            Ok(RefreshOutcome::Refreshing) => {
                let mut response =
                    document("application/json", &b"{\"outcome\":\"refreshing\"}\n"[..]);
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            Ok(RefreshOutcome::Refused { waiting_for, until }) => Failure::NotNow {
                waiting_for,
                until: until.map(|until| until.wall),
                retry_after: until.map(|until| seconds_until(until, self.clock.now())),
            }
            .response(),
            Err(_) => Failure::Draining.response(),
        }
    }
}
