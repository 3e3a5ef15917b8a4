//! The fleet for all measurements: the test kit's control plane and members. The members' responses are encoded in advance, so
//! that they cost little.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use http::header::USER_AGENT;
use testkit::member::wire::Version;
use testkit::member::{Formats, Member, MemberOptions, Pod, RecordedRequest, Resource, Series};
use tokio::time::timeout;

use crate::bodies::{LABEL, METRIC, NAMESPACE, metric_values, pod_metrics, pod_name};
use crate::program::Kind;

/// Time limit for a program to connect to all members.
const LIMIT: Duration = Duration::from_secs(180);
/// Nodes per member.
const NODES: usize = 3;

/// The size of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Number of member clusters.
    pub members: usize,
    /// Number of pods per member.
    pub pods: usize,
}

impl Size {
    /// A size with `members` and `pods` per member.
    pub const fn of(members: usize, pods: usize) -> Self {
        Self { members, pods }
    }
}

/// A fleet of one size.
pub struct Fleet {
    /// The control plane and the members.
    pub kit: testkit::fleet::Fleet,
    /// Its size.
    pub size: Size,
}

impl Fleet {
    /// Starts a fleet with members that respond in `formats` and have this number of metrics.
    ///
    /// # Errors
    /// If a port cannot be bound.
    pub async fn start(size: Size, formats: Formats, metrics: usize) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for number in 0..size.members {
            let options = MemberOptions { formats, ..MemberOptions::default() };
            let member = Member::start_with(&format!("member{number:04}"), options).await?.with_nodes(NODES);
            fill(&member, number, size.pods, metrics);
            members.push(member);
        }
        Ok(Self { kit: testkit::fleet::Fleet::start(members).await?, size })
    }

    /// The number of requests for metrics that a program sent to members since [`Fleet::forget_requests`]. At most the last
    /// 2,000 of each member count.
    pub fn requests(&self, kind: Kind) -> usize {
        let counts = |request: &RecordedRequest| {
            let agent = request.headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
            // The adapter's discovery runs in the background. The reference sends discovery requests as part of its queries.
            let of_query = kind == Kind::Reference || request.path_and_query.contains("/namespaces/");
            agent.starts_with(kind.user_agent().as_bytes()) && of_query
        };
        self.kit.members.iter().flat_map(Member::requests).filter(counts).count()
    }

    /// Resets the counts of requests.
    pub fn forget_requests(&self) {
        self.kit.members.iter().for_each(Member::reset_counters);
    }

    /// Waits until every member has a connection.
    ///
    /// # Errors
    /// If this takes longer than three minutes.
    pub async fn connected(&self) -> anyhow::Result<()> {
        self.until("a connection", |member| member.open_connections() > 0).await
    }

    /// Waits until no member has a connection.
    ///
    /// # Errors
    /// If this takes longer than three minutes.
    pub async fn disconnected(&self) -> anyhow::Result<()> {
        self.until("no connection", |member| member.open_connections() == 0).await
    }

    async fn until(&self, state: &str, reached: impl Fn(&Member) -> bool) -> anyhow::Result<()> {
        let all = async {
            for member in &self.kit.members {
                while !reached(member) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        let seconds = LIMIT.as_secs();
        timeout(LIMIT, all).await.with_context(|| format!("not every member has {state} after {seconds} s"))
    }
}

fn fill(member: &Member, number: usize, pods: usize, metrics: usize) {
    for pod in 0..pods {
        member.store().set_pod(Pod::running(NAMESPACE, &pod_name(number, pod), &[LABEL]));
    }
    let names = (1..metrics).map(|metric| format!("metric_{metric:04}")).chain([METRIC.to_owned()]);
    for name in names {
        member.set_metric(Series::new(Resource::PODS, Some(NAMESPACE), &pod_name(number, 0), &name, "1"));
    }
    for (version, name) in [(Version::V1Beta1, "v1beta1"), (Version::V1Beta2, "v1beta2")] {
        let path = format!("/apis/custom.metrics.k8s.io/{name}/namespaces/{NAMESPACE}/pods/*/{METRIC}");
        member.answer_list(&path, |format| metric_values(version, number, pods, format));
    }
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods");
    member.answer_list(&path, |format| pod_metrics(number, pods, format));
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, pods } = *self;
        write!(formatter, "{} × {}", with_commas(members), with_commas(pods))
    }
}

/// A number below one million with a comma, for example 5,000.
fn with_commas(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
