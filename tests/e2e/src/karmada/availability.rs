//! Continuous check that the aggregation layer reports the adapter's APIs as available.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::{API_SERVICES, API_SERVICES_PATH, ControlPlane, SOON};
use crate::api::{Api, until};

/// Interval of checks. Each check changes an annotation, and each change makes kube-aggregator probe the backend.
/// kube-aggregator's own 30 s would miss a fault.
const PERIOD: Duration = Duration::from_secs(1);
/// The annotation that each check changes.
const ANNOTATION: &str = "karmada-metrics-adapter/looked";

/// Checks the adapter's APIServices from now on.
pub struct AvailabilityWatch {
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    checks: usize,
    /// Messages of conditions that were False, also for a short time.
    unavailable: BTreeSet<String>,
}

impl AvailabilityWatch {
    /// Starts the checks.
    pub fn start(plane: &ControlPlane) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(plane.cluster.api.clone(), seen.clone()));
        Self { seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Checks that all APIServices were available until the third check from now.
    ///
    /// # Errors
    /// If one was unavailable (with the message of its condition), or a check failed.
    pub async fn check_available(&self) -> anyhow::Result<()> {
        let checks = || self.seen.lock().expect("not poisoned").checks;
        let before = checks();
        until("three checks of the APIServices", SOON, async || {
            ensure!(checks() >= before + 3, "only {} checks", checks() - before);
            Ok(())
        })
        .await?;
        let unavailable = self.seen.lock().expect("not poisoned").unavailable.clone();
        ensure!(unavailable.is_empty(), "temporarily unavailable: {unavailable:?}");
        Ok(())
    }
}

/// The reason why an APIService is unavailable. `None` if it is available.
pub fn unavailable(service: &Value) -> Option<String> {
    match condition(service) {
        Some(condition) if condition["status"] == "True" => None,
        Some(condition) => Some(format!("{}: {condition}", service["metadata"]["name"])),
        None => Some("there is no condition yet".to_owned()),
    }
}

/// The condition `Available` of an APIService.
fn condition(service: &Value) -> Option<&Value> {
    let conditions = service["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == "Available")
}

async fn watch(api: Api, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The transition time of each condition: it shows a change between two checks.
    let mut since = BTreeMap::new();
    for number in 0_u64.. {
        ticks.tick().await;
        let found = check(&api, number).await;
        let mut seen = seen.lock().expect("not poisoned");
        match found {
            Ok(services) => {
                seen.checks += 1;
                for (name, service) in services {
                    seen.unavailable.extend(unavailable(&service));
                    let changed =
                        condition(&service).map(|condition| condition["lastTransitionTime"].clone());
                    let first = since.entry(name).or_insert_with(|| changed.clone());
                    if *first != changed {
                        seen.unavailable
                            .insert(format!("{name}: unavailable between {first:?} and {changed:?}"));
                    }
                }
            }
            Err(error) => {
                seen.unavailable.insert(format!("{error:#}"));
            }
        }
    }
}

/// Changes the annotation of the adapter's APIServices and returns the APIServices.
async fn check(api: &Api, number: u64) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let annotation = json!({"metadata": {"annotations": {ANNOTATION: number.to_string()}}});
    let mut services = Vec::new();
    for name in API_SERVICES {
        services.push((name, api.patch(&format!("{API_SERVICES_PATH}/{name}"), &annotation).await?));
    }
    Ok(services)
}
