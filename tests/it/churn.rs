//! Members that join, leave and change at random under load, and a model that says what was true when.

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
/// How many queries are in flight at a time, beside those that wait for a change.
const CLIENTS: usize = 3;
/// `CHURN_SECONDS` and `CHURN_SEED` take their place.
const SECONDS: u64 = 10;

/// What a cluster is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is not in the fleet.
    Absent,
    /// Its values are in the answer.
    Asked,
    /// It is named as missing.
    NotReady,
}

/// A state that held from the change that began it until another was seen.
struct Span {
    state: State,
    from: Instant,
    until: Option<Instant>,
}

/// The model.
#[derive(Default)]
struct Truth {
    spans: Mutex<BTreeMap<&'static str, Vec<Span>>>,
}

/// What was asked, when, and what came of it.
struct Observed {
    asked: Instant,
    answered: Instant,
    states: BTreeMap<&'static str, State>,
}

/// Marsaglia's xorshift: the same steps for the same seed.
struct Dice(u64);

impl Truth {
    fn begin(&self, cluster: &'static str, state: State) {
        let span = Span { state, from: Instant::now(), until: None };
        self.spans.lock().expect("no holder panics").entry(cluster).or_default().push(span);
    }

    /// The last change has been seen: what was before it is over.
    fn settle(&self, cluster: &'static str) {
        let mut spans = self.spans.lock().expect("no holder panics");
        let spans = spans.get_mut(cluster).expect("it has begun");
        let count = spans.len();
        spans[..count - 1].iter_mut().for_each(|span| {
            span.until.get_or_insert_with(Instant::now);
        });
    }

    fn check(&self, observed: &Observed) {
        let spans = self.spans.lock().expect("no holder panics");
        for (cluster, state) in &observed.states {
            let held = spans[cluster].iter().filter(|span| {
                span.from <= observed.answered && span.until.is_none_or(|until| until >= observed.asked)
            });
            let allowed: Vec<State> = held.map(|span| span.state).collect();
            assert!(allowed.contains(state), "{cluster} was {state:?} and may have been {allowed:?}");
        }
    }
}

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).expect("it is small")
    }
}

impl Observed {
    async fn now(stage: &Stage, asked: &AtomicUsize) -> Self {
        let path = distinct(asked.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        let answer = stage.get(&path).await;
        Self { asked: start, answered: Instant::now(), states: states(&answer) }
    }
}

/// What an answer says of each cluster; an answer that says anything else is wrong.
fn states(answer: &Answer) -> BTreeMap<&'static str, State> {
    let body = answer.json().expect("JSON");
    let (present, missing): (Vec<String>, Vec<String>) = match answer.status {
        StatusCode::OK => {
            let present = clusters(&body);
            assert_eq!(body["items"].as_array().map(Vec::len), Some(present.len()), "one pod each");
            let text = answer.warnings().join(" ");
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
            (true, false) => State::Asked,
            (false, true) => State::NotReady,
            (false, false) => State::Absent,
            (true, true) => panic!("{name} is there and missing: {body}"),
        };
    CLUSTERS.into_iter().map(|name| (name, state(name))).collect()
}

/// Changes some clusters, one at a time, and waits for each change to be seen.
async fn change(
    stage: &Stage,
    truth: &Truth,
    asked: &AtomicUsize,
    members: &[&Member],
    mut dice: Dice,
    until: Instant,
) -> usize {
    let mut changes = 0;
    let mut present = vec![State::Absent; members.len()];
    while Instant::now() < until {
        let index = dice.below(members.len());
        let cluster = CLUSTERS.into_iter().find(|name| *name == members[index].name()).expect("one of them");
        let others =
            [State::Absent, State::Asked, State::NotReady].into_iter().filter(|one| *one != present[index]);
        let next = others.collect::<Vec<_>>()[dice.below(2)];
        truth.begin(cluster, next);
        let plane = &stage.fleet.plane;
        match (present[index], next) {
            (_, State::Absent) => plane.remove(cluster),
            (State::Absent, _) => {
                let joining = MemberSpec { ready: next == State::Asked, ..MemberSpec::from(members[index]) };
                plane.join(&joining).expect("it joins");
            }
            _ => plane.set_ready(cluster, next == State::Asked),
        }
        let deadline = Instant::now() + GENEROUS;
        loop {
            let observed = Observed::now(stage, asked).await;
            truth.check(&observed);
            if observed.states[cluster] == next {
                break;
            }
            assert!(Instant::now() < deadline, "{cluster} never became {next:?}");
        }
        truth.settle(cluster);
        present[index] = next;
        changes += 1;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_equals_what_was_true_when_it_was_asked() {
    let seconds = environment("CHURN_SECONDS").unwrap_or(SECONDS);
    let seed = environment("CHURN_SEED").unwrap_or(0x0005_DEEC_E66D).max(1);
    let mut members = Vec::new();
    let truth = Truth::default();
    for name in CLUSTERS {
        members.push(Member::start(name).await.expect("a member starts").with_pods("http_requests", 1));
        truth.begin(name, State::Absent);
    }
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    let stage = Stage::start_in(fleet, &[], Vec::new()).await;
    let asked = AtomicUsize::new(0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients = futures::future::join_all((0..CLIENTS).map(|_| async {
        while Instant::now() < until {
            truth.check(&Observed::now(&stage, &asked).await);
        }
    }));
    let members: Vec<&Member> = members.iter().collect();
    let changes = futures::future::join_all(
        members
            .chunks(2)
            .zip(seed..)
            .map(|(some, seed)| change(&stage, &truth, &asked, some, Dice(seed), until)),
    );
    let (_, changes) = futures::join!(clients, changes);
    let (changes, asked) = (changes.iter().sum::<usize>(), asked.into_inner());
    eprintln!("seed {seed}: {asked} answers and {changes} changes in {seconds} s");
    assert!(changes > 20 && asked > 100, "{asked} answers and {changes} changes");
}

fn environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}
