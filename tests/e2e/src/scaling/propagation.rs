//! Karmada's work between a template in the control plane and the members: divides its replicas and adds up its status.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use serde_json::{Value, json};
use testkit::federated_hpa::divide;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;

/// Interval of updates.
const PERIOD: Duration = Duration::from_millis(300);
/// Timeout of a member. A member that takes longer keeps its previous status.
const LIMIT: Duration = Duration::from_secs(1);

/// Propagates one Deployment. Drop stops it.
pub struct Propagation {
    _task: AbortOnDropHandle<()>,
}

impl Propagation {
    /// Divides the Deployment's replicas equally between these members, where the Deployment already exists.
    pub fn start(plane: &Api, members: &[&Api], deployment: &str) -> Self {
        let path = deployment_path(deployment);
        let (plane, members) = (plane.clone(), members.iter().map(|member| (*member).clone()).collect());
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run(plane, members, path))) }
    }
}

/// The path of a Deployment in the namespace `default`.
pub fn deployment_path(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/default/deployments/{name}")
}

/// Sets the replicas of a Deployment.
///
/// # Errors
/// If the API server rejects the change.
pub(super) async fn scale(api: &Api, path: &str, replicas: u32) -> anyhow::Result<Value> {
    api.patch(path, &json!({"spec": {"replicas": replicas}})).await
}

async fn run(plane: Api, members: Vec<Api>, path: String) {
    let mut states = vec![0; members.len()];
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A failure is retried: API servers restart and freeze in these tests.
        let _ = propagate(&plane, &members, &path, &mut states).await;
    }
}

async fn propagate(plane: &Api, members: &[Api], path: &str, states: &mut [u64]) -> anyhow::Result<()> {
    let template = plane.get(path).await?;
    let replicas = template["spec"]["replicas"].as_u64().context("the Deployment has no replicas")?;
    let shares = divide(u32::try_from(replicas)?, &vec![1; members.len()]);
    let bring = async |member: &Api, share: u32| {
        let state = timeout(LIMIT, scale(member, path, share)).await.ok()?.ok()?;
        Some(state["status"]["replicas"].as_u64().unwrap_or_default())
    };
    let found = join_all(members.iter().zip(shares).map(|(member, share)| bring(member, share))).await;
    for (state, found) in states.iter_mut().zip(found) {
        *state = found.unwrap_or(*state);
    }
    let sum: u64 = states.iter().sum();
    let generation = &template["metadata"]["generation"];
    let status = json!({"replicas": sum, "readyReplicas": sum, "availableReplicas": sum, "updatedReplicas": sum, "observedGeneration": generation});
    if template["status"] != status {
        plane.patch(&format!("{path}/status"), &json!({"status": status})).await?;
    }
    Ok(())
}
