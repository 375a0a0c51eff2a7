//! What the keeper counts and shows.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::budget::Class;
use crate::clock::Stamp;
use crate::metrics::register;
use crate::vend::Status;

/// Every outcome of an attempt that a label may name.
const OUTCOMES: [&str; 7] = [
    "minted",
    "repeated",
    "not_sent",
    "lost",
    "intermediary",
    "throttled",
    "refused",
];

/// Every operation on the register, and every outcome of it, that labels may name.
const OPERATIONS: [(&str, &str); 6] = [
    ("load", "done"),
    ("load", "unavailable"),
    ("swap", "done"),
    ("swap", "conflict"),
    ("swap", "unavailable"),
    ("swap", "unknown"),
];

/// The keeper's metrics, with every label's child found once.
pub(super) struct Metrics {
    expiry: Gauge,
    generation: IntGauge,
    attempts: Vec<(&'static str, Class, IntCounter)>,
    duration: Histogram,
    last_success: Gauge,
    /// When [`Metrics::last_success`] was, for a wall clock that is set later on.
    minted_at: Option<Stamp>,
    next: Gauge,
    limit: IntGauge,
    free: [(Class, Gauge); 3],
    next_free: Gauge,
    record_up: IntGauge,
    operations: [((&'static str, &'static str), IntCounter); OPERATIONS.len()],
    clock_step: Gauge,
    parked: IntGauge,
    keys_absent: IntGauge,
}

impl Metrics {
    /// Registers the metrics; every label that may come is there from the start, so that a first increment is seen.
    pub(super) fn new(registry: &Registry, register_name: &str) -> Self {
        let gauge = |name: &str, help: &str| register(registry, Gauge::new(name, help));
        let int_gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let attempts = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_refresh_attempts_total",
                    "Attempts to mint that have ended, by outcome and by what they could spend.",
                ),
                &["outcome", "class"],
            ),
        );
        let free = register(
            registry,
            GaugeVec::new(
                Opts::new(
                    "bearerd_budget_slots_free",
                    "Slots that mints of this class could take now.",
                ),
                &["class"],
            ),
        );
        let operations = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_record_operations_total",
                    "Operations on the register that have ended, by outcome.",
                ),
                &["register", "operation", "outcome"],
            ),
        );
        let duration = HistogramOpts::new(
            "bearerd_refresh_duration_seconds",
            "Time from an attempt's reservation to its end, in seconds.",
        )
        .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        Self {
            expiry: gauge(
                "bearerd_token_expiry_timestamp_seconds",
                "When the newest token expires, as a Unix time; 0 before the first.",
            ),
            generation: int_gauge(
                "bearerd_token_generation",
                "The generation of the newest token; 0 before the first.",
            ),
            attempts: OUTCOMES
                .into_iter()
                .flat_map(|outcome| Class::ALL.map(|class| (outcome, class)))
                .map(|(outcome, class)| {
                    (
                        outcome,
                        class,
                        attempts.with_label_values(&[outcome, class.name()]),
                    )
                })
                .collect(),
            duration: register(registry, Histogram::with_opts(duration)),
            last_success: gauge(
                "bearerd_refresh_last_success_timestamp_seconds",
                "When this process last minted a token, as a Unix time; 0 before the first.",
            ),
            minted_at: None,
            next: gauge(
                "bearerd_refresh_next_timestamp_seconds",
                "When the next attempt may be made, as a Unix time; 0 while one is under way or none is planned.",
            ),
            limit: int_gauge(
                "bearerd_budget_limit",
                "The most mints in any closed window.",
            ),
            free: Class::ALL.map(|class| (class, free.with_label_values(&[class.name()]))),
            next_free: gauge(
                "bearerd_budget_next_free_timestamp_seconds",
                "When the oldest taken slot is free again, as a Unix time; 0 while none is taken.",
            ),
            record_up: int_gauge(
                "bearerd_record_up",
                "1 if the last operation on the register succeeded, else 0.",
            ),
            operations: OPERATIONS.map(|(operation, outcome)| {
                let child = operations.with_label_values(&[register_name, operation, outcome]);
                ((operation, outcome), child)
            }),
            clock_step: gauge(
                "bearerd_clock_step_seconds",
                "The largest step of the wall clock against the boot clock since the start, in seconds.",
            ),
            parked: int_gauge(
                "bearerd_parked",
                "1 while the issuer refuses our keys, else 0.",
            ),
            keys_absent: int_gauge(
                "bearerd_key_pairs_absent",
                "Pairs of key files in the settings that are missing or half there; with none there, the keys at hand are kept.",
            ),
        }
    }

    pub(super) fn attempted(
        &mut self,
        outcome: &str,
        class: Class,
        duration: Duration,
        now: Stamp,
    ) {
        let mut attempts = self.attempts.iter();
        let found = attempts.find(|(name, of, _)| *name == outcome && *of == class);
        debug_assert!(found.is_some(), "{outcome} is no label");
        if let Some((.., counter)) = found {
            counter.inc();
        }
        self.duration.observe(duration.as_secs_f64());
        if outcome == "minted" {
            self.minted_at = Some(now);
        }
    }

    pub(super) fn operated(&self, operation: &str, outcome: &str) {
        let mut operations = self.operations.iter();
        let found = operations.find(|(labels, _)| *labels == (operation, outcome));
        debug_assert!(found.is_some(), "{operation}, {outcome} are no labels");
        if let Some((_, counter)) = found {
            counter.inc();
        }
    }

    /// So many pairs of key files were not there.
    pub(super) fn keys_seen(&self, absent: usize) {
        self.keys_absent
            .set(i64::try_from(absent).unwrap_or(i64::MAX));
    }

    /// Shows how things stand, with the times as of that moment. The keeper takes a step, and so does
    /// this, at least once a second.
    pub(super) fn show(&self, status: &Status) {
        let Some(now) = status.at else { return };
        let shown = |at: Option<Stamp>| at.map_or(0.0, |at| unix(at.shown(now)));
        let token = status.token.as_ref();
        self.expiry
            .set(token.map_or(0.0, |token| unix(token.expires_at.shown_expiry(now))));
        self.last_success.set(shown(self.minted_at));
        self.generation.set(token.map_or(0, |token| {
            i64::try_from(token.generation.0).unwrap_or(i64::MAX)
        }));
        self.next
            .set(shown(status.next.as_ref().map(|next| next.at)));
        self.limit.set(i64::from(status.budget.limit));
        let free = &status.budget.free;
        for (class, gauge) in &self.free {
            gauge.set(f64::from(match class {
                Class::Routine => free.routine,
                Class::Reported => free.reported,
                Class::Urgent => free.urgent,
            }));
        }
        let slots = status.budget.slots.iter().map(|slot| slot.frees_at);
        self.next_free.set(shown(slots.min_by_key(|at| at.boot)));
        self.record_up.set(i64::from(status.register.up));
        self.clock_step.set(status.clock_step_seconds);
        self.parked.set(i64::from(status.parked.is_some()));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a Unix time in milliseconds fits a double for 280,000 years"
)]
fn unix(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
