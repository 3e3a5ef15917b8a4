//! The work of a query without the network: parses the bodies of all members, merges them, and writes one list.

use std::sync::Arc;

use karmada_metrics_adapter::testing::{
    BodyFormat, Budget, EncodeList as _, Expected, FieldSelector, MetricValueList, MetricsResource,
    ObjectMetricsList, Page, Pages, Reserve, SameNamePods, Selector, Stopped, Version, custom, resource,
};
use testkit::member::wire;

use crate::bodies;
use crate::fleet::Size;
use crate::scenario::Api;

const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";

/// A query with the responses of all members.
pub struct Query {
    /// The API.
    pub api: Api,
    /// The format of the members' bodies.
    pub format: BodyFormat,
    bodies: Vec<(Arc<str>, Vec<u8>)>,
}

impl Query {
    /// A query of a fleet of this size.
    ///
    /// # Panics
    /// For discovery, which needs no query to members.
    pub fn new(api: Api, format: BodyFormat, Size { members, pods }: Size) -> Self {
        let wire_format = match format {
            BodyFormat::Json => wire::Format::Json,
            BodyFormat::Protobuf => wire::Format::Protobuf,
        };
        let body = |member| match api {
            Api::CustomMetrics => bodies::metric_values(wire::Version::V1Beta2, member, pods, wire_format),
            Api::PodMetrics => bodies::pod_metrics(member, pods, wire_format),
            Api::Discovery => panic!("discovery needs no query to members"),
        };
        let bodies = (0..members).map(|member| (format!("member{member}").into(), body(member)));
        Self { api, format, bodies: bodies.collect() }
    }

    /// The members' bodies.
    pub fn bodies(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.bodies.iter().map(|(_, body)| body)
    }

    /// Parses all bodies.
    pub fn read(&self) -> Vec<(Arc<str>, Page)> {
        let expected = match self.api {
            Api::PodMetrics => Expected::List(MetricsResource::Pods),
            _ => Expected::MetricValues,
        };
        let mut share = Budget::new(0).share();
        let mut reserve = |bytes| share.grow(bytes).map_err(|_| Stopped::NoMemory);
        let mut read = |body: &Vec<u8>| {
            Page::read(expected, self.format, body.clone(), &mut reserve).expect("a valid body")
        };
        self.bodies.iter().map(|(cluster, body)| (cluster.clone(), read(body))).collect()
    }

    /// Merges the pages and writes them as JSON.
    pub fn answer(&self, pages: &[(Arc<str>, Page)]) -> Vec<u8> {
        let pages: Vec<_> = pages.iter().map(|(cluster, page)| (&**cluster, page)).collect();
        let mut share = Budget::new(0).share();
        let mut reserve = |bytes| share.grow(bytes).map_err(|_| Stopped::NoMemory);
        self.encoded(&pages, &mut reserve).expect("no limit")
    }

    fn encoded(&self, pages: &Pages<'_>, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        if self.api == Api::PodMetrics {
            let (labels, fields) = (Selector::default(), FieldSelector::default());
            let items = resource::merge(pages, &labels, &fields, Some(CLUSTER_LABEL), reserve)?;
            return ObjectMetricsList { resource: MetricsResource::Pods, items }.to_json(reserve);
        }
        let items = custom::merge(pages, SameNamePods::Sum, false, reserve)?;
        let version = Version::V1Beta2;
        MetricValueList { version, items, cluster_label: Some(CLUSTER_LABEL) }.to_json(reserve)
    }
}
