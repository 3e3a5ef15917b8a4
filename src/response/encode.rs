//! Encodes the merged pages as a response body.

use super::ResponseFormat;
use super::combine::ClusterPage;
use crate::api::codec::EncodeItem as _;
use crate::api::codec::negotiate::Representation;
use crate::api::custom_metrics::MetricValueList;
use crate::api::external_metrics::ExternalMetricValueList;
use crate::api::memory::{Reserve, Stopped, reserve_capacity};
use crate::api::resource_metrics::{ObjectMetrics, ObjectMetricsList, SingleObjectMetrics};
use crate::api::table::{PartialObjectMetadata, PartialObjectMetadataList, Table};
use crate::config::{ExternalMerge, Merging};
use crate::merge::{custom, external, resource};
use crate::query::{DecodedQuery, Query, ResourceQuery};

/// Merges and encodes the pages in the negotiated format.
///
/// # Errors
/// If `reserve` stops the work.
pub(super) fn body(
    query: &Query,
    sources: &[ClusterPage],
    form: ResponseFormat,
    merging: &Merging,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<u8>, Stopped> {
    let mut pages = Vec::new();
    reserve_capacity(&mut pages, sources.len(), reserve)?;
    pages.extend(sources.iter().map(|(cluster, page)| (&**cluster, &***page)));
    let ResponseFormat { encoding, .. } = form;
    let cluster_label = merging.cluster_label.as_deref();
    match query.decoded() {
        DecodedQuery::Custom(query) => {
            let items = custom::merge(&pages, merging.same_name_pods, query.object().is_some(), reserve)?;
            let version = query.version;
            encoding.list(&MetricValueList { version, items, cluster_label }, reserve)
        }
        DecodedQuery::External(query) => {
            let rule = merging.external.get(&query.metric).copied().unwrap_or(ExternalMerge::Each);
            let items = external::merge(&pages, rule, cluster_label, reserve)?;
            encoding.list(&ExternalMetricValueList { items }, reserve)
        }
        DecodedQuery::Resource(query) => {
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
    // A query by name has exactly one object here: `combine` refuses several.
    let single = items.first().copied().filter(|_| query.name.is_some());
    // JSON, and its YAML or indented form.
    let mut reserve_both = |item: ObjectMetrics<'_>| reserve(2 * item.max_bytes());
    match (representation, single) {
        // Negotiation never selects a table in protobuf.
        (Representation::Table(version), _) => {
            encoding.encode_json(Table { version, resource, items, include }.to_json(reserve)?, reserve)
        }
        (Representation::Full, Some(item)) => {
            reserve_both(item)?;
            Ok(encoding.body(&SingleObjectMetrics { resource, item }))
        }
        (Representation::Full, None) => encoding.list(&ObjectMetricsList { resource, items }, reserve),
        (Representation::Metadata(version), Some(item)) => {
            reserve_both(item)?;
            Ok(encoding.body(&PartialObjectMetadata { version, item }))
        }
        (Representation::Metadata(version), None) => {
            encoding.list(&PartialObjectMetadataList { version, items }, reserve)
        }
    }
}
