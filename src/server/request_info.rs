//! Parses a request once. Authorization and handlers use the same result.

use http::{Method, Request};

use crate::access::review::Action;
use crate::api::field_selector::FieldSelector;
use crate::query::request_target::{PathError, RequestTarget, is_segment_name};

/// A parsed request, as in `RequestInfoFactory.NewRequestInfo` of `k8s.io/apiserver`. One difference: the path is first split
/// into segments, and each segment is decoded once after that. So an encoded slash stays in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The path and the parameters.
    pub target: RequestTarget,
    /// For a resource: `get`, `list`, … Otherwise the HTTP method in lower case.
    pub verb: String,
    /// The resource; `None` if the path names none.
    pub resource: Option<RequestedResource>,
}

/// The part of a path below `/apis/<group>/<version>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedResource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version of the group.
    pub version: String,
    /// The namespace; empty for none.
    pub namespace: String,
    /// The resource, such as `pods`.
    pub resource: String,
    /// The subresource; empty for none.
    pub subresource: String,
    /// The object's name; empty for none.
    pub name: String,
}

impl RequestInfo {
    /// Parses the method, path and query string of a request.
    ///
    /// # Errors
    /// If the path or the query string is malformed.
    pub fn read<B>(request: &Request<B>) -> Result<Self, PathError> {
        Self::of(request.method(), request.uri().path(), request.uri().query().unwrap_or(""))
    }

    /// The action that authorization checks.
    pub fn action(&self) -> Action {
        let verb = self.verb.clone();
        match self.resource.clone() {
            Some(RequestedResource { group, version, namespace, resource, subresource, name, .. }) => {
                Action::Resource { verb, group, version, namespace, resource, subresource, name }
            }
            None => Action::Path { verb, path: self.target.path.clone() },
        }
    }

    fn of(method: &Method, path: &str, query: &str) -> Result<Self, PathError> {
        let target = RequestTarget::read(path, query)?;
        let resource = resource(&target.segments);
        let verb = match &resource {
            Some(resource) => resource_verb(method, resource),
            None => method.as_str().to_ascii_lowercase(),
        };
        Ok(Self { target, verb, resource }.for_authorization())
    }

    /// Adapts a list for authorization: the verb is `watch` if the query string requests a watch, and a field selector for one
    /// name sets the name of the resource.
    fn for_authorization(mut self) -> Self {
        if self.verb != "list" {
            return self;
        }
        if self.target.is_watch() {
            "watch".clone_into(&mut self.verb);
        }
        let fields: FieldSelector = self.target.parameter("fieldSelector").parse().unwrap_or_default();
        if let (Some(name), Some(resource)) = (fields.name(), &mut self.resource)
            && is_segment_name(name)
        {
            name.clone_into(&mut resource.name);
        }
        self
    }
}

/// The resource that the segments name; `None` if there are too few segments.
fn resource(segments: &[String]) -> Option<RequestedResource> {
    let (group, version, rest) = match segments {
        [api, version, rest @ ..] if api == "api" && !rest.is_empty() => (String::new(), version, rest),
        [apis, group, version, rest @ ..] if apis == "apis" && !rest.is_empty() => {
            (group.clone(), version, rest)
        }
        _ => return None,
    };
    let mut resource = RequestedResource { group, version: version.clone(), ..RequestedResource::default() };
    let mut parts = rest;
    if let [first, namespace, below @ ..] = parts
        && first == "namespaces"
    {
        resource.namespace.clone_from(namespace);
        // `status` and `finalize` are subresources of the namespace, not resources in it.
        if below.first().is_some_and(|part| part != "status" && part != "finalize") {
            parts = below;
        }
    }
    let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
    (resource.resource, resource.name, resource.subresource) = (part(0), part(1), part(2));
    Some(resource)
}

fn resource_verb(method: &Method, resource: &RequestedResource) -> String {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if resource.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD if resource.name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        _ => "",
    };
    verb.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> RequestInfo {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        RequestInfo::of(&Method::GET, path, query).expect("a well-formed path")
    }

    fn resource_of(path: &str) -> RequestedResource {
        get(path).resource.expect("a resource")
    }

    #[test]
    fn encoded_wildcard_equals_the_plain_one() {
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods";
        let encoded = get(&format!("{path}/%2A/http_requests"));
        assert_eq!(encoded, get(&format!("{path}/*/http_requests")));
        let RequestedResource { namespace, resource, name, subresource, .. } =
            encoded.resource.expect("a resource");
        assert_eq!([namespace, resource, name, subresource], ["default", "pods", "*", "http_requests"]);
        assert_eq!(encoded.verb, "get");
    }

    #[test]
    fn encoded_slash_stays_in_its_segment() {
        let resource = resource_of("/apis/g/v1/namespaces/a%2Fb/pods/c%252Fd/m");
        assert_eq!((&*resource.namespace, &*resource.name), ("a/b", "c%2Fd"));
    }

    #[test]
    fn discovery_paths_have_no_resource() {
        for path in
            ["/", "/apis", "/apis/custom.metrics.k8s.io", "/apis/custom.metrics.k8s.io/v1beta2/", "/healthz"]
        {
            assert_eq!(get(path).resource, None, "{path}");
        }
    }

    #[test]
    fn namespaces_are_resources_and_scopes() {
        let resource = resource_of("/apis/g/v1/namespaces/default/metrics/m");
        assert_eq!([&*resource.namespace, &resource.resource, &resource.name], ["default", "metrics", "m"]);
        let resource = resource_of("/apis/g/v1/namespaces/default");
        assert_eq!(
            [&*resource.namespace, &resource.resource, &resource.name],
            ["default", "namespaces", "default"]
        );
        let resource = resource_of("/apis/g/v1/namespaces/default/status");
        assert_eq!(
            [&*resource.resource, &resource.name, &resource.subresource],
            ["namespaces", "default", "status"]
        );
    }

    #[test]
    fn verb_depends_on_method_and_name() {
        let verb = |method: Method, path| RequestInfo::of(&method, path, "").expect("well-formed").verb;
        assert_eq!(verb(Method::GET, "/apis/g/v1/pods"), "list");
        assert_eq!(verb(Method::DELETE, "/apis/g/v1/pods"), "deletecollection");
        assert_eq!(verb(Method::POST, "/apis/g/v1/pods/a"), "create");
        assert_eq!(verb(Method::HEAD, "/healthz"), "head");
    }

    #[test]
    fn list_can_be_a_watch_or_have_a_name() {
        let verb = |query: &str| get(&format!("/apis/g/v1/pods?{query}")).verb;
        assert_eq!(
            ["watch", "watch=1", "watch=False", "watch=0", ""].map(verb),
            ["watch", "watch", "list", "list", "list"]
        );
        assert_eq!(get("/apis/g/v1/pods/a?watch=1").verb, "get");
        let narrowed = get("/apis/g/v1/pods?fieldSelector=metadata.name%3Da,metadata.namespace%3Db");
        assert_eq!(narrowed.resource.expect("a resource").name, "a");
    }
}
