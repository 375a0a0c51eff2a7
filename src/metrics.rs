//! The registry that `/metrics` shows. Each room registers its own metrics once, under full literal names.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Gauge, MetricFamily};
use prometheus::{GaugeVec, Opts, Registry};

use crate::clock::{Clock, Stamp, SystemClock};

/// A registry with what describes the process itself: `process_*` and `bearerd_build_info`.
pub fn registry(clock: Arc<dyn Clock>) -> Registry {
    let registry = Registry::new();
    registry
        .register(Box::new(Process::new(clock)))
        .expect("the process's own metrics are the first to be registered");
    let build = register(
        &registry,
        GaugeVec::new(
            Opts::new(
                "bearerd_build_info",
                "Always 1; the labels say what was built.",
            ),
            &["version"],
        ),
    );
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    registry
}

/// Registers a metric that was just made. Names are literals, so a wrong or doubled one is a mistake in the code.
pub fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> M {
    let metric = metric.expect("metric names and labels are valid literals");
    registry
        .register(Box::new(metric.clone()))
        .expect("a metric is registered once");
    metric
}

/// The name of the one time among the process's own metrics.
const START_TIME: &str = "process_start_time_seconds";

/// The process's own metrics. The library reads the start time once, by the wall clock of that
/// moment; here it is shown by the wall clock as it is now.
struct Process {
    inner: ProcessCollector,
    clock: Arc<dyn Clock>,
    started: Stamp,
}

impl Process {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = ProcessCollector::for_self();
        // What the library reads is the system's, whatever clock this process goes by.
        let read_at = SystemClock::new().wall();
        let started = inner.collect().iter().find_map(start_time);
        let age = started.map_or_else(Default::default, |at| read_at.duration_since(at));
        let started = clock.now().minus(age.try_into().unwrap_or_default());
        Self {
            inner,
            clock,
            started,
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.inner.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.inner.collect();
        let started = self.started.shown(self.clock.now());
        for family in &mut families {
            if start_time(family).is_some() {
                let mut gauge = Gauge::default();
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a Unix time in seconds has less than 53 bits"
                )]
                gauge.set_value(started.as_second() as f64);
                for metric in family.mut_metric() {
                    metric.set_gauge(gauge.clone());
                }
            }
        }
        families
    }
}

/// The time in this family, if it is that of the start.
fn start_time(family: &MetricFamily) -> Option<Timestamp> {
    let metric = family
        .get_metric()
        .first()
        .filter(|_| family.name() == START_TIME)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the library counts whole seconds"
    )]
    let second = metric.get_gauge().get_value() as i64;
    Timestamp::from_second(second).ok()
}
