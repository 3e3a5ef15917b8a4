//! The measurement: rounds in which each program in turn gets the same load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::fleet::Fleet;
use crate::load::{Connection, Taken};
use crate::program::{Binary, Kind, Program};
use crate::results::{Figures, Quartiles, Start, median};
use crate::scenario::{Scenario, Stage};

/// How long a program may take until it answers with the values of all members. The reference takes minutes for 1,000.
const COMPLETE_LIMIT: Duration = Duration::from_secs(600);
/// A program that would take longer than this for one query of each client, one after the other, is left out of the
/// scenario.
const WAVE_LIMIT: Duration = Duration::from_secs(15);
/// A program has no further turn once its turns have taken this long.
const ROUNDS_LIMIT: Duration = Duration::from_secs(15);
/// Starts of a program whose median is quoted, unless one takes longer than [`SLOW_START`].
const STARTS: usize = 5;
const SLOW_START: Duration = Duration::from_secs(10);
/// How long idle memory has not grown when it is read.
const SETTLED: Duration = Duration::from_secs(2);

/// How much is measured of each scenario.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds, in each of which every program has its turn.
    pub rounds: usize,
    /// How long a program's turn takes, roughly.
    pub turn: Duration,
}

/// One program's turn of one round.
struct Turn {
    cpu_ms: f64,
    taken: Taken,
}

/// A program in a scenario.
struct Contender<'a> {
    program: &'a Program,
    connection: Connection,
    /// The length of each answer, in bytes.
    length: usize,
    /// Requests to each member for one query.
    requests: f64,
    /// Queries of a turn.
    queries: usize,
    turns: Vec<Turn>,
}

/// Measures a scenario with each of these programs, which run on the fleet.
///
/// # Errors
/// If a program answers with anything but the values of all members.
pub async fn scenario(
    fleet: &Fleet,
    scenario: &Scenario,
    programs: &[Program],
    effort: Effort,
) -> anyhow::Result<BTreeMap<Kind, Figures>> {
    let mut contenders = Vec::new();
    for program in programs {
        program.reset_peak()?;
        let prepared = prepare(fleet, scenario, program, effort).await;
        contenders.extend(tolerate(program.kind, prepared.with_context(|| scenario.to_string()))?.flatten());
    }
    for _ in 0..effort.rounds {
        for place in (0..contenders.len()).rev() {
            let turn = contenders[place].turn(scenario).await.with_context(|| scenario.to_string());
            if tolerate(contenders[place].program.kind, turn)?.is_none() {
                contenders.remove(place);
            }
        }
    }
    let mut figures = BTreeMap::new();
    for contender in &contenders {
        let of_kind = |kind| contenders.iter().find(|other| other.program.kind == kind);
        let figure = contender.figures(of_kind(Kind::Floor), of_kind(Kind::Baseline))?;
        figures.insert(contender.program.kind, figure);
    }
    Ok(figures)
}

/// Measures how a program starts, alone on the fleet.
///
/// # Errors
/// If it does not start, or does not answer with the values of all members.
pub async fn start(fleet: &Fleet, stage: &Stage, binary: &Binary) -> anyhow::Result<Start> {
    let scenario = stage.scenarios.first().context("a stage has scenarios")?;
    let (mut complete, mut idle) = (Vec::new(), Vec::new());
    while complete.len() < STARTS {
        fleet.disconnected().await?;
        let began = Instant::now();
        let program = Program::start(binary, fleet, &[])?;
        first_complete(&program, scenario).await?;
        complete.push(began.elapsed());
        drop(program);

        fleet.disconnected().await?;
        let program = Program::start(binary, fleet, &[])?;
        fleet.connected().await?;
        idle.push(settled_memory(&program).await?);
        if began.elapsed() > SLOW_START {
            break;
        }
    }
    let complete = median(complete.iter().map(Duration::as_secs_f64));
    let idle = median(idle.iter().map(|bytes| *bytes as f64)) as u64;
    Ok(Start { size: fleet.size, kind: binary.kind, complete: Duration::from_secs_f64(complete), idle })
}

/// Lets a program answer completely, counts its requests to members, and finds out how many queries fill a turn. None if
/// it is too slow for this scenario.
async fn prepare<'a>(
    fleet: &Fleet,
    scenario: &Scenario,
    program: &'a Program,
    effort: Effort,
) -> anyhow::Result<Option<Contender<'a>>> {
    let load = scenario.load();
    let (connection, body) = first_complete(program, scenario).await?;
    let length = body.len();
    let single = connection.run(&load, 1, length).await?.elapsed;
    if single * u32::try_from(load.clients)? > WAVE_LIMIT {
        return Ok(None);
    }
    fleet.forget_requests();
    let mut queries = load.clients;
    let mut taken = connection.run(&load, queries, length).await?;
    let requests = fleet.requests(program.kind.user_agent()) as f64 / (queries * fleet.size.members) as f64;
    while taken.elapsed < effort.turn / 2 {
        queries *= 2;
        taken = connection.run(&load, queries, length).await?;
    }
    let filling = queries as f64 * effort.turn.as_secs_f64() / taken.elapsed.as_secs_f64();
    let queries = (filling as usize).max(load.clients);
    Ok(Some(Contender { program, connection, length, requests, queries, turns: Vec::new() }))
}

/// The first answer of a program with the values of all members, and the connection that it came on.
///
/// # Errors
/// If there is none after ten minutes, or the program ends.
pub async fn first_complete(program: &Program, scenario: &Scenario) -> anyhow::Result<(Connection, Bytes)> {
    let load = scenario.load();
    let answer = async || {
        let connection = program.connect().await?;
        let body = connection.get(&load).await?;
        ensure!(
            scenario.is_complete(&body),
            "{}: {} bytes without the values of all members",
            load.paths[0],
            body.len()
        );
        Ok((connection, body))
    };
    let began = Instant::now();
    loop {
        match answer().await {
            Err(_) if began.elapsed() < COMPLETE_LIMIT => {
                program.memory().with_context(|| format!("the {} has ended", program.kind))?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answer => return answer,
        }
    }
}

/// Resident memory once it has not grown for a while, in bytes.
async fn settled_memory(program: &Program) -> anyhow::Result<u64> {
    let (mut resident, _) = program.memory()?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (now, _) = program.memory()?;
        if now > resident {
            (resident, since) = (now, Instant::now());
        }
    }
    Ok(resident)
}

/// What was made of a program, without the failures of the reference, which is not ours: the output says why it is left
/// out.
///
/// # Errors
/// If another program failed.
pub fn tolerate<T>(kind: Kind, made: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match made {
        Err(error) if kind == Kind::Reference => {
            println!("the reference is left out here: {error:#}");
            Ok(None)
        }
        made => made.map(Some).with_context(|| kind.to_string()),
    }
}

impl Contender<'_> {
    /// One turn, if there is time left for it.
    async fn turn(&mut self, scenario: &Scenario) -> anyhow::Result<()> {
        let spent: Duration = self.turns.iter().map(|turn| turn.taken.elapsed).sum();
        if spent > ROUNDS_LIMIT {
            return Ok(());
        }
        let before = self.program.cpu_time()?;
        let taken = self.connection.run(&scenario.load(), self.queries, self.length).await?;
        let cpu = self.program.cpu_time()? - before;
        self.turns.push(Turn { cpu_ms: milliseconds(cpu) / self.queries as f64, taken });
        Ok(())
    }

    fn figures(&self, floor: Option<&Self>, baseline: Option<&Self>) -> anyhow::Result<Figures> {
        let mut latencies: Vec<Duration> =
            self.turns.iter().flat_map(|turn| turn.taken.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let (resident, peak) = self.program.memory()?;
        Ok(Figures {
            cpu_ms: median(self.turns.iter().map(|turn| turn.cpu_ms)),
            to_floor: floor.and_then(|floor| self.cpu_over(floor)),
            to_baseline: baseline.and_then(|baseline| self.cpu_over(baseline)),
            queries_a_second: median(self.turns.iter().map(Turn::queries_a_second)),
            p50_ms: milliseconds(quantile(&latencies, 0.5)),
            p99_ms: milliseconds(quantile(&latencies, 0.99)),
            resident,
            peak,
            requests: self.requests,
            queries: latencies.len(),
        })
    }

    /// The ratios of CPU a query, round by round.
    fn cpu_over(&self, other: &Self) -> Option<Quartiles> {
        if self.program.kind == other.program.kind {
            return None;
        }
        Quartiles::of(self.turns.iter().zip(&other.turns).map(|(one, other)| one.cpu_ms / other.cpu_ms))
    }
}

impl Turn {
    fn queries_a_second(&self) -> f64 {
        self.taken.latencies.len() as f64 / self.taken.elapsed.as_secs_f64()
    }
}

/// The latency that this share of all (in ascending order, at least one) does not exceed.
fn quantile(latencies: &[Duration], share: f64) -> Duration {
    let index = (latencies.len() as f64 * share).ceil() as usize;
    latencies[index.clamp(1, latencies.len()) - 1]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
