//! The registry that `/metrics` shows. Each room registers its own metrics once, under full literal names.

use prometheus::core::Collector;
use prometheus::{GaugeVec, Opts, Registry};

/// A registry with what describes the process itself: `process_*` and `bearerd_build_info`.
pub fn registry() -> Registry {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry
        .register(Box::new(process))
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
