//! One line for whatever clap has to say, the flag first, then what it expects.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::EarlyExit;

/// What a refusal of clap's amounts to.
pub fn stop(error: &clap::Error) -> EarlyExit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => EarlyExit::Asked(error.render().to_string()),
        kind => EarlyExit::Mistake(line(error, kind)),
    }
}

fn line(error: &clap::Error, kind: ErrorKind) -> String {
    // clap shows a flag with its value's name, `--secure-port <PORT>`.
    let shown = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let flag = shown.split([' ', '[', '=']).next().unwrap_or_default().escape_debug();
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let named = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    match (kind, error.source()) {
        (ErrorKind::ArgumentConflict, _) if !named.is_empty() => format!(
            "{named:?} is no flag, and nothing else is expected behind flags; on or off is said as --flag=false"
        ),
        (ErrorKind::UnknownArgument, _) if !shown.starts_with('-') => {
            format!("{shown:?} is no flag, and nothing else is expected")
        }
        (ErrorKind::UnknownArgument, _) => match text(error, ContextKind::SuggestedArg) {
            Some(likely) => format!("{flag}: there is no such flag; was {likely} meant?"),
            None => format!("{flag}: there is no such flag (--help lists all)"),
        },
        (ErrorKind::InvalidSubcommand, _) => match closest(error) {
            Some(likely) => format!("{named:?}: there is no such subcommand; was {likely} meant?"),
            None => format!("{named:?}: there is no such subcommand (--help lists all)"),
        },
        (ErrorKind::MissingSubcommand, _) => {
            let program = concat!(env!("CARGO_PKG_NAME"), " ");
            let command = named.strip_prefix(program).unwrap_or(named);
            format!("{command}: say what to do: {}", texts(error, ContextKind::ValidSubcommand))
        }
        (ErrorKind::MissingRequiredArgument, _) if shown == "<PATH>" => {
            "a path or --metric is missing (--help says more)".to_owned()
        }
        (ErrorKind::MissingRequiredArgument, _) => format!("{shown} is missing (--help says more)"),
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

/// clap puts what is most alike last.
fn closest(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::SuggestedSubcommand)? {
        ContextValue::Strings(names) => names.last().map(String::as_str),
        _ => None,
    }
}

fn texts(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        // clap's own subcommand `help` is beside the point.
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
