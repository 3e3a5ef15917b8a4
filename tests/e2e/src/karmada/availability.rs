//! Whether the aggregation layer finds the adapter's APIs available, all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
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
    /// What conditions said that were not true, or not all the time.
    unavailable: BTreeSet<String>,
}

impl AvailabilityWatch {
    /// Begins.
    pub fn start(plane: &ControlPlane) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(plane.cluster.api.clone(), seen.clone()));
        Self { seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Says whether all of them were available all the time, until three looks from now.
    ///
    /// # Errors
    /// If one was not, with what its condition said, or nobody could look.
    pub async fn held(&self) -> anyhow::Result<()> {
        let looks = || self.seen.lock().expect("no holder panics").looks;
        let before = looks();
        until("three looks at the APIServices", SOON, async || {
            ensure!(looks() >= before + 3, "only {} looks", looks() - before);
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
    match condition(service) {
        Some(condition) if condition["status"] == "True" => None,
        Some(condition) => Some(format!("{}: {condition}", service["metadata"]["name"])),
        None => Some("there is no condition yet".to_owned()),
    }
}

/// What says whether an APIService is available.
fn condition(service: &Value) -> Option<&Value> {
    let conditions = service["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == "Available")
}

async fn watch(api: Api, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Since when each has been available: what is over between two looks shows here.
    let mut since = BTreeMap::new();
    for number in 0_u64.. {
        ticks.tick().await;
        let found = look(&api, number).await;
        let mut seen = seen.lock().expect("no holder panics");
        match found {
            Ok(services) => {
                seen.looks += 1;
                for (name, service) in services {
                    seen.unavailable.extend(unavailable(&service));
                    let changed =
                        condition(&service).map(|condition| condition["lastTransitionTime"].clone());
                    let first = since.entry(name).or_insert_with(|| changed.clone());
                    if *first != changed {
                        seen.unavailable.insert(format!("{name}: not always since {first:?}, {changed:?}"));
                    }
                }
            }
            Err(error) => {
                seen.unavailable.insert(format!("{error:#}"));
            }
        }
    }
}

/// The adapter's APIServices, each of which is changed first.
async fn look(api: &Api, number: u64) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let annotation = json!({"metadata": {"annotations": {ANNOTATION: number.to_string()}}});
    let mut services = Vec::new();
    for name in API_SERVICES {
        services.push((name, api.patch(&format!("{API_SERVICES_PATH}/{name}"), &annotation).await?));
    }
    Ok(services)
}
