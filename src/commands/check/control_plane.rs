//! The control plane: whether it answers, what this identity may do there, and what is registered.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};

use super::finding::{Cause, Finding, Verdict};
use crate::api::group::Group;
use crate::cli::commands::Check;
use crate::fleet::karmada::cluster_api;
use crate::fleet::objects::read_cluster;
use crate::fleet::registry::{ClusterSecret, ClusterSpec, SecretName};

/// The clusters, and their Secrets as far as they could be read.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) clusters: BTreeMap<String, ClusterSpec>,
    pub(super) secrets: BTreeMap<SecretName, Option<ClusterSecret>>,
}

/// What the adapter does in the control plane beside reading Secrets: verbs, group, resource, namespace, name.
const RIGHTS: [(&[&str], &str, &str, &str, &str); 4] = [
    (&["get", "list", "watch"], "cluster.karmada.io", "clusters", "", ""),
    (&["get", "list", "watch"], "", "configmaps", "kube-system", "extension-apiserver-authentication"),
    (&["create"], "authentication.k8s.io", "tokenreviews", "", ""),
    (&["create"], "authorization.k8s.io", "subjectaccessreviews", "", ""),
];

/// Looks at all of it. Without clusters nothing more can be looked at.
pub(super) async fn check(client: &Client, order: &Check, findings: &mut Vec<Finding>) -> Joined {
    match client.apiserver_version().await {
        Ok(version) => findings.push(Finding::ok(None, "API server", version.git_version)),
        Err(error) => {
            let cause = match &error {
                Error::Api(status) if status.code == 401 => Cause::ControlPlaneUnauthorized,
                Error::Api(status) if status.code == 403 => Cause::ControlPlaneForbidden,
                _ => Cause::ControlPlaneUnreachable,
            };
            findings.push(amiss("API server", Verdict::Broken, cause, words(&error)));
            return Joined::default();
        }
    }
    for group in Group::ALL {
        for version in group.versions() {
            api_service(client, group, version, order, findings).await;
        }
    }
    let joined = clusters(client, findings).await;
    rights(client, &joined, findings).await;
    joined
}

async fn api_service(
    client: &Client,
    group: Group,
    version: &str,
    order: &Check,
    findings: &mut Vec<Finding>,
) {
    let name = format!("{version}.{group}");
    let link = format!("APIService {name}");
    let found = match Api::<APIService>::all(client.clone()).get_opt(&name).await {
        Ok(Some(found)) => found,
        // Nobody needs it who does not scale on external metrics.
        Ok(None) if group == Group::External => {
            findings.push(Finding::ok(None, link, "not registered; external metrics are off"));
            return;
        }
        Ok(None) => {
            findings.push(amiss(link, Verdict::Broken, Cause::ApiServiceMissing, "it does not exist"));
            return;
        }
        Err(error) => {
            let what = format!("it cannot be read: {}", words(&error));
            findings.push(amiss(link, Verdict::Warning, Cause::ControlPlaneForbidden, what));
            return;
        }
    };
    let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
    let place = |part: Option<&String>| part.cloned().unwrap_or_default();
    let place = service.map(|service| (place(service.namespace.as_ref()), place(service.name.as_ref())));
    let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
    let available = conditions.into_iter().find(|condition| condition.type_ == "Available");
    findings.push(match (place, available) {
        (Some(place), _) if place != (order.service_namespace.clone(), order.service.clone()) => {
            let what = format!(
                "it leads to the Service {}/{}, not to {}/{}",
                place.0, place.1, order.service_namespace, order.service
            );
            amiss(link, Verdict::Broken, Cause::ApiServiceElsewhere, what)
        }
        (None, _) => {
            let what = "it leads to no Service: the API server itself answers";
            amiss(link, Verdict::Broken, Cause::ApiServiceElsewhere, what)
        }
        (_, Some(condition)) if condition.status == "True" => Finding::ok(None, link, "available"),
        (_, Some(condition)) => {
            let reason = condition.reason.unwrap_or_default();
            let what = format!("{reason}: {}", condition.message.unwrap_or_default());
            amiss(link, Verdict::Broken, Cause::ApiServiceUnavailable, what)
        }
        (_, None) => {
            let what = "the API server has not looked at it yet";
            amiss(link, Verdict::Broken, Cause::ApiServiceUnavailable, what)
        }
    });
}

async fn clusters(client: &Client, findings: &mut Vec<Finding>) -> Joined {
    let mut joined = Joined::default();
    let objects: Vec<DynamicObject> = match cluster_api(client.clone()).list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => {
            let cause = match &error {
                Error::Api(status) if status.code == 403 => Cause::ControlPlaneForbidden,
                Error::Api(status) if status.code == 404 => Cause::NoClusters,
                _ => Cause::ControlPlaneUnreachable,
            };
            findings.push(amiss("Clusters", Verdict::Broken, cause, words(&error)));
            return joined;
        }
    };
    for object in &objects {
        let name = object.name_any();
        match read_cluster(object) {
            Ok(spec) => drop(joined.clusters.insert(name, spec)),
            Err(error) => findings.push(Finding::amiss(
                Some(&name),
                "Cluster",
                Verdict::Broken,
                Cause::ClusterMalformed,
                error.to_string(),
            )),
        }
    }
    findings.push(if objects.is_empty() {
        amiss("Clusters", Verdict::Broken, Cause::NoClusters, "there is none")
    } else {
        Finding::ok(None, "Clusters", format!("{} found", objects.len()))
    });
    for name in joined.clusters.values().filter_map(|spec| spec.secret.clone()) {
        let found = Api::<Secret>::namespaced(client.clone(), &name.namespace).get_opt(&name.name).await;
        // What may not be read is said with the rights.
        if let Ok(found) = found {
            joined.secrets.insert(name, found.map(ClusterSecret::from));
        }
    }
    joined
}

async fn rights(client: &Client, joined: &Joined, findings: &mut Vec<Finding>) {
    let namespaces: BTreeSet<&str> =
        joined.clusters.values().filter_map(|spec| Some(&*spec.secret.as_ref()?.namespace)).collect();
    let secrets =
        namespaces.into_iter().map(|namespace| (&["get", "list", "watch"][..], "", "secrets", namespace, ""));
    let mut missing = Vec::new();
    for (verbs, group, resource, namespace, name) in RIGHTS.into_iter().chain(secrets) {
        for verb in verbs {
            match may(client, verb, group, resource, namespace, name).await {
                Ok(true) => {}
                Ok(false) => {
                    let place = if namespace.is_empty() { "" } else { " in " };
                    missing.push(format!("{verb} {resource}{place}{namespace}"));
                }
                Err(error) => {
                    let what = format!("it does not say what this identity may do: {}", words(&error));
                    findings.push(amiss("rights", Verdict::Warning, Cause::ControlPlaneForbidden, what));
                    return;
                }
            }
        }
    }
    findings.push(if missing.is_empty() {
        Finding::ok(None, "rights", "all that the adapter needs")
    } else {
        let what = format!("this identity may not {}", missing.join(", "));
        amiss("rights", Verdict::Broken, Cause::ControlPlaneForbidden, what)
    });
}

async fn may(
    client: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<bool, Error> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: some(verb),
                group: some(group),
                resource: some(resource),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let review = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

fn amiss(link: impl Into<String>, verdict: Verdict, cause: Cause, message: impl Into<String>) -> Finding {
    Finding::amiss(None, link, verdict, cause, message)
}

/// What the API server says, without kube's own words around it.
fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(source) = cause.source() {
                cause = source;
            }
            cause.to_string()
        }
    }
}
