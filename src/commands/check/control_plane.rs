//! The control plane: whether it answers, what this identity may do there, and what is registered.

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
use crate::control::lacks_credentials;
use crate::fleet::karmada::cluster_api;
use crate::fleet::karmada::objects::read_cluster;
use crate::fleet::karmada::registry::{ClusterSecret, ClusterSpec, SecretName};

/// The clusters, and the Secrets that they refer to.
#[derive(Default)]
pub(super) struct ClustersAndSecrets {
    pub(super) clusters: BTreeMap<String, RegisteredCluster>,
    /// Nothing in it for one that does not exist.
    pub(super) secrets: BTreeMap<SecretName, Result<Option<ClusterSecret>, RequestError>>,
}

/// A cluster as Karmada describes it.
pub(super) struct RegisteredCluster {
    pub(super) spec: ClusterSpec,
    /// What its condition `Ready` says.
    pub(super) readiness: String,
}

/// Why the control plane gave no answer, or not the one that was asked for.
#[derive(Debug)]
pub(super) struct RequestError {
    /// The HTTP status, if there was one.
    code: Option<u16>,
    /// What it says.
    pub(super) message: String,
}

/// The control plane, as whoever the kubeconfig names finds it.
struct ControlPlaneCheck<'a> {
    client: &'a Client,
    order: &'a CheckFlags,
}

/// Something that the adapter does in the control plane; empty fields stand for all.
#[derive(Clone, Copy)]
struct Permission<'a> {
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

const OFF: &str = "not registered; external metrics are off";
const READS: [&str; 3] = ["get", "list", "watch"];
const REVIEWS: [(&str, &str); 2] =
    [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")];

/// Looks at all of it; each step may take as long as one to a member. Without clusters nothing more can be looked at.
pub(super) async fn check(
    client: &Client,
    order: &CheckFlags,
    findings: &mut Vec<Finding>,
) -> ClustersAndSecrets {
    let plane = ControlPlaneCheck { client, order };
    match plane.request(client.apiserver_version()).await {
        Ok(version) => findings.push(Finding::ok(None, "API server", version.git_version)),
        Err(trouble) => {
            findings.push(control_plane_problem(
                "API server",
                CheckStatus::Broken,
                trouble.cause(),
                trouble.message,
            ));
            return ClustersAndSecrets::default();
        }
    }
    let services =
        Group::ALL.iter().flat_map(|group| group.versions().iter().map(|version| (*group, *version)));
    findings.extend(join_all(services.map(|(group, version)| plane.api_service(group, version))).await);
    let joined = plane.clusters(findings).await;
    findings.push(plane.check_permissions(&joined).await);
    joined
}

impl ControlPlaneCheck<'_> {
    async fn request<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, RequestError> {
        let limit = self.order.member_timeout;
        timeout(limit, work).await.map_err(|_| RequestError::timed_out(limit))?.map_err(RequestError::from)
    }

    async fn api_service(&self, group: Group, version: &str) -> Finding {
        let name = format!("{version}.{group}");
        let link = format!("APIService {name}");
        let verdict = of(group);
        let found = match self.request(Api::<APIService>::all(self.client.clone()).get_opt(&name)).await {
            Ok(Some(found)) => found,
            Ok(None) if group == Group::External => {
                return Finding::ok(None, link, OFF);
            }
            Ok(None) => {
                return control_plane_problem(link, verdict, Cause::APIServiceMissing, "it does not exist");
            }
            // The adapter's own identity need not read it; that it is answered is what counts.
            Err(trouble) if trouble.code == Some(403) => return self.answers(link, group, version).await,
            Err(trouble) => {
                let what = format!("it cannot be read: {}", trouble.message);
                return control_plane_problem(link, CheckStatus::Warning, trouble.cause(), what);
            }
        };
        let CheckFlags { service_namespace, service, .. } = self.order;
        let place = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let place = place.map(|place| {
            (place.namespace.as_deref().unwrap_or_default(), place.name.as_deref().unwrap_or_default())
        });
        match place {
            Some(place) if place == (service_namespace, service) => {}
            Some((namespace, name)) => {
                let what = format!(
                    "it leads to the Service {namespace}/{name}, not to {service_namespace}/{service}"
                );
                return control_plane_problem(link, verdict, Cause::APIServiceElsewhere, what);
            }
            None => {
                let what = "it leads to no Service: the API server itself answers";
                return control_plane_problem(link, verdict, Cause::APIServiceElsewhere, what);
            }
        }
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        match conditions.into_iter().find(|condition| condition.type_ == "Available") {
            Some(condition) if condition.status == "True" => self.answers(link, group, version).await,
            Some(condition) => unavailable(link, &condition),
            None => {
                let what = "the API server has not looked at it yet";
                control_plane_problem(link, CheckStatus::Broken, Cause::APIServiceUnavailable, what)
            }
        }
    }

    /// Asks as clients do. The own check of an API server up to 1.34 takes any certificate, so that the condition says
    /// nothing of it.
    async fn answers(&self, link: String, group: Group, version: &str) -> Finding {
        let path = format!("/apis/{group}/{version}");
        let request = Request::get(path).body(Vec::new()).expect("groups and versions can stand in a path");
        let trouble = match self.request(self.client.request::<Value>(request)).await {
            Ok(list) => {
                let listed = list["resources"].as_array().map_or(0, Vec::len);
                return Finding::ok(None, link, format!("answers, {listed} listed"));
            }
            Err(trouble) => trouble,
        };
        let what = format!("a request is answered: {}", trouble.message);
        let (verdict, cause) = match trouble.code {
            // The control plane itself knows this identity.
            Some(401) => (CheckStatus::Broken, Cause::FrontProxyRefused),
            Some(403) => (CheckStatus::Warning, Cause::ControlPlaneForbidden),
            Some(404) if group == Group::External => return Finding::ok(None, link, OFF),
            Some(404) => (of(group), Cause::APIServiceMissing),
            _ if is_about_a_certificate(&trouble.message) => {
                (CheckStatus::Broken, Cause::ServingCertificateRefused)
            }
            _ => (CheckStatus::Broken, Cause::APIServiceUnavailable),
        };
        control_plane_problem(link, verdict, cause, what)
    }

    async fn clusters(&self, findings: &mut Vec<Finding>) -> ClustersAndSecrets {
        let mut joined = ClustersAndSecrets::default();
        let listing = cluster_api(self.client.clone());
        let objects: Vec<DynamicObject> = match self.request(listing.list(&ListParams::default())).await {
            Ok(list) => list.items,
            Err(trouble) => {
                // An API server that knows no such resource is not Karmada's.
                let cause = if trouble.code == Some(404) { Cause::NoClusters } else { trouble.cause() };
                findings.push(control_plane_problem("Clusters", CheckStatus::Broken, cause, trouble.message));
                return joined;
            }
        };
        findings.push(if objects.is_empty() {
            control_plane_problem("Clusters", CheckStatus::Broken, Cause::NoClusters, "there is none")
        } else {
            Finding::ok(None, "Clusters", format!("{} found", objects.len()))
        });
        for object in &objects {
            let name = object.name_any();
            if object.metadata.deletion_timestamp.is_some() {
                let what = "it is being deleted, so that it is not asked";
                findings.push(Finding::ok(Some(&name), "Cluster", what));
                continue;
            }
            match read_cluster(object) {
                Ok(spec) => {
                    joined.clusters.insert(name, RegisteredCluster { spec, readiness: readiness(object) });
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
            joined.clusters.values().filter_map(|cluster| cluster.spec.secret.as_ref()).collect();
        let reading = names.into_iter().map(async |name| {
            let secrets = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
            let found = self.request(secrets.get_opt(&name.name)).await;
            (name.clone(), found.map(|found| found.map(ClusterSecret::from)))
        });
        joined.secrets = join_all(reading).await.into_iter().collect();
        joined
    }

    async fn check_permissions(&self, joined: &ClustersAndSecrets) -> Finding {
        let reads = |group, resource, namespace, name| {
            READS.map(|verb| Permission { verb, group, resource, namespace, name })
        };
        let mut rights = reads("cluster.karmada.io", "clusters", "", "").to_vec();
        rights.extend(reads("", "configmaps", "kube-system", "extension-apiserver-authentication"));
        rights.extend(REVIEWS.map(|(group, resource)| Permission {
            verb: "create",
            group,
            resource,
            namespace: "",
            name: "",
        }));
        let namespaces: BTreeSet<&str> = joined.secrets.keys().map(|name| &*name.namespace).collect();
        rights.extend(namespaces.into_iter().flat_map(|namespace| reads("", "secrets", namespace, "")));
        let mut missing = Vec::new();
        for (right, may) in
            join_all(rights.into_iter().map(async |right| (right, self.may(right).await))).await
        {
            match may {
                Ok(true) => {}
                Ok(false) => {
                    let Permission { verb, resource, namespace, .. } = right;
                    let place = if namespace.is_empty() { "" } else { " in " };
                    missing.push(format!("{verb} {resource}{place}{namespace}"));
                }
                Err(trouble) => {
                    let what = format!("it does not say what this identity may do: {}", trouble.message);
                    return control_plane_problem("rights", CheckStatus::Warning, trouble.cause(), what);
                }
            }
        }
        if missing.is_empty() {
            return Finding::ok(None, "rights", "all that the adapter needs");
        }
        let what = format!("this identity may not {}", missing.join(", "));
        control_plane_problem("rights", CheckStatus::Broken, Cause::ControlPlaneForbidden, what)
    }

    async fn may(&self, right: Permission<'_>) -> Result<bool, RequestError> {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: some(right.verb),
                    group: some(right.group),
                    resource: some(right.resource),
                    namespace: some(right.namespace),
                    name: some(right.name),
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

/// How bad it is if an API is not registered: custom metrics are what everybody is here for.
fn of(group: Group) -> CheckStatus {
    if group == Group::Custom { CheckStatus::Broken } else { CheckStatus::Warning }
}

/// An APIService that the API server itself finds not available.
fn unavailable(link: String, condition: &APIServiceCondition) -> Finding {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    // It comes as the front proxy, for a user who may do everything: only a stranger is refused.
    let refused = message.contains("bad status from")
        && [": 401", ": 403"].iter().any(|code| message.trim_end().ends_with(code));
    let cause = if refused {
        Cause::FrontProxyRefused
    } else if is_about_a_certificate(message) {
        Cause::ServingCertificateRefused
    } else {
        Cause::APIServiceUnavailable
    };
    control_plane_problem(
        link,
        CheckStatus::Broken,
        cause,
        shorten(&format!("{reason}: {}", without_urls(message))),
    )
}

fn is_about_a_certificate(words: &str) -> bool {
    let words = words.to_lowercase();
    words.contains("certificate") || words.contains("x509")
}

/// What the API server's check found, without the URL, which it says twice before that.
fn without_urls(message: &str) -> String {
    let after_url = |message: &str, start| Some(message.strip_prefix(start)?.split_once(": ")?.1.to_owned());
    let Some(found) = after_url(message, "failing or missing response from ") else {
        return message.to_owned();
    };
    let status = || Some(format!("bad status: {}", after_url(&found, "bad status from ")?));
    after_url(&found, "Get ").or_else(status).unwrap_or(found)
}

/// What the condition `Ready` says, in one line.
fn readiness(object: &DynamicObject) -> String {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let Some(ready) = conditions.into_iter().find(|condition| condition["type"] == "Ready") else {
        return "it has no condition Ready".to_owned();
    };
    let text = |key: &str| ready[key].as_str().unwrap_or_default();
    shorten(&format!("{}: {}", text("reason"), text("message")))
}

fn control_plane_problem(
    link: impl Into<String>,
    verdict: CheckStatus,
    cause: Cause,
    message: impl Into<String>,
) -> Finding {
    Finding::problem(None, link, verdict, cause, message)
}

impl RequestError {
    fn timed_out(patience: Duration) -> Self {
        Self { code: None, message: format!("no answer within {}", GoDuration::from(patience)) }
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
    /// What the API server says, without kube's own words around it.
    fn from(error: Error) -> Self {
        if let Error::Api(status) = error {
            return Self { code: Some(status.code), message: shorten(&status.message) };
        }
        // Credentials that cannot even be had, such as those of a command that fails.
        let code = lacks_credentials(&error).then_some(401);
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self { code, message: shorten(&cause.to_string()) }
    }
}
