//! The registry of this process' metrics. Each layer registers its own struct.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::api::version;

/// The media type of [`MetricsRegistry::encode`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A histogram of seconds by labels, with buckets from 1 ms to 30 s.
pub type DurationHistogram<L> = Family<L, Histogram, fn() -> Histogram>;

/// Creates an empty [`DurationHistogram`].
pub fn seconds<L: Clone + std::hash::Hash + Eq>() -> DurationHistogram<L> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];

/// All metrics of this process.
pub struct MetricsRegistry {
    registry: Registry,
}

impl MetricsRegistry {
    /// Adds the build information to the metrics that the layers have registered. Karmada's dashboards use its name.
    pub fn new(mut registry: Registry) -> Self {
        let build = version::VersionInfo::current();
        let build = vec![
            ("git_version", build.git_version.to_owned()),
            ("compiler", build.compiler.to_owned()),
            ("platform", build.platform),
        ];
        registry.register("karmada_build", "The running version", Info::new(build));
        Self { registry }
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String accepts all text");
        text
    }
}
