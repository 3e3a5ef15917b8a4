//! What one answer costs beyond the network: 100 members of 50 pods, read, merged and encoded.
//!
//! `yardstick` reads the same JSON bodies into `serde_json::Value`s and writes them as one list, without tags, sums or
//! checks. Times differ from machine to machine; the ratio of two lines of one run does not so much.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use karmada_metrics_adapter::api::codec::Encode as _;
use karmada_metrics_adapter::api::custom_metrics::{MetricValueList, Version};
use karmada_metrics_adapter::api::page::{Expected, Format, Page};
use karmada_metrics_adapter::config::SameNamePods;
use karmada_metrics_adapter::merge::custom;
use serde_json::{Value, json};
use testkit::member::wire;

const MEMBERS: usize = 100;
const PODS: usize = 50;
const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";

/// What each member sent.
type Bodies = Vec<(Arc<str>, Bytes)>;

fn merging(criterion: &mut Criterion) {
    let json = bodies(wire::Format::Json);
    let protobuf = bodies(wire::Format::Protobuf);
    let pages = read(Format::Json, &json);
    assert_eq!(answer(&pages), answer(&read(Format::Protobuf, &protobuf)), "both formats say the same");

    let mut group = criterion.benchmark_group(format!("{MEMBERS} members of {PODS} pods"));
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

fn read(format: Format, bodies: &Bodies) -> Vec<(Arc<str>, Arc<Page>)> {
    let read = |body: &Bytes| {
        Arc::new(Page::read(Expected::MetricValues, format, body.clone()).expect("a valid body"))
    };
    bodies.iter().map(|(cluster, body)| (cluster.clone(), read(body))).collect()
}

fn answer(pages: &[(Arc<str>, Arc<Page>)]) -> Vec<u8> {
    let items = custom::merge(pages, SameNamePods::Sum, false);
    MetricValueList { version: Version::V1Beta2, items, cluster_label: Some(CLUSTER_LABEL) }.to_json()
}

fn yardstick(bodies: &Bodies) -> Vec<u8> {
    let mut all = Vec::new();
    for (_, body) in bodies {
        let mut list: Value = serde_json::from_slice(body).expect("a valid body");
        all.append(list["items"].as_array_mut().expect("a list"));
    }
    let list = json!({
        "kind": "MetricValueList",
        "apiVersion": "custom.metrics.k8s.io/v1beta2",
        "metadata": {},
        "items": all,
    });
    serde_json::to_vec(&list).expect("a value is JSON")
}

/// What prometheus-adapter sends for the pods of one Deployment.
fn bodies(format: wire::Format) -> Bodies {
    let member = |member: usize| {
        let mut list = wire::MetricValueList::new(wire::Version::V1Beta2);
        list.items = (0..PODS).map(|pod| value(member, pod)).collect();
        (format!("member{member}").into(), list.encode(format).into())
    };
    (0..MEMBERS).map(member).collect()
}

fn value(member: usize, pod: usize) -> wire::MetricValue {
    wire::MetricValue {
        described_object: wire::ObjectReference {
            kind: "Pod".to_owned(),
            namespace: "default".to_owned(),
            name: format!("sample-app-6b8c5d9f7d-{member:03}{pod:02}"),
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

criterion_group!(benches, merging);
criterion_main!(benches);
