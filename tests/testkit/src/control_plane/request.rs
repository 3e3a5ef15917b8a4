//! The attributes of a request, from its method, path and query.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use http::Method;
use tokio::sync::watch;

use super::objects::selection::Selection;
use crate::go_url::Query;

/// Maximum of recorded requests.
const REMEMBERED: usize = 16_384;

/// The attributes that authorization uses. Follows `request.RequestInfoFactory.NewRequestInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Kubernetes' verb, or the lower-case method for a path that is not a resource.
    pub(super) verb: String,
    /// The decoded path.
    pub(super) path: String,
    /// `None` for a path that is not a resource.
    pub(super) resource: Option<ResourceAttributes>,
}

/// The resource in a path. Absent parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourceAttributes {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Kubernetes' verb (`get`, `list`, `watch`, `create`, …), or the lower-case method for other paths.
    pub verb: String,
    /// The path as received: percent-encoded, without the query.
    pub path: String,
    /// The query as received. Empty if there was none.
    pub query: String,
    /// The authenticated user. Empty if authentication failed.
    pub user: String,
    /// The `User-Agent`.
    pub agent: String,
}

/// The last requests, with a way to wait for one.
pub(super) struct Recorder {
    requests: Mutex<VecDeque<Recorded>>,
    total: watch::Sender<u64>,
}

impl Attributes {
    pub(super) fn read(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match *segments {
            ["api", version, ref rest @ ..] => ("", version, rest),
            ["apis", group, version, ref rest @ ..] => (group, version, rest),
            _ => ("", "", &[] as &[&str]),
        };
        let plain = || Self { verb: method.as_str().to_lowercase(), path: path.to_owned(), resource: None };
        if rest.is_empty() {
            return plain();
        }
        let (namespace, rest) = match *rest {
            ["namespaces", namespace, ref rest @ ..]
                if !rest.is_empty() && !["status", "finalize"].contains(&rest[0]) =>
            {
                (namespace, rest)
            }
            ["namespaces", namespace, ..] => (namespace, rest),
            _ => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let mut resource = ResourceAttributes {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            namespace: namespace.to_owned(),
        };
        let verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD if !resource.name.is_empty() => "get",
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if resource.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => return plain(),
        };
        if resource.name.is_empty()
            && let Ok(selection) = Selection::parse(None, query)
            && let Some(name) = selection.name()
        {
            name.clone_into(&mut resource.name);
        }
        Self { verb: verb.to_owned(), path: path.to_owned(), resource: Some(resource) }
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { requests: Mutex::new(VecDeque::new()), total: watch::Sender::new(0) }
    }

    pub(super) fn record(&self, request: Recorded) {
        let mut requests = self.requests();
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(request);
        self.total.send_modify(|total| *total += 1);
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.requests().iter().cloned().collect()
    }

    /// Returns the first request that matches. Returns at once if it was already received.
    pub(super) async fn seen(&self, matches: impl Fn(&Recorded) -> bool) -> Recorded {
        let mut total = self.total.subscribe();
        loop {
            total.borrow_and_update();
            if let Some(found) = self.requests().iter().find(|request| matches(request)) {
                return found.clone();
            }
            total.changed().await.expect("the sender is in self");
        }
    }

    fn requests(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.requests.lock().expect("not poisoned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_as_in_kubernetes() {
        for (method, path, query, verb, resource) in [
            (Method::GET, "/apis/g/v1/things", "", "list", Some(["g", "v1", "things", "", "", ""])),
            (
                Method::GET,
                "/apis/g/v1/things",
                "watch=true",
                "watch",
                Some(["g", "v1", "things", "", "", ""]),
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests",
                "",
                "get",
                Some(["custom.metrics.k8s.io", "v1beta2", "pods", "http_requests", "default", "*"]),
            ),
            (Method::GET, "/api/v1/namespaces/n", "", "get", Some(["", "v1", "namespaces", "", "n", "n"])),
            (
                Method::POST,
                "/api/v1/namespaces/n/secrets",
                "",
                "create",
                Some(["", "v1", "secrets", "", "n", ""]),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/n/configmaps",
                "fieldSelector=metadata.name%3Dx",
                "list",
                Some(["", "v1", "configmaps", "", "n", "x"]),
            ),
            (Method::GET, "/apis/g/v1", "", "get", None),
            (Method::GET, "/healthz", "", "get", None),
        ] {
            let read = Attributes::read(&method, path, &Query::parse(query));
            assert_eq!(read.verb, verb, "{path}");
            let parts = read
                .resource
                .map(|it| [it.group, it.version, it.resource, it.subresource, it.namespace, it.name]);
            assert_eq!(parts, resource.map(|parts| parts.map(str::to_owned)), "{path}");
        }
    }
}
