//! The measurement: in each round every program in turn gets the same load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use tokio::time::timeout;

use crate::fleet::Fleet;
use crate::load::{Connection, Timing};
use crate::program::{Binary, Kind, Program};
use crate::results::{Figures, Quartiles, Start, median};
use crate::scenario::{Scenario, Stage};

/// Time limit for a program's first response with the values of all members.
const COMPLETE_LIMIT: Duration = Duration::from_secs(180);
/// Time limit for one query of each client, one after the other. A slower program is left out of the scenario.
const WAVE_LIMIT: Duration = Duration::from_secs(15);
/// A program that takes longer than this to start is started only once.
const SLOW_START: Duration = Duration::from_secs(10);
/// Idle memory is read when it has not changed by more than [`STEADY`] for this time.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes (256 KiB).
const STEADY: u64 = 256 << 10;
/// Queries per client for the count of requests to members.
const COUNTED: usize = 4;

/// Amount of measurements per scenario.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Number of rounds. Each program has one turn per round.
    pub rounds: usize,
    /// Approximate duration of a program's turn.
    pub turn: Duration,
    /// Maximum total duration of a program's turns in a scenario. In a main scenario it is three times as long.
    pub limit: Duration,
    /// Number of starts of each program. The median is reported.
    pub starts: usize,
}

/// One program's turn in one round.
struct Turn {
    cpu_ms: f64,
    timing: Timing,
}

/// A program in a scenario.
struct Contender<'a> {
    program: &'a Program,
    connection: Connection,
    /// Bytes of each response.
    length: usize,
    /// Requests to each member per query.
    requests: f64,
    /// Queries per turn.
    queries: usize,
    turns: Vec<Turn>,
}

/// Measures a scenario with each of these programs, which run on the fleet.
///
/// # Errors
/// If a response of a program has not the values of all members.
pub async fn scenario(
    fleet: &Fleet,
    scenario: &Scenario,
    programs: &[Program],
    effort: Effort,
) -> anyhow::Result<BTreeMap<Kind, Figures>> {
    let mut contenders = Vec::new();
    for program in programs {
        let prepared = prepare(fleet, scenario, program, effort).await.with_context(|| scenario.to_string());
        contenders.extend(unless_reference_failed(program, prepared)?.flatten());
    }
    for _ in 0..effort.rounds {
        let mut next_round = Vec::new();
        for mut contender in contenders {
            let turn = contender.turn_if_time(scenario, effort).await.with_context(|| scenario.to_string());
            next_round.extend(unless_reference_failed(contender.program, turn)?.map(|()| contender));
        }
        // Work that a program finishes after its turn slows the next program. The reversed order spreads this.
        next_round.reverse();
        contenders = next_round;
    }
    let mut figures = BTreeMap::new();
    for contender in &contenders {
        let of_kind = |kind| contenders.iter().find(|other| other.program.kind == kind);
        let figure = contender.figures(of_kind(Kind::Floor), of_kind(Kind::Baseline))?;
        figures.insert(contender.program.kind, figure);
    }
    Ok(figures)
}

/// Measures the start of a program, alone on the fleet. `None` if it is the reference and fails.
///
/// # Errors
/// If the program does not start, or does not respond with the values of all members.
pub async fn start(
    fleet: &Fleet,
    stage: &Stage,
    binary: &Binary,
    effort: Effort,
) -> anyhow::Result<Option<Start>> {
    let scenario = stage.scenarios.first().context("the stage has no scenario")?;
    let (mut complete, mut idle) = (Vec::new(), Vec::new());
    while complete.len() < effort.starts {
        fleet.disconnected().await?;
        let began = Instant::now();
        let program = Program::start(binary, fleet, &[])?;
        let first = first_complete(&program, scenario).await;
        let Some(first) = unless_reference_failed(&program, first)? else { return Ok(None) };
        let took = first.received - began;
        complete.push(took);
        drop(program);

        fleet.disconnected().await?;
        let program = Program::start(binary, fleet, &[])?;
        fleet.connected().await?;
        idle.push(settled_memory(&program).await?);
        if took > SLOW_START {
            break;
        }
    }
    let complete = median(complete.iter().map(Duration::as_secs_f64));
    let idle = median(idle.iter().map(|bytes| *bytes as f64)) as u64;
    let complete = Duration::from_secs_f64(complete);
    Ok(Some(Start { size: fleet.size, kind: binary.kind, complete, idle }))
}

/// Waits for a complete response, counts the program's requests to members, and determines how many queries fill a turn. `None`
/// if the program is too slow for this scenario.
async fn prepare<'a>(
    fleet: &Fleet,
    scenario: &Scenario,
    program: &'a Program,
    effort: Effort,
) -> anyhow::Result<Option<Contender<'a>>> {
    let load = scenario.load();
    let clients = load.clients;
    program.reset_peak()?;
    let FirstComplete { connection, body, .. } = first_complete(program, scenario).await?;
    let length = body.len();
    let single = connection.run(&load, 1, length).await?.elapsed;
    let single = single.min(connection.run(&load, 1, length).await?.elapsed);
    if single * u32::try_from(clients)? > WAVE_LIMIT {
        println!("the {} is left out of {scenario}: one query takes {single:.1?}", program.kind);
        return Ok(None);
    }
    fleet.forget_requests();
    let mut queries = COUNTED * clients;
    let mut timing = connection.run(&load, queries, length).await?;
    let requests = fleet.requests(program.kind) as f64 / (queries * fleet.size.members) as f64;
    while timing.elapsed < effort.turn / 2 {
        queries *= 2;
        timing = connection.run(&load, queries, length).await?;
    }
    let filling = queries as f64 * effort.turn.as_secs_f64() / timing.elapsed.as_secs_f64();
    // Each client has the same number of queries, so that all clients are busy until about the end.
    let queries = (filling / clients as f64).ceil() as usize * clients;
    Ok(Some(Contender { program, connection, length, requests, queries, turns: Vec::new() }))
}

/// A program's first response with the values of all members.
pub struct FirstComplete {
    /// The connection of the response.
    pub connection: Connection,
    /// Its body.
    pub body: Bytes,
    /// When its last byte arrived.
    pub received: Instant,
}

/// Queries a program until it responds with the values of all members.
///
/// # Errors
/// If it does not within three minutes, or exits.
pub async fn first_complete(program: &Program, scenario: &Scenario) -> anyhow::Result<FirstComplete> {
    let load = scenario.load();
    let answer = async || {
        let connection = program.connect().await?;
        let body = connection.get(&load).await?;
        let received = Instant::now();
        let (path, length) = (&load.paths[0], body.len());
        ensure!(scenario.is_complete(&body), "{path}: {length} bytes without the values of all members");
        Ok(FirstComplete { connection, body, received })
    };
    let began = Instant::now();
    let deadline = began + COMPLETE_LIMIT;
    let mut reported = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = timeout(left, answer()).await;
        let answer =
            answer.unwrap_or_else(|_| Err(anyhow!("no response after {} s", COMPLETE_LIMIT.as_secs())));
        let Err(error) = answer else { return answer };
        if Instant::now() >= deadline {
            return Err(error);
        }
        if began.elapsed() > SLOW_START && !reported {
            println!("still waiting for the values of all members from the {}: {error:#}", program.kind);
            reported = true;
        }
        program.memory()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Resident memory in bytes when it is steady.
async fn settled_memory(program: &Program) -> anyhow::Result<u64> {
    let (mut resident, _) = program.memory()?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (now, _) = program.memory()?;
        if now.abs_diff(resident) > STEADY {
            (resident, since) = (now, Instant::now());
        }
    }
    Ok(resident)
}

/// The result of work with a program. If the reference failed, prints the error and returns `None`.
///
/// # Errors
/// If another program failed.
pub fn unless_reference_failed<T>(program: &Program, result: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let result =
        result.with_context(|| format!("the {} failed (log: {})", program.kind, program.log.display()));
    match result {
        Err(error) if program.kind == Kind::Reference => {
            println!("left out here: {error:#}");
            Ok(None)
        }
        result => result.map(Some),
    }
}

impl Contender<'_> {
    async fn turn_if_time(&mut self, scenario: &Scenario, effort: Effort) -> anyhow::Result<()> {
        let spent: Duration = self.turns.iter().map(|turn| turn.timing.elapsed).sum();
        let limit = effort.limit * if scenario.is_main() { 3 } else { 1 };
        if spent > limit {
            return Ok(());
        }
        let before = self.program.cpu_time()?;
        let timing = self.connection.run(&scenario.load(), self.queries, self.length).await?;
        let cpu = self.program.cpu_time()? - before;
        self.turns.push(Turn { cpu_ms: milliseconds(cpu) / self.queries as f64, timing });
        Ok(())
    }

    fn figures(&self, floor: Option<&Self>, baseline: Option<&Self>) -> anyhow::Result<Figures> {
        let mut latencies: Vec<Duration> =
            self.turns.iter().flat_map(|turn| turn.timing.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let (resident, peak) = self.program.memory()?;
        Ok(Figures {
            cpu_ms: median(self.turns.iter().map(|turn| turn.cpu_ms)),
            to_floor: floor.and_then(|floor| self.cpu_over(floor)),
            to_baseline: baseline
                .filter(|_| self.program.kind == Kind::Adapter)
                .and_then(|baseline| self.cpu_over(baseline)),
            queries_a_second: median(self.turns.iter().map(Turn::queries_a_second)),
            p50_ms: milliseconds(quantile(&latencies, 0.5)),
            p99_ms: (latencies.len() >= 100).then(|| milliseconds(quantile(&latencies, 0.99))),
            resident,
            peak,
            requests: self.requests,
            queries: latencies.len(),
            turns: self.turns.len(),
        })
    }

    /// The ratios of CPU time per query, round by round.
    fn cpu_over(&self, other: &Self) -> Option<Quartiles> {
        if self.program.kind == other.program.kind {
            return None;
        }
        Quartiles::of(self.turns.iter().zip(&other.turns).map(|(one, other)| one.cpu_ms / other.cpu_ms))
    }
}

impl Turn {
    fn queries_a_second(&self) -> f64 {
        self.timing.latencies.len() as f64 / self.timing.elapsed.as_secs_f64()
    }
}

/// The latency that this share of all latencies does not exceed. `latencies` are in ascending order and not empty.
fn quantile(latencies: &[Duration], share: f64) -> Duration {
    let index = (latencies.len() as f64 * share).ceil() as usize;
    latencies[index.clamp(1, latencies.len()) - 1]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
