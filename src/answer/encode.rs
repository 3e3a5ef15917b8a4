//! Members' pages to the body of an answer.

use super::Form;
use crate::api::codec::negotiate::Representation;
use crate::api::custom_metrics::MetricValueList;
use crate::api::external_metrics::ExternalMetricValueList;
use crate::api::resource_metrics::{ObjectMetrics, ObjectMetricsList, Single};
use crate::api::table::{Metadata, MetadataList, Table};
use crate::config::{ExternalMerge, Merging};
use crate::gather::query::{Query, Question, ResourceQuery};
use crate::merge::{Pages, custom, external, resource};

/// The pages as one, in the form that was asked for.
pub(super) fn body(query: &Query, pages: &Pages, form: Form, merging: &Merging) -> Vec<u8> {
    let Form { encoding, version, .. } = form;
    let cluster_label = merging.cluster_label.as_deref();
    match query.question() {
        Question::Custom(query) => {
            let items = custom::merge(pages, merging.same_name_pods, query.object().is_some());
            encoding.body(&MetricValueList { version, items, cluster_label })
        }
        Question::External(query) => {
            let rule = merging.external.get(&query.metric).copied().unwrap_or(ExternalMerge::Each);
            encoding.body(&ExternalMetricValueList { items: external::merge(pages, rule, cluster_label) })
        }
        Question::Resource(query) => {
            let items = resource::merge(pages, &query.label_selector, &query.field_selector, cluster_label);
            represented(query, items, form)
        }
    }
}

fn represented(query: &ResourceQuery, items: Vec<ObjectMetrics<'_>>, form: Form) -> Vec<u8> {
    let Form { encoding, representation, include_object: include, .. } = form;
    let resource = query.resource;
    // The verdict left one object if one was asked for.
    let single = items.first().copied().filter(|_| query.name.is_some());
    match (representation, single) {
        // Negotiation lets nobody have a table in protobuf.
        (Representation::Table(version), _) => {
            encoding.text(Table { version, resource, items, include }.to_json())
        }
        (Representation::Whole, Some(item)) => encoding.body(&Single { resource, item }),
        (Representation::Whole, None) => encoding.body(&ObjectMetricsList { resource, items }),
        (Representation::Metadata(version), Some(item)) => encoding.body(&Metadata { version, item }),
        (Representation::Metadata(version), None) => encoding.body(&MetadataList { version, items }),
    }
}
