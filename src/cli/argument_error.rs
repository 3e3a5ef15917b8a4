//! Converts clap's errors into one line: first the flag, then the problem and the expected value.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::EarlyExit;

/// Converts clap's error. Help and version are texts, all others are invalid arguments.
pub fn early_exit(error: &clap::Error) -> EarlyExit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => EarlyExit::Text(error.render().to_string()),
        kind => EarlyExit::InvalidArgument(line(error, kind)),
    }
}

fn line(error: &clap::Error, kind: ErrorKind) -> String {
    // clap prints a flag together with its value's name: `--secure-port <PORT>`.
    let arg = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let flag = arg.split([' ', '[', '=']).next().unwrap_or_default().escape_debug();
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let named = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    match (kind, error.source()) {
        (ErrorKind::ArgumentConflict, _) if !named.is_empty() => format!(
            "unexpected argument {named:?}: subcommands come before flags; write booleans as --flag=false"
        ),
        (ErrorKind::UnknownArgument, _) if !arg.starts_with('-') => {
            format!("unexpected argument {arg:?} (see --help)")
        }
        (ErrorKind::UnknownArgument, _) => match text(error, ContextKind::SuggestedArg) {
            Some(similar) => format!("{flag}: unknown flag; did you mean {similar}?"),
            None => format!("{flag}: unknown flag (see --help)"),
        },
        (ErrorKind::InvalidSubcommand, _) => match most_similar(error) {
            Some(similar) => format!("{named:?}: unknown subcommand; did you mean {similar}?"),
            None => format!("{named:?}: unknown subcommand (see --help)"),
        },
        (ErrorKind::MissingSubcommand, _) => {
            let program = concat!(env!("CARGO_PKG_NAME"), " ");
            let command = named.strip_prefix(program).unwrap_or(named);
            format!("{command}: a subcommand is missing: {}", texts(error, ContextKind::ValidSubcommand))
        }
        (ErrorKind::MissingRequiredArgument, _) if arg == "<PATH>" => {
            "a path or --metric is missing (see --help)".to_owned()
        }
        (ErrorKind::MissingRequiredArgument, _) => format!("{arg} is missing (see --help)"),
        (ErrorKind::ValueValidation, Some(complaint)) => format!("{flag}: {value:?} {complaint}"),
        (ErrorKind::InvalidValue, _) if value.is_empty() => {
            format!("{flag}: a value is missing (--flag=value or --flag value)")
        }
        (ErrorKind::InvalidValue, _) => {
            format!("{flag}: {value:?} is not one of {}", texts(error, ContextKind::ValidValue))
        }
        (ErrorKind::InvalidUtf8, _) => "an argument is not valid UTF-8".to_owned(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// The most similar subcommand. clap puts it last.
fn most_similar(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::SuggestedSubcommand)? {
        ContextValue::Strings(names) => names.last().map(String::as_str),
        _ => None,
    }
}

fn texts(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        // clap adds its own subcommand `help`. It is left out.
        Some(ContextValue::Strings(names)) => {
            names.iter().map(String::as_str).filter(|name| *name != "help").collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}
