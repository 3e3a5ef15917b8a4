//! Members join, leave and change at random under load. Each response must match a state that was possible at that time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::api_client::Answer;
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::Member;

use crate::stage::{GENEROUS, Stage, clusters, distinct};

const CLUSTERS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// The number of concurrent query loops, in addition to those that wait for a change.
const CLIENTS: usize = 3;
/// The default duration. The environment variables `CHURN_SECONDS` and `CHURN_SEED` change duration and seed.
const SECONDS: u64 = 10;

/// A cluster's state as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The cluster is not in the fleet.
    Absent,
    /// The response has values of the cluster.
    Queried,
    /// A warning or error names the cluster as NotReady.
    NotReady,
}

/// A state and the time in which a response may show it: from the change to this state until the next state was observed.
struct Span {
    state: State,
    from: Instant,
    until: Option<Instant>,
}

/// The possible states of each cluster over time.
#[derive(Default)]
struct ExpectedStates {
    spans: Mutex<BTreeMap<&'static str, Vec<Span>>>,
}

/// The start and end of a query, and the cluster states in its response.
struct Observed {
    started: Instant,
    finished: Instant,
    states: BTreeMap<&'static str, State>,
}

/// Marsaglia's xorshift random number generator. The same seed gives the same numbers.
struct Random(u64);

impl ExpectedStates {
    fn begin(&self, cluster: &'static str, state: State) {
        let span = Span { state, from: Instant::now(), until: None };
        self.spans.lock().expect("not poisoned").entry(cluster).or_default().push(span);
    }

    /// The last change was observed: the states before it are no longer allowed.
    fn settle(&self, cluster: &'static str) {
        let mut spans = self.spans.lock().expect("not poisoned");
        let spans = spans.get_mut(cluster).expect("the cluster has a state");
        let count = spans.len();
        spans[..count - 1].iter_mut().for_each(|span| {
            span.until.get_or_insert_with(Instant::now);
        });
    }

    fn check(&self, observed: &Observed) {
        let spans = self.spans.lock().expect("not poisoned");
        for (cluster, state) in &observed.states {
            let held = spans[cluster].iter().filter(|span| {
                span.from <= observed.finished && span.until.is_none_or(|until| until >= observed.started)
            });
            let allowed: Vec<State> = held.map(|span| span.state).collect();
            assert!(allowed.contains(state), "{cluster} is {state:?}, but only {allowed:?} are possible");
        }
    }
}

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).expect("a small number")
    }
}

impl Observed {
    async fn now(stage: &Stage, queries: &AtomicUsize) -> Self {
        let path = distinct(queries.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        let response = stage.get(&path).await;
        Self { started, finished: Instant::now(), states: states(&response) }
    }
}

/// The state of each cluster in a response. Panics if the response has an unexpected form.
fn states(response: &Answer) -> BTreeMap<&'static str, State> {
    let body = response.json().expect("JSON");
    let (present, missing): (Vec<String>, Vec<String>) = match response.status {
        StatusCode::OK => {
            let present = clusters(&body);
            assert_eq!(body["items"].as_array().map(Vec::len), Some(present.len()), "one pod per cluster");
            let text = response.warnings().join(" ");
            let named =
                CLUSTERS.iter().filter(|name| text.contains(&format!(" {name}: the cluster is not Ready")));
            let missing: Vec<String> = named.map(ToString::to_string).collect();
            let counted = text.split("values of ").nth(1).and_then(|rest| rest.split(' ').next());
            let counted = counted.map_or(0, |count| count.parse().expect("a number"));
            assert_eq!(counted, missing.len(), "{text}");
            (present, missing)
        }
        StatusCode::NOT_FOUND => Default::default(),
        StatusCode::SERVICE_UNAVAILABLE => {
            let causes = body["details"]["causes"].as_array().expect("causes").iter();
            let missing = causes.map(|cause| {
                assert_eq!(cause["reason"], "NotReady", "{body}");
                cause["field"].as_str().expect("a cluster").to_owned()
            });
            (Vec::new(), missing.collect())
        }
        status => panic!("{status}: {body}"),
    };
    let state =
        |name: &str| match (present.iter().any(|one| one == name), missing.iter().any(|one| one == name)) {
            (true, false) => State::Queried,
            (false, true) => State::NotReady,
            (false, false) => State::Absent,
            (true, true) => panic!("{name} has values and is missing: {body}"),
        };
    CLUSTERS.into_iter().map(|name| (name, state(name))).collect()
}

/// Changes some clusters, one at a time. Waits until a query shows each change.
async fn change(
    stage: &Stage,
    expected: &ExpectedStates,
    queries: &AtomicUsize,
    members: &[&Member],
    mut random: Random,
    until: Instant,
) -> usize {
    let mut changes = 0;
    let mut present = vec![State::Absent; members.len()];
    while Instant::now() < until {
        let index = random.below(members.len());
        let cluster = CLUSTERS.into_iter().find(|name| *name == members[index].name()).expect("one of them");
        let others = [State::Absent, State::Queried, State::NotReady]
            .into_iter()
            .filter(|state| *state != present[index]);
        let next = others.collect::<Vec<_>>()[random.below(2)];
        expected.begin(cluster, next);
        let plane = &stage.fleet.plane;
        match (present[index], next) {
            (_, State::Absent) => plane.remove(cluster),
            (State::Absent, _) => {
                let joining =
                    MemberSpec { ready: next == State::Queried, ..MemberSpec::from(members[index]) };
                plane.join(&joining).expect("the cluster joins");
            }
            _ => plane.set_ready(cluster, next == State::Queried),
        }
        let deadline = Instant::now() + GENEROUS;
        loop {
            let observed = Observed::now(stage, queries).await;
            expected.check(&observed);
            if observed.states[cluster] == next {
                break;
            }
            assert!(Instant::now() < deadline, "{cluster} never became {next:?}");
        }
        expected.settle(cluster);
        present[index] = next;
        changes += 1;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_match_the_state_during_random_changes() {
    let seconds = environment("CHURN_SECONDS").unwrap_or(SECONDS);
    let seed = environment("CHURN_SEED").unwrap_or(0x0005_DEEC_E66D).max(1);
    let mut members = Vec::new();
    let expected = ExpectedStates::default();
    for name in CLUSTERS {
        members.push(Member::start(name).await.expect("a member starts").with_pods("http_requests", 1));
        expected.begin(name, State::Absent);
    }
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    let stage = Stage::start_in(fleet, &[], Vec::new()).await;
    let queries = AtomicUsize::new(0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients = futures::future::join_all((0..CLIENTS).map(|_| async {
        while Instant::now() < until {
            expected.check(&Observed::now(&stage, &queries).await);
        }
    }));
    let members: Vec<&Member> = members.iter().collect();
    let changes = futures::future::join_all(
        members
            .chunks(2)
            .zip(seed..)
            .map(|(some, seed)| change(&stage, &expected, &queries, some, Random(seed), until)),
    );
    let (_, changes) = futures::join!(clients, changes);
    let (changes, queries) = (changes.iter().sum::<usize>(), queries.into_inner());
    eprintln!("seed {seed}: {queries} queries and {changes} changes in {seconds} s");
    assert!(changes > 20 && queries > 100, "{queries} queries and {changes} changes");
}

fn environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}
