//! The command line. Flags have the names and defaults of Karmada's built-in adapter and are parsed as Go's pflag parses
//! them, so that the arguments of an existing Deployment need no change. clap provides help, suggestions and types.

mod argument_error;
pub mod commands;
mod flags;
mod ignored;
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

/// The parsed command line. Without a subcommand the process serves.
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

/// What the process does.
#[derive(Debug)]
pub enum Task {
    /// Serve until the process is stopped.
    Serve(Box<Config>, IgnoredFlags),
    /// Run a command and exit.
    Run(Command),
}

/// Why the process exits before it starts to work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EarlyExit {
    /// Help, the version or a completion script was requested. Contains the text for stdout.
    #[error("{0}")]
    Text(String),
    /// An argument is invalid. Contains one line with the flag and the expected value.
    #[error("karmada-metrics-adapter: {0}")]
    InvalidArgument(String),
    /// Arguments contradict each other.
    #[error("karmada-metrics-adapter: {0}")]
    Conflict(#[from] ConflictingFlags),
}

impl Cli {
    /// Parses the process's arguments. The first one is the program's name.
    ///
    /// # Errors
    ///
    /// [`EarlyExit::Text`] if only a text was requested, [`EarlyExit::InvalidArgument`] for the first invalid argument.
    pub fn read(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, EarlyExit> {
        let cli = Self::command()
            .args_override_self(true)
            .mut_args(as_pflag)
            .mut_subcommands(with_pflag_rules)
            .try_get_matches_from(with_dashes(args.into_iter().map(Into::into)))
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| argument_error::early_exit(&error))?;
        match &cli.subcommand {
            Some(Subcommand::Text(text)) => Err(EarlyExit::Text(text.render(&Self::command()))),
            Some(Subcommand::Command(_)) | None => Ok(cli),
        }
    }

    /// The task that the arguments select.
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

    /// The flags of Karmada's built-in adapter that were set and have no effect here.
    pub fn ignored(&self) -> &IgnoredFlags {
        &self.ignored
    }
}

/// The configuration without any flag. Commands use it to behave as the server does.
///
/// # Panics
/// If the defaults contradict each other. A test rules this out.
pub fn defaults() -> Config {
    let cli = Cli::read(["karmada-metrics-adapter"]).expect("no argument is invalid");
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
    /// Prints a requested text on stdout and an error on stderr. Returns the exit code: 0 for a text, 2 for
    /// an error in the arguments, 1 if stdout cannot be written.
    pub fn report(self) -> ExitCode {
        match &self {
            Self::Text(text) => {
                let mut out = std::io::stdout();
                match write!(out, "{text}").and_then(|()| out.flush()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        let line = format!("karmada-metrics-adapter: cannot write to stdout: {error}");
                        let _ = writeln!(std::io::stderr(), "{line}");
                        ExitCode::FAILURE
                    }
                }
            }
            Self::InvalidArgument(_) | Self::Conflict(_) => {
                let _ = writeln!(std::io::stderr(), "{self}");
                ExitCode::from(2)
            }
        }
    }
}

/// Parses the flags of a subcommand, and of its own subcommands, as pflag does.
fn with_pflag_rules(subcommand: clap::Command) -> clap::Command {
    subcommand
        .mut_args(|arg| if arg.is_positional() { arg } else { as_pflag(arg) })
        .mut_subcommands(with_pflag_rules)
}

/// A boolean flag takes a value only after `=`. Any other flag takes the next argument, even if it begins with a dash.
fn as_pflag(arg: Arg) -> Arg {
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

/// Replaces underscores in flag names with dashes, as `cliflag.WordSepNormalizeFunc` of k8s.io/component-base does.
fn with_dashes(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
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
