//! Commands that users type.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::api::until;
use crate::say;
use crate::stage::{MEMBERS, STEADY_LOAD, Stage, TUTORIAL};

/// The label of the cluster in a metric's selector.
const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";
/// Time limit until the members' Prometheus have two samples of a container.
const SOON: Duration = Duration::from_secs(60);

pub async fn tutorial_command_prints_the_pods_of_both_members(stage: &mut Stage) -> anyhow::Result<()> {
    stage.scaling.load(STEADY_LOAD);
    stage.until_complete(&MEMBERS).await?;
    for kubectl in stage.plane.cluster.api.kubectls() {
        say(&format!("{kubectl} get --raw {TUTORIAL}"));
        let printed: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", TUTORIAL]).await?)?;
        ensure!(printed["kind"] == "MetricValueList", "{printed}");
        let items = printed["items"].as_array().context("the list has no items")?;
        for member in MEMBERS {
            let tag = |item: &&Value| item["metric"]["selector"]["matchLabels"][CLUSTER_LABEL] == member;
            let item = items.iter().find(tag).with_context(|| format!("no item from {member}: {printed}"))?;
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
        let expect_output = async |arguments: &[&str], words: &[&str]| {
            say(&format!("{kubectl} {}", arguments.join(" ")));
            let printed = kubectl.run(arguments).await?;
            let missing: Vec<_> = words.iter().filter(|word| !printed.contains(**word)).collect();
            ensure!(
                missing.is_empty(),
                "the output of kubectl {} does not contain {missing:?}:\n{printed}",
                arguments.join(" ")
            );
            anyhow::Ok(())
        };
        expect_output(
            &["top", "pods", "-n", "default"],
            &["CPU(cores)", "MEMORY(bytes)", "web-", "sample-app-"],
        )
        .await?;
        expect_output(&["top", "pods", "-n", "default", "-l", "app=web", "--containers"], &["web-", "app"])
            .await?;
        expect_output(&["top", "nodes"], &["member1-node", "member2-node"]).await?;
        expect_output(&["get", "pods.metrics.k8s.io", "-n", "default"], &["web-", "sample-app-"]).await?;
        expect_output(&["get", "nodes.metrics.k8s.io"], &["member1-node", "member2-node"]).await?;
        // This command fails if the discovery of any group fails.
        expect_output(&["api-resources"], &["NodeMetrics", "PodMetrics", "clusters"]).await?;
        expect_output(
            &["api-versions"],
            &["custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"],
        )
        .await?;
        expect_output(&["explain", "podmetrics"], &["PodMetrics", "containers"]).await?;
    }
    Ok(())
}
