//! A fault in one member while all applications are under load. With a metric of an object, each autoscaler would notice
//! missing values. With metrics of pods, a FederatedHPA counts pods without a value as idle, within its tolerance.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;

use crate::karmada::availability::AvailabilityWatch;
use crate::member::Member;
use crate::process::Process;
use crate::say;
use crate::stage::{MEMBERS, Stage};

/// The index of the member with the fault.
const FAILED: usize = 1;
/// Duration of a fault: longer than every deadline involved, and than the windows of the autoscalers' scale-downs.
const DURATION: Duration = Duration::from_secs(20);
/// Maximum duration of a query. The adapter's deadline for a member is 5 s; the rest is for a busy machine.
const SLOWEST: Duration = Duration::from_secs(10);
/// Window of the HorizontalPodAutoscaler's scale-downs while a cluster is left out. The HorizontalPodAutoscaler does not know
/// clusters, so a missing cluster looks idle. The default is five minutes.
const SCALE_DOWN_WINDOW: Duration = Duration::from_secs(120);
/// Interval of queries meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn member_api_server_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    test_fault(stage, |member| &mut member.cluster.api_server, Fault::Frozen, Missing::LeftOut).await
}

pub async fn member_adapter_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    test_fault(stage, |member| &mut member.adapter, Fault::Frozen, Missing::LastKnown).await
}

pub async fn member_prometheus_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    test_fault(stage, |member| &mut member.prometheus, Fault::Frozen, Missing::LastKnown).await
}

pub async fn member_adapter_is_killed(stage: &mut Stage) -> anyhow::Result<()> {
    test_fault(stage, |member| &mut member.adapter, Fault::Killed, Missing::LastKnown).await
}

enum Fault {
    Frozen,
    Killed,
}

/// The values of the failed member in responses.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    /// The values are missing: the API server does not respond, and the FederatedHPA leaves the cluster out too.
    LeftOut,
    /// The last-known values are used: the replicas still count.
    LastKnown,
}

/// Observations of the queries during a fault.
#[derive(Default)]
struct Seen {
    queries: usize,
    slowest: Duration,
    warned: usize,
}

async fn test_fault(
    stage: &mut Stage,
    process: fn(&mut Member) -> &mut Process,
    fault: Fault,
    missing: Missing,
) -> anyhow::Result<()> {
    stage.steady().await?;
    if missing == Missing::LeftOut {
        stage.scaling.stabilize(&stage.plane, SCALE_DOWN_WINDOW).await?;
    }
    let availability = AvailabilityWatch::start(&stage.plane);
    let failed = process(&mut stage.members[FAILED]);
    match fault {
        Fault::Frozen => {
            say(&format!("SIGSTOP to {}", failed.name()));
            failed.freeze()?;
        }
        Fault::Killed => {
            say(&format!("SIGKILL to {}", failed.name()));
            failed.kill();
        }
    }
    let seen = query_during_fault(stage, missing).await?;
    let Seen { queries, slowest, warned } = seen;
    say(&format!(
        "{queries} queries, the slowest in {slowest:.1?}, {warned} with a warning for {}",
        MEMBERS[FAILED]
    ));
    say("ending the fault, and waiting for a complete response");
    process(&mut stage.members[FAILED]).ensure_running()?;
    stage.until_complete(&MEMBERS).await?;
    availability.check_available().await
}

/// Sends queries while the fault lasts, and checks both autoscalers.
async fn query_during_fault(stage: &mut Stage, missing: Missing) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let began = Instant::now();
    while began.elapsed() < DURATION {
        let start = Instant::now();
        let answer = stage.query().await?;
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{} after {took:?}: {text}", answer.status);
        ensure!(took < SLOWEST, "a response took {took:?}");
        ensure!(text.contains(MEMBERS[1 - FAILED]), "the healthy member is missing: {text}");
        let warnings = answer.warnings();
        let present = text.contains(&format!("\"{}\"", MEMBERS[FAILED]));
        if warnings.iter().any(|warning| warning.contains(MEMBERS[FAILED])) {
            seen.warned += 1;
            ensure!(present == (missing == Missing::LastKnown), "after {warnings:?}: {text}");
        } else {
            // A response that was already in flight may still be complete.
            ensure!(present && seen.warned == 0, "there is no warning for {}: {text}", MEMBERS[FAILED]);
        }
        seen.queries += 1;
        seen.slowest = seen.slowest.max(took);
        stage.check_steady().await?;
        sleep(PAUSE).await;
    }
    ensure!(seen.warned > 0, "no response had a warning for {}", MEMBERS[FAILED]);
    Ok(seen)
}
