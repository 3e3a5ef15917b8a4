//! `check`: every link between a FederatedHPA and a metric, for the operator whose metric does not arrive.

mod cluster;
mod control_plane;
mod finding;
mod member;
mod report;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::api::cause::Cause;
use crate::api::selector::Selector;
use crate::app::member_limits;
use crate::cli::commands::CheckFlags;
use crate::cli::defaults;
use crate::commands::output::{print, progress};
use crate::config::Members;
use crate::control::Clients;
use crate::member::shared_entries::SharedEntries;
use crate::process::budget::Budget;
use finding::{CheckStatus, Finding};
use sample::Sample;

/// How many members are looked at at a time: more than most fleets have, and few enough for their connections.
const AT_ONCE: usize = 256;

/// Looks at everything and prints what was found.
///
/// # Errors
/// If it cannot begin, or if something is broken.
pub async fn run(order: CheckFlags) -> anyhow::Result<()> {
    order.selector.parse::<Selector>().context("--selector")?;
    let hour = Duration::from_secs(3600);
    let clients =
        Clients::open("--kubeconfig", order.kubeconfig.as_deref(), hour, order.member_timeout, None)?;
    let findings = findings(&clients, &order).await;
    print(&report::report(&findings, order.output));
    let broken = findings.iter().filter(|finding| finding.verdict == CheckStatus::Broken).count();
    if broken > 0 {
        bail!("{broken} of {} links are broken", findings.len());
    }
    Ok(())
}

/// First the control plane, then all members at once; progress goes to stderr if somebody watches.
async fn findings(clients: &Clients, order: &CheckFlags) -> Vec<Finding> {
    let mut findings = Vec::new();
    progress("control plane");
    let joined = control_plane::check(&clients.current(), order, &mut findings).await;
    let members = Members { timeout: order.member_timeout, ..defaults().members };
    let inflight = Budget::new(members.inflight_bytes);
    let limits = member_limits(
        &members,
        inflight,
        Arc::new(SharedEntries::new(members.discovery_bytes)),
        Arc::default(),
    );
    let sample = order.metric.as_ref().map(|metric| Sample {
        metric: metric.clone(),
        resource: order.resource.clone(),
        namespace: order.namespace.clone(),
        selector: order.selector.clone(),
    });
    let names: Vec<&String> = joined
        .clusters
        .keys()
        .filter(|name| order.cluster.as_ref().is_none_or(|only| only == *name))
        .collect();
    if let Some(only) = order.cluster.as_ref().filter(|_| names.is_empty() && !joined.clusters.is_empty()) {
        let what = format!("there is no Cluster {only}");
        findings.push(Finding::problem(Some(only), "Cluster", CheckStatus::Broken, Cause::NoClusters, what));
    }
    let permits = Semaphore::new(AT_ONCE);
    let mut checking: FuturesUnordered<_> = names
        .iter()
        .map(async |name| {
            let _permit = permits.acquire().await;
            (*name, cluster::check(name, &joined, &limits, sample.as_ref()).await)
        })
        .collect();
    let mut of_clusters = Vec::with_capacity(names.len());
    while let Some((name, found)) = checking.next().await {
        of_clusters.push((name, found));
        progress(&format!("{} of {} clusters", of_clusters.len(), names.len()));
    }
    progress("");
    of_clusters.sort_by_key(|(name, _)| *name);
    findings.extend(of_clusters.into_iter().flat_map(|(_, found)| found));
    sample::downgrade_absence(&mut findings);
    findings
}
