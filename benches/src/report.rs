//! Text output of results on the terminal.

use crate::instructions;
use crate::program::Kind;
use crate::results::{Measured, Quartiles, Results, Start};

/// A scenario with the figures of each program.
pub fn scenario(Measured { scenario, figures }: &Measured) -> String {
    let mut text = format!(
        "{scenario}\n  {:<10} {:>12} {:>10} {:>8} {:>8} {:>8} {:>9} {:>16} {:>8}",
        "program",
        "CPU ms/query",
        "queries/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "peak MiB",
        "requests/member",
        "queries",
    );
    for (kind, figures) in figures {
        let p99 = figures.p99_ms.map_or_else(|| "–".to_owned(), |p99| format!("{p99:.1}"));
        text += &format!(
            "\n  {kind:<10} {:>12.3} {:>10.1} {:>8.1} {p99:>8} {:>8.1} {:>9.1} {:>16.2} {:>8}",
            figures.cpu_ms,
            figures.queries_a_second,
            figures.p50_ms,
            mebibytes(figures.resident),
            mebibytes(figures.peak),
            figures.requests,
            figures.queries,
        );
    }
    for (kind, figures) in figures {
        for (ratio, other) in [(figures.to_floor, "floor"), (figures.to_baseline, "baseline")] {
            if let Some(Quartiles { lower, median, upper }) = ratio {
                text += &format!(
                    "\n  CPU of the {kind}: {median:.3} × the {other} (quartiles {lower:.3} to {upper:.3}, {} turns)",
                    figures.turns
                );
            }
        }
    }
    text
}

/// The start of a program.
pub fn start(start: &Start) -> String {
    let Start { size, kind, complete, idle } = start;
    format!(
        "{size}, {kind}: first answer with all values after {:.0} ms; {:.0} MiB idle",
        complete.as_secs_f64() * 1000.0,
        mebibytes(*idle)
    )
}

/// Bytes in MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The ratios of all scenarios, and the instructions of the hot path.
pub fn summary(results: &Results) -> String {
    let mut text = String::new();
    for Measured { scenario, figures } in &results.scenarios {
        let Some(adapter) = figures.get(&Kind::Adapter) else { continue };
        let ratios = [(adapter.to_floor, "floor"), (adapter.to_baseline, "baseline")];
        let ratios: Vec<String> = ratios
            .into_iter()
            .filter_map(|(ratio, other)| Some(format!("{:.2} × the {other}", ratio?.median)))
            .collect();
        text += &format!("{scenario}: {:.3} ms CPU a query, {}\n", adapter.cpu_ms, ratios.join(", "));
    }
    if !results.instructions.is_empty() {
        text += &format!("\ninstructions a query without the network, {}:\n", instructions::SIZE);
    }
    for (case, count) in &results.instructions {
        text += &format!("{case}: {:.2} million\n", *count as f64 / 1e6);
    }
    text
}
