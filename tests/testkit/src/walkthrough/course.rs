//! One run of the walkthrough, from round to round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_util::task::AbortOnDropHandle;

use super::evidence::{Check, Evidence, average};
use super::phase::{Phase, Progress};
use super::screen::{Row, Screen, View};
use super::stage::Stage;
use crate::federated_hpa::{Reading, Round};

/// Interval of screen updates and phase checks.
const TICK: Duration = Duration::from_millis(250);
/// Load time on all replicas before the command is run: by then each replica has a value.
const SETTLED: Duration = Duration::from_secs(5);

/// State and observations of a walkthrough.
pub(super) struct Course {
    began: Instant,
    phase: Phase,
    since: Instant,
    evidence: Evidence,
    view: View,
    limits: (i32, i32),
    frozen: String,
    /// The cluster of each pod, also of pods that can no longer be read.
    origins: BTreeMap<String, String>,
    demonstration: Option<AbortOnDropHandle<anyhow::Result<String>>>,
    demonstrated: bool,
}

impl Course {
    /// A course at its start.
    pub(super) fn new(stage: &Stage) -> Self {
        let now = Instant::now();
        let limits = stage.limits();
        let view =
            View { replicas: limits.0, max_replicas: limits.1, target: stage.target(), ..View::default() };
        Self {
            began: now,
            phase: Phase::Idle,
            since: now,
            evidence: Evidence::default(),
            view,
            limits,
            frozen: stage.frozen_member().to_owned(),
            origins: BTreeMap::new(),
            demonstration: None,
            demonstrated: false,
        }
    }

    /// Runs the walkthrough to its end.
    ///
    /// # Errors
    /// If the adapter or the scaling loop ends.
    pub(super) async fn run(&mut self, stage: &mut Stage, screen: &mut Screen) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        while self.phase != Phase::Done {
            tokio::select! {
                round = stage.rounds.rounds.recv() => self.see(&round.context("the scaling loop has ended")?),
                _ = ticks.tick() => {}
            }
            stage.adapter.check()?;
            self.advance(stage);
            if let Some(output) = self.command_output().await {
                screen.say(&format!("\n$ {}\n{output}", stage.query_command.line()));
            }
            self.chart();
            self.view.elapsed = self.began.elapsed();
            self.view.remaining = self.phase.remaining(self.since.elapsed());
            self.view.phase = self.phase.title(&self.frozen);
            screen.show(&self.view);
        }
        screen.finish();
        self.evidence.probes = stage.probes();
        self.evidence.load = stage.load_counts();
        Ok(())
    }

    /// The checks and their results.
    pub(super) fn checks(&self) -> Vec<Check> {
        self.evidence.checks(self.limits.0, self.limits.1)
    }

    /// The summary line of the load generator.
    pub(super) fn load_line(&self) -> String {
        self.evidence.load_line()
    }

    fn see(&mut self, round: &Round) {
        self.evidence.observe(round, Instant::now());
        self.view.replicas = round.replicas;
        for cluster in &round.clusters {
            for pod in cluster.pods.iter().flatten() {
                self.origins.insert(pod.name.clone(), cluster.name.clone());
            }
        }
        let Some(query) = round.queries.first() else { return };
        let values = match &query.reading {
            Ok(Reading::Pods(values)) => values.clone(),
            _ => BTreeMap::new(),
        };
        self.view.average = query.reading.as_ref().ok().and_then(average);
        self.view.query =
            Some((query.took, query.reading.as_ref().map(|_| values.len()).map_err(ToString::to_string)));
        self.view.warnings.clone_from(&query.warnings);
        self.view.clusters = round
            .clusters
            .iter()
            .map(|cluster| {
                let own: BTreeMap<String, i64> = values
                    .iter()
                    .filter(|(pod, _)| self.origins.get(*pod) == Some(&cluster.name))
                    .map(|(pod, value)| (pod.clone(), *value))
                    .collect();
                Row {
                    name: cluster.name.clone(),
                    wanted: cluster.wanted,
                    ready: cluster.pods.as_ref().ok().map(|pods| pods.iter().filter(|pod| pod.ready).count()),
                    frozen: false,
                    values: own.len(),
                    average: average(&Reading::Pods(own)),
                }
            })
            .collect();
    }

    fn advance(&mut self, stage: &mut Stage) {
        let now = Instant::now();
        let next = self.phase.advance(Progress {
            lasted: now - self.since,
            replicas: self.view.replicas,
            fewest: self.limits.0,
            most: self.limits.1,
        });
        if next != self.phase {
            self.phase = next;
            self.since = now;
            self.view.load = stage.set_load(next.has_load());
            match next {
                Phase::ScaleOut => self.evidence.load_began = Some(now),
                Phase::Frozen => {
                    stage.freeze();
                    self.evidence.froze = Some(now);
                }
                Phase::Thawed => {
                    stage.thaw();
                    self.evidence.thawed = Some(now);
                }
                Phase::ScaleIn => self.evidence.load_ended = Some(now),
                Phase::Idle | Phase::Steady | Phase::Settled | Phase::Done => {}
            }
        }
        if self.phase == Phase::Steady && !self.demonstrated && now - self.since >= SETTLED {
            let query_command = stage.query_command.clone();
            let task = tokio::spawn(async move { query_command.run().await });
            self.demonstration = Some(AbortOnDropHandle::new(task));
            self.demonstrated = true;
        }
        for row in &mut self.view.clusters {
            row.frozen = self.phase == Phase::Frozen && row.name == self.frozen;
        }
    }

    /// The output of the command, when it has finished.
    async fn command_output(&mut self) -> Option<String> {
        if !self.demonstration.as_ref()?.is_finished() {
            return None;
        }
        let result = self.demonstration.take()?.await;
        Some(match result.map_err(anyhow::Error::from).flatten() {
            Ok(output) => output,
            Err(error) => format!("the command failed: {error:#}"),
        })
    }

    /// One bar per two seconds, so that the whole course fits into a line.
    fn chart(&mut self) {
        let bars = usize::try_from(self.began.elapsed().as_secs() / 2).unwrap_or_default();
        while self.view.chart.len() <= bars {
            self.view.chart.push(self.view.replicas);
        }
    }
}
