//! Request metrics of this server, under the names of Kubernetes' generic API server
//! (`k8s.io/apiserver/pkg/endpoints/metrics`), which dashboards expect.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::request_info::RequestInfo;
use crate::api::group::Group;
use crate::process::metrics::{DurationHistogram, seconds};

/// Counts requests and measures their duration.
pub struct RequestMetrics {
    total: Family<CodeLabels, Counter>,
    seconds: DurationHistogram<RequestLabels>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    dry_run: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    #[prometheus(flatten)]
    labels: RequestLabels,
    code: u16,
}

impl RequestMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { total: Family::default(), seconds: seconds() };
        registry.register("apiserver_request", "Requests by verb, resource and code", metrics.total.clone());
        let help = "Time until the response to a request was ready";
        registry.register("apiserver_request_duration_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// Counts a request. Clients can invent verbs, versions and resources, so these labels and the scope are set only for
    /// successful requests. Failed requests have only the group, and only if it is a metrics API.
    pub fn observe(&self, info: Option<&RequestInfo>, status: StatusCode, elapsed: Duration) {
        let mut labels = RequestLabels {
            verb: String::new(),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            scope: "",
            component: "karmada-metrics-adapter",
            dry_run: "",
        };
        let group = info.and_then(|info| info.resource.as_ref()).map_or("", |resource| &resource.group);
        if Group::ALL.iter().any(|known| known.name() == group) {
            group.clone_into(&mut labels.group);
        }
        if let Some(info) = info.filter(|_| status.is_success()) {
            labels.verb = info.verb.to_ascii_uppercase();
            if let Some(resource) = &info.resource {
                labels.version.clone_from(&resource.version);
                labels.resource.clone_from(&resource.resource);
                labels.subresource.clone_from(&resource.subresource);
                labels.scope = match resource {
                    _ if !resource.name.is_empty() => "resource",
                    _ if !resource.namespace.is_empty() => "namespace",
                    _ => "cluster",
                };
            }
        }
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
        self.total.get_or_create(&CodeLabels { labels, code: status.as_u16() }).inc();
    }
}
