//! `e2e`: the adapter between a real control plane and real members, with faults.
//!
//! All programs are processes on loopback. `CONTRIBUTING.md` lists what must be installed.

mod api;
mod balancer;
mod cluster;
mod karmada;
mod member;
mod process;
mod scaling;
mod stage;
mod tests;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use testkit::interrupted;

use crate::member::replica;
use crate::stage::Stage;
use crate::tests::{TESTS, Test};
use crate::tools::Tools;

/// Tests the adapter between real kube-apiservers, Prometheus and scaling controllers, all processes on loopback.
#[derive(Parser)]
#[command(name = "e2e", version)]
struct Options {
    /// The adapter's binary.
    #[arg(long, value_name = "PATH", default_value = "target/debug/karmada-metrics-adapter")]
    adapter: PathBuf,
    /// The directory for the logs of all processes; existing logs in it are deleted.
    #[arg(long, value_name = "PATH", default_value = "target/e2e")]
    logs: PathBuf,
    /// Print the names of the tests and exit.
    #[arg(long)]
    list: bool,
    /// Run only tests with one of these texts in their names.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = if std::env::args().nth(1).as_deref() == Some(replica::ARGUMENT) {
        replica::serve().await.map(|()| true)
    } else {
        let options = Options::parse();
        match interrupted() {
            // An interrupt drops the future and everything that it has started.
            Ok(interrupted) => tokio::select! {
                outcome = run(&options) => outcome,
                code = interrupted => {
                    eprintln!("e2e: interrupted; all processes have stopped, the logs are in {}", options.logs.display());
                    return code;
                }
            },
            Err(error) => Err(error.into()),
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a step.
fn say(step: &str) {
    println!("    {step}");
}

/// Starts everything, runs the tests and returns whether all have passed.
async fn run(options: &Options) -> anyhow::Result<bool> {
    let chosen = |test: &&Test| {
        options.names.is_empty() || options.names.iter().any(|name| test.name.contains(name.as_str()))
    };
    let tests: Vec<&Test> = TESTS.iter().filter(chosen).collect();
    ensure!(!tests.is_empty(), "no test has such a name; --list prints all names");
    if options.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(true);
    }
    let adapter = &options.adapter;
    ensure!(
        adapter.is_file(),
        "{} does not exist: build it with `cargo build --bins`, or set another path with --adapter",
        adapter.display()
    );
    let began = Instant::now();
    let logs = empty_folder(&options.logs)?;
    println!("==> starting; the logs of all processes: {}", logs.display());
    let tools = Tools::find(&logs).await?;
    let mut stage = Stage::set(&tools, adapter, &logs).await?;
    say(&format!("everything runs after {} s", began.elapsed().as_secs()));
    let mut failed = Vec::new();
    for test in &tests {
        println!("==> {}", test.name);
        let began = Instant::now();
        let result = (test.run)(&mut stage).await;
        let seconds = began.elapsed().as_secs();
        match result {
            Ok(()) => println!("ok  {} ({seconds} s)", test.name),
            Err(error) => {
                println!("FAILED {} ({seconds} s): {error:#}", test.name);
                failed.push(test.name);
                // The adapters may be in any state. The next test starts with a new one.
                stage.adapters.clear();
            }
        }
        stage.heal().await.context("the faults of the test cannot be removed")?;
    }
    let (passed, minutes) = (tests.len() - failed.len(), began.elapsed().as_secs_f64() / 60.0);
    println!("\n{passed} passed, {} failed, {minutes:.1} minutes; logs: {}", failed.len(), logs.display());
    failed.iter().for_each(|name| println!("failed: {name}"));
    Ok(failed.is_empty())
}

/// Creates a directory and deletes the logs in it.
fn empty_folder(path: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(&file).with_context(|| format!("cannot delete {}", file.display()))?;
        }
    }
    Ok(path.canonicalize()?)
}
