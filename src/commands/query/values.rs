//! One member's values, whatever their API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::page::resource::ResourceItemRef;
use crate::api::page::{Page, custom, external};
use crate::api::quantity::Quantity;
use crate::api::time::Timestamp;
use crate::merge;
use crate::process::expiry::now;
use crate::query::MetricsQuery;

/// One value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedValue {
    /// Whose it is; nothing has an external metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<ReportedObject>,
    pub(super) metric: String,
    /// Of an external metric's series.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timestamp: Option<String>,
    /// How old it is by this machine's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window_seconds: Option<i64>,
}

/// What has a value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReportedObject {
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What a member's page says.
pub(super) fn of(question: &MetricsQuery, page: &Page) -> Vec<ReportedValue> {
    match question {
        MetricsQuery::Custom(_) => page.custom().map(custom_value).collect(),
        MetricsQuery::External(_) => page.external().map(external_value).collect(),
        MetricsQuery::Resource(query) => {
            let chosen = |item: &ResourceItemRef<'_>| {
                merge::resource::is_chosen(*item, &query.label_selector, &query.field_selector)
            };
            let kind = query.resource.kind().trim_end_matches("Metrics");
            let mut chosen: Vec<_> = page.resources().filter(chosen).collect();
            chosen.sort_by_key(|item| (item.namespace(), item.name()));
            chosen.into_iter().flat_map(|item| usage(kind, item)).collect()
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

/// A pod's containers together.
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
    let one = |(metric, sum): (String, Quantity)| ReportedValue {
        object: Some(object.clone()),
        ..value(metric, &sum, item.timestamp())
    };
    sums.into_iter().map(one).collect()
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
