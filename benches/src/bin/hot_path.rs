//! `hot_path CASE COUNT`: computes the response to a query of 100 × 50 COUNT times, for instruction counts
//! ([`bench::instructions`]).

use std::hint::black_box;

use anyhow::Context as _;
use bench::hot_path::Query;
use bench::instructions::{CASES, SIZE};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, count] = arguments.as_slice() else { anyhow::bail!("usage: hot_path CASE COUNT") };
    let (_, api, format) = CASES.into_iter().find(|(name, ..)| name == case).context("unknown CASE")?;
    let query = Query::new(api, format, SIZE);
    for _ in 0..count.parse::<u32>().context("COUNT is not a number")? {
        black_box(query.answer(&black_box(&query).read()));
    }
    Ok(())
}
