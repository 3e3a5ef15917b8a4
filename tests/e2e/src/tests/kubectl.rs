//! What people type.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::api::until;
use crate::say;
use crate::stage::{MEMBERS, STEADY_LOAD, Stage, TUTORIAL};

/// The label of the cluster in a metric's selector.
const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";
/// Until the members' Prometheus have two samples of a container.
const SOON: Duration = Duration::from_secs(60);

pub async fn the_tutorials_command_prints_the_pods_of_both_members(stage: &mut Stage) -> anyhow::Result<()> {
    stage.scaling.load(STEADY_LOAD);
    stage.until_answered(&MEMBERS).await?;
    for kubectl in stage.plane.cluster.api.kubectls() {
        say(&format!("{kubectl} get --raw {TUTORIAL}"));
        let printed: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", TUTORIAL]).await?)?;
        ensure!(printed["kind"] == "MetricValueList", "{printed}");
        let items = printed["items"].as_array().context("a list has items")?;
        for member in MEMBERS {
            let tag = |item: &&Value| item["metric"]["selector"]["matchLabels"][CLUSTER_LABEL] == member;
            let item = items.iter().find(tag).with_context(|| format!("no item of {member}: {printed}"))?;
            ensure!(item["describedObject"]["kind"] == "Pod", "{item}");
            ensure!(item["metric"]["name"] == "http_requests", "{item}");
            ensure!(item["value"].is_string() && item["timestamp"].is_string(), "{item}");
        }
    }
    Ok(())
}

pub async fn kubectl_top_explain_get_and_api_resources_work(stage: &mut Stage) -> anyhow::Result<()> {
    let api = &stage.plane.cluster.api;
    until("CPU and memory of the pods", SOON, async || {
        let metrics = api.get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").await?;
        let from = |member: &str| metrics.to_string().contains(&format!("{CLUSTER_LABEL}\":\"{member}"));
        ensure!(MEMBERS.iter().all(|member| from(member)), "{metrics}");
        Ok(())
    })
    .await?;
    for kubectl in api.kubectls() {
        let says = async |arguments: &[&str], words: &[&str]| {
            say(&format!("{kubectl} {}", arguments.join(" ")));
            let printed = kubectl.run(arguments).await?;
            let missing: Vec<_> = words.iter().filter(|word| !printed.contains(**word)).collect();
            ensure!(
                missing.is_empty(),
                "kubectl {} does not say {missing:?}:\n{printed}",
                arguments.join(" ")
            );
            anyhow::Ok(())
        };
        says(&["top", "pods", "-n", "default"], &["CPU(cores)", "MEMORY(bytes)", "web-", "sample-app-"])
            .await?;
        says(&["top", "pods", "-n", "default", "-l", "app=web", "--containers"], &["web-", "app"]).await?;
        says(&["top", "nodes"], &["member1-node", "member2-node"]).await?;
        says(&["get", "pods.metrics.k8s.io", "-n", "default"], &["web-", "sample-app-"]).await?;
        says(&["get", "nodes.metrics.k8s.io"], &["member1-node", "member2-node"]).await?;
        // It fails where the discovery of any group does.
        says(&["api-resources"], &["NodeMetrics", "PodMetrics", "clusters"]).await?;
        says(&["api-versions"], &["custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"])
            .await?;
        says(&["explain", "podmetrics"], &["PodMetrics", "containers"]).await?;
    }
    Ok(())
}
