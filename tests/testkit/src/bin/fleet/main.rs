//! `fleet`: simulated Karmada fleets for an adapter.

mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testkit::{interrupted, walkthrough};

/// Simulated Karmada fleets: a control plane and member clusters on loopback.
#[derive(Parser)]
#[command(name = "fleet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a fleet until Ctrl-C.
    Up(up::Options),
    /// Play the FederatedHPA walkthrough: scale out under load and back in, about two minutes.
    Walkthrough(Walkthrough),
}

#[derive(clap::Args)]
struct Walkthrough {
    /// The adapter's binary.
    #[arg(long, value_name = "PATH")]
    adapter: PathBuf,
    /// Keep everything running afterwards, until Ctrl-C.
    #[arg(long)]
    hold: bool,
    /// File for the adapter's output; default: a new temporary file.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = match interrupted() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            eprintln!("fleet: cannot wait for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let run = async {
        match cli.command {
            Command::Up(options) => up::serve(options).await.map(|()| true),
            Command::Walkthrough(Walkthrough { adapter, hold, log }) => {
                walkthrough::play(&walkthrough::Options { adapter, hold, log }).await
            }
        }
    };
    // An interrupt drops the future and everything that it has started. Ctrl-C is the normal end of a walkthrough with
    // `--hold`, so the future is polled first.
    tokio::select! {
        biased;
        result = run => match result {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("fleet: {error:#}");
                ExitCode::FAILURE
            }
        },
        code = interrupted => code,
    }
}
