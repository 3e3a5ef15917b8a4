//! `query`: queries a metric in each member, as the server does.

mod command_query;
mod report;
mod values;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use kube::api::ListParams;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::command_query::CommandQuery;
use self::report::{ClusterReport, Report};
use super::output::{print, progress};
use crate::app::{FleetSource, member_limits};
use crate::cli::commands::QueryFlags;
use crate::cli::defaults;
use crate::config::{Config, ControlPlane, Members, OnMemberFailure};
use crate::control::Clients;
use crate::fleet::UnusableCluster;
use crate::fleet::discovery::Discovery;
use crate::fleet::karmada::cluster_api;
use crate::gather::{self, Gather, MemberOutcome, Outcome};
use crate::member::shared_entries::SharedEntries;
use crate::process::budget::Budget;

/// Timeout for reading the clusters from the control plane.
const FLEET_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the first discovery of all members. Without discovery, a missing version or kind may look like a failure.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Reload interval. Its value does not matter, because the command exits soon.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// The fleet and the means to query it.
struct QueryRun {
    source: FleetSource,
    gather: Gather,
    timeout: Duration,
    _discovery: AbortOnDropHandle<()>,
}

/// Queries all members and prints their values.
///
/// # Errors
/// If the query cannot be sent, or if a cluster failed.
pub async fn run(flags: &QueryFlags) -> anyhow::Result<()> {
    let query = CommandQuery::read(flags)?;
    progress("reading the clusters");
    let started = QueryRun::start(flags).await;
    progress("");
    let query_run = started?;
    loop {
        let report = query_run.query(&query).await;
        if report.clusters.is_empty() {
            bail!("no cluster to query: there are none, or none matches --cluster and the selector");
        }
        let text = report.text(flags.output, flags.watch.is_some());
        match print(&text) {
            // With `--watch`, a reader that exits ends the command.
            Err(error) if error.kind() == ErrorKind::BrokenPipe && flags.watch.is_some() => return Ok(()),
            result => result.context("cannot write to stdout")?,
        }
        let Some(interval) = flags.watch else {
            return match report.failed() {
                0 => Ok(()),
                failed => bail!("{failed} of {} clusters failed", report.clusters.len()),
            };
        };
        sleep(interval).await;
    }
}

/// The server's defaults, but without last-known values, because the command reports the current state.
fn configuration(flags: &QueryFlags) -> (Members, ControlPlane) {
    let Config { members, control_plane, .. } = defaults();
    let members = Members {
        fleet_kubeconfig: flags.fleet_kubeconfig.clone(),
        timeout: flags.member_timeout,
        on_failure: OnMemberFailure::Partial,
        ..members
    };
    (members, ControlPlane { kubeconfig: flags.kubeconfig.clone(), ..control_plane })
}

/// Lists the Clusters once. A watch would not report why the list fails.
async fn check_cluster_access(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let ControlPlane { ref kubeconfig, rate, watch_timeout } = *control_plane;
    let clients = Clients::open("--kubeconfig", kubeconfig.as_deref(), RELOAD_INTERVAL, watch_timeout, rate)?;
    let (clusters, limit) = (cluster_api(clients.current()), ListParams::default().limit(1));
    let list = timeout(FLEET_TIMEOUT, clusters.list(&limit)).await;
    let list =
        list.map_err(|_| anyhow::anyhow!("no response within {FLEET_TIMEOUT:?}")).and_then(|list| Ok(list?));
    list.context("cannot list the Clusters of the control plane (run karmada-metrics-adapter check)")?;
    Ok(())
}

impl QueryRun {
    async fn start(flags: &QueryFlags) -> anyhow::Result<Self> {
        let (members, control_plane) = configuration(flags);
        if members.fleet_kubeconfig.is_none() {
            check_cluster_access(&control_plane).await?;
        }
        let inflight = Budget::new(members.inflight_bytes);
        let gather = Gather::new(&members, inflight.clone(), Arc::default());
        let names = Arc::new(SharedEntries::new(members.discovery_bytes));
        let limits = member_limits(&members, inflight, names.clone(), Arc::default());
        let source = FleetSource::begin(&members, &control_plane, limits, RELOAD_INTERVAL, Arc::default())?;
        let (discovery, _catalogs, mut discovered) =
            Discovery::new(source.fleet.clone(), members.discovery_interval, members.timeout, names);
        let discovery = AbortOnDropHandle::new(tokio::spawn(discovery.run(source.synced.clone())));
        // The query runs after these timeouts even if the fleet or the discovery is incomplete.
        let _ = timeout(FLEET_TIMEOUT, source.synced.clone().wait_for(|synced| *synced)).await;
        let _ = timeout(DISCOVERY_TIMEOUT, discovered.wait_for(|discovered| *discovered)).await;
        Ok(Self { source, gather, timeout: members.timeout, _discovery: discovery })
    }

    /// Queries all members concurrently.
    async fn query(&self, command_query: &CommandQuery) -> Report {
        let fleet = self.source.fleet.borrow().clone();
        let unusable = fleet.unusable().iter().filter(|unusable| command_query.chooses(&unusable.cluster));
        let mut clusters: Vec<ClusterReport> = unusable
            .map(|UnusableCluster { cluster, reason }| ClusterReport::unusable(cluster, reason))
            .collect();
        let chosen = fleet.entries().filter(|entry| command_query.chooses(entry.member.name())).count();
        let query = &command_query.query;
        let member_query = gather::MemberQuery {
            fleet: &fleet,
            chosen: |cluster: &str| command_query.chooses(cluster),
            query,
            timeout: self.timeout,
        };
        let mut outcomes = std::pin::pin!(self.gather.query_each(member_query).enumerate());
        progress(&format!("querying {chosen} clusters"));
        while let Some((before, MemberOutcome { cluster, outcome, elapsed })) = outcomes.next().await {
            progress(&format!("{} of {chosen} clusters", before + 1));
            let values = match &outcome {
                Outcome::Page(page) | Outcome::LastKnown { page, .. } => values::of(query.decoded(), page),
                Outcome::NotFound | Outcome::Failure(_) => Vec::new(),
            };
            clusters.push(ClusterReport::of_member(&cluster, &outcome, elapsed, values));
        }
        progress("");
        clusters.sort_by(|one, other| one.cluster.cmp(&other.cluster));
        Report::new(command_query.path.clone(), clusters)
    }
}
