//! The scenarios: the fleets, and for each fleet the queries and the number of clients.

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
/// Numbers of members of the fleets that show the growth of the cost.
const GROWTH: [usize; 5] = [10, 30, 100, 300, 1_000];
/// Size and number of metrics of the fleet for discovery.
const DISCOVERY: (Size, usize) = (Size::of(100, 1), 300);

/// Numbers of clients, and whether each sends a different query. Sorted from the smallest load to the largest.
const CLIENTS: [(usize, Queries); 5] = [
    (1, Queries::Distinct),
    (8, Queries::Identical),
    MAIN_CLIENTS,
    (64, Queries::Identical),
    (64, Queries::Distinct),
];
/// The same for responses of tens of megabytes. Responses to 64 clients would need gigabytes.
const CLIENTS_OF_LONG_LISTS: [(usize, Queries); 4] =
    [(1, Queries::Distinct), (2, Queries::Identical), FEW_CLIENTS, (8, Queries::Distinct)];
const MAIN_CLIENTS: (usize, Queries) = (8, Queries::Distinct);
const FEW_CLIENTS: (usize, Queries) = (2, Queries::Distinct);

/// A fleet with all its scenarios.
pub struct Stage {
    /// Its size.
    pub size: Size,
    /// The format of its members' responses.
    pub members: Format,
    /// Number of metrics of each member.
    pub metrics: usize,
    /// Whether the time from start to the first complete response and the idle memory are measured too.
    pub start: bool,
    /// The load for the profiles of CPU time.
    pub profile: Option<Scenario>,
    /// In the order of measurement: a program has not seen a larger load before, so its memory is comparable.
    pub scenarios: Vec<Scenario>,
}

/// One load on one fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The fleet's size.
    pub size: Size,
    /// The format of the members' responses.
    pub members: Format,
    /// The queried API.
    pub api: Api,
    /// The format that the clients accept.
    pub accept: Format,
    /// Number of clients, each with one query at a time.
    pub clients: usize,
    /// Whether they send the same query.
    pub queries: Queries,
}

/// The queried API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Api {
    /// A metric of all pods (`custom.metrics.k8s.io`).
    CustomMetrics,
    /// CPU and memory of all pods (`metrics.k8s.io`).
    PodMetrics,
    /// The list of existing metrics.
    Discovery,
}

/// A format of lists.
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
    /// Each client has a different selector.
    Distinct,
    /// All clients send the same query.
    Identical,
}

/// The stages of `make bench`.
pub fn all() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (size, members) in SIZES.into_iter().flat_map(|size| [(size, Format::Json), (size, Format::Protobuf)])
    {
        let mut stage = Stage::new(size, members);
        let is_large = [MIDDLE, MANY_MEMBERS].contains(&size);
        stage.start = is_large && members == Format::Json;
        if size == MIDDLE {
            stage.profile = Some(stage.scenario(Api::CustomMetrics, Format::Json, MAIN_CLIENTS));
        }
        let clients = if size == LONG_LISTS { &CLIENTS_OF_LONG_LISTS[..] } else { &CLIENTS[..] };
        for clients in clients {
            stage.add(Api::CustomMetrics, Format::Protobuf, *clients);
            stage.add(Api::CustomMetrics, Format::Json, *clients);
        }
        stages.push(stage);
        if [MIDDLE, LONG_LISTS].contains(&size) {
            let mut stage = Stage::new(size, members);
            for clients in clients {
                stage.add(Api::PodMetrics, Format::Protobuf, *clients);
                stage.add(Api::PodMetrics, Format::Json, *clients);
            }
            stages.push(stage);
        }
    }
    for members in GROWTH {
        let mut stage = Stage::new(Size::of(members, MANY_MEMBERS.pods), Format::Json);
        stage.add(Api::CustomMetrics, Format::Json, FEW_CLIENTS);
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

/// The stages of `make bench-quick`.
pub fn quick() -> Vec<Stage> {
    let stages = [(SMALL, Format::Json), (MIDDLE, Format::Json), (MIDDLE, Format::Protobuf)];
    let stage = |(size, members)| {
        let mut stage = Stage::new(size, members);
        stage.add(Api::CustomMetrics, Format::Json, MAIN_CLIENTS);
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
    /// The load of the clients.
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

    /// Whether it is a main scenario: 8 clients with different queries, or 2 for long responses.
    pub fn is_main(&self) -> bool {
        let clients = if self.size == LONG_LISTS { FEW_CLIENTS } else { MAIN_CLIENTS };
        self.api != Api::Discovery && (self.clients, self.queries) == clients
    }

    /// Whether it shows the growth of the cost with the number of members.
    pub fn is_growth(&self) -> bool {
        let list =
            (self.size.pods, self.api, self.accept) == (MANY_MEMBERS.pods, Api::CustomMetrics, Format::Json);
        list && (self.clients, self.queries) == FEW_CLIENTS
    }

    /// Whether a body has the values of all members: it contains the last pod of each member.
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
        // `app=sample-app,client!=07`: a different query for each client, with the same response.
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
    /// The formats of a member that prefers this format. Every member also supports JSON.
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
