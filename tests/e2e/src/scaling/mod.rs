//! The applications and their autoscalers: the HorizontalPodAutoscaler on a metric of a Service, the test kit's FederatedHPA on
//! a metric of pods, and Karmada's own FederatedHPA if it is available.

mod karmada;
mod propagation;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::FutureExt;
use serde_json::{Value, json};
use testkit::app::LoadGenerator;
use testkit::federated_hpa::{
    Behavior, Cluster, FederatedHpa, Loop, Metric, Round, RunningLoop, ScaleTo, Spec, Target, divide,
};

use self::propagation::{Propagation, deployment_path, scale};
use crate::karmada::ControlPlane;
use crate::member::Member;
use crate::process::Process;
use crate::tools::Tools;

/// The tutorial's application. The test kit's FederatedHPA scales it.
pub const SAMPLE_APP: &str = "sample-app";
/// The application that the HorizontalPodAutoscaler scales.
pub const WEB: &str = "web";
/// The application that Karmada's own FederatedHPA scales.
pub const SHOP: &str = "shop";
/// All applications.
pub const APPLICATIONS: [&str; 3] = [SAMPLE_APP, WEB, SHOP];
/// Interval of the test kit's loop. With Karmada's 15 s a fault would last only one round.
const PERIOD: Duration = Duration::from_secs(1);
/// Target of requests per second and replica. The tutorial's own target is smaller.
const AVERAGE: u32 = 5;
/// Stabilization window of each autoscaler's scale-downs.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The path of the HorizontalPodAutoscaler.
const HORIZONTAL: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web";

/// The applications of a fleet with their load and autoscalers.
pub struct Scaling {
    /// The test kit's FederatedHPA.
    federated: RunningLoop,
    /// The autoscalers of templates in the control plane.
    autoscalers: Vec<Autoscaler>,
    loads: Vec<LoadGenerator>,
    /// Karmada's controllers.
    controllers: Option<Process>,
}

/// The desired replicas of an autoscaler.
#[derive(Debug)]
pub struct Wanted {
    /// The autoscaler.
    pub autoscaler: &'static str,
    /// The application that it scales.
    pub application: &'static str,
    /// The desired number of replicas.
    pub replicas: i32,
}

/// An autoscaler of a template in the control plane.
struct Autoscaler {
    name: &'static str,
    application: &'static str,
    /// The template.
    deployment: String,
    _propagation: Propagation,
}

impl Scaling {
    /// Deploys the applications with one replica each, without load.
    ///
    /// # Errors
    /// If an API server rejects an object, or Karmada's controllers do not start.
    pub async fn start(
        plane: &ControlPlane,
        members: &[Member],
        tools: &Tools,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let api = &plane.cluster.api;
        for (member, share) in members.iter().zip(divide(1, &vec![1; members.len()])) {
            let objects = APPLICATIONS.map(|name| [deployment(name, share), service(name)]);
            member.cluster.api.apply("applications", objects.as_flattened()).await?;
        }
        let apis: Vec<_> = members.iter().map(|member| &member.cluster.api).collect();
        let autoscaler = |name, application| Autoscaler {
            name,
            application,
            deployment: deployment_path(application),
            _propagation: Propagation::start(api, &apis, application),
        };
        api.apply("applications", &[deployment(WEB, 1), service(WEB), horizontal()]).await?;
        let mut autoscalers = vec![autoscaler("HorizontalPodAutoscaler", WEB)];
        let mut controllers = None;
        if let Some(binary) = &tools.karmada_controller_manager {
            controllers = Some(karmada::start(plane, binary, logs).await?);
            let mut template = deployment(SHOP, 1);
            template["metadata"]["labels"] = karmada::binding_label(SHOP);
            let names: Vec<_> = members.iter().map(|member| member.cluster.name.as_str()).collect();
            let [binding, autoscaling] = karmada::objects(SHOP, &names, AVERAGE, WINDOW);
            api.apply("karmada-applications", &[template, service(SHOP), binding, autoscaling]).await?;
            autoscalers.push(autoscaler("Karmada's FederatedHPA", SHOP));
        }
        let load = |application: &&str| -> anyhow::Result<LoadGenerator> {
            let endpoints = members.iter().map(|member| member.endpoints(application));
            Ok(LoadGenerator::start(endpoints.collect::<anyhow::Result<_>>()?))
        };
        let loads = APPLICATIONS.iter().map(load).collect::<anyhow::Result<_>>()?;
        let federated = federated(plane, members, Spec::tutorial(), 1);
        Ok(Self { federated, autoscalers, loads, controllers })
    }

    /// Loads each application with this number of requests per second.
    pub fn load(&self, rate: f64) {
        self.loads.iter().for_each(|load| load.set_rate(rate));
    }

    /// Changes the spec of the test kit's FederatedHPA.
    ///
    /// # Errors
    /// If its loop has ended.
    pub async fn federate(
        &mut self,
        plane: &ControlPlane,
        members: &[Member],
        spec: Spec,
    ) -> anyhow::Result<()> {
        let replicas = self.round().await?.replicas;
        self.federated = federated(plane, members, spec, replicas);
        Ok(())
    }

    /// Sets the window of the HorizontalPodAutoscaler's scale-downs.
    ///
    /// # Errors
    /// If the API server rejects the change.
    pub async fn stabilize(&self, plane: &ControlPlane, window: Duration) -> anyhow::Result<()> {
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": window.as_secs()}});
        plane.cluster.api.patch(HORIZONTAL, &json!({"spec": {"behavior": behavior}})).await?;
        Ok(())
    }

    /// The desired replicas of each autoscaler after one more round of the test kit's loop.
    ///
    /// # Errors
    /// If the loop has ended, or an API server does not respond.
    pub async fn wanted(&mut self, plane: &ControlPlane) -> anyhow::Result<Vec<Wanted>> {
        let replicas = self.round().await?.replicas;
        let mut wanted =
            vec![Wanted { autoscaler: "the kit's FederatedHPA", application: SAMPLE_APP, replicas }];
        for Autoscaler { name, application, deployment, .. } in &self.autoscalers {
            let template = plane.cluster.api.get(deployment).await?;
            let replicas = template["spec"]["replicas"].as_i64().context("the Deployment has no replicas")?;
            wanted.push(Wanted { autoscaler: name, application, replicas: i32::try_from(replicas)? });
        }
        Ok(wanted)
    }

    /// Checks that all autoscalers want `replicas`, and that the test kit's FederatedHPA did in each round since the last
    /// check.
    ///
    /// # Errors
    /// If one does not.
    pub async fn held(&mut self, plane: &ControlPlane, replicas: i32) -> anyhow::Result<()> {
        while let Ok(round) = self.federated.rounds.try_recv() {
            ensure!(
                round.replicas == replicas,
                "the kit's FederatedHPA wants {}: {:?}",
                round.replicas,
                round.decision
            );
        }
        let wanted = self.wanted(plane).await?;
        ensure!(
            wanted.iter().all(|wanted| wanted.replicas == replicas),
            "not {replicas} replicas: {wanted:?}"
        );
        Ok(())
    }

    /// Checks that Karmada's controllers still run.
    ///
    /// # Errors
    /// If they have exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.controllers.as_mut().map_or(Ok(()), Process::check)
    }

    /// Starts Karmada's controllers again if they have exited.
    ///
    /// # Errors
    /// If they do not start.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.controllers.as_mut().map_or(Ok(()), Process::ensure_running)
    }

    /// The next round that was not read yet. Waits for a round if there is none.
    async fn round(&mut self) -> anyhow::Result<Round> {
        let mut last = None;
        while let Ok(round) = self.federated.rounds.try_recv() {
            last = Some(round);
        }
        match last {
            Some(round) => Ok(round),
            None => self.federated.rounds.recv().await.context("the scaling loop has ended"),
        }
    }
}

/// A FederatedHPA with the same target per replica as the other autoscalers.
pub fn spec() -> Spec {
    let metric = Metric::pods("http_requests", i64::from(AVERAGE) * 1000);
    Spec { behavior: Some(Behavior::with_stabilization(WINDOW)), ..Spec::new(metric, 1..=10) }
}

fn federated(plane: &ControlPlane, members: &[Member], spec: Spec, replicas: i32) -> RunningLoop {
    let shares = divide(replicas.unsigned_abs(), &vec![1; members.len()]);
    let clusters = members.iter().zip(shares).map(|(member, share)| {
        let api = member.cluster.api.clone();
        let scale_to: ScaleTo = Arc::new(move |replicas| {
            let api = api.clone();
            let scaled = async move { scale(&api, &deployment_path(SAMPLE_APP), replicas).await };
            scaled.map(|scaled| scaled.map(drop).map_err(io::Error::other)).boxed()
        });
        let client = member.cluster.api.client().clone();
        Cluster { name: member.cluster.name.clone(), weight: 1, wanted: share, member: client, scale_to }
    });
    let target = Target { namespace: "default".to_owned(), selector: format!("app={SAMPLE_APP}") };
    let control_plane = plane.cluster.api.client().clone();
    let hpa = FederatedHpa::new(spec);
    Loop::new(hpa, target, control_plane, clusters.collect(), replicas).start(PERIOD)
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{"name": "app", "image": "luxas/autoscale-demo:v0.1.2"}],
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                },
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

fn horizontal() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "default", "name": WEB},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": WEB},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{
                "type": "Object",
                "object": {
                    "metric": {"name": "http_requests"},
                    "describedObject": {"apiVersion": "v1", "kind": "Service", "name": WEB},
                    "target": {"type": "AverageValue", "averageValue": AVERAGE.to_string()},
                },
            }],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": WINDOW.as_secs()}},
        },
    })
}
