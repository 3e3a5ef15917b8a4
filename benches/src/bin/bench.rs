//! `bench`: compares the adapter with the floor and the reference adapter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bench::measure::Effort;
use bench::program::{Binary, Kind};
use bench::results::Results;
use bench::run::run;
use bench::scenario::{self, Stage};
use bench::{document, environment, instructions, report};
use clap::{Args, Parser, Subcommand};
use karmada_metrics_adapter::testing::open_files;
use testkit::interrupted;

/// Benchmarks of karmada-metrics-adapter. docs/performance.md describes the measurements.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure all scenarios; takes more than one hour with a reference.
    Full(Programs),
    /// Measure two fleets; takes less than three minutes.
    Quick(Programs),
    /// Write the tables and plots of docs/performance.md from results.
    Document {
        /// The results file of a run.
        #[arg(value_name = "RESULTS", default_value = "target/bench/full.json")]
        results: PathBuf,
    },
}

#[derive(Args)]
struct Programs {
    /// The adapter's binary.
    #[arg(long, value_name = "PATH")]
    adapter: PathBuf,
    /// Another build of the adapter, for comparison.
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// The binary of Karmada's adapter.
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    /// The directory for results and logs.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    output: PathBuf,
    /// Measure only scenarios with this text in their description, such as `100 x 50, pod metrics`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = match interrupted() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            eprintln!("bench: cannot wait for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    // An interrupt drops the run and kills its programs.
    tokio::select! {
        result = execute(cli.command) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error:#}");
                ExitCode::FAILURE
            }
        },
        code = interrupted => code,
    }
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Full(programs) => {
            // 13 turns of eight queries are enough for the 99th percentile.
            let effort = Effort {
                rounds: 13,
                turn: Duration::from_millis(250),
                limit: Duration::from_secs(12),
                starts: 5,
            };
            programs.measure("full", scenario::all(), effort).await
        }
        Command::Quick(programs) => {
            let effort = Effort {
                rounds: 80,
                turn: Duration::from_millis(300),
                limit: Duration::from_secs(20),
                starts: 0,
            };
            programs.measure("quick", scenario::quick(), effort).await
        }
        Command::Document { results } => {
            let text = fs::read(&results).with_context(|| results.display().to_string())?;
            let results: Results =
                serde_json::from_slice(&text).with_context(|| results.display().to_string())?;
            ensure!(results.complete, "the results are not from a complete run of make bench");
            document::write(Path::new("docs/performance.md"), &results)
        }
    }
}

impl Programs {
    async fn measure(&self, name: &str, mut stages: Vec<Stage>, effort: Effort) -> anyhow::Result<()> {
        let only = self.only.replace(" x ", " × ");
        for stage in &mut stages {
            stage.scenarios.retain(|scenario| scenario.to_string().contains(&only));
        }
        stages.retain(|stage| !stage.scenarios.is_empty());
        ensure!(
            !stages.is_empty(),
            "no scenario has {only:?} in its description; a run without --only prints all descriptions"
        );
        open_files::raise();
        fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
        let file = self.output.join(format!("{name}.json"));
        let binaries = self.binaries()?;
        let environment = environment::describe(&binaries);
        let mut results = Results { environment, ..Results::default() };
        println!(
            "Lower is better, except for queries/s. CPU: only the program; the fleet runs on the same machine.\n"
        );
        run(&mut results, &stages, &binaries, effort, |results| save(&file, results)).await?;
        match instructions::count(&sibling("hot_path")?).await {
            Ok(counts) => results.instructions = counts,
            Err(error) => println!("cannot count instructions: {error:#}"),
        }
        results.complete = name == "full" && self.only.is_empty();
        save(&file, &results)?;
        println!("\n{}\nresults: {}", report::summary(&results), file.display());
        Ok(())
    }

    fn binaries(&self) -> anyhow::Result<Vec<Binary>> {
        let given = [
            (Kind::Floor, Some(sibling("floor")?)),
            (Kind::Adapter, Some(self.adapter.clone())),
            (Kind::Baseline, self.baseline.clone()),
            (Kind::Reference, self.reference.clone()),
        ];
        let binaries = given.into_iter().filter_map(|(kind, path)| Some((kind, path?)));
        let binary = |(kind, path): (Kind, PathBuf)| {
            let path =
                path.canonicalize().with_context(|| format!("the {kind}'s binary, {}", path.display()))?;
            Ok(Binary { kind, path, logs: self.output.clone() })
        };
        binaries.map(binary).collect()
    }
}

/// Replaces the file atomically.
fn save(file: &Path, results: &Results) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(results)?)
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| file.display().to_string())
}

/// A binary that is built together with this one.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
