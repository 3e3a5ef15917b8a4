//! Everything that runs during the tests.

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
/// What the first member's API server is started with: it closes the connection after so many of its responses.
const GOAWAY: &str = "--goaway-chance=0.02";
/// The tutorial's query: a metric of all pods.
pub const TUTORIAL: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
/// How long an adapter may take to start beside all that works here.
const ADAPTER_READY: Duration = Duration::from_secs(60);
/// How long controllers, Prometheus and adapters may take until a change shows everywhere.
const SETTLED: Duration = Duration::from_secs(180);
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(200);
/// Requests a second to each application while faults are tried: far from what 3 or 5 replicas would be right for.
pub const STEADY_LOAD: f64 = 18.5;
/// The replicas that all autoscalers hold under that load.
pub const STEADY: i32 = 4;

/// A control plane, its members, the adapter between them, and applications under load.
pub struct Stage {
    /// Karmada's control plane.
    pub plane: ControlPlane,
    /// The member clusters.
    pub members: Vec<Member>,
    /// The replicas of the adapter.
    pub adapters: Vec<AdapterProcess>,
    /// What leads to them.
    pub service: Balancer,
    /// The applications.
    pub scaling: Scaling,
    adapter: PathBuf,
    kubeconfig: PathBuf,
    logs: PathBuf,
    _directory: TempDir,
}

impl Stage {
    /// Starts everything and waits until the first metrics come through.
    ///
    /// # Errors
    /// If something does not start; the error says what, and shows the end of its log.
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
        say("joining the members: a Cluster and a Secret for each, with a token of ten minutes");
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
        stage.until_answered(&APPLICATIONS).await?;
        Ok(stage)
    }

    /// Starts one more replica of the adapter and lets the Service lead to it too.
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
        self.plane.lead_to(self.service.port(), &authorities).await?;
        self.lead_to_all();
        Ok(())
    }

    /// Lets the Service lead to each replica that there is.
    pub fn lead_to_all(&self) {
        self.service.set_endpoints(self.adapters.iter().map(AdapterProcess::address).collect());
    }

    /// Asks the tutorial's query through the control plane's API server.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn query(&self) -> anyhow::Result<Answer> {
        self.plane.cluster.api.answer(TUTORIAL).await
    }

    /// All applications under the same load and at the same number of replicas, without a fault.
    ///
    /// # Errors
    /// If that is not so within three minutes.
    pub async fn steady(&mut self) -> anyhow::Result<()> {
        self.scaling.stabilize(&self.plane, WINDOW).await?;
        self.scaling.load(STEADY_LOAD);
        self.scaling.federate(&self.plane, &self.members, scaling::spec()).await?;
        say(&format!(
            "waiting until {STEADY_LOAD} requests a second hold each application at {STEADY} replicas"
        ));
        let began = Instant::now();
        let mut held = 0;
        while held < 5 {
            self.check()?;
            let wanted = self.scaling.wanted(&self.plane).await?;
            held = if wanted.iter().all(|wanted| wanted.replicas == STEADY) { held + 1 } else { 0 };
            ensure!(began.elapsed() < SETTLED, "not {STEADY} replicas after {SETTLED:?}: {wanted:?}");
        }
        self.until_answered(&MEMBERS).await
    }

    /// Waits until the tutorial's query has pods of each of these in their names or tags, and nothing is missing.
    ///
    /// # Errors
    /// If that is not so within three minutes.
    pub async fn until_answered(&mut self, parts: &[&str]) -> anyhow::Result<()> {
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
                "no answer with {parts:?} after {SETTLED:?}: {} {:?} {text}",
                answer.status,
                answer.warnings()
            );
            sleep(LOOK).await;
        }
    }

    /// Waits until an answer to the tutorial's query has a warning that names a member, and returns the warning.
    ///
    /// # Errors
    /// If that is not so within three minutes.
    pub async fn until_warned(&self, member: &str) -> anyhow::Result<String> {
        until("a warning that names the member", SETTLED, async || {
            let warnings = self.query().await?.warnings();
            let ours = warnings.into_iter().find(|warning| warning.contains(member));
            ours.with_context(|| format!("no answer says that {member} is ill"))
        })
        .await
    }

    /// Says whether all autoscalers have held their replicas since somebody looked.
    ///
    /// # Errors
    /// If one has not.
    pub async fn held(&mut self) -> anyhow::Result<()> {
        self.scaling.held(&self.plane, STEADY).await
    }

    /// The adapter's binary.
    pub fn adapter_binary(&self) -> &Path {
        &self.adapter
    }

    /// How many replicas of an application run in all members.
    ///
    /// # Errors
    /// If it is none of theirs.
    pub fn running(&self, application: &str) -> anyhow::Result<usize> {
        let running = self.members.iter().map(|member| Ok(member.endpoints(application)?.borrow().len()));
        running.sum()
    }

    /// Says whether everything still runs that should.
    ///
    /// # Errors
    /// If a program has ended.
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

    /// Ends whatever fault a test has left behind.
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

    /// Gives each member another token, since one of ten minutes does not last.
    ///
    /// # Errors
    /// If a member issues none.
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

/// A client of a replica of the adapter itself, without the control plane between.
///
/// # Errors
/// If its authority is malformed.
pub fn adapter_client(adapter: &AdapterProcess, identity: &Identity) -> anyhow::Result<ApiClient> {
    let url = format!("https://{}", adapter.address());
    ApiClient::new(&url, adapter.ca_pem(), Credentials::Certificate(identity))
}
