//! A whole run: one fleet after the other, and on each of them one scenario after the other.

use anyhow::Context as _;

use crate::fleet::Fleet;
use crate::measure::{self, Effort, FirstComplete, first_complete, unless_reference_failed};
use crate::program::{Binary, Kind, Program};
use crate::results::{Measured, Profile, Results};
use crate::scenario::{Api, Scenario, Stage};
use crate::{profile, report};

/// Measures all stages with all binaries. Each result is printed and added to `results` as soon as it is there.
///
/// # Errors
/// If the floor or an adapter of ours does not do what it must. A reference that does not is left out, and the output
/// says why.
pub async fn run(
    results: &mut Results,
    stages: &[Stage],
    binaries: &[Binary],
    effort: Effort,
) -> anyhow::Result<()> {
    // A reference that does not see all members of a fleet does not see them in a second try either.
    let mut left_out = Vec::new();
    let count: usize = stages.iter().map(|stage| stage.scenarios.len()).sum();
    for stage in stages {
        let binaries = binaries.iter().filter(|binary| !left_out.contains(&(binary.kind, stage.size)));
        let binaries: Vec<Binary> = binaries.cloned().collect();
        let fleet = Fleet::start(stage.size, stage.members.of_member(), stage.metrics).await?;
        if stage.start {
            for binary in &binaries {
                if let Some(start) =
                    unless_reference_failed(binary.kind, measure::start(&fleet, stage, binary, effort).await)?
                {
                    println!("{}", report::start(&start));
                    results.starts.push(start);
                }
            }
        }
        let programs = start_all(&fleet, stage, &binaries).await?;
        let has_started = |kind| programs.iter().any(|program: &Program| program.kind == kind);
        left_out.extend(
            binaries
                .iter()
                .filter(|binary| !has_started(binary.kind))
                .map(|binary| (binary.kind, stage.size)),
        );
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
    }
    Ok(())
}

/// The programs on a fleet, each ready to answer completely.
async fn start_all(fleet: &Fleet, stage: &Stage, binaries: &[Binary]) -> anyhow::Result<Vec<Program>> {
    let mut programs = Vec::new();
    let mut documents = Vec::new();
    // The floor is the last: it answers discovery with the adapter's document.
    for binary in binaries.iter().filter(|binary| binary.kind != Kind::Floor) {
        let ready = async {
            let program = Program::start(binary, fleet, &[])?;
            let scenario = stage.scenarios.first().context("the stage has no scenario")?;
            let body = first_complete(&program, scenario).await?.body;
            if scenario.api == Api::Discovery && documents.is_empty() {
                let body = String::from_utf8(body.into()).context("discovery is JSON")?;
                documents.push((scenario.load().paths.remove(0), body));
            }
            Ok(program)
        };
        programs.extend(unless_reference_failed(binary.kind, ready.await)?);
    }
    for binary in binaries.iter().filter(|binary| binary.kind == Kind::Floor) {
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
