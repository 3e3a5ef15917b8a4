//! What one answer costs beyond the network: 100 members of 50 pods, read, merged and encoded.
//!
//! `yardstick` reads the same JSON bodies into `serde_json::Value`s and writes them as one list, without tags, sums or
//! checks. Times differ from machine to machine; the ratio of two lines of one run does not so much.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use karmada_metrics_adapter::api::codec::Encode;
use karmada_metrics_adapter::api::custom_metrics::{MetricValueList, Version};
use karmada_metrics_adapter::api::field_selector::FieldSelector;
use karmada_metrics_adapter::api::page::{Expected, Format, Page};
use karmada_metrics_adapter::api::resource_metrics::{ObjectMetricsList, Resource};
use karmada_metrics_adapter::api::selector::Selector;
use karmada_metrics_adapter::config::SameNamePods;
use karmada_metrics_adapter::merge::{Pages, custom, resource};
use serde_json::{Value, json};
use testkit::member::wire;

const MEMBERS: usize = 100;
const PODS: usize = 50;
const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";

/// What each member sent.
type Bodies = Vec<(Arc<str>, Bytes)>;

fn custom_metrics(criterion: &mut Criterion) {
    let bodies = |format| {
        bodies(|member| {
            let mut list = wire::MetricValueList::new(wire::Version::V1Beta2);
            list.items = (0..PODS).map(|pod| value(member, pod)).collect();
            list.encode(format)
        })
    };
    let answer = |pages: &Pages| {
        let items = custom::merge(pages, SameNamePods::Sum, false);
        MetricValueList { version: Version::V1Beta2, items, cluster_label: Some(CLUSTER_LABEL) }.to_json()
    };
    measure(criterion, "custom metrics", Expected::MetricValues, bodies, answer);
}

fn pod_metrics(criterion: &mut Criterion) {
    let bodies = |format| {
        bodies(|member| {
            let items = (0..PODS).map(|pod| usage(member, pod)).collect();
            wire::ResourceMetrics::Pods(wire::MetricsList::new(items)).encode(format)
        })
    };
    let answer = |pages: &Pages| {
        let everything = (Selector::default(), FieldSelector::default());
        let items = resource::merge(pages, &everything.0, &everything.1, Some(CLUSTER_LABEL));
        ObjectMetricsList { resource: Resource::Pods, items }.to_json()
    };
    measure(criterion, "metrics of pods", Expected::List(Resource::Pods), bodies, answer);
}

fn measure(
    criterion: &mut Criterion,
    name: &str,
    expected: Expected,
    bodies: impl Fn(wire::Format) -> Bodies,
    answer: impl Fn(&Pages) -> Vec<u8>,
) {
    let (json, protobuf) = (bodies(wire::Format::Json), bodies(wire::Format::Protobuf));
    let read = |format, bodies: &Bodies| -> Vec<(Arc<str>, Arc<Page>)> {
        let read = |body: &Bytes| Arc::new(Page::read(expected, format, body.clone()).expect("a valid body"));
        bodies.iter().map(|(cluster, body)| (cluster.clone(), read(body))).collect()
    };
    let pages = read(Format::Json, &json);
    assert_eq!(answer(&pages), answer(&read(Format::Protobuf, &protobuf)), "both formats say the same");

    let mut group = criterion.benchmark_group(format!("{name}, {MEMBERS} members of {PODS} pods"));
    group.bench_function("read JSON", |bencher| bencher.iter(|| read(Format::Json, black_box(&json))));
    group.bench_function("read protobuf", |bencher| {
        bencher.iter(|| read(Format::Protobuf, black_box(&protobuf)));
    });
    group.bench_function("merge and encode", |bencher| bencher.iter(|| answer(black_box(&pages))));
    group.bench_function("whole, from JSON", |bencher| {
        bencher.iter(|| answer(&read(Format::Json, black_box(&json))));
    });
    group.bench_function("whole, from protobuf", |bencher| {
        bencher.iter(|| answer(&read(Format::Protobuf, black_box(&protobuf))));
    });
    group.bench_function("yardstick", |bencher| bencher.iter(|| yardstick(black_box(&json))));
    group.finish();
}

fn yardstick(bodies: &Bodies) -> Vec<u8> {
    let mut all = Vec::new();
    for (_, body) in bodies {
        let mut list: Value = serde_json::from_slice(body).expect("a valid body");
        all.append(list["items"].as_array_mut().expect("a list"));
    }
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": all});
    serde_json::to_vec(&list).expect("a value is JSON")
}

fn bodies(body: impl Fn(usize) -> Vec<u8>) -> Bodies {
    (0..MEMBERS).map(|member| (format!("member{member}").into(), body(member).into())).collect()
}

fn name(member: usize, pod: usize) -> String {
    format!("sample-app-6b8c5d9f7d-{member:03}{pod:02}")
}

/// What prometheus-adapter sends for a pod of a Deployment.
fn value(member: usize, pod: usize) -> wire::MetricValue {
    wire::MetricValue {
        described_object: wire::ObjectReference {
            kind: "Pod".to_owned(),
            namespace: "default".to_owned(),
            name: name(member, pod),
            api_version: "/v1".to_owned(),
            ..wire::ObjectReference::default()
        },
        metric: "http_requests".to_owned(),
        selector: None,
        timestamp: Some(1_735_689_600),
        window: None,
        value: format!("{}m", 600 + pod),
    }
}

/// What metrics-server sends for it.
fn usage(member: usize, pod: usize) -> wire::PodMetrics {
    let text = |(key, value): (&str, String)| (key.to_owned(), value);
    let labels = [("app", "sample-app".to_owned()), ("pod-template-hash", "6b8c5d9f7d".to_owned())];
    let usage = [("cpu", format!("{}n", 1_234_567 + pod)), ("memory", format!("{}Ki", 20_480 + pod))];
    wire::PodMetrics {
        metadata: wire::ObjectMeta {
            name: name(member, pod),
            namespace: "default".to_owned(),
            creation_timestamp: "2026-01-01T00:00:00Z".to_owned(),
            labels: labels.map(text).into(),
            ..wire::ObjectMeta::default()
        },
        timestamp: "2026-01-01T00:00:00Z".to_owned(),
        window: "15.321s".to_owned(),
        containers: vec![wire::ContainerMetrics { name: "app".to_owned(), usage: usage.map(text).into() }],
    }
}

criterion_group!(benches, custom_metrics, pod_metrics);
criterion_main!(benches);
