//! What is counted of certificates.

use jiff::Timestamp;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::metrics::register;

/// The metrics of this room. They are there without TLS too, and 0.
#[derive(Clone, Debug)]
pub struct Metrics {
    loaded: IntCounter,
    refused: IntCounter,
    expiry: Gauge,
    failing: IntGauge,
}

impl Metrics {
    /// Registers them; every outcome is there from the start.
    pub fn register(registry: &Registry) -> Self {
        let reloads = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_tls_reloads_total",
                    "Changes of the TLS files that were taken or refused, by outcome.",
                ),
                &["outcome"],
            ),
        );
        Self {
            loaded: reloads.with_label_values(&["loaded"]),
            refused: reloads.with_label_values(&["refused"]),
            expiry: register(
                registry,
                Gauge::new(
                    "bearerd_tls_certificate_expiry_timestamp_seconds",
                    "When the certificate in force expires, as a Unix time; 0 without TLS.",
                ),
            ),
            failing: register(
                registry,
                IntGauge::new(
                    "bearerd_tls_reload_failing",
                    "1 while the TLS files are bad and those before them stay in force, else 0.",
                ),
            ),
        }
    }

    pub(super) fn in_force(&self, until: Timestamp) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a Unix time in seconds has less than 53 bits"
        )]
        self.expiry.set(until.as_second() as f64);
    }

    pub(super) fn loaded(&self) {
        self.loaded.inc();
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn failing(&self, failing: bool) {
        self.failing.set(failing.into());
    }
}
