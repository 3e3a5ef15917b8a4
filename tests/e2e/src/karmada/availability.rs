//! Whether the aggregation layer finds the adapter's APIs available, all the time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::{API_SERVICES, API_SERVICES_PATH, ControlPlane, SOON};
use crate::api::{Api, until};

/// How often it is looked. Each look changes an annotation, and each change makes kube-aggregator probe the backend: its own 30 s
/// would miss a fault.
const PERIOD: Duration = Duration::from_secs(1);
/// Our annotation.
const ANNOTATION: &str = "karmada-metrics-adapter/looked";

/// Looks at the adapter's APIServices from now on.
pub struct AvailabilityWatch {
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    looks: usize,
    /// What conditions said that were not true.
    unavailable: BTreeSet<String>,
}

impl AvailabilityWatch {
    /// Begins.
    pub fn start(plane: &ControlPlane) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(plane.cluster.api.clone(), seen.clone()));
        Self { seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Says whether all of them were available whenever one looked, at least three times.
    ///
    /// # Errors
    /// If one was not, with what its condition said, or nobody could look.
    pub async fn held(&self) -> anyhow::Result<()> {
        until("three looks at the APIServices", SOON, async || {
            let looks = self.seen.lock().expect("no holder panics").looks;
            ensure!(looks >= 3, "only {looks} looks");
            Ok(())
        })
        .await?;
        let unavailable = self.seen.lock().expect("no holder panics").unavailable.clone();
        ensure!(unavailable.is_empty(), "not available for a time: {unavailable:?}");
        Ok(())
    }
}

/// Why an APIService is not available.
pub fn unavailable(service: &Value) -> Option<String> {
    let conditions = service["status"]["conditions"].as_array();
    let condition = conditions.into_iter().flatten().find(|condition| condition["type"] == "Available");
    match condition {
        Some(condition) if condition["status"] == "True" => None,
        Some(condition) => Some(format!("{}: {condition}", service["metadata"]["name"])),
        None => Some("there is no condition yet".to_owned()),
    }
}

async fn watch(api: Api, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u64.. {
        ticks.tick().await;
        let found = async {
            for name in API_SERVICES {
                let annotation = json!({"metadata": {"annotations": {ANNOTATION: look.to_string()}}});
                api.patch(&format!("{API_SERVICES_PATH}/{name}"), &annotation).await?;
            }
            let services = api.get(API_SERVICES_PATH).await?;
            let services = services["items"].as_array().context("a list has items")?;
            let ours = services
                .iter()
                .filter(|service| API_SERVICES.iter().any(|name| service["metadata"]["name"] == *name));
            anyhow::Ok(ours.filter_map(unavailable).collect::<Vec<_>>())
        };
        let found = found.await;
        let mut seen = seen.lock().expect("no holder panics");
        match found {
            Ok(found) => {
                seen.looks += 1;
                seen.unavailable.extend(found);
            }
            Err(error) => {
                seen.unavailable.insert(format!("{error:#}"));
            }
        }
    }
}
