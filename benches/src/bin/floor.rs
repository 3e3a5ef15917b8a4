//! `floor CONFIG PORT`: serves the floor of the benchmark ([`bench::floor`]).

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let config = arguments.next().context("usage: floor CONFIG PORT")?;
    let port =
        arguments.next().and_then(|port| port.to_str()?.parse().ok()).context("usage: floor CONFIG PORT")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench::floor::serve(config.as_ref(), port))
}
