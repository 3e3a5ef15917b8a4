//! A member's Prometheus and the `irate` of prometheus-adapter's rule, for one counter.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::replica::fetch;
use crate::timestamp;

/// The samples of one pod in the window.
type Samples = VecDeque<Sample>;

/// The samples of all pods.
pub(super) struct Scraper {
    interval: Duration,
    samples: BTreeMap<String, Samples>,
}

/// The value of a counter at the time of a scrape.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Seconds since 1970.
    timestamp: i64,
    total: f64,
}

/// A rate over the last two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Requests per second in thousandths, truncated as prometheus-adapter does.
    pub milli: i64,
    /// Time of the last sample in seconds since 1970.
    pub timestamp: i64,
}

impl Scraper {
    /// Scrapes once per `interval`, which is also the timeout of a scrape.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, samples: BTreeMap::new() }
    }

    /// Scrapes all pods at the same time. A pod that is no longer a target loses its samples. A pod that does not respond keeps
    /// its samples until they leave the window, as in a range query.
    pub(super) async fn scrape(&mut self, targets: &[(String, SocketAddr)]) {
        let scrapes = targets.iter().map(|(_, address)| timeout(self.interval, fetch(*address, "/metrics")));
        let bodies = join_all(scrapes).await;
        self.samples.retain(|pod, _| targets.iter().any(|(target, _)| target == pod));
        for ((pod, _), body) in targets.iter().zip(bodies) {
            let body = body.ok().and_then(Result::ok);
            if let Some(total) = body.and_then(|body| counter(&String::from_utf8_lossy(&body))) {
                let sample = Sample { at: Instant::now(), timestamp: timestamp::now(), total };
                self.samples.entry(pod.clone()).or_default().push_back(sample);
            }
        }
        let window = self.interval * 5;
        for samples in self.samples.values_mut() {
            samples.retain(|sample| sample.at.elapsed() <= window);
        }
    }

    /// The current rates. A pod with fewer than two samples has none.
    pub(super) fn rates(&self) -> BTreeMap<String, Rate> {
        let rates = self.samples.iter().filter_map(|(pod, samples)| Some((pod.clone(), irate(samples)?)));
        rates.collect()
    }
}

/// Prometheus' `irate`: uses the last two samples. A counter that fell has restarted from 0.
fn irate(samples: &Samples) -> Option<Rate> {
    let last = samples.back()?;
    let previous = samples.get(samples.len().checked_sub(2)?)?;
    let seconds = (last.at - previous.at).as_secs_f64();
    let increase = if last.total < previous.total { last.total } else { last.total - previous.total };
    (seconds > 0.0).then(|| Rate { milli: (increase / seconds * 1000.0) as i64, timestamp: last.timestamp })
}

fn counter(exposition: &str) -> Option<f64> {
    let line = exposition.lines().find(|line| line.starts_with("http_requests_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Thousandths as the canonical text of a Go `resource.Quantity` in `DecimalSI`.
pub(super) fn quantity(milli: i64) -> String {
    let suffixes = ["m", "", "k", "M", "G", "T", "P"];
    let (mut number, mut place) = (milli, 0);
    while number != 0 && number % 1000 == 0 && place + 1 < suffixes.len() {
        number /= 1000;
        place += 1;
    }
    if number == 0 { "0".to_owned() } else { format!("{number}{}", suffixes[place]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(u64, f64)]) -> Samples {
        let start = Instant::now();
        let sample = |&(millis, total): &(u64, f64)| Sample {
            at: start + Duration::from_millis(millis),
            timestamp: i64::try_from(millis / 1000).unwrap(),
            total,
        };
        values.iter().map(sample).collect()
    }

    #[test]
    fn rate_uses_the_last_two_samples() {
        let milli = |values: &[(u64, f64)]| irate(&samples(values)).map(|rate| rate.milli);
        assert_eq!(milli(&[]), None);
        assert_eq!(milli(&[(0, 7.0)]), None);
        assert_eq!(milli(&[(0, 0.0), (1000, 100.0), (6000, 103.0)]), Some(600));
        assert_eq!(milli(&[(0, 5.0), (1000, 5.0)]), Some(0));
        assert_eq!(milli(&[(0, 900.0), (2000, 4.0)]), Some(2000), "a restarted replica");
        assert_eq!(milli(&[(0, 0.0), (1500, 1.0)]), Some(666), "truncated, not rounded");
        assert_eq!(irate(&samples(&[(0, 1.0), (3000, 4.0)])).unwrap().timestamp, 3);
    }

    #[test]
    fn rates_are_formatted_as_go_quantities() {
        for (milli, text) in
            [(0, "0"), (600, "600m"), (2000, "2"), (1500, "1500m"), (1_000_000, "1k"), (-5, "-5m")]
        {
            assert_eq!(quantity(milli), text);
        }
    }
}
