//! The control plane's client, another one whenever its kubeconfig changes. Nothing in the request path is tried
//! again: the caller has a deadline.

pub mod watching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use crate::config::Rate;
use crate::process::file;
use crate::process::rate::Bucket;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How much longer than a watch an answer may be silent.
const MARGIN: Duration = Duration::from_secs(10);

/// The current client of a control plane. A kubeconfig and the files that it refers to are followed: a change makes
/// another client, and what cannot be used is refused. A Pod's service account is followed by the client itself.
#[derive(Clone)]
pub struct Clients {
    current: watch::Receiver<Client>,
    _following: Option<Arc<AbortOnDropHandle<()>>>,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The kubeconfig cannot be used.
    #[error("{flag}: the kubeconfig cannot be used: {reason}")]
    Kubeconfig {
        /// The flag that names it.
        flag: &'static str,
        /// Why, without any of its content.
        reason: String,
    },
    /// A file that the kubeconfig refers to cannot be read.
    #[error("{flag}: the kubeconfig refers to {}, which cannot be read: {source}", .path.display())]
    File {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of authorities, or the data in its place, has none.
    #[error("{flag}: the kubeconfig's certificate authority is no PEM certificate")]
    Authority {
        /// The flag that names the kubeconfig.
        flag: &'static str,
    },
    /// No kubeconfig is given and the process does not run in a cluster.
    #[error(
        "--kubeconfig is not set, and neither the environment's kubeconfig nor a Pod's service account can be used: {0}"
    )]
    Environment(#[source] kube::config::InferConfigError),
    /// A client cannot be made.
    #[error("{flag}: no client can be made of the kubeconfig: {source}")]
    Client {
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// A kubeconfig, and the content of all files that it is made of.
#[derive(Clone)]
struct Sources {
    kubeconfig: Kubeconfig,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Clients {
    /// Clients of the kubeconfig that `flag` names, which is read again every `interval`; `None` means the
    /// environment's, else the Pod's service account. A connection on which an answer is silent for longer than
    /// `watch_timeout`, and then some, counts as dead. All of them together keep to `rate`.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read or used.
    pub async fn open(
        flag: &'static str,
        kubeconfig: Option<&Path>,
        interval: Duration,
        watch_timeout: Duration,
        rate: Option<Rate>,
    ) -> Result<Self, ControlError> {
        let bucket = rate.and_then(Bucket::new).map(Arc::new);
        let Some(path) = kubeconfig.map(Path::to_owned) else {
            let config = Config::infer().await.map_err(ControlError::Environment)?;
            let client = connect(flag, config, watch_timeout)?;
            let (_, current) = watch::channel(limited(client, bucket.as_ref()));
            return Ok(Self { current, _following: None });
        };
        let sources = Sources::read(flag, &path)?;
        let client = sources.client(flag, watch_timeout).await?;
        let (sender, current) = watch::channel(limited(client, bucket.as_ref()));
        let what = format!("{flag}={}", path.display());
        let read = move || Sources::read(flag, &path);
        let following = file::follow(what, sources, interval, read, move |sources| {
            let (sender, bucket) = (sender.clone(), bucket.clone());
            async move {
                let client = sources.client(flag, watch_timeout).await?;
                sender.send_replace(limited(client, bucket.as_ref()));
                Ok::<_, ControlError>(())
            }
        });
        Ok(Self { current, _following: Some(Arc::new(following)) })
    }

    /// The client that is to be used now.
    pub fn current(&self) -> Client {
        self.current.borrow().clone()
    }

    /// The same, and whoever waits for [`Self::changed`] waits for the one after.
    pub fn renewed(&mut self) -> Client {
        self.current.borrow_and_update().clone()
    }

    /// Waits for another client than the last [`Self::renewed`] one.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Sources {
    fn read(flag: &'static str, path: &Path) -> Result<Self, ControlError> {
        // Read first, so that a change between the two readings is noticed the next time.
        let mut files = BTreeMap::from([(path.to_owned(), std::fs::read(path).unwrap_or_default())]);
        let kubeconfig = Kubeconfig::read_from(path)
            .map_err(|error| ControlError::Kubeconfig { flag, reason: without_content(&error) })?;
        for path in references(&kubeconfig) {
            let content = std::fs::read(&path).map_err(|source| ControlError::File {
                flag,
                path: path.clone(),
                source,
            })?;
            files.insert(path, content);
        }
        Ok(Self { kubeconfig, files })
    }

    async fn client(&self, flag: &'static str, watch_timeout: Duration) -> Result<Client, ControlError> {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(self.kubeconfig.clone(), &options).await;
        let config =
            config.map_err(|error| ControlError::Kubeconfig { flag, reason: without_content(&error) })?;
        connect(flag, config, watch_timeout)
    }
}

impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

fn connect(flag: &'static str, mut config: Config, watch_timeout: Duration) -> Result<Client, ControlError> {
    if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err(ControlError::Authority { flag });
    }
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(watch_timeout + MARGIN);
    // Else the time that a connection was idle would count.
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|source| ControlError::Client { flag, source: Box::new(source) })
}

/// The client, each of whose requests takes a token of the bucket first. kube has no limit of its own.
fn limited(client: Client, bucket: Option<&Arc<Bucket>>) -> Client {
    let Some(bucket) = bucket.cloned() else { return client };
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request| {
        let (client, bucket) = (client.clone(), bucket.clone());
        async move {
            bucket.token().await;
            client.send(request).await
        }
    });
    Client::new(service, namespace)
}

/// What is wrong with a kubeconfig. Where its YAML is malformed, kube shows the lines, and tokens may be in them.
pub fn without_content(error: &KubeconfigError) -> String {
    let text = error.to_string();
    let KubeconfigError::Parse(_) = error else { return text };
    let mut words = text.split_whitespace().skip_while(|word| *word != "line").skip(1);
    let line = words.next().and_then(|number| number.trim_matches(':').parse::<u64>().ok());
    line.map_or_else(|| "it is no valid YAML".to_owned(), |line| format!("line {line} is no valid YAML"))
}

/// The files of the current context; what other contexts refer to is not used and may be missing.
fn references(kubeconfig: &Kubeconfig) -> Vec<PathBuf> {
    let current = kubeconfig.current_context.as_ref();
    let context = kubeconfig.contexts.iter().find(|named| Some(&named.name) == current);
    let Some(context) = context.and_then(|named| named.context.as_ref()) else { return Vec::new() };
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == context.cluster);
    let user = kubeconfig.auth_infos.iter().find(|named| Some(&named.name) == context.user.as_ref());
    let mut files = Vec::new();
    if let Some(cluster) = cluster.and_then(|named| named.cluster.as_ref())
        && cluster.certificate_authority_data.is_none()
    {
        files.extend(cluster.certificate_authority.as_ref());
    }
    if let Some(user) = user.and_then(|named| named.auth_info.as_ref()) {
        if user.client_certificate_data.is_none() {
            files.extend(user.client_certificate.as_ref());
        }
        if user.client_key_data.is_none() {
            files.extend(user.client_key.as_ref());
        }
        if user.token.is_none() {
            files.extend(user.token_file.as_ref());
        }
    }
    files.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}
