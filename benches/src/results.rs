//! Results, as stored in a file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::Size;
use crate::program::Kind;
use crate::scenario::Scenario;

/// One run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Whether it is a complete run of `make bench`.
    pub complete: bool,
    /// Machine and versions of the run: pairs of name and value.
    pub environment: Vec<(String, String)>,
    /// The scenarios in the order of measurement.
    pub scenarios: Vec<Measured>,
    /// The starts of programs.
    pub starts: Vec<Start>,
    /// Shares of CPU time.
    pub profiles: Vec<Profile>,
    /// Instructions of one query without the network, by input and output format.
    pub instructions: Vec<(String, u64)>,
}

/// A scenario with the figures of each program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario.
    pub scenario: Scenario,
    /// The figures of the measured programs.
    pub figures: BTreeMap<Kind, Figures>,
}

/// Shares of a program's CPU time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The load.
    pub scenario: Scenario,
    /// The program.
    pub kind: Kind,
    /// The share of each part in percent, largest first.
    pub shares: Vec<(String, f64)>,
}

/// The figures of a program in a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// CPU milliseconds per query: the median of all rounds.
    pub cpu_ms: f64,
    /// CPU time per query divided by that of the floor in the same round: the quartiles of all rounds. `None` for the floor
    /// itself.
    pub to_floor: Option<Quartiles>,
    /// The same ratio to the baseline. Only for the adapter.
    pub to_baseline: Option<Quartiles>,
    /// Queries per second: the median of all rounds.
    pub queries_a_second: f64,
    /// Median latency of all queries in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the latency in milliseconds. `None` for fewer than 100 queries.
    pub p99_ms: Option<f64>,
    /// Resident memory after the last round, in bytes.
    pub resident: u64,
    /// Peak of resident memory in this scenario, in bytes.
    pub peak: u64,
    /// Requests to each member per query.
    pub requests: f64,
    /// Number of measured queries.
    pub queries: usize,
    /// Number of turns with these queries.
    pub turns: usize,
}

/// The quartiles of a figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Quartiles {
    /// A quarter of all values is smaller.
    pub lower: f64,
    /// The median.
    pub median: f64,
    /// A quarter of all values is larger.
    pub upper: f64,
}

/// The start of a program on a fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The fleet's size.
    pub size: Size,
    /// The program.
    pub kind: Kind,
    /// Time from the process' start to the end of the first response with the values of all members: the median of all starts.
    pub complete: Duration,
    /// Resident memory in bytes when all members are connected and no query was sent yet: the median of all starts.
    pub idle: u64,
}

impl Quartiles {
    /// The quartiles of these values. `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Interpolates linearly between the two nearest values.
        let quantile = |share: f64| {
            let place = share * last as f64;
            let (below, rest) = (place.floor() as usize, place.fract());
            values[below] + rest * (values[(below + 1).min(last)] - values[below])
        };
        Some(Self { lower: quantile(0.25), median: quantile(0.5), upper: quantile(0.75) })
    }
}

/// The median of these values.
///
/// # Panics
/// If there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Quartiles::of(values).expect("at least one value").median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let Quartiles { lower, median, upper } = Quartiles::of([4.0, 1.0, 2.0, 3.0, 5.0, 6.0]).unwrap();
        assert_eq!([lower, median, upper], [2.25, 3.5, 4.75]);
        assert_eq!(Quartiles::of([7.0]).unwrap().upper, 7.0);
        assert!(Quartiles::of([]).is_none());
    }
}
