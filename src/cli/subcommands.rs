//! Subcommands: commands, and texts such as the version.

use clap::{Command, ValueEnum};
use clap_complete::Shell;

use super::commands;
use crate::api::version::VersionInfo;

/// A subcommand.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// A command that does work.
    #[command(flatten)]
    Command(Box<commands::Command>),
    /// A command that only prints a text.
    #[command(flatten)]
    Text(InfoCommand),
}

/// Subcommands that only print a text, like `--help` and `--version`.
#[derive(Debug, clap::Subcommand)]
pub enum InfoCommand {
    /// Print the version
    Version {
        /// Output format: json for all build information; if unset, one line
        #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
        output: Option<VersionOutput>,
    },
    /// Print a shell completion script for flags and subcommands
    Completion {
        /// Shell: bash, elvish, fish, powershell or zsh
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
}

/// The output format of `version`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum VersionOutput {
    /// Kubernetes' `version.Info`.
    Json,
}

impl InfoCommand {
    /// The text for stdout. Boolean flags of `program` must still be plain switches, because completion scripts need this.
    pub fn render(&self, program: &Command) -> String {
        match self {
            Self::Version { output: None } => program.render_version(),
            Self::Version { output: Some(VersionOutput::Json) } => {
                let info = serde_json::to_string_pretty(&VersionInfo::current());
                info.expect("strings are valid JSON") + "\n"
            }
            Self::Completion { shell } => {
                let (name, mut script) = (program.get_name(), Vec::new());
                clap_complete::generate(*shell, &mut without_hidden_flags(program), name, &mut script);
                let script = String::from_utf8(script).expect("completion scripts are UTF-8");
                // The bash script spells the hyphens of the name in two ways, so that it completes nothing after a subcommand
                // (clap issue 6421).
                script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
            }
        }
    }
}

/// The program without its hidden flags. Some shells would complete them.
fn without_hidden_flags(program: &Command) -> Command {
    Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(program.get_subcommands().cloned())
}
