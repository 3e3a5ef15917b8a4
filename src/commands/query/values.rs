//! The values of one member, for any metrics API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::page::resource::ResourceItemRef;
use crate::api::page::{Page, custom, external};
use crate::api::quantity::Quantity;
use crate::api::time::Timestamp;
use crate::merge;
use crate::process::expiry::now;
use crate::query::DecodedQuery;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedValue {
    /// The object that has the value. `None` for external metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<ReportedObject>,
    pub(super) metric: String,
    /// The labels of an external metric's series.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timestamp: Option<String>,
    /// Age by the local clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window_seconds: Option<i64>,
}

/// An object that has a value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReportedObject {
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The values of a member's page that match the query.
pub(super) fn of(query: &DecodedQuery, page: &Page) -> Vec<ReportedValue> {
    match query {
        DecodedQuery::Custom(_) => page.custom().map(custom_value).collect(),
        DecodedQuery::External(_) => page.external().map(external_value).collect(),
        DecodedQuery::Resource(resource) => {
            let matches = |item: &ResourceItemRef<'_>| {
                merge::resource::is_chosen(*item, &resource.label_selector, &resource.field_selector)
            };
            let kind = resource.resource.kind().trim_end_matches("Metrics");
            let mut items: Vec<_> = page.resources().filter(matches).collect();
            items.sort_by_key(|item| (item.namespace(), item.name()));
            items.into_iter().flat_map(|item| usage(kind, item)).collect()
        }
    }
}

fn custom_value(item: custom::CustomItemRef<'_>) -> ReportedValue {
    ReportedValue {
        object: Some(ReportedObject {
            kind: item.kind().decode().into_owned(),
            namespace: item.namespace().decode().into_owned(),
            name: item.name().decode().into_owned(),
        }),
        window_seconds: item.window_seconds(),
        ..value(item.metric().decode().into_owned(), item.value(), item.timestamp())
    }
}

fn external_value(item: external::ExternalItemRef<'_>) -> ReportedValue {
    let labels = item.labels().into_iter();
    ReportedValue {
        labels: labels.map(|(key, value)| (key.decode().into_owned(), value.decode().into_owned())).collect(),
        window_seconds: item.window_seconds(),
        ..value(item.metric().decode().into_owned(), item.value(), item.timestamp())
    }
}

/// The sums over the containers of a pod, or the values of a node.
fn usage(kind: &str, item: ResourceItemRef<'_>) -> Vec<ReportedValue> {
    let mut sums: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, amount) in item.amounts().iter() {
        match sums.get_mut(&*name.decode()) {
            Some(sum) => sum.add(amount),
            None => drop(sums.insert(name.decode().into_owned(), amount.clone())),
        }
    }
    let object = ReportedObject {
        kind: kind.to_owned(),
        namespace: item.namespace().decode().into_owned(),
        name: item.name().decode().into_owned(),
    };
    let reported = |(metric, sum): (String, Quantity)| ReportedValue {
        object: Some(object.clone()),
        ..value(metric, &sum, item.timestamp())
    };
    sums.into_iter().map(reported).collect()
}

fn value(metric: String, value: &Quantity, timestamp: Option<Timestamp>) -> ReportedValue {
    ReportedValue {
        object: None,
        metric,
        labels: BTreeMap::new(),
        value: value.to_string(),
        timestamp: timestamp.map(|time| time.to_string()),
        age_seconds: timestamp.map(|time| now().saturating_sub(time.unix_seconds())),
        window_seconds: None,
    }
}
