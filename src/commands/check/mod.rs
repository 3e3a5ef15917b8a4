//! `check`: checks each step between a FederatedHPA and a metric, to find out why a metric does not arrive.

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

/// Maximum number of members that are checked concurrently. Most fleets have fewer members. The limit bounds the number of
/// connections.
const MAX_CONCURRENT: usize = 256;

/// Runs all checks and prints the findings.
///
/// # Errors
/// If the checks cannot start, or if a check is broken.
pub async fn run(flags: CheckFlags) -> anyhow::Result<()> {
    flags.selector.parse::<Selector>().context("--selector")?;
    let hour = Duration::from_secs(3600);
    let clients =
        Clients::open("--kubeconfig", flags.kubeconfig.as_deref(), hour, flags.member_timeout, None)?;
    let findings = findings(&clients, &flags).await;
    print(&report::report(&findings, flags.output)).context("cannot write to stdout")?;
    let broken = findings.iter().filter(|finding| finding.status == CheckStatus::Broken).count();
    if broken > 0 {
        bail!("{broken} of {} checks are broken", findings.len());
    }
    Ok(())
}

/// Checks the control plane first, then all members concurrently. Prints progress on stderr if it is a terminal.
async fn findings(clients: &Clients, flags: &CheckFlags) -> Vec<Finding> {
    let mut findings = Vec::new();
    progress("control plane");
    let objects = control_plane::check(&clients.current(), flags, &mut findings).await;
    let members = Members { timeout: flags.member_timeout, ..defaults().members };
    let inflight = Budget::new(members.inflight_bytes);
    let limits = member_limits(
        &members,
        inflight,
        Arc::new(SharedEntries::new(members.discovery_bytes)),
        Arc::default(),
    );
    let sample = flags.metric.as_ref().map(|metric| Sample {
        metric: metric.clone(),
        resource: flags.resource.clone(),
        namespace: flags.namespace.clone(),
        selector: flags.selector.clone(),
    });
    let names: Vec<&String> = objects
        .clusters
        .keys()
        .filter(|name| flags.cluster.as_ref().is_none_or(|only| only == *name))
        .collect();
    if let Some(only) = flags.cluster.as_ref().filter(|_| names.is_empty() && !objects.clusters.is_empty()) {
        let (status, message) = (CheckStatus::Broken, format!("the Cluster {only} does not exist"));
        findings.push(Finding::problem(Some(only), "Cluster", status, Cause::NoClusters, message));
    }
    let permits = Semaphore::new(MAX_CONCURRENT);
    let mut checking: FuturesUnordered<_> = names
        .iter()
        .map(async |name| {
            let _permit = permits.acquire().await;
            (*name, cluster::check(name, &objects, &limits, sample.as_ref()).await)
        })
        .collect();
    let mut checked = Vec::with_capacity(names.len());
    while let Some((name, found)) = checking.next().await {
        checked.push((name, found));
        progress(&format!("{} of {} clusters", checked.len(), names.len()));
    }
    progress("");
    checked.sort_by_key(|(name, _)| *name);
    findings.extend(checked.into_iter().flat_map(|(_, found)| found));
    sample::downgrade_absence(&mut findings);
    findings
}
