//! The contents of a member cluster: its pods, the values of its Prometheus for its objects, the usage of pods and nodes in its
//! metrics-server, and its external metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::wire::{ExternalMetricValue, NodeMetrics, ObjectReference, PodMetrics};
use crate::selector::Selector;
use crate::timestamp;

/// A label set.
pub type Labels = BTreeMap<String, String>;

/// A resource type of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// The plural name, `jobs`.
    pub name: &'static str,
    /// The API group, empty for the core group.
    pub group: &'static str,
    /// The kind, `Job`.
    pub kind: &'static str,
}

/// A pod as the cluster's API lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: &'static str,
    /// Whether its condition `Ready` is `True`.
    pub ready: bool,
    /// When it started, in seconds since 1970.
    pub start_time: i64,
    /// When `ready` changed last, in seconds since 1970.
    pub ready_changed: i64,
}

/// The current value of one metric of one object, with the labels of the time series.
#[derive(Clone, Debug)]
pub struct Series {
    /// The resource of the object.
    pub resource: Resource,
    /// The object's namespace. `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The object's name.
    pub object: String,
    /// The object's labels, which `labelSelector` selects by.
    pub object_labels: Labels,
    /// The metric's name.
    pub metric: String,
    /// A quantity, served unchanged.
    pub value: String,
    /// Time of the measurement in seconds since 1970.
    pub timestamp: i64,
    /// Length of the measurement window in seconds.
    pub window: Option<i64>,
    /// The labels of the series, which `metricLabelSelector` selects by.
    pub labels: Labels,
}

/// The contents of a cluster. A second series of the same object and metric with other labels becomes a second item of a
/// response; values are not summed.
#[derive(Debug)]
pub struct Store {
    contents: Mutex<Contents>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Contents {
    pods: BTreeMap<(String, String), Pod>,
    series: BTreeMap<Metric, BTreeMap<Place, Series>>,
    pod_usage: BTreeMap<(String, String), PodMetrics>,
    node_usage: BTreeMap<String, NodeMetrics>,
    external: BTreeMap<ExternalMetric, BTreeMap<Labels, ExternalMetricValue>>,
}

/// A resource and the name of a metric of its objects.
pub(super) type Metric = (Resource, String);
/// Namespace and name of an external metric.
type ExternalMetric = (String, String);
/// Namespace and name of an object, and the labels of a series.
type Place = (Option<String>, String, Labels);

impl Resource {
    /// Pods.
    pub const PODS: Self = Self { name: "pods", group: "", kind: "Pod" };
    /// Nodes (cluster-scoped).
    pub const NODES: Self = Self { name: "nodes", group: "", kind: "Node" };
    /// Namespaces. Their metrics are served under `/namespaces/{name}/metrics/`.
    pub const NAMESPACES: Self = Self { name: "namespaces", group: "", kind: "Namespace" };
    /// Services.
    pub const SERVICES: Self = Self { name: "services", group: "", kind: "Service" };
    /// Deployments of the group `apps`.
    pub const DEPLOYMENTS: Self = Self { name: "deployments", group: "apps", kind: "Deployment" };
    /// Jobs of the group `batch`.
    pub const JOBS: Self = Self { name: "jobs", group: "batch", kind: "Job" };
    /// Ingresses of the group `networking.k8s.io`, a group name with dots.
    pub const INGRESSES: Self = Self { name: "ingresses", group: "networking.k8s.io", kind: "Ingress" };

    /// The resources that every cluster knows, also without objects.
    pub(super) const BUILT_IN: [Self; 7] = [
        Self::PODS,
        Self::NODES,
        Self::NAMESPACES,
        Self::SERVICES,
        Self::DEPLOYMENTS,
        Self::JOBS,
        Self::INGRESSES,
    ];

    /// The name with the group, `jobs.batch`, as in paths and discovery.
    pub fn qualified(&self) -> String {
        match self.group {
            "" => self.name.to_owned(),
            group => format!("{}.{group}", self.name),
        }
    }

    /// The `apiVersion` as prometheus-adapter writes it: `/v1` for the core group.
    pub fn api_version(&self) -> String {
        format!("{}/v1", self.group)
    }
}

impl Series {
    /// A value measured now. `namespace` is `None` for cluster-scoped objects.
    pub fn new(resource: Resource, namespace: Option<&str>, object: &str, metric: &str, value: &str) -> Self {
        Self {
            resource,
            namespace: namespace.map(str::to_owned),
            object: object.to_owned(),
            object_labels: Labels::new(),
            metric: metric.to_owned(),
            value: value.to_owned(),
            timestamp: timestamp::now(),
            window: None,
            labels: Labels::new(),
        }
    }

    /// Adds a label to the object.
    #[must_use]
    pub fn object_label(mut self, key: &str, value: &str) -> Self {
        self.object_labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a label to the series.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(super) fn described_object(&self) -> ObjectReference {
        ObjectReference {
            kind: self.resource.kind.to_owned(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.object.clone(),
            api_version: self.resource.api_version(),
            ..ObjectReference::default()
        }
    }
}

impl Pod {
    /// A running pod that is ready from now on.
    pub fn running(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Self {
        let now = timestamp::now();
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            phase: "Running",
            ready: true,
            start_time: now,
            ready_changed: now,
        }
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self { contents: Mutex::default(), revision: watch::Sender::new(1) }
    }

    /// Sets the value of a series.
    pub fn set_metric(&self, series: Series) {
        let place = (series.namespace.clone(), series.object.clone(), series.labels.clone());
        let metric = (series.resource, series.metric.clone());
        self.contents().series.entry(metric).or_default().insert(place, series);
    }

    /// Removes all series of a metric of one object.
    pub fn remove_metric(&self, resource: Resource, namespace: Option<&str>, object: &str, metric: &str) {
        let mut contents = self.contents();
        let metric = (resource, metric.to_owned());
        if let Some(places) = contents.series.get_mut(&metric) {
            places
                .retain(|(in_namespace, name, _), _| in_namespace.as_deref() != namespace || name != object);
            if places.is_empty() {
                contents.series.remove(&metric);
            }
        }
    }

    /// Removes all series.
    pub fn clear_metrics(&self) {
        self.contents().series.clear();
    }

    /// Creates or replaces a pod.
    pub fn set_pod(&self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let mut contents = self.contents();
        if contents.pods.get(&key) != Some(&pod) {
            contents.pods.insert(key, pod);
            drop(contents);
            self.revise();
        }
    }

    /// Deletes a pod. Its series remain until they are removed too.
    pub fn remove_pod(&self, namespace: &str, name: &str) {
        if self.contents().pods.remove(&(namespace.to_owned(), name.to_owned())).is_some() {
            self.revise();
        }
    }

    /// Sets the usage of a pod. The pod need not exist.
    pub fn set_pod_usage(&self, pod: PodMetrics) {
        let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        self.contents().pod_usage.insert(key, pod);
    }

    /// Removes the usage of a pod.
    pub fn remove_pod_usage(&self, namespace: &str, name: &str) {
        self.contents().pod_usage.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Sets the usage of a node. The store has no other data of nodes.
    pub fn set_node_usage(&self, node: NodeMetrics) {
        self.contents().node_usage.insert(node.metadata.name.clone(), node);
    }

    /// Sets the value of an external metric's series.
    pub fn set_external_metric(&self, namespace: &str, value: ExternalMetricValue) {
        let metric = (namespace.to_owned(), value.metric_name.clone());
        let labels = value.metric_labels.clone().unwrap_or_default();
        self.contents().external.entry(metric).or_default().insert(labels, value);
    }

    /// Removes all series of an external metric.
    pub fn remove_external_metric(&self, namespace: &str, metric: &str) {
        self.contents().external.remove(&(namespace.to_owned(), metric.to_owned()));
    }

    /// The usage of the pods that match `chosen`, sorted by namespace and name.
    pub(super) fn pod_usage(&self, chosen: impl Fn(&PodMetrics) -> bool) -> Vec<PodMetrics> {
        self.contents().pod_usage.values().filter(|pod| chosen(pod)).cloned().collect()
    }

    /// The usage of the nodes that match `chosen`, sorted by name.
    pub(super) fn node_usage(&self, chosen: impl Fn(&NodeMetrics) -> bool) -> Vec<NodeMetrics> {
        self.contents().node_usage.values().filter(|node| chosen(node)).cloned().collect()
    }

    /// The values of an external metric, sorted by labels. `None` if there is no such metric.
    pub(super) fn external_metric(&self, namespace: &str, metric: &str) -> Option<Vec<ExternalMetricValue>> {
        let contents = self.contents();
        let series = contents.external.get(&(namespace.to_owned(), metric.to_owned()))?;
        Some(series.values().cloned().collect())
    }

    /// The names of all external metrics, without duplicates.
    pub(super) fn external_metrics(&self) -> BTreeSet<String> {
        self.contents().external.keys().map(|(_, metric)| metric.clone()).collect()
    }

    /// The pods, sorted by namespace and name.
    pub fn pods(&self) -> Vec<Pod> {
        self.contents().pods.values().cloned().collect()
    }

    /// Counter of the changes to pods.
    pub(super) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The metrics that have a value now, with their resources.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        self.contents().series.keys().cloned().collect()
    }

    /// Whether an object in a namespace (`None`: cluster-scoped) matches `chosen`, which gets its name and labels.
    pub(super) fn has_object(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        chosen: impl Fn(&str, &Labels) -> bool,
    ) -> bool {
        let contents = self.contents();
        let pods = contents.pods.values().filter(|_| resource == Resource::PODS);
        let mut pods = pods.filter(|pod| Some(pod.namespace.as_str()) == namespace);
        let series = contents.series.iter().filter(|((of, _), _)| *of == resource);
        let mut series = series.flat_map(|(_, places)| places.values());
        pods.any(|pod| chosen(&pod.name, &pod.labels))
            || series.any(|series| {
                series.namespace.as_deref() == namespace && chosen(&series.object, &series.object_labels)
            })
    }

    /// The series of a metric in a namespace (`None`: cluster-scoped objects), sorted by object name.
    pub(super) fn select(
        &self,
        metric: &Metric,
        namespace: Option<&str>,
        series_selector: &Selector,
        chosen: impl Fn(&str, &Labels) -> bool,
    ) -> Vec<Series> {
        let contents = self.contents();
        let places = contents.series.get(metric).into_iter().flat_map(BTreeMap::values);
        places
            .filter(|series| series.namespace.as_deref() == namespace)
            .filter(|series| chosen(&series.object, &series.object_labels))
            .filter(|series| series_selector.matches(values_of(&series.labels)))
            .cloned()
            .collect()
    }

    fn revise(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("not poisoned")
    }
}

/// Lookup of labels for a selector.
pub(super) fn values_of<'a>(labels: &'a Labels) -> impl Fn(&str) -> Option<&'a str> {
    |key| labels.get(key).map(String::as_str)
}
