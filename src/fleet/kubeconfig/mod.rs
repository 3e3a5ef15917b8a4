//! Fleet source for clusters without Karmada: each context of a kubeconfig is a member.
//!
//! The file and the files that it refers to are reloaded when they change. An error in one context does not affect the others. If the
//! whole file is not usable, the last contexts stay.

mod contexts;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::contexts::FleetContexts;
use super::NoCredentials;
use super::roster::Roster;
use super::task::{Generation, Generations, WaitingMembers};
use crate::api::cause::Cause;
use crate::kubeconfig::Context;
use crate::kubeconfig::plugin::{ExecPlugin, PluginCredentials};
use crate::member::TokenRefusal;
use crate::process::file;
use crate::transport::credentials::{Credentials, UserCredentials};
pub use contexts::FleetFileError;

/// How long readiness waits for the first run of exec plugins.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials are renewed this long before they expire, if they are valid for at least twice as long.
const AHEAD: Duration = Duration::from_secs(60);
/// The shortest and the longest pause between two runs of a plugin that fails, or that returns refused credentials.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Maximum queued results of plugins.
const QUEUE: usize = 64;

/// Updates the roster from a kubeconfig.
pub struct KubeconfigSource {
    path: PathBuf,
    roster: Roster,
    contexts: watch::Receiver<FleetContexts>,
    _reload: AbortOnDropHandle<()>,
    known: FleetContexts,
    exec_tasks: BTreeMap<String, ExecTask>,
    generations: Generations,
    logins: mpsc::Sender<ExecResult>,
    queue: mpsc::Receiver<ExecResult>,
}

/// The task that runs a cluster's exec plugin.
struct ExecTask {
    generation: Generation,
    plugin: ExecPlugin,
    /// The last credentials of the plugin.
    login: Option<UserCredentials>,
    /// Whether the plugin has ended at least once.
    ended: bool,
    again: Arc<Notify>,
    waiting: WaitingMembers,
    _task: AbortOnDropHandle<()>,
}

/// The result of a plugin.
struct ExecResult {
    cluster: String,
    generation: Generation,
    outcome: Result<UserCredentials, String>,
}

impl KubeconfigSource {
    /// Starts the source for the file at `path`, which is read again every `interval`. The source is synced when the first run of
    /// each plugin has ended or timed out.
    ///
    /// # Errors
    /// If the file is not usable.
    pub fn open(path: &Path, interval: Duration, roster: Roster) -> Result<Self, FleetFileError> {
        let first = contexts::read(path)?;
        let (sender, contexts) = watch::channel(first.clone());
        let what = format!("--fleet-kubeconfig={}", path.display());
        let followed = path.to_owned();
        let read = move || contexts::read(&followed);
        let reload = file::follow(what, first, interval, read, move |contexts| {
            sender.send_replace(contexts);
            ready(Ok::<_, Infallible>(()))
        });
        let (logins, queue) = mpsc::channel(QUEUE);
        Ok(Self {
            path: path.to_owned(),
            roster,
            contexts,
            _reload: reload,
            known: FleetContexts::new(),
            exec_tasks: BTreeMap::new(),
            generations: Generations::default(),
            logins,
            queue,
        })
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let until = Instant::now() + FIRST_READ_TIMEOUT;
        let first = self.contexts.borrow_and_update().clone();
        self.apply_contexts(first);
        loop {
            self.roster.publish();
            if self.exec_tasks.values().all(|task| task.ended) {
                self.roster.set_synced();
            }
            let synced = self.roster.is_synced();
            tokio::select! {
                Ok(()) = self.contexts.changed() => {
                    let contexts = self.contexts.borrow_and_update().clone();
                    self.apply_contexts(contexts);
                }
                Some(result) = self.queue.recv() => self.handle_exec_result(result),
                refused = self.roster.refused() => self.handle_token_refusals(refused),
                () = sleep_until(until), if !synced => {
                    tracing::warn!("some exec plugins have not ended; their clusters join the fleet later");
                    self.roster.set_synced();
                }
                else => return,
            }
        }
    }

    fn apply_contexts(&mut self, contexts: FleetContexts) {
        let gone: Vec<String> =
            self.roster.names().filter(|name| !contexts.contains_key(*name)).map(str::to_owned).collect();
        for name in gone {
            self.exec_tasks.remove(&name);
            self.roster.remove(&name);
        }
        for (name, context) in &contexts {
            if self.known.get(name) != Some(context) {
                let credentials = match context {
                    Ok(Context { credentials, plugin: Some(plugin), .. }) => {
                        self.plugin_credentials(name, plugin).map(|login| credentials.with_user(login))
                    }
                    Ok(Context { credentials, plugin: None, .. }) => {
                        self.exec_tasks.remove(name);
                        Ok(credentials.clone())
                    }
                    Err(message) => {
                        self.exec_tasks.remove(name);
                        Err(NoCredentials { cause: Cause::CredentialsMalformed, message: message.clone() })
                    }
                };
                self.put(name, credentials);
            }
        }
        self.known = contexts;
    }

    /// The last credentials of a cluster's plugin. A new plugin is started.
    fn plugin_credentials(
        &mut self,
        name: &str,
        plugin: &ExecPlugin,
    ) -> Result<UserCredentials, NoCredentials> {
        if let Some(task) = self.exec_tasks.get(name).filter(|task| task.plugin == *plugin) {
            return task.login.clone().ok_or_else(NoCredentials::unknown);
        }
        let (generation, again) = (self.generations.next(), Arc::new(Notify::new()));
        let task = run_again(name.to_owned(), generation, plugin.clone(), again.clone(), self.logins.clone());
        let exec_task = ExecTask {
            generation,
            plugin: plugin.clone(),
            login: None,
            ended: false,
            again,
            waiting: WaitingMembers::default(),
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        };
        self.exec_tasks.insert(name.to_owned(), exec_task);
        Err(NoCredentials::unknown())
    }

    fn handle_exec_result(&mut self, ExecResult { cluster, generation, outcome }: ExecResult) {
        let task = self.exec_tasks.get_mut(&cluster).filter(|task| task.generation == generation);
        let (Some(task), Some(Ok(context))) = (task, self.known.get(&cluster)) else { return };
        task.ended = true;
        let waiting = std::mem::take(&mut task.waiting);
        let credentials = match outcome {
            Ok(login) => {
                task.login = Some(login.clone());
                Ok(context.credentials.with_user(login))
            }
            Err(message) => Err(NoCredentials { cause: Cause::PluginFailed, message }),
        };
        self.put(&cluster, credentials);
        drop(waiting);
    }

    /// Runs the plugins of the members, or reads the file at once, and only once for all of them. The roster passes new credentials to
    /// the members.
    fn handle_token_refusals(&mut self, refusals: Vec<TokenRefusal>) {
        let mut without_plugin = Vec::new();
        for refusal in refusals {
            let cluster = &refusal.cluster;
            tracing::info!(cluster, "the cluster refused its credentials; requesting newer ones");
            match self.exec_tasks.get_mut(cluster) {
                Some(task) => {
                    task.waiting.push(refusal);
                    task.again.notify_one();
                }
                None => without_plugin.push(refusal),
            }
        }
        if without_plugin.iter().any(|refusal| !refusal.is_abandoned())
            && let Ok(contexts) = contexts::read(&self.path)
        {
            self.apply_contexts(contexts);
        }
    }

    /// Updates a cluster in the roster. A context has no uid and no Ready condition.
    fn put(&mut self, name: &str, credentials: Result<Credentials, NoCredentials>) {
        self.roster.put(name, "", true, credentials);
    }
}

/// Runs a plugin at once, before its credentials expire, and whenever `again` is notified.
async fn run_again(
    cluster: String,
    generation: Generation,
    plugin: ExecPlugin,
    again: Arc<Notify>,
    logins: mpsc::Sender<ExecResult>,
) {
    let after_failures =
        ExponentialBuilder::new().with_min_delay(PAUSES.0 * 2).with_max_delay(PAUSES.1).without_max_times();
    let mut failing = None;
    loop {
        let begun = Instant::now();
        let (outcome, next) = match plugin.run().await {
            Ok(PluginCredentials { user: login, expires: until })
                if until.is_none_or(|until| until > SystemTime::now()) =>
            {
                failing = None;
                (Ok(login), until.map(renewal))
            }
            Ok(PluginCredentials { user: login, .. }) => {
                if failing.is_none() {
                    tracing::warn!(
                        cluster,
                        "the exec plugin returned expired credentials; check this machine's clock"
                    );
                }
                let pauses = failing.get_or_insert_with(|| after_failures.build());
                (Ok(login), pauses.next())
            }
            Err(error) => {
                let pauses = failing.get_or_insert_with(|| after_failures.build());
                (Err(error.to_string()), pauses.next())
            }
        };
        let pause = if failing.is_some() { next.unwrap_or(PAUSES.1) } else { PAUSES.0 };
        if logins.send(ExecResult { cluster: cluster.clone(), generation, outcome }).await.is_err() {
            return;
        }
        match next {
            Some(next) => drop(timeout(next, again.notified()).await),
            None => again.notified().await,
        }
        // Bounds the runs for a cluster that refuses all credentials.
        sleep(pause.saturating_sub(begun.elapsed())).await;
    }
}

/// Time until credentials are renewed.
fn renewal(until: SystemTime) -> Duration {
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_sub(AHEAD).max(left / 2).max(PAUSES.0)
}
