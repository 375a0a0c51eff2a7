//! `/status`: how things stand, as one JSON document.

use hyper::Response;
use serde::Serialize;

use super::{Room, document};
use crate::listener::Body;
use crate::vend::Status;

/// The status, and what is true at the moment of the question.
#[derive(Serialize)]
struct Shown<'a> {
    /// `/readyz` says yes.
    ready: bool,
    /// The process is on its way down.
    draining: bool,
    /// Unix sockets whose path does not lead to this process.
    sockets_lost: Vec<String>,
    #[serde(flatten)]
    status: &'a Status,
}

impl Room {
    pub(super) fn status(&self, sockets_lost: Vec<String>) -> Response<Body> {
        let draining = self.draining.is_cancelled();
        // The keeper's view is up to its last step; its times are shown as of now.
        let status = Status::clone(&self.vend.status()).as_of(self.clock.now());
        let shown = Shown {
            ready: self.usable() && !draining && sockets_lost.is_empty(),
            draining,
            sockets_lost,
            status: &status,
        };
        let mut body = serde_json::to_vec_pretty(&shown).expect("a status is plain values");
        body.push(b'\n');
        document("application/json", body)
    }
}
