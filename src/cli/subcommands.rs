//! What can be asked for instead of serving.

use clap::{Command, ValueEnum};
use clap_complete::Shell;

use super::commands;
use crate::api::version::VersionInfo;

/// What a word instead of flags asks for.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Something that is done.
    #[command(flatten)]
    Command(Box<commands::Command>),
    /// Something that is told.
    #[command(flatten)]
    Text(InfoCommand),
}

/// What the command line itself answers, beside `--help` and `--version`.
#[derive(Debug, clap::Subcommand)]
pub enum InfoCommand {
    /// Print the version
    Version {
        /// Shape of the answer: json for all that is known of the build; without it, one line
        #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
        output: Option<Output>,
    },
    /// Print a script that completes flags and subcommands in a shell
    Completion {
        /// The shell: bash, elvish, fish, powershell or zsh
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// Kubernetes' `version.Info`.
    Json,
}

impl InfoCommand {
    /// The text for stdout. Of `program`, flags that are on or off must be plain switches.
    pub fn answer(&self, program: &Command) -> String {
        match self {
            Self::Version { output: None } => program.render_version(),
            Self::Version { output: Some(Output::Json) } => {
                let info = serde_json::to_string_pretty(&VersionInfo::current());
                info.expect("texts are JSON") + "\n"
            }
            Self::Completion { shell } => {
                let (name, mut script) = (program.get_name(), Vec::new());
                clap_complete::generate(*shell, &mut shown(program), name, &mut script);
                let script = String::from_utf8(script).expect("flags and their help are text");
                // In bash the name's hyphens are spelt in two ways, so that nothing behind a subcommand is completed
                // (clap's issue 6421).
                script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
            }
        }
    }
}

/// The program without its hidden flags, which some shells would offer.
fn shown(program: &Command) -> Command {
    Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(program.get_subcommands().cloned())
}
