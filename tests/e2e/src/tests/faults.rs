//! One member falls ill while all applications are under load. On the metric of an object each autoscaler would see that values
//! are missing; on metrics of pods a FederatedHPA takes pods without a value for idle ones within its tolerance.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;

use crate::karmada::availability::AvailabilityWatch;
use crate::member::Member;
use crate::process::Process;
use crate::say;
use crate::stage::{MEMBERS, Stage};

/// The member that falls ill.
const ILL: usize = 1;
/// How long a fault lasts: longer than any deadline on the way, and than autoscalers wait before they scale down.
const LASTS: Duration = Duration::from_secs(20);
/// How long a query may take: the adapter's deadline for a member is 5 s; the rest is what a busy machine needs.
const SLOWEST: Duration = Duration::from_secs(10);
/// How long the HorizontalPodAutoscaler waits before it scales down while a cluster is left out: it knows of no clusters, and what
/// is left out looks idle to it. By default it waits five minutes.
const LONGER: Duration = Duration::from_secs(120);
/// How often it is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn a_members_api_server_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    endure(stage, |member| &mut member.cluster.api_server, Fault::Frozen, Missing::LeftOut).await
}

pub async fn a_members_adapter_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    endure(stage, |member| &mut member.adapter, Fault::Frozen, Missing::StoodInFor).await
}

pub async fn a_members_prometheus_freezes(stage: &mut Stage) -> anyhow::Result<()> {
    endure(stage, |member| &mut member.prometheus, Fault::Frozen, Missing::StoodInFor).await
}

pub async fn a_members_adapter_is_killed(stage: &mut Stage) -> anyhow::Result<()> {
    endure(stage, |member| &mut member.adapter, Fault::Killed, Missing::StoodInFor).await
}

enum Fault {
    Frozen,
    Killed,
}

/// What becomes of the ill member's values.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    /// They are not in the answer: its API server does not answer, and the FederatedHPA leaves the cluster out too.
    LeftOut,
    /// The last known ones are: its replicas still count.
    StoodInFor,
}

/// What the queries during a fault showed.
#[derive(Default)]
struct Seen {
    queries: usize,
    slowest: Duration,
    warned: usize,
}

async fn endure(
    stage: &mut Stage,
    process: fn(&mut Member) -> &mut Process,
    fault: Fault,
    missing: Missing,
) -> anyhow::Result<()> {
    stage.steady().await?;
    if missing == Missing::LeftOut {
        stage.scaling.stabilize(&stage.plane, LONGER).await?;
    }
    let availability = AvailabilityWatch::start(&stage.plane);
    let ill = process(&mut stage.members[ILL]);
    match fault {
        Fault::Frozen => {
            say(&format!("SIGSTOP to {}", ill.name()));
            ill.freeze()?;
        }
        Fault::Killed => {
            say(&format!("SIGKILL to {}", ill.name()));
            ill.kill();
        }
    }
    let seen = ask(stage, missing).await?;
    let Seen { queries, slowest, warned } = seen;
    say(&format!(
        "{queries} queries, the slowest in {slowest:.1?}, {warned} with a warning that names {}",
        MEMBERS[ILL]
    ));
    say("ending it, and waiting for a complete answer");
    process(&mut stage.members[ILL]).heal()?;
    stage.until_answered(&MEMBERS).await?;
    availability.held().await
}

/// Asks for as long as the fault lasts, and looks at both autoscalers.
async fn ask(stage: &mut Stage, missing: Missing) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let began = Instant::now();
    while began.elapsed() < LASTS {
        let asked = Instant::now();
        let answer = stage.query().await?;
        let took = asked.elapsed();
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{} after {took:?}: {text}", answer.status);
        ensure!(took < SLOWEST, "an answer took {took:?}");
        ensure!(text.contains(MEMBERS[1 - ILL]), "the healthy member is missing: {text}");
        let warnings = answer.warnings();
        let present = text.contains(&format!("\"{}\"", MEMBERS[ILL]));
        if warnings.iter().any(|warning| warning.contains(MEMBERS[ILL])) {
            seen.warned += 1;
            ensure!(present == (missing == Missing::StoodInFor), "after {warnings:?}: {text}");
        } else {
            // An answer that was under way may still be complete.
            ensure!(present && seen.warned == 0, "nothing says that {} is ill: {text}", MEMBERS[ILL]);
        }
        seen.queries += 1;
        seen.slowest = seen.slowest.max(took);
        stage.held().await?;
        sleep(PAUSE).await;
    }
    ensure!(seen.warned > 0, "no answer said that {} is ill", MEMBERS[ILL]);
    Ok(seen)
}
