//! The rest of a member's API: versions, discovery of the core group, pods and nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};

use super::store::{Pod, Store, values_of};
use super::wire::{ApiResource, ApiResourceList, Document, ObjectMeta, Status};
use crate::https::{Body, streamed};
use crate::selector::Selector;
use crate::timestamp;

/// The body of `/version`, as recorded from a real member.
pub(super) const VERSION: &str = r#"{
  "major": "1",
  "minor": "36",
  "emulationMajor": "1",
  "emulationMinor": "36",
  "minCompatibilityMajor": "1",
  "minCompatibilityMinor": "35",
  "gitVersion": "v0.0.0-master+$Format:%H$",
  "gitCommit": "$Format:%H$",
  "gitTreeState": "",
  "buildDate": "1970-01-01T00:00:00Z",
  "goVersion": "go1.26.8",
  "compiler": "gc",
  "platform": "linux/amd64"
}"#;

/// The namespaces that Kubernetes creates in every cluster. The reference adapter gets `kube-system` to check that a cluster is
/// reachable.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The parameters of a list or watch that the member uses.
#[derive(Clone, Debug, Default)]
pub(super) struct ListOptions {
    pub labels: String,
    pub fields: String,
    pub watch: bool,
    pub send_initial_events: bool,
    pub resource_version: String,
    pub limit: Option<usize>,
    pub timeout: Option<Duration>,
}

/// `/api`
pub(super) fn versions() -> Document {
    Document::Json(json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
    }))
}

/// `/api/v1`
pub(super) fn core_resources() -> ApiResourceList {
    let resource = |name: &str, singular_name, namespaced, kind| ApiResource {
        name: name.to_owned(),
        singular_name,
        namespaced,
        kind,
        verbs: &["get", "list", "watch"],
    };
    ApiResourceList::new(
        "v1".to_owned(),
        vec![resource("nodes", "node", false, "Node"), resource("pods", "pod", true, "Pod")],
    )
}

/// The pods of one namespace, or of all namespaces.
pub(super) fn pods(store: &Store, namespace: Option<&str>, options: &ListOptions) -> (StatusCode, Document) {
    let revision = *store.revision().borrow();
    match matching_pods(store, namespace, options) {
        Ok(mut pods) => {
            pods.truncate(options.limit.unwrap_or(usize::MAX));
            (StatusCode::OK, list("PodList", revision, pods))
        }
        Err(message) => {
            let status = Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message);
            (StatusCode::BAD_REQUEST, Document::Status(status.into()))
        }
    }
}

/// A namespace that exists in every cluster or has pods.
pub(super) fn namespace(store: &Store, name: &str) -> (StatusCode, Document) {
    if !NAMESPACES.contains(&name) && !store.pods().iter().any(|pod| pod.namespace == name) {
        let message = format!("namespaces {name:?} not found");
        return Status::failure(StatusCode::NOT_FOUND, "NotFound", message).into_answer();
    }
    let object = json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": name, "resourceVersion": "1"},
        "status": {"phase": "Active"},
    });
    (StatusCode::OK, Document::Json(object))
}

/// The nodes with known usage. If there are none, the one node that every cluster has.
pub(super) fn nodes(store: &Store, member: &str) -> (StatusCode, Document) {
    let mut nodes: Vec<_> = store.node_usage(|_| true).into_iter().map(|node| node.metadata).collect();
    if nodes.is_empty() {
        nodes.push(ObjectMeta { name: format!("{member}-node-1"), ..ObjectMeta::default() });
    }
    let node = |ObjectMeta { name, labels, .. }: ObjectMeta| {
        json!({
            "metadata": {"name": name, "uid": format!("node-{name}"), "resourceVersion": "1", "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    let nodes = nodes.into_iter().map(node).collect();
    (StatusCode::OK, list("NodeList", *store.revision().borrow(), nodes))
}

/// Watches pods (`Some` namespace) or objects that never change (`None`). Sends the changes from now on until the client's
/// timeout. An old `resourceVersion` gets the 410 that makes a client list again.
///
/// # Errors
/// The rejection by a server without the feature gate `WatchList`.
pub(super) fn watch(
    store: Arc<Store>,
    namespace: Option<Option<String>>,
    options: ListOptions,
) -> Result<Body, Box<Status>> {
    if options.send_initial_events {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is \
                       forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Box::new(Status::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)));
    }
    let limit = options.timeout.unwrap_or(Duration::from_secs(3600));
    let mut revision = store.revision();
    let now = revision.borrow_and_update().to_string();
    if !["", "0", &now].contains(&options.resource_version.as_str()) {
        let message = format!("too old resource version: {} ({now})", options.resource_version);
        let event = json!({"type": "ERROR", "object": Status::failure(StatusCode::GONE, "Expired", message)});
        return Ok(lines(stream::iter([event])));
    }
    let read = move || match &namespace {
        Some(namespace) => matching_pods(&store, namespace.as_deref(), &options).unwrap_or_default(),
        None => Vec::new(),
    };
    let known = read();
    let events = stream::unfold((revision, known, read), |(mut revision, known, read)| async move {
        revision.changed().await.ok()?;
        let now = revision.borrow_and_update().to_string();
        let current = read();
        let events = changes(&known, &current, &now);
        Some((stream::iter(events), (revision, current, read)))
    });
    Ok(lines(events.flatten().take_until(tokio::time::sleep(limit))))
}

fn changes(before: &[Value], after: &[Value], revision: &str) -> Vec<Value> {
    let same = |one: &Value, other: &Value| one["metadata"]["uid"] == other["metadata"]["uid"];
    let event = |kind: &str, pod: &Value| {
        let mut pod = pod.clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["resourceVersion"] = json!(revision);
        json!({"type": kind, "object": pod})
    };
    let gone = before.iter().filter(|pod| !after.iter().any(|now| same(pod, now)));
    let mut events: Vec<Value> = gone.map(|pod| event("DELETED", pod)).collect();
    for pod in after {
        match before.iter().find(|was| same(was, pod)) {
            None => events.push(event("ADDED", pod)),
            Some(was) if was != pod => events.push(event("MODIFIED", pod)),
            Some(_) => {}
        }
    }
    events
}

fn lines(events: impl futures::Stream<Item = Value> + Send + Sync + 'static) -> Body {
    streamed(events.map(|event| Ok(Bytes::from(format!("{event}\n")))))
}

fn matching_pods(
    store: &Store,
    namespace: Option<&str>,
    options: &ListOptions,
) -> Result<Vec<Value>, String> {
    let labels = Selector::parse(&options.labels)?;
    let fields = Selector::parse(&options.fields)?;
    if let Some(unknown) = fields.requirements().iter().find(|field| field.key != "metadata.name") {
        return Err(format!("field label not supported: {}", unknown.key));
    }
    let pods = store.pods().into_iter();
    let pods = pods.filter(|pod| namespace.is_none_or(|namespace| pod.namespace == namespace));
    let pods = pods
        .filter(|pod| labels.matches(values_of(&pod.labels)) && fields.matches(|_| Some(pod.name.as_str())));
    Ok(pods.map(|pod| pod_json(&pod)).collect())
}

fn list(kind: &str, revision: u64, items: Vec<Value>) -> Document {
    let metadata = json!({"resourceVersion": revision.to_string()});
    let mut list = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata});
    list["items"] = Value::Array(items);
    Document::Json(list)
}

fn pod_json(pod: &Pod) -> Value {
    let start_time = timestamp::format(pod.start_time);
    let ready = if pod.ready { "True" } else { "False" };
    let condition = |kind: &str, status: &str, since: i64| json!({"type": kind, "status": status, "lastTransitionTime": timestamp::format(since)});
    json!({
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": format!("{}-{}", pod.namespace, pod.name),
            "resourceVersion": "1",
            "creationTimestamp": start_time,
            "labels": pod.labels,
        },
        "spec": {"containers": [{"name": "app", "image": "sample-app"}]},
        "status": {
            "phase": pod.phase,
            "conditions": [
                condition("PodScheduled", "True", pod.start_time),
                condition("ContainersReady", ready, pod.ready_changed),
                condition("Ready", ready, pod.ready_changed),
            ],
            "startTime": start_time,
        },
    })
}
