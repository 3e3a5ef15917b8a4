//! The application's Deployment in one member, and the member's metrics for its pods.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::replica::Replica;
use super::scraper::{Rate, Scraper, quantity};
use crate::member::wire::PodMetrics;
use crate::member::{Member, Pod, Resource, Series, Store};
use crate::timestamp;

/// How long a removed replica still responds to clients that already sent it a request.
const GRACE: Duration = Duration::from_secs(1);

/// The addresses of the ready replicas.
pub type Endpoints = watch::Receiver<Vec<SocketAddr>>;

/// Runs replicas in a member and keeps its pods and their `http_requests` up to date. Drop stops all replicas.
#[derive(Debug)]
pub struct Deployment {
    app: Arc<App>,
    _scraping: AbortOnDropHandle<()>,
}

/// Options of the application.
#[derive(Clone, Debug)]
pub struct DeploymentOptions {
    /// The Deployment's name and the value of its pods' label `app`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Time until a new pod is ready.
    pub startup: Duration,
    /// Interval at which the member's Prometheus scrapes.
    pub scrape_interval: Duration,
    /// Name of the metric that serves the rate of `http_requests_total`.
    pub metric: String,
}

#[derive(Debug)]
struct App {
    options: DeploymentOptions,
    store: Arc<Store>,
    /// The part of each pod name that identifies the pod template.
    template_hash: String,
    state: Mutex<State>,
    endpoints: watch::Sender<Vec<SocketAddr>>,
}

#[derive(Debug, Default)]
struct State {
    wanted: usize,
    /// Oldest first.
    replicas: Vec<Running>,
    terminating: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    pod: Pod,
    replica: Replica,
    _startup: AbortOnDropHandle<()>,
}

impl Deployment {
    /// Starts a Deployment `sample-app` in the namespace `default` without replicas. A pod is ready after 1 s and is scraped
    /// every second.
    pub fn start(member: &Member) -> Self {
        Self::start_with(member, DeploymentOptions::default())
    }

    /// Starts a Deployment without replicas.
    pub fn start_with(member: &Member, options: DeploymentOptions) -> Self {
        let app = Arc::new(App {
            options,
            store: member.store().clone(),
            template_hash: random_name(10),
            state: Mutex::default(),
            endpoints: watch::Sender::new(Vec::new()),
        });
        let scraping = AbortOnDropHandle::new(tokio::spawn(app.clone().scrape()));
        Self { app, _scraping: scraping }
    }

    /// Starts or stops replicas until their number is `replicas`. Pods that are not ready are removed first, then the youngest.
    ///
    /// # Errors
    /// If a replica cannot be started.
    pub async fn scale_to(&self, replicas: usize) -> io::Result<()> {
        self.app.state().wanted = replicas;
        while self.app.trim() {
            let replica = Replica::start().await?;
            self.app.adopt(replica);
        }
        Ok(())
    }

    /// The desired number of replicas.
    pub fn wanted(&self) -> usize {
        self.app.state().wanted
    }

    /// The ready replicas, for the load generator.
    pub fn endpoints(&self) -> Endpoints {
        self.app.endpoints.subscribe()
    }

    /// Waits until exactly `replicas` replicas are ready.
    pub async fn ready(&self, replicas: usize) {
        let mut endpoints = self.endpoints();
        let enough = endpoints.wait_for(|addresses| addresses.len() == replicas).await;
        enough.expect("the sender lives as long as the Deployment");
    }

    /// The number of requests that the running replicas have served.
    pub fn served(&self) -> u64 {
        self.app.state().replicas.iter().map(|running| running.replica.served()).sum()
    }
}

impl App {
    /// Stops surplus replicas. Returns whether replicas are missing.
    fn trim(&self) -> bool {
        let mut state = self.state();
        while state.terminating.try_join_next().is_some() {}
        while state.replicas.len() > state.wanted {
            let unready = state.replicas.iter().rposition(|running| !running.pod.ready);
            let last = state.replicas.len() - 1;
            let Running { pod, replica, .. } = state.replicas.remove(unready.unwrap_or(last));
            let Pod { namespace, name, .. } = &pod;
            self.store.remove_pod(namespace, name);
            self.store.remove_pod_usage(namespace, name);
            self.store.remove_metric(Resource::PODS, Some(namespace), name, &self.options.metric);
            state.terminating.spawn(async move {
                sleep(GRACE).await;
                drop(replica);
            });
        }
        self.publish_endpoints(&state);
        state.replicas.len() < state.wanted
    }

    fn adopt(self: &Arc<Self>, replica: Replica) {
        let DeploymentOptions { name, namespace, startup, .. } = &self.options;
        let pod_name = format!("{name}-{}-{}", self.template_hash, random_name(5));
        let pod = Pod { ready: false, ..Pod::running(namespace, &pod_name, &[("app", name)]) };
        self.store.set_pod(pod.clone());
        let (app, startup) = (Arc::downgrade(self), *startup);
        let becomes_ready = tokio::spawn(async move {
            sleep(startup).await;
            if let Some(app) = Weak::upgrade(&app) {
                app.make_ready(&pod_name);
            }
        });
        self.state().replicas.push(Running { pod, replica, _startup: AbortOnDropHandle::new(becomes_ready) });
    }

    fn make_ready(&self, pod_name: &str) {
        let mut state = self.state();
        if let Some(running) = state.replicas.iter_mut().find(|running| running.pod.name == pod_name) {
            running.pod.ready = true;
            running.pod.ready_changed = timestamp::now();
            self.store.set_pod(running.pod.clone());
        }
        self.publish_endpoints(&state);
    }

    fn publish_endpoints(&self, state: &State) {
        let ready = state.replicas.iter().filter(|running| running.pod.ready);
        let addresses: Vec<_> = ready.map(|running| running.replica.address()).collect();
        self.endpoints.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    async fn scrape(self: Arc<Self>) {
        let mut scraper = Scraper::new(self.options.scrape_interval);
        let mut ticks = interval(self.options.scrape_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let targets = self.state().targets();
            scraper.scrape(&targets).await;
            self.publish_rates(&scraper);
        }
    }

    /// Serves the rates of the pods and, for the namespace, their sum. A pod that was removed during the scrape gets no rate.
    fn publish_rates(&self, scraper: &Scraper) {
        let DeploymentOptions { name, namespace, metric, .. } = &self.options;
        let rates = scraper.rates();
        let series = |resource, in_namespace, object: &str, rate: Rate| {
            let series = Series::new(resource, in_namespace, object, metric, &quantity(rate.milli));
            Series { timestamp: rate.timestamp, ..series }
        };
        let mut sum = None::<Rate>;
        let state = self.state();
        for Running { pod, .. } in &state.replicas {
            let Some(rate) = rates.get(&pod.name) else {
                self.store.remove_metric(Resource::PODS, Some(namespace), &pod.name, metric);
                continue;
            };
            let of_pod = series(Resource::PODS, Some(namespace), &pod.name, *rate);
            self.store.set_metric(of_pod.object_label("app", name));
            // An idle replica uses 5m of CPU, and 2m more for each request per second.
            let cpu = quantity(5 + rate.milli / 500);
            self.store.set_pod_usage(PodMetrics::new(namespace, &pod.name, &cpu, "16Mi").label("app", name));
            let before = sum.unwrap_or(Rate { milli: 0, timestamp: 0 });
            sum = Some(Rate {
                milli: before.milli + rate.milli,
                timestamp: before.timestamp.max(rate.timestamp),
            });
        }
        match sum {
            Some(sum) => self.store.set_metric(series(Resource::NAMESPACES, None, namespace, sum)),
            None => self.store.remove_metric(Resource::NAMESPACES, None, namespace, metric),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl State {
    fn targets(&self) -> Vec<(String, SocketAddr)> {
        let target = |running: &Running| (running.pod.name.clone(), running.replica.address());
        self.replicas.iter().map(target).collect()
    }
}

impl Default for DeploymentOptions {
    fn default() -> Self {
        Self {
            name: "sample-app".to_owned(),
            namespace: "default".to_owned(),
            startup: Duration::from_secs(1),
            scrape_interval: Duration::from_secs(1),
            metric: "http_requests".to_owned(),
        }
    }
}

/// Letters and digits that Kubernetes uses in generated names: no vowels and no characters that are easily confused.
fn random_name(length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random
        .as_bytes()
        .iter()
        .take(length)
        .map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char)
        .collect()
}
