//! `query`: what each member has to say of a metric, as the server would ask it.

mod command_query;
mod report;
mod values;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use kube::api::ListParams;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::command_query::CommandQuery;
use self::report::{ClusterReport, Report};
use super::output::{is_read, progress};
use crate::app::{FleetSource, member_limits};
use crate::cli::commands::QueryFlags as Order;
use crate::cli::defaults;
use crate::config::{Config, ControlPlane, Members, OnMemberFailure};
use crate::control::Clients;
use crate::fleet::UnusableCluster;
use crate::fleet::discovery::Discovery;
use crate::fleet::karmada::cluster_api;
use crate::gather::{self, Gather, MemberOutcome, Outcome};
use crate::member::shared_entries::SharedEntries;
use crate::process::budget::Budget;

/// How long the control plane may take to show its clusters.
const FLEET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the members' discovery may take, without which a version or a kind that they lack may look like a failure.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// What needs no other value in a process that ends soon.
const MINUTE: Duration = Duration::from_secs(60);

/// Whoever is asked, and whatever it takes.
struct QueryRun {
    source: FleetSource,
    gather: Gather,
    timeout: Duration,
    _discovery: AbortOnDropHandle<()>,
}

/// Asks, and prints what comes of it.
///
/// # Errors
/// If it cannot ask, or if a cluster has failed.
pub async fn run(order: &Order) -> anyhow::Result<()> {
    let question = CommandQuery::read(order)?;
    progress("looking for clusters");
    let begun = QueryRun::begin(order).await;
    progress("");
    let asking = begun?;
    loop {
        let report = asking.ask(&question).await;
        if report.clusters.is_empty() {
            bail!("there is no cluster to ask, or none that is chosen");
        }
        let is_read = is_read(&report.text(order.output, order.watch.is_some()));
        let Some(interval) = order.watch else {
            return match report.failed() {
                0 => Ok(()),
                failed => bail!("{failed} of {} clusters failed", report.clusters.len()),
            };
        };
        if !is_read {
            return Ok(());
        }
        sleep(interval).await;
    }
}

/// The server's own defaults, but for what stands in: a query is to see what is there now.
fn configuration(order: &Order) -> (Members, ControlPlane) {
    let Config { members, control_plane, .. } = defaults();
    let members = Members {
        fleet_kubeconfig: order.fleet_kubeconfig.clone(),
        timeout: order.member_timeout,
        on_failure: OnMemberFailure::Partial,
        ..members
    };
    (members, ControlPlane { kubeconfig: order.kubeconfig.clone(), ..control_plane })
}

/// Asks the control plane once, for what a watch has no way to say.
async fn see_clusters(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let ControlPlane { ref kubeconfig, rate, watch_timeout } = *control_plane;
    let clients = Clients::open("--kubeconfig", kubeconfig.as_deref(), MINUTE, watch_timeout, rate)?;
    let (clusters, one) = (cluster_api(clients.current()), ListParams::default().limit(1));
    let seen = timeout(FLEET_TIMEOUT, clusters.list(&one)).await;
    let seen =
        seen.map_err(|_| anyhow::anyhow!("no answer within {FLEET_TIMEOUT:?}")).and_then(|seen| Ok(seen?));
    seen.context("the control plane does not show its Clusters (see karmada-metrics-adapter check)")?;
    Ok(())
}

impl QueryRun {
    async fn begin(order: &Order) -> anyhow::Result<Self> {
        let (members, control_plane) = configuration(order);
        if members.fleet_kubeconfig.is_none() {
            see_clusters(&control_plane).await?;
        }
        let inflight = Budget::new(members.inflight_bytes);
        let gather = Gather::new(&members, inflight.clone(), Arc::default());
        let names = Arc::new(SharedEntries::new(members.discovery_bytes));
        let limits = member_limits(&members, inflight, names.clone(), Arc::default());
        let source = FleetSource::begin(&members, &control_plane, limits, MINUTE, Arc::default())?;
        let (discovery, _catalogs, mut discovered) =
            Discovery::new(source.fleet.clone(), members.discovery_interval, members.timeout, names);
        let discovery = AbortOnDropHandle::new(tokio::spawn(discovery.run(source.synced.clone())));
        // Whatever is not known by then is shown as that.
        let _ = timeout(FLEET_TIMEOUT, source.synced.clone().wait_for(|synced| *synced)).await;
        let _ = timeout(DISCOVERY_TIMEOUT, discovered.wait_for(|discovered| *discovered)).await;
        Ok(Self { source, gather, timeout: members.timeout, _discovery: discovery })
    }

    /// Asks all members at once.
    async fn ask(&self, question: &CommandQuery) -> Report {
        let fleet = self.source.fleet.borrow().clone();
        let outside = fleet.unusable().iter().filter(|outside| question.chooses(&outside.cluster));
        let mut clusters: Vec<ClusterReport> = outside
            .map(|UnusableCluster { cluster, reason: lack }| ClusterReport::outside(cluster, lack))
            .collect();
        let chosen = fleet.entries().filter(|entry| question.chooses(entry.cluster())).count();
        let query = &question.query;
        let asking = gather::MemberQuery {
            fleet: &fleet,
            chosen: |cluster: &str| question.chooses(cluster),
            query,
            timeout: self.timeout,
        };
        let mut asking = std::pin::pin!(self.gather.query_each(asking).enumerate());
        progress(&format!("asking {chosen} clusters"));
        while let Some((before, MemberOutcome { cluster, outcome, elapsed })) = asking.next().await {
            progress(&format!("{} of {chosen} clusters", before + 1));
            let values = match &outcome {
                Outcome::Page(page) | Outcome::StoodIn { page, .. } => values::of(query.question(), page),
                Outcome::NotFound | Outcome::Failure(_) => Vec::new(),
            };
            clusters.push(ClusterReport::answered(&cluster, &outcome, elapsed, values));
        }
        progress("");
        clusters.sort_by(|one, other| one.cluster.cmp(&other.cluster));
        Report::new(question.path.clone(), clusters)
    }
}
