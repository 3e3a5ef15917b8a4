//! Members' pages to the body of an answer.

use super::ResponseFormat;
use super::combine::ClusterPage;
use crate::api::codec::EncodeItem as _;
use crate::api::codec::negotiate::Representation;
use crate::api::custom_metrics::MetricValueList;
use crate::api::external_metrics::ExternalMetricValueList;
use crate::api::memory::{Reserve, Stopped, make_room};
use crate::api::resource_metrics::{ObjectMetrics, ObjectMetricsList, SingleObjectMetrics};
use crate::api::table::{PartialObjectMetadata, PartialObjectMetadataList, Table};
use crate::config::{ExternalMerge, Merging};
use crate::merge::{custom, external, resource};
use crate::query::{MetricsQuery, Query, ResourceQuery};

/// The pages as one, in the form that was asked for.
///
/// # Errors
/// If `reserve` stops it.
pub(super) fn body(
    query: &Query,
    sources: &[ClusterPage],
    form: ResponseFormat,
    merging: &Merging,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<u8>, Stopped> {
    let mut pages = Vec::new();
    make_room(&mut pages, sources.len(), reserve)?;
    pages.extend(sources.iter().map(|(cluster, page)| (&**cluster, &***page)));
    let ResponseFormat { encoding, .. } = form;
    let cluster_label = merging.cluster_label.as_deref();
    match query.question() {
        MetricsQuery::Custom(query) => {
            let items = custom::merge(&pages, merging.same_name_pods, query.object().is_some(), reserve)?;
            let version = query.version;
            encoding.list(&MetricValueList { version, items, cluster_label }, reserve)
        }
        MetricsQuery::External(query) => {
            let rule = merging.external.get(&query.metric).copied().unwrap_or(ExternalMerge::Each);
            let items = external::merge(&pages, rule, cluster_label, reserve)?;
            encoding.list(&ExternalMetricValueList { items }, reserve)
        }
        MetricsQuery::Resource(query) => {
            let (labels, fields) = (&query.label_selector, &query.field_selector);
            let items = resource::merge(&pages, labels, fields, cluster_label, reserve)?;
            represented(query, items, form, reserve)
        }
    }
}

fn represented(
    query: &ResourceQuery,
    items: Vec<ObjectMetrics<'_>>,
    form: ResponseFormat,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<u8>, Stopped> {
    let ResponseFormat { encoding, representation, include_object: include, .. } = form;
    let resource = query.resource;
    // The verdict left one object if one was asked for.
    let single = items.first().copied().filter(|_| query.name.is_some());
    // In JSON, and as YAML or indented.
    let mut reserve_both = |item: ObjectMetrics<'_>| reserve(2 * item.most_bytes());
    match (representation, single) {
        // Negotiation lets nobody have a table in protobuf.
        (Representation::Table(version), _) => {
            encoding.text(Table { version, resource, items, include }.to_json(reserve)?, reserve)
        }
        (Representation::Whole, Some(item)) => {
            reserve_both(item)?;
            Ok(encoding.body(&SingleObjectMetrics { resource, item }))
        }
        (Representation::Whole, None) => encoding.list(&ObjectMetricsList { resource, items }, reserve),
        (Representation::Metadata(version), Some(item)) => {
            reserve_both(item)?;
            Ok(encoding.body(&PartialObjectMetadata { version, item }))
        }
        (Representation::Metadata(version), None) => {
            encoding.list(&PartialObjectMetadataList { version, items }, reserve)
        }
    }
}
