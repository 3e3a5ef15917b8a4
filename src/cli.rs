//! The command line. Flags have the reference adapter's names and defaults and are read as Go's pflag reads them,
//! so that a Deployment's arguments need no change; clap gives help, suggestions and types.

pub mod commands;
mod flags;
mod ignored;
mod mistake;
mod subcommands;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _, Parser};

use self::commands::Command;
use self::subcommands::Subcommand;
use crate::config::{Config, ConflictingFlags};
pub use ignored::IgnoredFlags;

/// What was said on the command line. Without a subcommand the process serves.
#[derive(Debug, Parser)]
#[command(
    name = "karmada-metrics-adapter",
    version,
    about = "Serves the metrics APIs of all member clusters of a Karmada control plane as one",
    args_conflicts_with_subcommands = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,
    #[command(flatten)]
    serving: flags::ServingFlags,
    #[command(flatten)]
    metrics: flags::MetricsFlags,
    #[command(flatten)]
    control_plane: flags::ControlPlaneFlags,
    #[command(flatten)]
    authentication: flags::AuthenticationFlags,
    #[command(flatten)]
    authorization: flags::AuthorizationFlags,
    #[command(flatten)]
    members: flags::MembersFlags,
    #[command(flatten)]
    merging: flags::MergingFlags,
    #[command(flatten)]
    logging: flags::LoggingFlags,
    #[command(flatten)]
    ignored: IgnoredFlags,
}

/// What the process is there for.
#[derive(Debug)]
pub enum Task {
    /// To serve until it is told to end.
    Serve(Box<Config>, IgnoredFlags),
    /// To run a command and end.
    Run(Command),
}

/// Why the process ends before it has begun.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EarlyExit {
    /// The command line itself was asked, for help, the version or a completion: the text for stdout.
    #[error("{0}")]
    Asked(String),
    /// An argument that cannot be read: one line that names the flag and what it expects.
    #[error("karmada-metrics-adapter: {0}")]
    Mistake(String),
    /// Arguments that contradict each other.
    #[error("karmada-metrics-adapter: {0}")]
    Contradiction(#[from] ConflictingFlags),
}

impl Cli {
    /// Reads the process's arguments, the first of which is the program's name.
    ///
    /// # Errors
    ///
    /// [`EarlyExit::Asked`] for what the command line answers by itself, else [`EarlyExit::Mistake`] for the first argument that
    /// is wrong.
    pub fn read(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, EarlyExit> {
        let cli = Self::command()
            .args_override_self(true)
            .mut_args(as_pflag_reads)
            .mut_subcommands(below)
            .try_get_matches_from(dashed(args.into_iter().map(Into::into)))
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| mistake::stop(&error))?;
        match &cli.subcommand {
            Some(Subcommand::Text(text)) => Err(EarlyExit::Asked(text.answer(&Self::command()))),
            Some(Subcommand::Command(_)) | None => Ok(cli),
        }
    }

    /// What the process is there for.
    ///
    /// # Errors
    ///
    /// If flags contradict each other.
    pub fn task(mut self) -> Result<Task, ConflictingFlags> {
        if let Some(Subcommand::Command(command)) = self.subcommand.take() {
            return Ok(Task::Run(*command));
        }
        let ignored = self.ignored.clone();
        Ok(Task::Serve(Box::new(self.try_into()?), ignored))
    }

    /// The flags that were set, are known to the reference and mean nothing here.
    pub fn ignored(&self) -> &IgnoredFlags {
        &self.ignored
    }
}

/// What holds where no flag is given: for commands, which do as the server would.
///
/// # Panics
/// If the defaults contradict each other, which a test rules out.
pub fn defaults() -> Config {
    let cli = Cli::read(["karmada-metrics-adapter"]).expect("no argument is wrong");
    cli.try_into().expect("the defaults do not contradict each other")
}

impl TryFrom<Cli> for Config {
    type Error = ConflictingFlags;

    fn try_from(cli: Cli) -> Result<Self, ConflictingFlags> {
        Ok(Self {
            serving: cli.serving.try_into()?,
            metrics: cli.metrics.into(),
            control_plane: cli.control_plane.into(),
            authentication: cli.authentication.into(),
            authorization: cli.authorization.into(),
            members: cli.members.into(),
            merging: cli.merging.into(),
            logging: cli.logging.into(),
        })
    }
}

impl EarlyExit {
    /// Says it on stdout when it was asked for, otherwise on stderr, and gives the exit code: 0 or 2.
    pub fn report(self) -> ExitCode {
        // A reader that has gone (`--help | head -1`) is no reason to fail.
        match &self {
            Self::Asked(text) => {
                let _ = write!(std::io::stdout(), "{text}");
                ExitCode::SUCCESS
            }
            Self::Mistake(_) | Self::Contradiction(_) => {
                let _ = writeln!(std::io::stderr(), "{self}");
                ExitCode::from(2)
            }
        }
    }
}

/// The flags of a subcommand, and of those below it, are read in the same way.
fn below(subcommand: clap::Command) -> clap::Command {
    subcommand
        .mut_args(|arg| if arg.is_positional() { arg } else { as_pflag_reads(arg) })
        .mut_subcommands(below)
}

/// A flag that is on or off takes a value only behind `=`; any other flag takes whatever comes next, dashes or not.
fn as_pflag_reads(arg: Arg) -> Arg {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .value_name("true|false")
            .value_parser(values::boolean)
    } else {
        arg.allow_hyphen_values(true)
    }
}

/// Underscores in flag names mean dashes, as `cliflag.WordSepNormalizeFunc` of k8s.io/component-base has it.
fn dashed(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut flags_ended = false;
    args.map(move |arg| {
        flags_ended |= arg == "--";
        match arg.to_str() {
            Some(text) if text.starts_with("--") && !flags_ended => {
                let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
                (name.replace('_', "-") + value).into()
            }
            _ => arg,
        }
    })
}
