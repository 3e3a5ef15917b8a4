//! The observations of a walkthrough and their checks.

use std::fmt;
use std::time::{Duration, Instant};

use super::screen::decimal;
use crate::federated_hpa::{Reading, Round};

/// Maximum duration of a query while a member is frozen: the adapter's deadline for a member (5 s) plus one second.
const SLOWEST: Duration = Duration::from_secs(6);
/// Minimum of queries while a member is frozen. Fewer queries do not prove that queries continue.
const FEWEST: usize = 2;

/// The times of events and the observations of each round.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    rounds: Vec<Observed>,
    pub(super) load_began: Option<Instant>,
    pub(super) load_ended: Option<Instant>,
    pub(super) froze: Option<Instant>,
    pub(super) thawed: Option<Instant>,
    /// Failures of the APIService after it first became available.
    pub(super) probes: Option<Probes>,
    /// Requests of the load generator: successful and failed.
    pub(super) load: (u64, u64),
}

/// Results of the control plane's probes of the adapter.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    /// Single failed requests, also if another of the five parallel requests succeeded.
    pub(super) failed: usize,
    /// The message of the condition each time it became False.
    pub(super) unavailable: Vec<String>,
}

#[derive(Debug)]
struct Observed {
    /// Time when the round was over and its decision had taken effect.
    ended: Instant,
    replicas: i32,
    sent: Instant,
    took: Duration,
    average: Option<i64>,
    error: Option<String>,
    warned: bool,
}

/// A condition of the walkthrough and its result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) holds: bool,
    pub(super) name: &'static str,
    pub(super) found: String,
}

impl Evidence {
    /// Records a round.
    pub(super) fn observe(&mut self, round: &Round, ended: Instant) {
        let Some(query) = round.queries.first() else { return };
        self.rounds.push(Observed {
            ended,
            replicas: round.replicas,
            sent: query.sent,
            took: query.took,
            average: query.reading.as_ref().ok().and_then(average),
            error: query.reading.as_ref().err().map(ToString::to_string),
            warned: !query.warnings.is_empty(),
        });
    }

    /// The checks and their results.
    pub(super) fn checks(&self, fewest: i32, most: i32) -> Vec<Check> {
        vec![
            self.scaled_out(fewest, most),
            self.scaled_in(fewest, most),
            self.queries_succeeded(),
            self.queries_continued(),
            self.replicas_kept(),
            self.available(),
        ]
    }

    /// The summary line of the load generator. It is not a check: a replica may end while a request is in flight.
    pub(super) fn load_line(&self) -> String {
        format!("{} requests to the application, {} failed", self.load.0, self.load.1)
    }

    fn scaled_out(&self, fewest: i32, most: i32) -> Check {
        let began = self.load_began;
        let before = self.rounds.iter().rfind(|round| began.is_none_or(|began| round.ended < began));
        let reached = self.rounds.iter().find(|round| round.replicas == most);
        let found = match (before.map(|round| round.replicas), began, reached) {
            (Some(start), Some(began), Some(reached)) if start == fewest => {
                let seconds = reached.ended.saturating_duration_since(began).as_secs();
                return check(
                    true,
                    "scaled out",
                    format!("{start} → {most}, {seconds} s after the load began"),
                );
            }
            (start, ..) => {
                let top = self.rounds.iter().map(|round| round.replicas).max().unwrap_or_default();
                format!("from {} to {top} instead of {fewest} → {most}", start.unwrap_or_default())
            }
        };
        check(false, "scaled out", found)
    }

    fn scaled_in(&self, fewest: i32, most: i32) -> Check {
        let Some(ended) = self.load_ended else {
            return check(false, "scaled in", "the load never ended".into());
        };
        let after = || self.rounds.iter().filter(|round| round.ended >= ended);
        match after().find(|round| round.replicas == fewest) {
            Some(round) if after().next_back().is_some_and(|last| last.replicas == fewest) => {
                let seconds = round.ended.duration_since(ended).as_secs();
                check(true, "scaled in", format!("{most} → {fewest}, {seconds} s after the load ended"))
            }
            _ => {
                let last = self.rounds.last().map(|round| round.replicas).unwrap_or_default();
                check(false, "scaled in", format!("still {last} replicas"))
            }
        }
    }

    fn queries_succeeded(&self) -> Check {
        let began = self.load_began;
        let rounds =
            || self.rounds.iter().filter(move |round| began.is_some_and(|began| round.sent >= began));
        let mut took: Vec<Duration> = rounds().map(|round| round.took).collect();
        took.sort_unstable();
        let failures: Vec<&String> = rounds().filter_map(|round| round.error.as_ref()).collect();
        let median = millis(took.get(took.len() / 2).copied().unwrap_or_default());
        let highest = rounds().filter_map(|round| round.average).max().unwrap_or_default();
        let mut found = format!(
            "{} through the control plane, {} failed; median {median}, slowest {}; up to {} a replica",
            took.len(),
            failures.len(),
            millis(took.last().copied().unwrap_or_default()),
            decimal(highest),
        );
        if let Some(first) = failures.first() {
            found.push_str("; first failure: ");
            found.push_str(first);
        }
        check(failures.is_empty() && !took.is_empty(), "queries", found)
    }

    fn queries_continued(&self) -> Check {
        let (Some(froze), Some(thawed)) = (self.froze, self.thawed) else {
            return check(false, "member frozen", "no member was frozen".into());
        };
        let during: Vec<&Observed> =
            self.rounds.iter().filter(|round| round.sent >= froze && round.sent < thawed).collect();
        let good = during.iter().filter(|round| round.error.is_none()).count();
        let warned = during.iter().filter(|round| round.warned).count();
        let slowest = during.iter().map(|round| round.took).max().unwrap_or_default();
        let found = format!(
            "for {:.1} s: {} queries, {good} answered, {warned} with a warning; slowest {}",
            thawed.duration_since(froze).as_secs_f64(),
            during.len(),
            millis(slowest)
        );
        check(good >= FEWEST && good == during.len() && slowest <= SLOWEST, "member frozen", found)
    }

    fn replicas_kept(&self) -> Check {
        let (Some(froze), Some(ended)) = (self.froze, self.load_ended) else {
            return check(false, "nothing lost", "no member was frozen".into());
        };
        let at_freeze = self.rounds.iter().rfind(|round| round.ended < froze).map(|round| round.replicas);
        let after = self.rounds.iter().filter(|round| round.ended >= froze && round.ended < ended);
        let lowest = after.map(|round| round.replicas).min();
        match (at_freeze, lowest) {
            (Some(before), Some(lowest)) => {
                let found = format!(
                    "{before} replicas before the freeze, never fewer than {lowest} until the load ended"
                );
                check(lowest >= before, "nothing lost", found)
            }
            _ => check(false, "nothing lost", "no round while the member was frozen".into()),
        }
    }

    fn available(&self) -> Check {
        match &self.probes {
            Some(probes) if probes.unavailable.is_empty() => check(
                true,
                "APIService",
                format!("available throughout; {} requests of probes failed", probes.failed),
            ),
            Some(probes) => check(false, "APIService", probes.unavailable.join("; ")),
            None => check(false, "APIService", "never became available".into()),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.holds { "ok" } else { "NOT" };
        write!(formatter, "  {mark:<4} {:<14} {}", self.name, self.found)
    }
}

fn check(holds: bool, name: &'static str, found: String) -> Check {
    Check { holds, name, found }
}

/// The average over the pods, in thousandths.
pub(super) fn average(reading: &Reading) -> Option<i64> {
    match reading {
        Reading::Pods(values) => {
            let count = i64::try_from(values.len()).ok().filter(|count| *count > 0)?;
            Some(values.values().sum::<i64>() / count)
        }
        Reading::Object(value) => Some(*value),
    }
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federated_hpa::{DecisionError, MetricsError, MetricsQuery};

    /// A walkthrough of `(second, replicas, duration in ms, success)`: load from second 5 to 60, a frozen member from 30 to 40.
    fn walkthrough(rounds: &[(u64, i32, u64, bool)]) -> Evidence {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut evidence = Evidence {
            load_began: Some(at(5)),
            load_ended: Some(at(60)),
            froze: Some(at(30)),
            thawed: Some(at(40)),
            probes: Some(Probes { failed: 0, unavailable: Vec::new() }),
            ..Evidence::default()
        };
        for (second, replicas, took, succeeded) in rounds {
            let reading = if *succeeded {
                Ok(Reading::Pods([("a".to_owned(), 1000), ("b".to_owned(), 3000)].into()))
            } else {
                Err(MetricsError::Empty)
            };
            let query = MetricsQuery {
                sent: at(*second),
                took: Duration::from_millis(*took),
                warnings: Vec::new(),
                reading,
            };
            let round = Round {
                began: at(*second),
                clusters: Vec::new(),
                queries: vec![query],
                decision: Err(DecisionError::NoReplicas),
                replicas: *replicas,
            };
            evidence.observe(&round, at(*second));
        }
        evidence
    }

    fn failed(evidence: &Evidence) -> Vec<&'static str> {
        evidence.checks(1, 10).iter().filter(|check| !check.holds).map(|check| check.name).collect()
    }

    const GOOD: [(u64, i32, u64, bool); 7] = [
        (4, 1, 5, true),
        (15, 5, 5, true),
        (25, 10, 5, true),
        (31, 10, 3000, true),
        (35, 10, 5, true),
        (50, 10, 5, true),
        (72, 1, 5, true),
    ];

    #[test]
    fn walkthrough_that_scales_out_and_in_passes() {
        let evidence = walkthrough(&GOOD);
        assert_eq!(failed(&evidence), Vec::<&str>::new());
        let found: Vec<String> = evidence.checks(1, 10).iter().map(ToString::to_string).collect();
        assert_eq!(found[0], "  ok   scaled out     1 → 10, 20 s after the load began");
        assert_eq!(found[1], "  ok   scaled in      10 → 1, 12 s after the load ended");
        assert!(found[3].ends_with("for 10.0 s: 2 queries, 2 answered, 0 with a warning; slowest 3000 ms"));
    }

    #[test]
    fn each_failed_check_is_named() {
        let with = |index: usize, round| {
            let mut rounds = GOOD;
            rounds[index] = round;
            walkthrough(&rounds)
        };
        assert_eq!(failed(&with(2, (25, 9, 5, true))), Vec::<&str>::new(), "10 are reached a little later");
        assert_eq!(failed(&with(6, (72, 2, 5, true))), ["scaled in"]);
        assert_eq!(failed(&with(0, (4, 3, 5, true))), ["scaled out"]);
        assert_eq!(failed(&with(5, (50, 10, 5, false))), ["queries"]);
        assert_eq!(failed(&with(4, (35, 10, 9000, true))), ["member frozen"]);
        assert_eq!(failed(&with(4, (41, 10, 5, true))), ["member frozen"], "one query does not prove it");
        assert_eq!(failed(&with(4, (35, 6, 5, true))), ["nothing lost"]);
        let mut flapped = walkthrough(&GOOD);
        flapped.probes = Some(Probes { failed: 0, unavailable: vec!["FailedDiscoveryCheck".to_owned()] });
        assert_eq!(failed(&flapped), ["APIService"]);
        assert_eq!(failed(&Evidence::default()).len(), 6);
    }
}
