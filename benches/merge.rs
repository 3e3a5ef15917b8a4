//! The cost of one response without the network: 100 members with 50 pods each, parsed, merged and encoded.
//!
//! `yardstick` parses the same JSON bodies into `serde_json::Value`s and writes them as one list, without tags, sums or checks.
//! Times differ between machines; the ratio of two lines of one run differs less.

use std::hint::black_box;

use bench::fleet::Size;
use bench::hot_path::Query;
use bench::scenario::Api;
use criterion::{Criterion, criterion_group, criterion_main};
use karmada_metrics_adapter::testing::BodyFormat;
use serde_json::{Value, json};

const SIZE: Size = Size::of(100, 50);

fn custom_metrics(criterion: &mut Criterion) {
    measure(criterion, Api::CustomMetrics);
}

fn pod_metrics(criterion: &mut Criterion) {
    measure(criterion, Api::PodMetrics);
}

fn measure(criterion: &mut Criterion, api: Api) {
    let [json, protobuf] =
        [BodyFormat::Json, BodyFormat::Protobuf].map(|format| Query::new(api, format, SIZE));
    let pages = json.read();
    assert_eq!(json.answer(&pages), protobuf.answer(&protobuf.read()), "both formats give the same list");

    let mut group = criterion.benchmark_group(format!("{api}, {SIZE}"));
    group.bench_function("read JSON", |bencher| bencher.iter(|| black_box(&json).read()));
    group.bench_function("read protobuf", |bencher| bencher.iter(|| black_box(&protobuf).read()));
    group.bench_function("merge and encode", |bencher| bencher.iter(|| json.answer(black_box(&pages))));
    for (name, query) in [("whole, from JSON", &json), ("whole, from protobuf", &protobuf)] {
        group.bench_function(name, |bencher| bencher.iter(|| query.answer(&black_box(query).read())));
    }
    group.bench_function("yardstick", |bencher| bencher.iter(|| yardstick(black_box(&json))));
    group.finish();
}

fn yardstick(query: &Query) -> Vec<u8> {
    let mut all = Vec::new();
    for body in query.bodies() {
        let mut list: Value = serde_json::from_slice(body).expect("a valid body");
        all.append(list["items"].as_array_mut().expect("a list"));
    }
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": all});
    serde_json::to_vec(&list).expect("a value is JSON")
}

criterion_group!(benches, custom_metrics, pod_metrics);
criterion_main!(benches);
