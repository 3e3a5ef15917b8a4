//! The parts of the walkthrough: the fleet, the application, the adapter and the scaling loop.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use tempfile::TempDir;

use super::Options;
use super::evidence::Probes;
use super::query_command::QueryCommand;
use super::screen::decimal;
use crate::adapter::AdapterProcess;
use crate::app::{Deployment, LoadGenerator};
use crate::control_plane::{EXTERNAL_METRICS, RESOURCE_METRICS};
use crate::federated_hpa::{Cluster, FederatedHpa, Loop, Metric, RunningLoop, ScaleTo, Spec, Target, divide};
use crate::fleet::{Fleet, PREFERRED};
use crate::member::{Fault, Member};

const MEMBERS: [&str; 2] = ["member1", "member2"];
/// The static weights of the clusters.
const WEIGHTS: [u32; 2] = [1, 1];
/// Index of the member that freezes.
const FROZEN: usize = 1;
/// Interval of the scaling loop. With Karmada's 15 s there would be only eight rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Interval of the aggregation layer's probes. kube-apiserver's 30 s would miss the freeze.
const PROBE_PERIOD: Duration = Duration::from_secs(3);
/// Requests per second: enough for four times the maximum of replicas.
const LOAD: u32 = 30;
const QUERY: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";

/// All running parts. Drop stops them, the adapter first.
pub(super) struct Stage {
    pub(super) adapter: AdapterProcess,
    pub(super) rounds: RunningLoop,
    /// A command that the user can run to query the metrics.
    pub(super) query_command: QueryCommand,
    spec: Spec,
    load: LoadGenerator,
    deployments: Vec<Arc<Deployment>>,
    fleet: Fleet,
    _directory: TempDir,
}

impl Stage {
    /// Starts everything and waits until the control plane can query the adapter.
    ///
    /// # Errors
    /// If something cannot be started, or the adapter does not become ready.
    pub(super) async fn set(options: &Options) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        let spec = Spec::tutorial();
        let mut members = Vec::new();
        for name in MEMBERS {
            members.push(Member::start(name).await?);
        }
        let deployments: Vec<_> = members.iter().map(|member| Arc::new(Deployment::start(member))).collect();
        let shares = divide(spec.min_replicas.unsigned_abs(), &WEIGHTS);
        for (deployment, share) in deployments.iter().zip(&shares) {
            deployment.scale_to(*share as usize).await?;
        }
        let fleet = Fleet::start(members).await?;
        fleet.plane.set_probe_interval(PROBE_PERIOD);
        let log = match &options.log {
            Some(log) => log.clone(),
            None => kept_file()?,
        };
        let adapter = fleet.start_adapter(&options.adapter, &[], Some(log)).await?;
        fleet.register(&adapter, &[RESOURCE_METRICS, EXTERNAL_METRICS])?;
        let query_command = match QueryCommand::kubectl(&fleet.plane.admin_kubeconfig()?, QUERY) {
            Some(query_command) => query_command,
            None => {
                let (url, authority) = (fleet.plane.url(), fleet.plane.ca_pem());
                let admin = fleet.plane.client_identity("admin", &["system:masters"]);
                QueryCommand::curl(directory.path(), &url, &authority, &admin, QUERY)?
            }
        };
        for (deployment, share) in deployments.iter().zip(&shares) {
            deployment.ready(*share as usize).await;
        }
        let clusters = clusters(&fleet, &deployments, &shares);
        let target = Target { namespace: "default".to_owned(), selector: "app=sample-app".to_owned() };
        let scaling = Loop::new(
            FederatedHpa::new(spec.clone()),
            target,
            fleet.plane.admin_client(),
            clusters,
            spec.min_replicas,
        );
        let load =
            LoadGenerator::start(deployments.iter().map(|deployment| deployment.endpoints()).collect());
        let rounds = scaling.start(PERIOD);
        Ok(Self { adapter, rounds, query_command, spec, load, deployments, fleet, _directory: directory })
    }

    /// The text at the start.
    pub(super) fn introduction(&self) -> String {
        let Spec { min_replicas, max_replicas, .. } = self.spec;
        format!(
            "The adapter serves https://{} and {PREFERRED} is available.\n\
             Its log:  {}\n\
             Scaling:  {min_replicas} to {max_replicas} replicas, http_requests {} on average, 10 s of \
             stabilization, divided {}:{}\n\
             Query the metrics meanwhile:\n\n  {}\n",
            self.adapter.address(),
            self.adapter.log().display(),
            decimal(self.target()),
            WEIGHTS[0],
            WEIGHTS[1],
            self.query_command.line()
        )
    }

    /// The text of `--hold`: commands to try.
    ///
    /// # Errors
    /// If the kubeconfig cannot be written.
    pub(super) fn invitation(&self) -> anyhow::Result<String> {
        let kubeconfig = self.fleet.plane.admin_kubeconfig()?;
        let kubeconfig = kubeconfig.display();
        let replicas = self.deployments.iter().flat_map(|deployment| deployment.endpoints().borrow().clone());
        let mut text = format!(
            "\nEverything runs until Ctrl-C:\n\n  {}\n  \
             kubectl --kubeconfig {kubeconfig} get clusters\n  \
             kubectl --kubeconfig {kubeconfig} get apiservices\n  \
             kubectl --kubeconfig {kubeconfig} top pods -n default\n  \
             curl http://{}/metrics   (the adapter's own)\n",
            self.query_command.line(),
            self.adapter.metrics_address(),
        );
        for address in replicas {
            let _ = writeln!(text, "  curl http://{address}/   (the application; each request counts)");
        }
        Ok(text)
    }

    /// Keeps everything running until Ctrl-C.
    ///
    /// # Errors
    /// If the adapter or the scaling loop ends.
    pub(super) async fn hold(&mut self) -> anyhow::Result<()> {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                interrupt = &mut interrupt => return Ok(interrupt?),
                round = self.rounds.rounds.recv() => round.context("the scaling loop has ended")?,
            };
            self.adapter.check()?;
        }
    }

    /// The minimum and maximum of replicas.
    pub(super) fn limits(&self) -> (i32, i32) {
        (self.spec.min_replicas, self.spec.max_replicas)
    }

    /// The target average per replica, in thousandths.
    pub(super) fn target(&self) -> i64 {
        self.spec.metrics.iter().find_map(average_value).unwrap_or_default()
    }

    /// The member that freezes.
    pub(super) fn frozen_member(&self) -> &str {
        self.fleet.members[FROZEN].name()
    }

    /// Freezes the API server of a member. Its Cluster object stays Ready, since Karmada takes longer to detect this.
    pub(super) fn freeze(&self) {
        self.fleet.members[FROZEN].fault(Fault::Frozen);
    }

    /// Lets the member respond again.
    pub(super) fn thaw(&self) {
        self.fleet.members[FROZEN].clear_faults();
    }

    /// Turns the load on or off. Returns the new rate in requests per second.
    pub(super) fn set_load(&self, on: bool) -> u32 {
        let rate = if on { LOAD } else { 0 };
        self.load.set_rate(f64::from(rate));
        rate
    }

    /// Requests of the load generator: successful and failed.
    pub(super) fn load_counts(&self) -> (u64, u64) {
        (self.load.done(), self.load.failed())
    }

    /// Results of the aggregation layer's probes.
    pub(super) fn probes(&self) -> Option<Probes> {
        let transitions = self.fleet.plane.transitions(PREFERRED).ok()?;
        let failed = self.fleet.plane.probe_failures(PREFERRED).ok()?;
        // Earlier failures belong to the start of the adapter.
        let since = transitions.into_iter().skip_while(|state| !state.available);
        let unavailable = since.filter(|state| !state.available).map(|state| state.message).collect();
        Some(Probes { failed: failed.len(), unavailable })
    }
}

fn clusters(fleet: &Fleet, deployments: &[Arc<Deployment>], shares: &[u32]) -> Vec<Cluster> {
    let stages = fleet.members.iter().zip(deployments).zip(WEIGHTS.iter().zip(shares));
    let cluster = |((member, deployment), (weight, wanted)): ((&Member, &Arc<Deployment>), (&u32, &u32))| {
        let access = member.access();
        let deployment = deployment.clone();
        let scale_to: ScaleTo = Arc::new(move |replicas| {
            let deployment = deployment.clone();
            async move { deployment.scale_to(replicas as usize).await }.boxed()
        });
        let member = access.client();
        Cluster { name: access.name, weight: *weight, wanted: *wanted, member, scale_to }
    };
    stages.map(cluster).collect()
}

fn average_value(metric: &Metric) -> Option<i64> {
    match metric {
        Metric::Pods { average_value, .. } => Some(*average_value),
        Metric::Object { .. } => None,
    }
}

/// A log file for the adapter that is not deleted at the end.
fn kept_file() -> anyhow::Result<PathBuf> {
    let file = tempfile::Builder::new().prefix("karmada-metrics-adapter-").suffix(".log").tempfile()?;
    Ok(file.into_temp_path().keep()?)
}
