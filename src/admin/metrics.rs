//! `/metrics`, in the text format of Prometheus.

use hyper::{Response, StatusCode};
use prometheus::{Encoder, TextEncoder};

use super::{Room, document};
use crate::listener::{Body, text};

/// What `TextEncoder` says it writes.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Room {
    pub(super) fn metrics(&self) -> Response<Body> {
        // Derived at each question, as readiness is.
        self.token_usable.set(i64::from(self.usable()));
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut body) {
            Ok(()) => document(FORMAT, body),
            Err(error) => {
                tracing::warn!(%error, "the metrics could not be written");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the metrics could not be written\n",
                )
            }
        }
    }
}
