//! Generates the tables of flags and subcommands in `docs/cli.md`.

use std::fmt::Write as _;

use super::*;
use crate::cli::ignored::WARNINGS;

const END: &str = "<!-- end -->";
const TABLE: &str = "| flag | value | default | meaning |\n|---|---|---|---|\n";

#[test]
fn document_matches_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let command = Cli::command().mut_args(as_pflag).mut_subcommands(with_pflag_rules);
    let mut current = text.clone();
    for (part, content) in [
        ("flags", flags(&command)),
        ("subcommands", subcommands(&command)),
        ("warnings", warnings()),
        ("ignored", ignored(&command)),
    ] {
        let begin = format!("<!-- {part}, written by src/cli/tests/document.rs -->\n");
        let start = current.find(&begin).expect(part) + begin.len();
        let end = start + current[start..].find(END).expect(part);
        current.replace_range(start..end, &format!("\n{content}\n"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, current).unwrap();
    } else {
        assert!(current == text, "docs/cli.md is out of date: run `make docs`");
    }
}

/// One table for each group of `--help`, in the same order.
fn flags(command: &clap::Command) -> String {
    let mut text = String::new();
    let mut heading = None;
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            let gap = if text.is_empty() { "" } else { "\n" };
            write!(text, "{gap}### {}\n\n{TABLE}", heading.unwrap()).unwrap();
        }
        row(&mut text, arg);
    }
    text
}

fn subcommands(command: &clap::Command) -> String {
    let mut tables = Vec::new();
    for subcommand in command.get_subcommands() {
        tables_of(subcommand, subcommand.get_name(), &mut tables);
    }
    tables.join("\n")
}

/// One table for each subcommand that has no subcommands of its own.
fn tables_of(command: &clap::Command, name: &str, tables: &mut Vec<String>) {
    for subcommand in command.get_subcommands() {
        tables_of(subcommand, &format!("{name} {}", subcommand.get_name()), tables);
    }
    if !command.has_subcommands() {
        let about = command.get_about().unwrap();
        let mut text = format!("### `{name}`\n\n{about}.\n\n{TABLE}");
        command.get_arguments().for_each(|arg| row(&mut text, arg));
        tables.push(text);
    }
}

fn warnings() -> String {
    let mut text = "| flags | warning at each start |\n|---|---|\n".to_owned();
    for warning in WARNINGS {
        let flags = warning.flags.iter().map(|(flag, harmless)| match *harmless {
            "" => format!("`--{flag}`"),
            harmless => format!("`--{flag}` other than `{harmless}`"),
        });
        let flags = flags.collect::<Vec<_>>().join(", ");
        writeln!(text, "| {flags} | {} |", with_flags_as_code(warning.sentence)).unwrap();
    }
    text
}

fn ignored(command: &clap::Command) -> String {
    let flags = command.get_arguments().filter(|arg| arg.is_hide_set());
    flags.fold(String::new(), |text, arg| text + &format!("- `--{}`\n", arg.get_long().unwrap()))
}

fn row(text: &mut String, arg: &clap::Arg) {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let name = [short, long].into_iter().flatten().map(|name| code(&name)).collect::<Vec<_>>().join(", ");
    let value = code(&arg.get_value_names().unwrap_or_default().join(" "));
    let default = arg.get_default_values().first().and_then(|value| value.to_str()).map(code);
    let default = default.unwrap_or_default();
    writeln!(
        text,
        "| {name} | {value} | {default} | {} |",
        with_flags_as_code(&arg.get_help().unwrap().to_string())
    )
    .unwrap();
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', r"\|")) }
}

/// Formats the flags in a sentence as code.
fn with_flags_as_code(sentence: &str) -> String {
    let words = sentence.split(' ').map(|word| match word.find("--") {
        Some(start) => {
            let (before, flag) = word.split_at(start);
            let (flag, after) = flag.split_at(flag.trim_end_matches([',', ';', ':', ')']).len());
            format!("{before}{}{after}", code(flag))
        }
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
