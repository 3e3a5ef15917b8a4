//! All parts that run during the tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::api_client::{Answer, ApiClient, Credentials};
use testkit::pki::Identity;
use tokio::time::sleep;

use crate::api::until;
use crate::balancer::Balancer;
use crate::cluster::free_port;
use crate::karmada::ControlPlane;
use crate::member::Member;
use crate::process::{BINDER, BINDING};
use crate::say;
use crate::scaling::{self, APPLICATIONS, Scaling, WINDOW};
use crate::tools::Tools;

/// The members.
pub const MEMBERS: [&str; 2] = ["member1", "member2"];
/// A flag of the first member's API server: it closes the connection after this fraction of its responses.
const GOAWAY: &str = "--goaway-chance=0.02";
/// The tutorial's query: a metric of all pods.
pub const TUTORIAL: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
/// Time limit for the start of an adapter on a busy machine.
const ADAPTER_READY: Duration = Duration::from_secs(60);
/// Time limit until controllers, Prometheus and adapters have all applied a change.
const SETTLED: Duration = Duration::from_secs(180);
/// Interval of checks for such a change.
const LOOK: Duration = Duration::from_millis(200);
/// Requests per second to each application during faults. 3 or 5 replicas would clearly be wrong for it.
pub const STEADY_LOAD: f64 = 18.5;
/// The replicas that all autoscalers keep under that load.
pub const STEADY: i32 = 4;

/// A control plane, its members, the adapter between them, and applications under load.
pub struct Stage {
    /// Karmada's control plane.
    pub plane: ControlPlane,
    /// The member clusters.
    pub members: Vec<Member>,
    /// The replicas of the adapter.
    pub adapters: Vec<AdapterProcess>,
    /// The Service in front of them.
    pub service: Balancer,
    /// The applications.
    pub scaling: Scaling,
    adapter: PathBuf,
    kubeconfig: PathBuf,
    logs: PathBuf,
    _directory: TempDir,
}

impl Stage {
    /// Starts everything and waits for the first metrics.
    ///
    /// # Errors
    /// If a part does not start; the error has its name and the end of its log.
    pub async fn set(tools: &Tools, adapter: &Path, logs: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("karmada-metrics-adapter-e2e-").tempdir()?;
        say(
            "starting a control plane and two members: etcd, kube-apiserver and kube-controller-manager for each",
        );
        let member = |name, flags| Member::start(name, flags, &APPLICATIONS, tools, directory.path(), logs);
        let (plane, first, second) = tokio::try_join!(
            ControlPlane::start(tools, directory.path(), logs),
            member(MEMBERS[0], &[GOAWAY]),
            member(MEMBERS[1], &[]),
        )?;
        let members = vec![first, second];
        say(
            "joining the members: a Cluster and a Secret for each, with a token that is valid for ten minutes",
        );
        for member in &members {
            plane.join(&member.spec().await?).await?;
        }
        let kubeconfig = plane.adapter_kubeconfig().await?;
        let service = Balancer::start(free_port()?)?;
        let scaling = Scaling::start(&plane, &members, tools, logs).await?;
        let mut stage = Self {
            plane,
            members,
            adapters: Vec::new(),
            service,
            scaling,
            adapter: adapter.to_owned(),
            kubeconfig,
            logs: logs.to_owned(),
            _directory: directory,
        };
        say("starting the adapter with the flags of Karmada's manifests, and registering its APIs");
        stage.add_adapter().await?;
        stage.plane.available().await?;
        say("waiting for the first metrics of each member");
        stage.scaling.load(1.0);
        stage.until_complete(&APPLICATIONS).await?;
        Ok(stage)
    }

    /// Starts another replica of the adapter and adds it to the Service.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn add_adapter(&mut self) -> anyhow::Result<()> {
        let number = (1..).find(|number| !self.adapter_log(*number).exists()).unwrap_or_default();
        let mut adapter = AdapterProcess::start(&Invocation {
            binary: BINDER.into(),
            arguments: [
                vec![BINDING.to_owned(), self.adapter.display().to_string()],
                Invocation::production(),
            ]
            .concat(),
            jailed: false,
            files: Vec::new(),
            kubeconfig: self.kubeconfig.clone(),
            client_ca_pem: self.plane.cluster.ca_pem(),
            flags: Vec::new(),
            log: Some(self.adapter_log(number)),
            environment: Vec::new(),
        })?;
        adapter.ready(ADAPTER_READY).await?;
        self.adapters.push(adapter);
        let authorities: String = self.adapters.iter().map(AdapterProcess::ca_pem).collect();
        self.plane.set_backend(self.service.port(), &authorities).await?;
        self.lead_to_all();
        Ok(())
    }

    /// Sets the endpoints of the Service to all replicas.
    pub fn lead_to_all(&self) {
        self.service.set_endpoints(self.adapters.iter().map(AdapterProcess::address).collect());
    }

    /// Sends the tutorial's query through the API server of the control plane.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn query(&self) -> anyhow::Result<Answer> {
        self.plane.cluster.api.answer(TUTORIAL).await
    }

    /// Waits until all applications have the same load and the same number of replicas, without a fault.
    ///
    /// # Errors
    /// If this takes longer than three minutes.
    pub async fn steady(&mut self) -> anyhow::Result<()> {
        self.scaling.stabilize(&self.plane, WINDOW).await?;
        self.scaling.load(STEADY_LOAD);
        self.scaling.federate(&self.plane, &self.members, scaling::spec()).await?;
        say(&format!(
            "waiting for {STEADY} replicas of each application at {STEADY_LOAD} requests per second"
        ));
        let began = Instant::now();
        let mut held = 0;
        while held < 5 {
            self.check()?;
            let wanted = self.scaling.wanted(&self.plane).await?;
            held = if wanted.iter().all(|wanted| wanted.replicas == STEADY) { held + 1 } else { 0 };
            ensure!(began.elapsed() < SETTLED, "not {STEADY} replicas after {SETTLED:?}: {wanted:?}");
        }
        self.until_complete(&MEMBERS).await
    }

    /// Waits until the response to the tutorial's query contains all `parts` (names or labels of pods) and has no warning.
    ///
    /// # Errors
    /// If this takes longer than three minutes.
    pub async fn until_complete(&mut self, parts: &[&str]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.check()?;
            let answer = self.query().await?;
            let text = String::from_utf8_lossy(&answer.body);
            let complete = answer.status.is_success() && parts.iter().all(|part| text.contains(part));
            if complete && answer.warnings().is_empty() {
                return Ok(());
            }
            ensure!(
                began.elapsed() < SETTLED,
                "no response with {parts:?} after {SETTLED:?}: {} {:?} {text}",
                answer.status,
                answer.warnings()
            );
            sleep(LOOK).await;
        }
    }

    /// Waits until a response to the tutorial's query has a warning with the name of a member, and returns the warning.
    ///
    /// # Errors
    /// If this takes longer than three minutes.
    pub async fn until_warned(&self, member: &str) -> anyhow::Result<String> {
        until("a warning that names the member", SETTLED, async || {
            let warnings = self.query().await?.warnings();
            let ours = warnings.into_iter().find(|warning| warning.contains(member));
            ours.with_context(|| format!("no response has a warning for {member}"))
        })
        .await
    }

    /// Checks that all autoscalers have kept their replicas since the last check.
    ///
    /// # Errors
    /// If one has not.
    pub async fn check_steady(&mut self) -> anyhow::Result<()> {
        self.scaling.held(&self.plane, STEADY).await
    }

    /// The adapter's binary.
    pub fn adapter_binary(&self) -> &Path {
        &self.adapter
    }

    /// The number of running replicas of an application in all members.
    ///
    /// # Errors
    /// If the members do not run the application.
    pub fn running(&self, application: &str) -> anyhow::Result<usize> {
        let running = self.members.iter().map(|member| Ok(member.endpoints(application)?.borrow().len()));
        running.sum()
    }

    /// Checks that all programs still run.
    ///
    /// # Errors
    /// If a program has exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.plane.cluster.check()?;
        for member in &mut self.members {
            member.check()?;
        }
        for adapter in &mut self.adapters {
            adapter.check()?;
        }
        self.scaling.check()
    }

    /// Ends every fault that a test has left.
    ///
    /// # Errors
    /// If a program does not start again.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.plane.cluster.heal()?;
        for member in &mut self.members {
            member.heal()?;
        }
        self.scaling.heal()?;
        if self.adapters.is_empty() {
            self.add_adapter().await?;
        }
        self.lead_to_all();
        self.plane.cluster.ready().await?;
        self.rotate_tokens().await
    }

    /// Gives each member a new token: a token expires after ten minutes.
    ///
    /// # Errors
    /// If a member issues no token.
    async fn rotate_tokens(&self) -> anyhow::Result<()> {
        for member in &self.members {
            self.plane.change_token(&member.cluster.name, &member.token().await?).await?;
        }
        Ok(())
    }

    fn adapter_log(&self, number: u32) -> PathBuf {
        self.logs.join(format!("adapter-{number}.log"))
    }
}

/// A client that connects directly to a replica of the adapter, without the control plane.
///
/// # Errors
/// If the CA is malformed.
pub fn adapter_client(adapter: &AdapterProcess, identity: &Identity) -> anyhow::Result<ApiClient> {
    let url = format!("https://{}", adapter.address());
    ApiClient::new(&url, adapter.ca_pem(), Credentials::Certificate(identity))
}
