//! The fleet as a kubeconfig has it, for clusters without Karmada: each context is a member.
//!
//! The file and those that it refers to are followed. What is wrong with one context touches no other; a file that cannot
//! be used as a whole changes nothing.

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

/// How long the first run of plugins may hold up readiness.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long before its end a login is renewed, if it lasts twice as long.
const AHEAD: Duration = Duration::from_secs(60);
/// The shortest and the longest pause between two runs of a plugin that fails or whose logins are refused.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How many logins may wait for the roster.
const QUEUE: usize = 64;

/// Keeps the roster in line with a kubeconfig.
pub struct KubeconfigSource {
    path: PathBuf,
    roster: Roster,
    contexts: watch::Receiver<FleetContexts>,
    _following: AbortOnDropHandle<()>,
    known: FleetContexts,
    logging_in: BTreeMap<String, ExecTask>,
    generations: Generations,
    logins: mpsc::Sender<ExecResult>,
    queue: mpsc::Receiver<ExecResult>,
}

/// A cluster whose login is up to a plugin, which is run again and again.
struct ExecTask {
    generation: Generation,
    plugin: ExecPlugin,
    /// What it has said last.
    login: Option<UserCredentials>,
    /// Whether it has ended once.
    ended: bool,
    again: Arc<Notify>,
    waiting: WaitingMembers,
    _running: AbortOnDropHandle<()>,
}

/// What came of a plugin.
struct ExecResult {
    cluster: String,
    generation: Generation,
    outcome: Result<UserCredentials, String>,
}

impl KubeconfigSource {
    /// A source of the contexts of the file at `path`, which is read again every `interval`. The fleet is known when
    /// all contexts have been seen once, and their plugins have been run or have taken too long.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path, interval: Duration, roster: Roster) -> Result<Self, FleetFileError> {
        let first = contexts::read(path)?;
        let (sender, contexts) = watch::channel(first.clone());
        let what = format!("--fleet-kubeconfig={}", path.display());
        let followed = path.to_owned();
        let read = move || contexts::read(&followed);
        let following = file::follow(what, first, interval, read, move |contexts| {
            sender.send_replace(contexts);
            ready(Ok::<_, Infallible>(()))
        });
        let (logins, queue) = mpsc::channel(QUEUE);
        Ok(Self {
            path: path.to_owned(),
            roster,
            contexts,
            _following: following,
            known: FleetContexts::new(),
            logging_in: BTreeMap::new(),
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
            if self.logging_in.values().all(|logging_in| logging_in.ended) {
                self.roster.set_synced();
            }
            let synced = self.roster.is_synced();
            tokio::select! {
                Ok(()) = self.contexts.changed() => {
                    let contexts = self.contexts.borrow_and_update().clone();
                    self.apply_contexts(contexts);
                }
                Some(logged_in) = self.queue.recv() => self.handle_file(logged_in),
                Some(refused) = self.roster.refused() => self.handle_token_refusal(refused),
                () = sleep_until(until), if !synced => {
                    tracing::warn!("exec plugins have not ended; their clusters join when they have");
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
            self.logging_in.remove(&name);
            self.roster.remove(&name);
        }
        for (name, context) in &contexts {
            if self.known.get(name) != Some(context) {
                let credentials = match context {
                    Ok(Context { credentials, plugin: Some(plugin), .. }) => {
                        self.handle_exec_result(name, plugin).map(|login| credentials.logged_in(login))
                    }
                    Ok(Context { credentials, plugin: None, .. }) => {
                        self.logging_in.remove(name);
                        Ok(credentials.clone())
                    }
                    Err(complaint) => {
                        self.logging_in.remove(name);
                        Err(NoCredentials { cause: Cause::CredentialsMalformed, message: complaint.clone() })
                    }
                };
                self.put(name, credentials);
            }
        }
        self.known = contexts;
    }

    /// What the plugin of a cluster has said. One that is new is run.
    fn handle_exec_result(
        &mut self,
        name: &str,
        plugin: &ExecPlugin,
    ) -> Result<UserCredentials, NoCredentials> {
        if let Some(logging_in) = self.logging_in.get(name).filter(|known| known.plugin == *plugin) {
            return logging_in.login.clone().ok_or_else(NoCredentials::unknown);
        }
        let (generation, again) = (self.generations.next(), Arc::new(Notify::new()));
        let running =
            run_again(name.to_owned(), generation, plugin.clone(), again.clone(), self.logins.clone());
        let logging_in = ExecTask {
            generation,
            plugin: plugin.clone(),
            login: None,
            ended: false,
            again,
            waiting: WaitingMembers::default(),
            _running: AbortOnDropHandle::new(tokio::spawn(running)),
        };
        self.logging_in.insert(name.to_owned(), logging_in);
        Err(NoCredentials::unknown())
    }

    fn handle_file(&mut self, ExecResult { cluster, generation, outcome }: ExecResult) {
        let logging_in = self.logging_in.get_mut(&cluster).filter(|known| known.generation == generation);
        let (Some(logging_in), Some(Ok(context))) = (logging_in, self.known.get(&cluster)) else { return };
        logging_in.ended = true;
        let waiting = std::mem::take(&mut logging_in.waiting);
        let credentials = match outcome {
            Ok(login) => {
                logging_in.login = Some(login.clone());
                Ok(context.credentials.logged_in(login))
            }
            Err(message) => Err(NoCredentials { cause: Cause::PluginFailed, message }),
        };
        self.put(&cluster, credentials);
        drop(waiting);
    }

    /// Has the plugin run, or reads the file at once; the member learns by the roster whether that has brought another
    /// login.
    fn handle_token_refusal(&mut self, refused: TokenRefusal) {
        let cluster = &refused.cluster;
        tracing::info!(cluster, "the cluster refuses whom it is asked as; looking for newer credentials");
        if let Some(logging_in) = self.logging_in.get_mut(cluster) {
            logging_in.waiting.push(refused);
            logging_in.again.notify_one();
        } else if let Ok(contexts) = contexts::read(&self.path) {
            self.apply_contexts(contexts);
        }
    }

    /// A context has neither a uid nor anybody who says that its cluster is not Ready.
    fn put(&mut self, name: &str, credentials: Result<Credentials, NoCredentials>) {
        self.roster.put(name, "", true, credentials);
    }
}

/// Runs a plugin at once, before each of its logins ends, and when it is told to.
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
            Ok(PluginCredentials { login, until }) => {
                failing = None;
                (Ok(login), until.map(renewal))
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
        // A cluster that refuses every login must not have it run all the time.
        sleep(pause.saturating_sub(begun.elapsed())).await;
    }
}

/// After what time a login is renewed.
fn renewal(until: SystemTime) -> Duration {
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_sub(AHEAD).max(left / 2).max(PAUSES.0)
}
