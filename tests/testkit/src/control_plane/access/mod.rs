//! Authentication and authorization: client certificates, tokens, and RBAC with its default roles.

pub(super) mod review;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::reply::{Failure, details};
use super::request::{Attributes, ResourceAttributes};
use crate::https::Peer;
use crate::member::wire::StatusDetails;

/// The adapter's user. It has the permissions of the adapter's ClusterRole.
pub const ADAPTER_USER: &str = "system:serviceaccount:karmada-system:karmada-metrics-adapter";

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const HEALTH: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];

/// An identity, as reviews and request headers carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Tokens and grants.
pub(crate) struct Access {
    tokens: Mutex<BTreeMap<String, User>>,
    grants: Mutex<Vec<Grant>>,
}

/// Permissions of a user or group in addition to the defaults. `*` means all.
#[derive(Default)]
struct Grant {
    subject: String,
    verbs: Vec<String>,
    group: String,
    resources: Vec<String>,
    /// The names of the objects. Empty means all.
    names: Vec<String>,
    /// The namespace of the permission. Empty means all.
    namespace: String,
    /// The verbs and resources that were used.
    used: BTreeSet<(String, String)>,
}

impl Access {
    pub(crate) fn new() -> Self {
        let access = Self { tokens: Mutex::default(), grants: Mutex::default() };
        let reads = &["get", "list", "watch"];
        access.grant(ADAPTER_USER, reads, "cluster.karmada.io", &["clusters"]);
        access.grant(ADAPTER_USER, reads, "", &["secrets", "configmaps"]);
        access.grant(ADAPTER_USER, &["create"], "authentication.k8s.io", &["tokenreviews"]);
        access.grant(ADAPTER_USER, &["create"], "authorization.k8s.io", &["subjectaccessreviews"]);
        access
    }

    pub(crate) fn add_token(&self, token: &str, name: &str, groups: &[&str]) {
        self.tokens().insert(token.to_owned(), User::authenticated(name, groups));
    }

    pub(crate) fn remove_token(&self, token: &str) {
        self.tokens().remove(token);
    }

    /// The user of a known token.
    pub(crate) fn token(&self, token: &str) -> Option<User> {
        self.tokens().get(token).cloned()
    }

    pub(crate) fn grant(&self, subject: &str, verbs: &[&str], group: &str, resources: &[&str]) {
        self.grants().push(Grant {
            subject: subject.to_owned(),
            verbs: owned(verbs),
            group: group.to_owned(),
            resources: owned(resources),
            ..Grant::default()
        });
    }

    /// Grants the rules of a Role (in its namespace) or of a ClusterRole.
    pub(crate) fn bind(&self, subject: &str, role: &Value) {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let texts = |key: &str| -> Vec<String> {
                let listed = rule[key].as_array().into_iter().flatten();
                listed.filter_map(|text| text.as_str().map(str::to_owned)).collect()
            };
            for group in texts("apiGroups") {
                self.grants().push(Grant {
                    subject: subject.to_owned(),
                    verbs: texts("verbs"),
                    group,
                    resources: texts("resources"),
                    names: texts("resourceNames"),
                    namespace: role["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
                    used: BTreeSet::new(),
                });
            }
        }
    }

    /// The permissions that were granted and never used, as `watch secrets`.
    pub(crate) fn unused(&self, subject: &str) -> Vec<String> {
        let grants = self.grants();
        let granted = grants.iter().filter(|grant| grant.subject == subject).flat_map(|grant| {
            let pairs = grant.verbs.iter().flat_map(|verb| grant.resources.iter().map(move |it| (verb, it)));
            pairs.filter(|(verb, it)| !grant.used.contains(&((*verb).clone(), (*it).clone())))
        });
        granted.map(|(verb, resource)| format!("{verb} {resource}")).collect()
    }

    pub(crate) fn revoke(&self, subject: &str) {
        self.grants().retain(|grant| grant.subject != subject);
    }

    /// Authenticates by client certificate, then by bearer token, else as anonymous. `None` if the token is unknown.
    pub(crate) fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Option<User> {
        if let Some(user) = peer.certificate.as_ref().and_then(User::of_certificate) {
            return Some(user);
        }
        match headers.get(AUTHORIZATION) {
            Some(value) => self.token(value.to_str().ok()?.strip_prefix("Bearer ")?.trim()),
            None => Some(User::anonymous()),
        }
    }

    pub(crate) fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        user.is(MASTERS)
            || allowed_by_default(user, attributes)
            || self.grants().iter_mut().any(|grant| user.is(&grant.subject) && grant.allows(attributes))
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.tokens.lock().expect("not poisoned")
    }

    fn grants(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.grants.lock().expect("not poisoned")
    }
}

impl User {
    pub(crate) fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: owned(&[UNAUTHENTICATED]), ..Self::default() }
    }

    fn authenticated(name: &str, groups: &[&str]) -> Self {
        let mut groups = owned(groups);
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Follows `x509.CommonNameUserConversion`: the common name is the user, organizations are groups.
    fn of_certificate(der: &CertificateDer<'static>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
        let mut user = Self::authenticated(name, &groups);
        let id = format!("X509SHA256={}", sha256(der));
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![id]);
        Some(user)
    }

    fn is(&self, subject: &str) -> bool {
        self.name == subject || self.groups.iter().any(|group| group == subject)
    }
}

impl Grant {
    /// Whether the permission covers the request. Records the use.
    fn allows(&mut self, attributes: &Attributes) -> bool {
        let listed = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        let Some(asked) = &attributes.resource else { return false };
        let covers = listed(&self.verbs, &attributes.verb)
            && (self.group == "*" || self.group == asked.group)
            && listed(&self.resources, &resource_name(asked))
            && (self.names.is_empty() || self.names.contains(&asked.name))
            && (self.namespace.is_empty() || self.namespace == asked.namespace);
        if covers {
            self.used.insert((attributes.verb.clone(), resource_name(asked)));
        }
        covers
    }
}

/// The 403 of kube-apiserver; follows `responsewriters.Forbidden`.
pub(crate) fn forbidden(user: &User, attributes: &Attributes) -> Failure {
    let (name, verb) = (&user.name, &attributes.verb);
    let Some(asked) = &attributes.resource else {
        let message = format!("forbidden: User {name:?} cannot {verb} path {:?}", attributes.path);
        return Failure::new(StatusCode::FORBIDDEN, "Forbidden", message)
            .with_details(StatusDetails::default());
    };
    let place = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let object = match asked.name.as_str() {
        "" => String::new(),
        name => format!(" {name:?}"),
    };
    let message = format!(
        "{}{object} is forbidden: User {name:?} cannot {verb} resource {:?} in API group {:?} {place}",
        super::objects::resources::qualify(&asked.resource, &asked.group),
        resource_name(asked),
        asked.group,
    );
    Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(details(
        &asked.resource,
        &asked.group,
        &asked.name,
    ))
}

/// `system:discovery`, `system:public-info-viewer` and `system:basic-user`, as RBAC bootstraps them.
fn allowed_by_default(user: &User, attributes: &Attributes) -> bool {
    let path = attributes.path.as_str();
    let under =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(asked) = &attributes.resource {
        return (asked.group.as_str(), asked.resource.as_str(), attributes.verb.as_str())
            == ("authorization.k8s.io", "selfsubjectaccessreviews", "create")
            && user.is(AUTHENTICATED);
    }
    attributes.verb == "get"
        && (HEALTH.contains(&path.trim_end_matches('/'))
            && (user.is(AUTHENTICATED) || user.is(UNAUTHENTICATED))
            || DISCOVERY.into_iter().any(under) && user.is(AUTHENTICATED))
}

/// `pods/http_requests`: a subresource as in RBAC rules.
fn resource_name(asked: &ResourceAttributes) -> String {
    match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("the suite belongs to TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
