//! `bench`: measures the adapter beside the floor and the reference adapter.

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
use testkit::interrupted;

/// Benchmarks of karmada-metrics-adapter. What is measured, and how, is in docs/performance.md.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure every scenario; about an hour with a reference.
    Full(Programs),
    /// Measure two fleets; less than three minutes.
    Quick(Programs),
    /// Write the tables and plots of docs/performance.md from results.
    Document {
        /// The file that a run has written.
        #[arg(value_name = "RESULTS", default_value = "target/bench/results.json")]
        results: PathBuf,
    },
}

#[derive(Args)]
struct Programs {
    /// The adapter's binary.
    #[arg(long, value_name = "PATH")]
    adapter: PathBuf,
    /// Another build of the adapter to compare it with.
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// The binary of Karmada's adapter.
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    /// The directory for results and logs.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    output: PathBuf,
    /// Measure only the scenarios whose description contains this, such as `100 × 50`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = match interrupted() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            eprintln!("bench: signals cannot be awaited: {error}");
            return ExitCode::FAILURE;
        }
    };
    // An interrupted run is dropped, and its programs are killed with it.
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
            let effort = Effort {
                rounds: 10,
                turn: Duration::from_millis(250),
                limit: Duration::from_secs(12),
                starts: 5,
            };
            programs.measure("make bench", scenario::all(), effort).await
        }
        Command::Quick(programs) => {
            let effort = Effort {
                rounds: 80,
                turn: Duration::from_millis(300),
                limit: Duration::from_secs(60),
                starts: 0,
            };
            programs.measure("make bench-quick", scenario::quick(), effort).await
        }
        Command::Document { results } => {
            let text = fs::read(&results).with_context(|| results.display().to_string())?;
            document::write(Path::new("docs/performance.md"), &serde_json::from_slice(&text)?)
        }
    }
}

impl Programs {
    async fn measure(&self, command: &str, mut stages: Vec<Stage>, effort: Effort) -> anyhow::Result<()> {
        for stage in &mut stages {
            stage.scenarios.retain(|scenario| scenario.to_string().contains(&self.only));
        }
        stages.retain(|stage| !stage.scenarios.is_empty());
        ensure!(!stages.is_empty(), "no scenario has {:?} in its description", self.only);
        fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
        let binaries = self.binaries()?;
        let environment = environment::describe(command, &binaries);
        let mut results = Results { environment, ..Results::default() };
        let outcome = run(&mut results, &stages, &binaries, effort).await;
        match instructions::count(&sibling("hot_path")?) {
            Ok(counts) => results.instructions = counts,
            Err(error) => println!("instructions are not counted: {error:#}"),
        }
        println!("\n{}", report::summary(&results));
        let file = self.output.join("results.json");
        fs::write(&file, serde_json::to_vec_pretty(&results)?).with_context(|| file.display().to_string())?;
        println!("results: {}", file.display());
        outcome
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
            let path = path.canonicalize().with_context(|| format!("{}: build it first", path.display()))?;
            Ok(Binary { kind, path, logs: self.output.clone() })
        };
        binaries.map(binary).collect()
    }
}

/// A binary that is built together with this one.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
