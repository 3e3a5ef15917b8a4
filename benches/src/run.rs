//! A complete run: all fleets, one after the other, and all scenarios of each fleet.

use anyhow::Context as _;

use crate::fleet::{Fleet, Size};
use crate::measure::{self, Effort, FirstComplete, first_complete, unless_reference_failed};
use crate::program::{Binary, Kind, Program};
use crate::results::{Measured, Profile, Results};
use crate::scenario::{Api, Scenario, Stage};
use crate::{profile, report};

/// Measures all stages with all binaries. Prints each result and adds it to `results`. Calls `save` with the results after each
/// stage.
///
/// # Errors
/// If the floor or a build of the adapter fails, or `save` fails. A reference that fails is left out, and its error is printed.
pub async fn run(
    results: &mut Results,
    stages: &[Stage],
    binaries: &[Binary],
    effort: Effort,
    save: impl Fn(&Results) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A reference that cannot query all members of a fleet once is not tried again on a fleet of that size.
    let mut too_large: Option<Size> = None;
    let count: usize = stages.iter().map(|stage| stage.scenarios.len()).sum();
    for stage in stages {
        let fleet = Fleet::start(stage.size, stage.members.of_member(), stage.metrics).await?;
        let tried = |binary: &&Binary| binary.kind != Kind::Reference || too_large != Some(stage.size);
        let mut tried: Vec<&Binary> = binaries.iter().filter(tried).collect();
        if stage.start {
            let mut started = Vec::new();
            for binary in tried {
                if let Some(start) = measure::start(&fleet, stage, binary, effort).await? {
                    println!("{}", report::start(&start));
                    results.starts.push(start);
                    started.push(binary);
                }
            }
            tried = started;
        }
        let programs = start_all(&fleet, stage, &tried).await?;
        if programs.len() < binaries.len() {
            too_large = Some(stage.size);
        }
        for scenario in &stage.scenarios {
            let figures = measure::scenario(&fleet, scenario, &programs, effort).await?;
            let measured = Measured { scenario: scenario.clone(), figures };
            println!("[{}/{count}] {}", results.scenarios.len() + 1, report::scenario(&measured));
            results.scenarios.push(measured);
        }
        if let Some(scenario) = &stage.profile {
            for program in programs.iter().filter(|program| program.kind != Kind::Reference) {
                match profile(scenario, program).await {
                    Ok(profile) => results.profiles.push(profile),
                    Err(error) => println!("no profile of the {}: {error:#}", program.kind),
                }
            }
        }
        save(results)?;
    }
    Ok(())
}

/// Starts the programs on a fleet. Waits for a complete response from all but the floor. A reference without one is left out.
async fn start_all(fleet: &Fleet, stage: &Stage, binaries: &[&Binary]) -> anyhow::Result<Vec<Program>> {
    let scenario = stage.scenarios.first().context("the stage has no scenario")?;
    let (floors, adapters): (Vec<_>, Vec<_>) = binaries.iter().partition(|binary| binary.kind == Kind::Floor);
    let mut programs = Vec::new();
    let mut documents = Vec::new();
    for binary in adapters {
        let program = Program::start(binary, fleet, &[])?;
        let first = first_complete(&program, scenario).await;
        let Some(FirstComplete { body, .. }) = unless_reference_failed(&program, first)? else { continue };
        // The floor responds to discovery with the adapter's document.
        if scenario.api == Api::Discovery && binary.kind == Kind::Adapter {
            let body = String::from_utf8(body.into()).context("discovery is not UTF-8")?;
            documents.push((scenario.load().paths.remove(0), body));
        }
        programs.push(program);
    }
    for binary in floors {
        programs.push(Program::start(binary, fleet, &documents)?);
    }
    programs.sort_by_key(|program| program.kind);
    Ok(programs)
}

async fn profile(scenario: &Scenario, program: &Program) -> anyhow::Result<Profile> {
    let FirstComplete { connection, body, .. } = first_complete(program, scenario).await?;
    let shares = profile::shares(program.pid(), &connection, &scenario.load(), body.len()).await?;
    Ok(Profile { scenario: scenario.clone(), kind: program.kind, shares })
}
