//! What was measured, as it is kept in a file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::Size;
use crate::program::Kind;
use crate::scenario::Scenario;

/// One run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Whether it is a whole run of `make bench`.
    pub complete: bool,
    /// Where and of what it was made: pairs of a name and a value.
    pub environment: Vec<(String, String)>,
    /// The scenarios in the order in which they were measured.
    pub scenarios: Vec<Measured>,
    /// How the programs start.
    pub starts: Vec<Start>,
    /// Where CPU time goes.
    pub profiles: Vec<Profile>,
    /// Instructions of one query without the network, by what is read and written.
    pub instructions: Vec<(String, u64)>,
}

/// A scenario and what each program took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario.
    pub scenario: Scenario,
    /// The programs that were measured.
    pub figures: BTreeMap<Kind, Figures>,
}

/// Where a program's CPU time goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The load.
    pub scenario: Scenario,
    /// The program.
    pub kind: Kind,
    /// The share of each part in percent, the largest first.
    pub shares: Vec<(String, f64)>,
}

/// What a program took in a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// CPU milliseconds a query: the median of all rounds.
    pub cpu_ms: f64,
    /// CPU a query over that of the floor in the same round: the quartiles of all rounds. None for the floor itself.
    pub to_floor: Option<Quartiles>,
    /// The same over that of the baseline, for the adapter alone.
    pub to_baseline: Option<Quartiles>,
    /// Queries a second: the median of all rounds.
    pub queries_a_second: f64,
    /// Milliseconds that half of all queries took at most.
    pub p50_ms: f64,
    /// Milliseconds that 99 of 100 queries took at most; none for fewer than 100 queries.
    pub p99_ms: Option<f64>,
    /// Resident memory after the last round, in bytes.
    pub resident: u64,
    /// The peak of resident memory in this scenario, in bytes.
    pub peak: u64,
    /// Requests to each member for one query.
    pub requests: f64,
    /// Queries that were measured.
    pub queries: usize,
    /// Turns in which they were sent.
    pub turns: usize,
}

/// The quartiles of a figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Quartiles {
    /// A quarter of all values are smaller.
    pub lower: f64,
    /// The median.
    pub median: f64,
    /// A quarter of all values are larger.
    pub upper: f64,
}

/// How a program starts on a fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The fleet's size.
    pub size: Size,
    /// The program.
    pub kind: Kind,
    /// From the process' start to the end of the first answer with the values of all members: the median of all starts.
    pub complete: Duration,
    /// Resident memory when all members are connected and nothing was queried yet, in bytes: the median of all starts.
    pub idle: u64,
}

impl Quartiles {
    /// The quartiles of these values; none if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Linear between the two nearest values.
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
/// If there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Quartiles::of(values).expect("at least one value").median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values() {
        let Quartiles { lower, median, upper } = Quartiles::of([4.0, 1.0, 2.0, 3.0, 5.0, 6.0]).unwrap();
        assert_eq!([lower, median, upper], [2.25, 3.5, 4.75]);
        assert_eq!(Quartiles::of([7.0]).unwrap().upper, 7.0);
        assert!(Quartiles::of([]).is_none());
    }
}
