//! Results as lines on the terminal.

use crate::program::Kind;
use crate::results::{Figures, Measured, Quartiles, Results, Start};

/// A scenario and what each program took.
pub fn scenario(Measured { scenario, figures }: &Measured) -> String {
    let mut text = scenario.to_string();
    for (kind, figures) in figures {
        let Figures { cpu_ms, queries_a_second, p50_ms, p99_ms, resident, peak, requests, queries, .. } =
            figures;
        let (resident, peak) = (mebibytes(*resident), mebibytes(*peak));
        text += &format!(
            "\n  {kind:<10}{cpu_ms:>9.3} ms CPU a query {queries_a_second:>8.1} queries/s  p50 {p50_ms:.1} ms  p99 {p99_ms:.1} \
             ms  {resident:.0} MiB, at most {peak:.0} MiB  {requests:.2} requests/member  ({queries} queries)"
        );
        for (quartiles, other) in [(figures.to_floor, "floor"), (figures.to_baseline, "baseline")] {
            if let Some(Quartiles { lower, median, upper }) = quartiles {
                text +=
                    &format!("\n            {median:.3} × the {other} (quartiles {lower:.3} to {upper:.3})");
            }
        }
    }
    text
}

/// How a program starts.
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
    for (case, count) in &results.instructions {
        text += &format!("{case}: {:.2} million instructions a query\n", *count as f64 / 1e6);
    }
    text
}
