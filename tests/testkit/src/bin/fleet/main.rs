//! `fleet`: simulated Karmada fleets for an adapter to work on.

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
    /// Stay up afterwards, until Ctrl-C.
    #[arg(long)]
    hold: bool,
    /// Where the adapter's output goes; a new file among the temporary ones by default.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = match interrupted() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            eprintln!("fleet: signals cannot be awaited: {error}");
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
    // What is interrupted is dropped, and everything that it has started with it. Ctrl-C is the ordinary end of a
    // walkthrough that is held, which therefore comes first.
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
