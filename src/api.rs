//! What callers reach: the live token, the wait for the next one, and the report of a refused one.

pub mod failure;
pub mod grpc;
pub mod http;
mod report;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::register;
use failure::{Failure, Outlook};

/// What all transports count. One per process.
#[derive(Clone, Debug)]
pub struct Metrics {
    vends: IntCounterVec,
    watchers: IntGaugeVec,
    reports: IntCounterVec,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Self {
        let counter = |name, help, labels| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            vends: counter(
                "bearerd_vends_total",
                "Answers to callers that asked for the token, by transport and outcome.",
                &["transport", "outcome"],
            ),
            watchers: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "bearerd_watchers",
                        "Callers that wait for the next token now, by transport.",
                    ),
                    &["transport"],
                ),
            ),
            reports: counter(
                "bearerd_rejection_reports_total",
                "Reports of a refused token, by what they came to.",
                &["outcome"],
            ),
        }
    }
}

/// Counts what asking for the token came to on one transport: `bearerd_vends_total`. A failure is counted under its word.
struct Vends {
    ok: IntCounter,
    failed: Vec<(&'static str, IntCounter)>,
}

impl Vends {
    /// What every transport can fail with, and these failures of its own; each counter is there from the start.
    fn new(metrics: &Metrics, transport: &str, own: &[Failure]) -> Self {
        let counter = |outcome| metrics.vends.with_label_values(&[transport, outcome]);
        let common = [
            Failure::NoTokenYet(Outlook::default()),
            Failure::Expired(Outlook::default()),
            Failure::Draining,
        ];
        let words = common.iter().chain(own).map(Failure::word);
        Self {
            ok: counter("ok"),
            failed: words.map(|word| (word, counter(word))).collect(),
        }
    }

    fn ok(&self) {
        self.ok.inc();
    }

    fn failed(&self, failure: &Failure) {
        let word = failure.word();
        if let Some((_, counter)) = self.failed.iter().find(|(it, _)| *it == word) {
            counter.inc();
        }
    }
}

/// Counts a caller among those who wait, for as long as it does.
struct Watcher(IntGauge);

impl Watcher {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.dec();
    }
}
