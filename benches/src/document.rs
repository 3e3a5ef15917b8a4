//! Writes the tables and plots of `docs/performance.md` from results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::plot::{self, Line};
use crate::program::Kind;
use crate::report::mebibytes;
use crate::results::{Figures, Measured, Profile, Quartiles, Results};
use crate::scenario::{Api, Scenario};

/// Start and end of a generated part of the document.
const BEGIN: &str = "written by make bench -->";
const END: &str = "<!-- end -->";
/// The cell of a figure that was not measured.
const NONE: &str = "–";

/// Columns of a scenario's cost with each program; [`cost`] makes the cells.
const COST_COLUMNS: [&str; 7] = [
    "CPU ms a query, floor",
    "CPU ms, adapter",
    "× floor",
    "CPU ms, reference",
    "reference ÷ adapter",
    "p99 ms, adapter",
    "p99 ms, reference",
];

/// The figures of a scenario by program.
type ByProgram = BTreeMap<Kind, Figures>;

/// Writes the document's tables, and its plots into a directory next to it with the same name.
///
/// # Errors
/// If the document has no place for a table, or a file cannot be written.
pub fn write(document: &Path, results: &Results) -> anyhow::Result<()> {
    let mut text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    for (name, content) in [
        ("environment", environment(results)),
        ("main scenarios", main_scenarios(results)),
        ("growth", growth(results)),
        ("discovery", discovery(results)),
        ("starts", starts(results)),
        ("profiles", profiles(results)),
        ("instructions", instructions(results)),
        ("all scenarios", all_scenarios(results)),
    ] {
        let begin = format!("<!-- {name}: {BEGIN}\n");
        let start =
            text.find(&begin).with_context(|| format!("the document has no {begin:?}"))? + begin.len();
        let end = text[start..].find(END).with_context(|| format!("the document has no {END:?}"))?;
        ensure!(!text[start..start + end].contains(BEGIN), "the document has no {END:?} for {name:?}");
        text.replace_range(start..start + end, &format!("\n{content}\n"));
    }
    let plot = |axis, value: fn(&Figures) -> f64| {
        plot::svg(("member clusters", axis), &growth_lines(results, value))
    };
    let cpu = plot("CPU milliseconds a query", |figures| figures.cpu_ms)?;
    let memory = plot("peak of resident memory, MiB", |figures| mebibytes(figures.peak))?;
    let folder = document.with_extension("");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (path, text) in
        [(folder.join("cpu.svg"), cpu), (folder.join("memory.svg"), memory), (document.to_owned(), text)]
    {
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn environment(results: &Results) -> String {
    let mut text = "| | |\n|---|---|\n".to_owned();
    for (name, value) in &results.environment {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

/// Eight clients with different queries. Two clients for responses of tens of megabytes.
fn main_scenarios(results: &Results) -> String {
    let before = ["fleet", "API", "members", "to clients"];
    let after = ["peak MiB, adapter", "peak MiB, reference"];
    let mut table = Table::new(&[&before[..], &COST_COLUMNS, &after].concat());
    for Measured { scenario, figures } in &results.scenarios {
        if !scenario.is_main() {
            continue;
        }
        let Scenario { size, api, members, accept, .. } = scenario;
        let of = [size.to_string(), api.to_string(), members.to_string(), accept.to_string()];
        let peak = |kind| cell(figures, kind, |figures| mebibytes(figures.peak));
        let peaks = [peak(Kind::Adapter), peak(Kind::Reference)];
        table.row(&[&of[..], &cost(figures), &peaks].concat());
    }
    table.text
}

/// The scenarios for the growth with the number of members, smallest fleet first.
fn growing(results: &Results) -> Vec<&Measured> {
    let mut scenarios: Vec<_> =
        results.scenarios.iter().filter(|measured| measured.scenario.is_growth()).collect();
    scenarios.sort_by_key(|measured| measured.scenario.size.members);
    scenarios
}

fn growth(results: &Results) -> String {
    let mut table = Table::new(&[
        "members",
        "CPU µs a query and member, floor",
        "CPU µs, adapter",
        "× floor",
        "CPU µs, reference",
        "peak MiB, floor",
        "peak MiB, adapter",
        "peak MiB, reference",
    ]);
    for Measured { scenario, figures } in growing(results) {
        let members = scenario.size.members as f64;
        let cpu = |kind| cell(figures, kind, |figures| figures.cpu_ms * 1000.0 / members);
        let peak = |kind| cell(figures, kind, |figures| mebibytes(figures.peak));
        table.row(&[
            scenario.size.members.to_string(),
            cpu(Kind::Floor),
            cpu(Kind::Adapter),
            to_floor(figures),
            cpu(Kind::Reference),
            peak(Kind::Floor),
            peak(Kind::Adapter),
            peak(Kind::Reference),
        ]);
    }
    table.text
}

fn growth_lines(results: &Results, value: fn(&Figures) -> f64) -> Vec<Line> {
    let lines =
        [(Kind::Reference, (166, 86, 40)), (Kind::Adapter, (31, 119, 180)), (Kind::Floor, (110, 110, 110))]
            .map(|(kind, colour)| {
                let point = |measured: &&Measured| {
                    Some((measured.scenario.size.members as f64, value(measured.figures.get(&kind)?)))
                };
                Line {
                    name: kind.to_string(),
                    colour,
                    points: growing(results).iter().filter_map(point).collect(),
                }
            });
    lines.into_iter().filter(|line| !line.points.is_empty()).collect()
}

fn discovery(results: &Results) -> String {
    let mut table = Table::new(&[&["clients"][..], &COST_COLUMNS].concat());
    for Measured { scenario, figures } in &results.scenarios {
        if scenario.api == Api::Discovery {
            table.row(&[&[scenario.clients.to_string()][..], &cost(figures)].concat());
        }
    }
    table.text
}

fn starts(results: &Results) -> String {
    let mut table =
        Table::new(&["fleet", "program", "first answer with the values of all members, ms", "idle MiB"]);
    for start in &results.starts {
        table.row(&[
            start.size.to_string(),
            start.kind.to_string(),
            digits(start.complete.as_secs_f64() * 1000.0),
            digits(mebibytes(start.idle)),
        ]);
    }
    table.text
}

fn profiles(results: &Results) -> String {
    let mut text = String::new();
    for Profile { scenario, kind, shares } in &results.profiles {
        let shares: Vec<String> = shares.iter().map(|(part, share)| format!("{part} {share:.0} %")).collect();
        let _ = writeln!(text, "- {kind} ({scenario}): {}", shares.join(", "));
    }
    text
}

fn instructions(results: &Results) -> String {
    let mut table = Table::new(&["100 × 50", "million instructions a query"]);
    for (case, count) in &results.instructions {
        table.row(&[case.clone(), digits(*count as f64 / 1e6)]);
    }
    table.text
}

/// One table per fleet, API and format of the members.
fn all_scenarios(results: &Results) -> String {
    let title = |Scenario { size, api, members, .. }: &Scenario| match api {
        Api::Discovery => format!("{size}, {api}"),
        _ => format!("{size}, {api}, {members} members"),
    };
    let mut text = String::new();
    for group in results.scenarios.chunk_by(|one, next| title(&one.scenario) == title(&next.scenario)) {
        let mut table = Table::new(&[
            "clients",
            "accept",
            "program",
            "CPU ms a query",
            "× floor (quartiles)",
            "queries/s",
            "p50 ms",
            "p99 ms",
            "resident MiB",
            "peak MiB",
            "requests to a member a query",
            "queries",
        ]);
        for Measured { scenario, figures } in group {
            for (kind, figures) in figures {
                table.row(&[
                    format!("{} {}", scenario.clients, scenario.queries),
                    scenario.accept.to_string(),
                    kind.to_string(),
                    digits(figures.cpu_ms),
                    figures.to_floor.map_or_else(|| NONE.to_owned(), with_quartiles),
                    digits(figures.queries_a_second),
                    digits(figures.p50_ms),
                    figures.p99_ms.map_or_else(|| NONE.to_owned(), digits),
                    digits(mebibytes(figures.resident)),
                    digits(mebibytes(figures.peak)),
                    digits(figures.requests),
                    figures.queries.to_string(),
                ]);
            }
        }
        let _ = write!(text, "\n### {}\n\n{}", title(&group[0].scenario), table.text);
    }
    text
}

fn with_quartiles(Quartiles { lower, median, upper }: Quartiles) -> String {
    format!("{} ({} to {})", digits(median), digits(lower), digits(upper))
}

/// A Markdown table.
struct Table {
    text: String,
}

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self { text: format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len())) }
    }

    fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }
}

/// The cells below [`COST_COLUMNS`].
fn cost(figures: &ByProgram) -> [String; 7] {
    let cpu = |kind| cell(figures, kind, |figures| figures.cpu_ms);
    [
        cpu(Kind::Floor),
        cpu(Kind::Adapter),
        to_floor(figures),
        cpu(Kind::Reference),
        reference_to_adapter(figures),
        p99(figures, Kind::Adapter),
        p99(figures, Kind::Reference),
    ]
}

/// The cell with a program's figure.
fn cell(figures: &ByProgram, kind: Kind, value: impl Fn(&Figures) -> f64) -> String {
    figures.get(&kind).map_or_else(|| NONE.to_owned(), |figures| digits(value(figures)))
}

fn p99(figures: &ByProgram, kind: Kind) -> String {
    let p99 = figures.get(&kind).and_then(|figures| figures.p99_ms);
    p99.map_or_else(|| NONE.to_owned(), digits)
}

/// The adapter's CPU time divided by the floor's.
fn to_floor(figures: &ByProgram) -> String {
    let ratio = figures.get(&Kind::Adapter).and_then(|figures| figures.to_floor);
    ratio.map_or_else(|| NONE.to_owned(), |ratio| digits(ratio.median))
}

/// The reference's CPU time divided by the adapter's.
fn reference_to_adapter(figures: &ByProgram) -> String {
    match (figures.get(&Kind::Reference), figures.get(&Kind::Adapter)) {
        (Some(reference), Some(adapter)) => digits(reference.cpu_ms / adapter.cpu_ms),
        _ => NONE.to_owned(),
    }
}

/// A number with three significant digits. Digits before the decimal point are always kept.
fn digits(value: f64) -> String {
    let before = if value > 0.0 { value.log10().floor() as i32 + 1 } else { 1 };
    format!("{value:.*}", usize::try_from(3 - before).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let values = [0.0754, 0.351, 1.0, 9.87, 20.41, 139.2, 1_234.5];
        assert_eq!(values.map(digits), ["0.0754", "0.351", "1.00", "9.87", "20.4", "139", "1234"]);
    }
}
