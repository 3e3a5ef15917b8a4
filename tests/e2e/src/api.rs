//! Requests of the tests to kube-apiservers, directly and with kubectl.

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

/// Timeout of one request. No test expects a request to take longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Interval of checks while waiting.
const LOOK: Duration = Duration::from_millis(200);

/// A client with administrator permissions in one cluster.
#[derive(Clone, Debug)]
pub struct Api {
    client: ApiClient,
    kubectls: Vec<Kubectl>,
    directory: PathBuf,
}

impl Api {
    /// A client that keeps its files in `directory`. The first kubectl applies objects.
    pub fn new(client: ApiClient, kubectls: Vec<Kubectl>, directory: &Path) -> Self {
        Self { client, kubectls, directory: directory.to_owned() }
    }

    /// The HTTPS client.
    pub fn client(&self) -> &ApiClient {
        &self.client
    }

    /// All installed kubectls.
    pub fn kubectls(&self) -> &[Kubectl] {
        &self.kubectls
    }

    /// Runs kubectl until it exits and returns its stdout.
    ///
    /// # Errors
    /// If it fails; the error has its stderr.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectls.first().context("kubectl is not installed")?.run(arguments).await
    }

    /// Applies objects with kubectl, from a file with this name.
    ///
    /// # Errors
    /// If the file cannot be written or an object is rejected.
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
    /// If one is rejected, or is not served within one minute.
    pub async fn define(&self, name: &str, definitions: &[Value]) -> anyhow::Result<()> {
        self.apply(name, definitions).await?;
        let names = definitions.iter().filter_map(|definition| definition["metadata"]["name"].as_str());
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinition"];
        self.kubectl(&wait.into_iter().chain(names).collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// The object at a path.
    ///
    /// # Errors
    /// If the response is not a 200 with JSON within 30 s.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// Creates an object and returns it as created.
    ///
    /// # Errors
    /// If the object is rejected, or there is no response within 30 s.
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

    /// Deletes an object without a grace period.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let options = json!({"gracePeriodSeconds": 0});
        self.send(Method::DELETE, path, Some(("application/json", &options))).await?;
        Ok(())
    }

    /// The response to a GET, with any status.
    ///
    /// # Errors
    /// If there is no response within 30 s.
    pub async fn answer(&self, path: &str) -> anyhow::Result<Answer> {
        timeout(LIMIT, self.client.get(path)).await.with_context(|| format!("no response to {path}"))?
    }

    /// Waits until the object at a path satisfies `holds`, and returns it.
    ///
    /// # Errors
    /// If it does not within `limit`; the error has the last object.
    pub async fn until(
        &self,
        path: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        until(path, limit, async || {
            let found = self.get(path).await?;
            ensure!(holds(&found), "the object is still {found}");
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

/// Repeats an action until it succeeds, and returns its result.
///
/// # Errors
/// If it does not succeed within `limit`; the error is the last one, with `what` as context.
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

/// Returns an error with the body of the response unless its status is a success.
fn expect_success(answer: &Answer) -> anyhow::Result<()> {
    if answer.status.is_success() {
        return Ok(());
    }
    bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim())
}
