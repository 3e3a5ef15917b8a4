//! What is measured: the fleets, and on each of them the queries and the number of clients.

use std::fmt;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use testkit::member::Formats;

use crate::bodies::{METRIC, NAMESPACE, pod_name};
use crate::fleet::Size;
use crate::load::Load;

/// The fleets of `make bench`.
const SIZES: [Size; 5] = [SMALL, Size::of(10, 50), MIDDLE, LONG_LISTS, MANY_MEMBERS];
const SMALL: Size = Size::of(3, 10);
const MIDDLE: Size = Size::of(100, 50);
const LONG_LISTS: Size = Size::of(20, 5_000);
const MANY_MEMBERS: Size = Size::of(1_000, 5);
/// Members of the fleets that show how the cost grows with their number, beside [`MANY_MEMBERS`].
const GROWTH: [usize; 4] = [10, 30, 100, 300];
/// Members and metrics of the fleet for discovery.
const DISCOVERY: (Size, usize) = (Size::of(100, 1), 300);

/// Clients, and whether each sends a query of its own; from the smallest load to the largest.
const CLIENTS: [(usize, Queries); 5] = [
    (1, Queries::Distinct),
    (8, Queries::Identical),
    (8, Queries::Distinct),
    (64, Queries::Identical),
    (64, Queries::Distinct),
];
/// The same for answers of tens of megabytes: those of 64 clients would take more than `--inflight-bytes`.
const CLIENTS_OF_LONG_LISTS: [(usize, Queries); 4] =
    [(1, Queries::Distinct), (2, Queries::Identical), (2, Queries::Distinct), (8, Queries::Distinct)];
/// The same for the growth with the number of members.
const CLIENTS_OF_GROWTH: (usize, Queries) = (2, Queries::Distinct);

/// A fleet and all that is measured on it.
pub struct Stage {
    /// How large it is.
    pub size: Size,
    /// What its members answer in.
    pub members: Format,
    /// How many metrics each member has.
    pub metrics: usize,
    /// Whether the time from start to the first complete answer and idle memory are measured too.
    pub start: bool,
    /// The load under which the programs' CPU time is profiled.
    pub profile: Option<Scenario>,
    /// In the order in which they are measured: a program's memory has seen no larger load before.
    pub scenarios: Vec<Scenario>,
}

/// One load on one fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The fleet's size.
    pub size: Size,
    /// What its members answer in.
    pub members: Format,
    /// What is queried.
    pub api: Api,
    /// What the clients accept.
    pub accept: Format,
    /// Clients, each with one query at a time.
    pub clients: usize,
    /// Whether they send the same query.
    pub queries: Queries,
}

/// What is queried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Api {
    /// A metric of all pods (`custom.metrics.k8s.io`).
    CustomMetrics,
    /// CPU and memory of all pods (`metrics.k8s.io`).
    PodMetrics,
    /// The metrics that there are.
    Discovery,
}

/// An encoding of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// Whether clients send the same query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Queries {
    /// Each client has a selector of its own.
    Distinct,
    /// All clients send the same.
    Identical,
}

/// All that `make bench` measures.
pub fn all() -> Vec<Stage> {
    let mut stages = Vec::new();
    for size in SIZES {
        for members in [Format::Json, Format::Protobuf] {
            let clients = if size == LONG_LISTS { &CLIENTS_OF_LONG_LISTS[..] } else { &CLIENTS[..] };
            let apis: &[Api] = match size {
                MIDDLE | LONG_LISTS => &[Api::CustomMetrics, Api::PodMetrics],
                _ => &[Api::CustomMetrics],
            };
            let mut stage = Stage::new(size, members);
            stage.start = members == Format::Json && [MIDDLE, MANY_MEMBERS].contains(&size);
            if size == MIDDLE && members == Format::Json {
                stage.profile =
                    Some(stage.scenario(Api::CustomMetrics, Format::Json, (8, Queries::Distinct)));
            }
            if size == MANY_MEMBERS && members == Format::Json {
                stage.add(Api::CustomMetrics, Format::Json, CLIENTS_OF_GROWTH);
            }
            for clients in clients {
                for api in apis {
                    stage.add(*api, Format::Protobuf, *clients);
                    stage.add(*api, Format::Json, *clients);
                }
            }
            stages.push(stage);
        }
    }
    for members in GROWTH {
        let mut stage = Stage::new(Size { members, pods: MANY_MEMBERS.pods }, Format::Json);
        stage.add(Api::CustomMetrics, Format::Json, CLIENTS_OF_GROWTH);
        stages.push(stage);
    }
    let mut discovery = Stage::new(DISCOVERY.0, Format::Json);
    discovery.metrics = DISCOVERY.1;
    for clients in [1, 8, 64] {
        discovery.add(Api::Discovery, Format::Json, (clients, Queries::Identical));
    }
    stages.push(discovery);
    stages
}

/// What `make bench-quick` measures.
pub fn quick() -> Vec<Stage> {
    let stages = [(SMALL, Format::Json), (MIDDLE, Format::Json), (MIDDLE, Format::Protobuf)];
    let stage = |(size, members)| {
        let mut stage = Stage::new(size, members);
        stage.add(Api::CustomMetrics, Format::Json, (8, Queries::Distinct));
        stage
    };
    stages.map(stage).into()
}

impl Stage {
    fn new(size: Size, members: Format) -> Self {
        Self { size, members, metrics: 1, start: false, profile: None, scenarios: Vec::new() }
    }

    fn add(&mut self, api: Api, accept: Format, clients: (usize, Queries)) {
        self.scenarios.push(self.scenario(api, accept, clients));
    }

    fn scenario(&self, api: Api, accept: Format, (clients, queries): (usize, Queries)) -> Scenario {
        let Self { size, members, .. } = *self;
        Scenario { size, members, api, accept, clients, queries }
    }
}

impl Scenario {
    /// What the clients send.
    pub fn load(&self) -> Load {
        let paths = if self.queries == Queries::Distinct { self.clients } else { 1 };
        let accept = match self.accept {
            Format::Json => "application/json",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        };
        Load {
            paths: (0..paths).map(|client| self.api.path(client)).collect(),
            accept: HeaderValue::from_static(accept),
            clients: self.clients,
        }
    }

    /// Whether a body has what all members have to say: the last pod of each.
    pub fn is_complete(&self, body: &[u8]) -> bool {
        match self.api {
            Api::CustomMetrics | Api::PodMetrics => (0..self.size.members)
                .all(|member| contains(body, pod_name(member, self.size.pods - 1).as_bytes())),
            Api::Discovery => contains(body, METRIC.as_bytes()) && contains(body, b"metric_0001"),
        }
    }
}

impl Api {
    fn path(self, client: usize) -> String {
        // `app=sample-app,client!=07`: another query for each client, and the same answer.
        let selector = format!("labelSelector=app%3Dsample-app%2Cclient%21%3D{client:02}");
        match self {
            Self::CustomMetrics => {
                format!(
                    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/%2A/{METRIC}?{selector}"
                )
            }
            Self::PodMetrics => {
                format!("/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods?{selector}")
            }
            Self::Discovery => "/apis/custom.metrics.k8s.io/v1beta2".to_owned(),
        }
    }
}

impl Format {
    /// What a member speaks whose answers are in this format. All speak JSON.
    pub fn of_member(self) -> Formats {
        match self {
            Self::Json => Formats::Json,
            Self::Protobuf => Formats::Both,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, members, api, accept, clients, queries } = self;
        let plural = if *clients == 1 { "" } else { "s" };
        match api {
            Api::Discovery => write!(formatter, "{size}, {api}, {clients} client{plural}"),
            _ => write!(
                formatter,
                "{size}, {api}, {members} members, {accept} to {clients} client{plural}, {queries}"
            ),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CustomMetrics => "custom metrics",
            Self::PodMetrics => "pod metrics",
            Self::Discovery => "discovery",
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Json { "JSON" } else { "protobuf" })
    }
}

impl fmt::Display for Queries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Distinct { "distinct" } else { "identical" })
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
