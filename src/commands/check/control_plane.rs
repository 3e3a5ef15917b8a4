//! Checks of the control plane: the API server, the APIServices, the clusters, and the permissions of this identity.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use http::Request;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};
use serde_json::Value;
use tokio::time::timeout;

use super::finding::{CheckStatus, Finding};
use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::group::Group;
use crate::api::text::shorten;
use crate::cli::commands::CheckFlags;
use crate::control::has_no_credentials;
use crate::fleet::karmada::cluster_api;
use crate::fleet::karmada::objects::read_cluster;
use crate::fleet::karmada::registry::{ClusterSecret, ClusterSpec, SecretName};

/// The Cluster objects, and the Secrets that they refer to.
#[derive(Default)]
pub(super) struct ClustersAndSecrets {
    pub(super) clusters: BTreeMap<String, RegisteredCluster>,
    /// `Ok(None)` if the Secret does not exist.
    pub(super) secrets: BTreeMap<SecretName, Result<Option<ClusterSecret>, RequestError>>,
}

/// A Cluster object.
pub(super) struct RegisteredCluster {
    pub(super) spec: ClusterSpec,
    /// Reason and message of the condition `Ready`.
    pub(super) readiness: String,
}

/// Why a request to the control plane failed.
#[derive(Debug)]
pub(super) struct RequestError {
    /// The HTTP status, if there was a response.
    code: Option<u16>,
    pub(super) message: String,
}

/// The checks, with the identity of the kubeconfig.
struct ControlPlaneCheck<'a> {
    client: &'a Client,
    flags: &'a CheckFlags,
}

/// A permission that the adapter needs in the control plane. An empty field means any value.
#[derive(Clone, Copy)]
struct Permission<'a> {
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

const NO_EXTERNAL_METRICS: &str = "not registered; external metrics are disabled";
const READ_VERBS: [&str; 3] = ["get", "list", "watch"];
/// The name of the check.
const PERMISSIONS: &str = "permissions";
const REVIEWS: [(&str, &str); 2] =
    [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")];

/// Checks the control plane. `--member-timeout` limits each request. Returns no clusters if they cannot be read.
pub(super) async fn check(
    client: &Client,
    flags: &CheckFlags,
    findings: &mut Vec<Finding>,
) -> ClustersAndSecrets {
    let plane = ControlPlaneCheck { client, flags };
    match plane.request(client.apiserver_version()).await {
        Ok(version) => findings.push(Finding::ok(None, "API server", version.git_version)),
        Err(error) => {
            let (cause, message) = (error.cause(), error.message);
            findings.push(control_plane_problem("API server", CheckStatus::Broken, cause, message));
            return ClustersAndSecrets::default();
        }
    }
    let services =
        Group::ALL.iter().flat_map(|group| group.versions().iter().map(|version| (*group, *version)));
    findings.extend(join_all(services.map(|(group, version)| plane.api_service(group, version))).await);
    let objects = plane.clusters(findings).await;
    findings.push(plane.check_permissions(&objects).await);
    objects
}

impl ControlPlaneCheck<'_> {
    async fn request<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, RequestError> {
        let limit = self.flags.member_timeout;
        timeout(limit, work).await.map_err(|_| RequestError::timed_out(limit))?.map_err(RequestError::from)
    }

    async fn api_service(&self, group: Group, version: &str) -> Finding {
        let name = format!("{version}.{group}");
        let check = format!("APIService {name}");
        let status = missing_api_status(group);
        let found = match self.request(Api::<APIService>::all(self.client.clone()).get_opt(&name)).await {
            Ok(Some(found)) => found,
            Ok(None) if group == Group::External => {
                return Finding::ok(None, check, NO_EXTERNAL_METRICS);
            }
            Ok(None) => {
                let message = "the APIService does not exist";
                return control_plane_problem(check, status, Cause::APIServiceMissing, message);
            }
            // The adapter's own identity does not need to read it. The API itself must respond.
            Err(error) if error.code == Some(403) => return self.check_api(check, group, version).await,
            Err(error) => {
                let message = format!("the APIService cannot be read: {}", error.message);
                return control_plane_problem(check, CheckStatus::Warning, error.cause(), message);
            }
        };
        let CheckFlags { service_namespace, service, .. } = self.flags;
        let target = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let target = target.map(|target| {
            (target.namespace.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default())
        });
        match target {
            Some(target) if target == (service_namespace, service) => {}
            Some((namespace, name)) => {
                let message =
                    format!("spec.service is {namespace}/{name}, not {service_namespace}/{service}");
                return control_plane_problem(check, status, Cause::APIServiceElsewhere, message);
            }
            None => {
                let message = "the APIService has no Service: the API server handles the requests itself";
                return control_plane_problem(check, status, Cause::APIServiceElsewhere, message);
            }
        }
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        match conditions.into_iter().find(|condition| condition.type_ == "Available") {
            Some(condition) if condition.status == "True" => self.check_api(check, group, version).await,
            Some(condition) => unavailable(check, &condition),
            None => {
                let message = "the API server has not checked the APIService yet";
                control_plane_problem(check, CheckStatus::Broken, Cause::APIServiceUnavailable, message)
            }
        }
    }

    /// Sends a request as clients do. The availability check of API servers up to 1.34 accepts any certificate, so the
    /// condition `Available` does not cover the certificate.
    async fn check_api(&self, check: String, group: Group, version: &str) -> Finding {
        let path = format!("/apis/{group}/{version}");
        let request = Request::get(path).body(Vec::new()).expect("groups and versions are valid in a path");
        let error = match self.request(self.client.request::<Value>(request)).await {
            Ok(list) => {
                let listed = list["resources"].as_array().map_or(0, Vec::len);
                return Finding::ok(None, check, format!("responds, {listed} resources"));
            }
            Err(error) => error,
        };
        let message = format!("a request failed: {}", error.message);
        let (status, cause) = match error.code {
            // Other requests of this identity are authenticated, so the adapter rejected the front proxy.
            Some(401) => (CheckStatus::Broken, Cause::FrontProxyRefused),
            Some(403) => (CheckStatus::Warning, Cause::ControlPlaneForbidden),
            Some(404) if group == Group::External => return Finding::ok(None, check, NO_EXTERNAL_METRICS),
            Some(404) => (missing_api_status(group), Cause::APIServiceMissing),
            _ if is_certificate_problem(&error.message) => {
                (CheckStatus::Broken, Cause::ServingCertificateRefused)
            }
            _ => (CheckStatus::Broken, Cause::APIServiceUnavailable),
        };
        control_plane_problem(check, status, cause, message)
    }

    async fn clusters(&self, findings: &mut Vec<Finding>) -> ClustersAndSecrets {
        let mut objects = ClustersAndSecrets::default();
        let listing = cluster_api(self.client.clone());
        let list: Vec<DynamicObject> = match self.request(listing.list(&ListParams::default())).await {
            Ok(list) => list.items,
            Err(error) => {
                // An API server without this resource is not Karmada's.
                let cause = if error.code == Some(404) { Cause::NoClusters } else { error.cause() };
                findings.push(control_plane_problem("Clusters", CheckStatus::Broken, cause, error.message));
                return objects;
            }
        };
        findings.push(if list.is_empty() {
            control_plane_problem("Clusters", CheckStatus::Broken, Cause::NoClusters, "no cluster is joined")
        } else {
            Finding::ok(None, "Clusters", format!("{} found", list.len()))
        });
        for object in &list {
            let name = object.name_any();
            if object.metadata.deletion_timestamp.is_some() {
                let message = "the cluster is being deleted, so the adapter does not query it";
                findings.push(Finding::ok(Some(&name), "Cluster", message));
                continue;
            }
            match read_cluster(object) {
                Ok(spec) => {
                    objects.clusters.insert(name, RegisteredCluster { spec, readiness: readiness(object) });
                }
                Err(error) => findings.push(Finding::problem(
                    Some(&name),
                    "Cluster",
                    CheckStatus::Broken,
                    Cause::ClusterMalformed,
                    error.to_string(),
                )),
            }
        }
        let names: BTreeSet<&SecretName> =
            objects.clusters.values().filter_map(|cluster| cluster.spec.secret.as_ref()).collect();
        let reads = names.into_iter().map(async |name| {
            let secrets = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
            let found = self.request(secrets.get_opt(&name.name)).await;
            (name.clone(), found.map(|found| found.map(ClusterSecret::from)))
        });
        objects.secrets = join_all(reads).await.into_iter().collect();
        objects
    }

    async fn check_permissions(&self, objects: &ClustersAndSecrets) -> Finding {
        let reads = |group, resource, namespace, name| {
            READ_VERBS.map(|verb| Permission { verb, group, resource, namespace, name })
        };
        let mut permissions = reads("cluster.karmada.io", "clusters", "", "").to_vec();
        permissions.extend(reads("", "configmaps", "kube-system", "extension-apiserver-authentication"));
        permissions.extend(REVIEWS.map(|(group, resource)| Permission {
            verb: "create",
            group,
            resource,
            namespace: "",
            name: "",
        }));
        let namespaces: BTreeSet<&str> = objects.secrets.keys().map(|name| &*name.namespace).collect();
        permissions.extend(namespaces.into_iter().flat_map(|namespace| reads("", "secrets", namespace, "")));
        let mut missing = Vec::new();
        let reviews =
            permissions.into_iter().map(async |permission| (permission, self.is_allowed(permission).await));
        for (permission, allowed) in join_all(reviews).await {
            match allowed {
                Ok(true) => {}
                Ok(false) => {
                    let Permission { verb, resource, namespace, .. } = permission;
                    let preposition = if namespace.is_empty() { "" } else { " in " };
                    missing.push(format!("{verb} {resource}{preposition}{namespace}"));
                }
                Err(error) => {
                    let message = format!("cannot check the permissions of this identity: {}", error.message);
                    return control_plane_problem(PERMISSIONS, CheckStatus::Warning, error.cause(), message);
                }
            }
        }
        if missing.is_empty() {
            return Finding::ok(None, PERMISSIONS, "this identity has all required permissions");
        }
        let message = format!("this identity may not {}", missing.join(", "));
        control_plane_problem(PERMISSIONS, CheckStatus::Broken, Cause::ControlPlaneForbidden, message)
    }

    async fn is_allowed(&self, permission: Permission<'_>) -> Result<bool, RequestError> {
        let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: non_empty(permission.verb),
                    group: non_empty(permission.group),
                    resource: non_empty(permission.resource),
                    namespace: non_empty(permission.namespace),
                    name: non_empty(permission.name),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews = Api::all(self.client.clone());
        let review: SelfSubjectAccessReview =
            self.request(reviews.create(&PostParams::default(), &review)).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }
}

/// The status for an API that is not registered. Only custom metrics are required.
fn missing_api_status(group: Group) -> CheckStatus {
    if group == Group::Custom { CheckStatus::Broken } else { CheckStatus::Warning }
}

/// The finding for an APIService that the API server reports as unavailable.
fn unavailable(check: String, condition: &APIServiceCondition) -> Finding {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    // The API server probes as system:masters through the front proxy, so 401 or 403 means that the adapter does not trust
    // this front proxy.
    let front_proxy_rejected = message.contains("bad status from")
        && [": 401", ": 403"].iter().any(|code| message.trim_end().ends_with(code));
    let cause = if front_proxy_rejected {
        Cause::FrontProxyRefused
    } else if is_certificate_problem(message) {
        Cause::ServingCertificateRefused
    } else {
        Cause::APIServiceUnavailable
    };
    let message = shorten(&format!("{reason}: {}", without_urls(message)));
    control_plane_problem(check, CheckStatus::Broken, cause, message)
}

fn is_certificate_problem(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("certificate") || message.contains("x509")
}

/// The message of the API server's availability check, without the URL that is in it twice.
fn without_urls(message: &str) -> String {
    let after_url = |message: &str, start| Some(message.strip_prefix(start)?.split_once(": ")?.1.to_owned());
    let Some(result) = after_url(message, "failing or missing response from ") else {
        return message.to_owned();
    };
    let status = || Some(format!("bad status: {}", after_url(&result, "bad status from ")?));
    after_url(&result, "Get ").or_else(status).unwrap_or(result)
}

/// Reason and message of the condition `Ready`, in one line.
fn readiness(object: &DynamicObject) -> String {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let Some(ready) = conditions.into_iter().find(|condition| condition["type"] == "Ready") else {
        return "the Cluster has no condition Ready".to_owned();
    };
    let field = |key: &str| ready[key].as_str().unwrap_or_default();
    shorten(&format!("{}: {}", field("reason"), field("message")))
}

fn control_plane_problem(
    check: impl Into<String>,
    status: CheckStatus,
    cause: Cause,
    message: impl Into<String>,
) -> Finding {
    Finding::problem(None, check, status, cause, message)
}

impl RequestError {
    fn timed_out(limit: Duration) -> Self {
        Self { code: None, message: format!("no response within {}", GoDuration::from(limit)) }
    }

    pub(super) fn cause(&self) -> Cause {
        match self.code {
            Some(401) => Cause::ControlPlaneUnauthorized,
            Some(403) => Cause::ControlPlaneForbidden,
            _ => Cause::ControlPlaneUnreachable,
        }
    }
}

impl From<Error> for RequestError {
    /// The message of the API server or of the innermost error, without the text that kube adds.
    fn from(error: Error) -> Self {
        if let Error::Api(status) = error {
            return Self { code: Some(status.code), message: shorten(&status.message) };
        }
        // Missing credentials, for example because an exec plugin failed, count as 401.
        let code = has_no_credentials(&error).then_some(401);
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self { code, message: shorten(&cause.to_string()) }
    }
}
