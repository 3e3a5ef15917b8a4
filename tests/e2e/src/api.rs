//! What the tests ask of kube-apiservers beside kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use serde_json::{Value, json};
use testkit::Kubectl;
use testkit::api_client::{Answer, ApiClient};
use tokio::time::{sleep, timeout};

/// How long one request may take; what takes longer has met a fault that its test does not expect.
const LIMIT: Duration = Duration::from_secs(30);
/// How often is looked again at what is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// An administrator of one cluster.
#[derive(Clone, Debug)]
pub struct Api {
    client: ApiClient,
    kubectls: Vec<Kubectl>,
    directory: PathBuf,
}

impl Api {
    /// An administrator who keeps files in `directory`; the first kubectl is the one that applies objects.
    pub fn new(client: ApiClient, kubectls: Vec<Kubectl>, directory: &Path) -> Self {
        Self { client, kubectls, directory: directory.to_owned() }
    }

    /// The client itself.
    pub fn client(&self) -> &ApiClient {
        &self.client
    }

    /// Each kubectl that is there.
    pub fn kubectls(&self) -> &[Kubectl] {
        &self.kubectls
    }

    /// Runs kubectl to its end and returns what it prints.
    ///
    /// # Errors
    /// If it fails, with what it says.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectls.first().context("there is no kubectl")?.run(arguments).await
    }

    /// Applies objects with kubectl; their file keeps its name.
    ///
    /// # Errors
    /// If it cannot be written or is refused.
    pub async fn apply(&self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        let file = self.directory.join(format!("{name}.json"));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&file, serde_json::to_vec_pretty(&list)?)?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await?;
        Ok(())
    }

    /// Applies CustomResourceDefinitions and waits until their kinds are served.
    ///
    /// # Errors
    /// If one is refused, or is not served within a minute.
    pub async fn define(&self, name: &str, definitions: &[Value]) -> anyhow::Result<()> {
        self.apply(name, definitions).await?;
        let names = definitions.iter().filter_map(|definition| definition["metadata"]["name"].as_str());
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinition"];
        self.kubectl(&wait.into_iter().chain(names).collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// What is at a path.
    ///
    /// # Errors
    /// If it does not answer 200 with JSON within 30 s.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// Makes an object, and returns it as it is then.
    ///
    /// # Errors
    /// If it is refused, or there is no answer within 30 s.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(("application/json", object))).await
    }

    /// Merges a patch into an object.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn patch(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, path, Some(("application/merge-patch+json", patch))).await
    }

    /// Deletes an object at once, without grace.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let options = json!({"gracePeriodSeconds": 0});
        self.send(Method::DELETE, path, Some(("application/json", &options))).await?;
        Ok(())
    }

    /// The answer to a GET, whatever its status.
    ///
    /// # Errors
    /// If there is none within 30 s.
    pub async fn answer(&self, path: &str) -> anyhow::Result<Answer> {
        timeout(LIMIT, self.client.get(path)).await.with_context(|| format!("no answer to {path}"))?
    }

    /// Waits until what is at a path is as it should be, and returns it.
    ///
    /// # Errors
    /// If it is not within `limit`; the error has what was there in the end.
    pub async fn until(
        &self,
        path: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        until(path, limit, async || {
            let found = self.get(path).await?;
            ensure!(holds(&found), "it is still {found}");
            Ok(found)
        })
        .await
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> anyhow::Result<Value> {
        let request = Request::builder().method(&method).uri(path).header(ACCEPT, "application/json");
        let request = match body {
            Some((content_type, body)) => {
                request.header(CONTENT_TYPE, content_type).body(serde_json::to_vec(body)?.into())?
            }
            None => request.body(Bytes::new())?,
        };
        let answer = timeout(LIMIT, self.client.send(request)).await;
        let answer = answer.map_err(anyhow::Error::from).flatten();
        let answer = answer.with_context(|| format!("{method} {path}"))?;
        expect_success(&answer).with_context(|| format!("{method} {path}"))?;
        answer.json()
    }
}

/// Tries something until it succeeds, and returns what it gives.
///
/// # Errors
/// If it has not within `limit`; the error is the last one, and says what was waited for.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    attempt: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return Ok(found),
            Err(error) if began.elapsed() > limit => {
                return Err(error.context(format!("{what}: not within {limit:?}")));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// An error that says what the server said, unless it said yes.
fn expect_success(answer: &Answer) -> anyhow::Result<()> {
    if answer.status.is_success() {
        return Ok(());
    }
    bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim())
}
