//! The responses of the benchmark's members: one list per member, with the sizes and shapes of real ones.

use testkit::member::wire::{
    ContainerMetrics, Format, MetricValue, MetricValueList, MetricsList, ObjectMeta, ObjectReference,
    PodMetrics, ResourceMetrics, Version,
};

/// The metric of all pods.
pub const METRIC: &str = "http_requests";
/// The namespace of all pods.
pub const NAMESPACE: &str = "default";
/// The label of all pods.
pub const LABEL: (&str, &str) = ("app", "sample-app");

/// The name of a Deployment's pod. Names are unique in a fleet.
pub fn pod_name(member: usize, pod: usize) -> String {
    format!("sample-app-6b8c5d9f7d-{member:04}x{pod:04}")
}

/// prometheus-adapter's response for all pods of a member.
pub fn metric_values(version: Version, member: usize, pods: usize, format: Format) -> Vec<u8> {
    let mut list = MetricValueList::new(version);
    list.items = (0..pods).map(|pod| metric_value(member, pod)).collect();
    list.encode(format)
}

/// metrics-server's response for all pods of a member.
pub fn pod_metrics(member: usize, pods: usize, format: Format) -> Vec<u8> {
    let items = (0..pods).map(|pod| usage(member, pod)).collect();
    ResourceMetrics::Pods(MetricsList::new(items)).encode(format)
}

fn metric_value(member: usize, pod: usize) -> MetricValue {
    MetricValue {
        described_object: ObjectReference {
            kind: "Pod".to_owned(),
            namespace: NAMESPACE.to_owned(),
            name: pod_name(member, pod),
            api_version: "/v1".to_owned(),
            ..ObjectReference::default()
        },
        metric: METRIC.to_owned(),
        selector: None,
        timestamp: Some(1_735_689_600),
        window: None,
        value: format!("{}m", 600 + pod),
    }
}

fn usage(member: usize, pod: usize) -> PodMetrics {
    let text = |(key, value): (&str, String)| (key.to_owned(), value);
    let labels = [(LABEL.0, LABEL.1.to_owned()), ("pod-template-hash", "6b8c5d9f7d".to_owned())];
    let usage = [("cpu", format!("{}n", 1_234_567 + pod)), ("memory", format!("{}Ki", 20_480 + pod))];
    PodMetrics {
        metadata: ObjectMeta {
            name: pod_name(member, pod),
            namespace: NAMESPACE.to_owned(),
            creation_timestamp: "2026-01-01T00:00:00Z".to_owned(),
            labels: labels.map(text).into(),
            ..ObjectMeta::default()
        },
        timestamp: "2026-01-01T00:00:00Z".to_owned(),
        window: "15.321s".to_owned(),
        containers: vec![ContainerMetrics { name: "app".to_owned(), usage: usage.map(text).into() }],
    }
}
