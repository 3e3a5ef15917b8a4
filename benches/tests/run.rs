//! A short run with debug builds of the floor and the adapter, from the fleet to the document.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::document;
use bench::fleet::{Fleet, Size};
use bench::measure::{Effort, FirstComplete, first_complete};
use bench::program::{Binary, Kind, Program};
use bench::results::{Measured, Results};
use bench::run::run;
use bench::scenario::{Api, Format, Queries, Scenario, Stage};
use testkit::member::Fault;

const SIZE: Size = Size::of(2, 5);
const EFFORT: Effort =
    Effort { rounds: 2, turn: Duration::from_millis(20), limit: Duration::from_secs(20), starts: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn run_measures_both_programs_and_writes_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let stages = [
        stage(vec![
            scenario(Api::CustomMetrics, Format::Protobuf),
            scenario(Api::CustomMetrics, Format::Json),
            scenario(Api::PodMetrics, Format::Json),
        ]),
        Stage { metrics: 5, start: true, ..stage(vec![scenario(Api::Discovery, Format::Json)]) },
    ];
    let mut results = Results::default();
    let binaries = [floor(directory.path()), adapter(directory.path())];
    run(&mut results, &stages, &binaries, EFFORT, |_| Ok(())).await.unwrap();

    assert_eq!(results.scenarios.len(), 4);
    for Measured { scenario, figures } in &results.scenarios {
        assert_eq!(figures.keys().collect::<Vec<_>>(), [&Kind::Floor, &Kind::Adapter]);
        for (kind, figures) in figures {
            let expected = if scenario.api == Api::Discovery { 0.0 } else { 1.0 };
            assert_eq!(figures.requests, expected, "{kind}: {scenario}");
            assert!(
                figures.cpu_ms > 0.0
                    && figures.p50_ms > 0.0
                    && figures.p99_ms.is_none_or(|p99| p99 >= figures.p50_ms),
                "{kind}"
            );
            assert!(figures.peak >= figures.resident && figures.resident > 1 << 20, "{kind}");
        }
        assert!(figures[&Kind::Adapter].to_floor.is_some() && figures[&Kind::Floor].to_floor.is_none());
    }
    assert_eq!(
        results.starts.iter().map(|start| start.kind).collect::<Vec<_>>(),
        [Kind::Floor, Kind::Adapter]
    );

    let document = directory.path().join("performance.md");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md"), &document).unwrap();
    document::write(&document, &results).unwrap();
    let text = fs::read_to_string(&document).unwrap();
    for heading in ["custom metrics, JSON members", "pod metrics, JSON members", "discovery"] {
        assert_eq!(text.matches(&format!("### 2 × 5, {heading}\n")).count(), 1, "{text}");
    }
    for plot in ["cpu.svg", "memory.svg"] {
        let plot = fs::read_to_string(directory.path().join("performance").join(plot)).unwrap();
        assert!(plot.starts_with("<svg ") && plot.trim_end().ends_with("</svg>"), "{plot}");
        assert!(plot.contains("<polyline ") && plot.contains("member clusters"), "{plot}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_response_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(SIZE, Format::Json.of_member(), 1).await.unwrap();
    let program = Program::start(&adapter(directory.path()), &fleet, &[]).unwrap();
    let scenario = scenario(Api::CustomMetrics, Format::Json);
    let FirstComplete { connection, body, .. } = first_complete(&program, &scenario).await.unwrap();
    assert!(!scenario.is_complete(&body[..body.len() / 2]));

    let load = scenario.load();
    assert_eq!(connection.run(&load, 5, body.len()).await.unwrap().latencies.len(), 5);
    let error = connection.run(&load, 5, body.len() + 1).await.err().unwrap().to_string();
    assert!(
        error.contains(&format!("a response of {} bytes instead of {}", body.len(), body.len() + 1)),
        "{error}"
    );

    fleet.kit.members[1].fault(Fault::Refused);
    let error = connection.run(&load, 5, body.len()).await.err().unwrap().to_string();
    assert!(error.contains("member0001"), "the warning must name the member: {error}");
}

fn stage(scenarios: Vec<Scenario>) -> Stage {
    Stage { size: SIZE, members: Format::Json, metrics: 1, start: false, profile: None, scenarios }
}

fn scenario(api: Api, accept: Format) -> Scenario {
    Scenario { size: SIZE, members: Format::Json, api, accept, clients: 2, queries: Queries::Distinct }
}

fn floor(logs: &Path) -> Binary {
    Binary { kind: Kind::Floor, path: env!("CARGO_BIN_EXE_floor").into(), logs: logs.to_owned() }
}

fn adapter(logs: &Path) -> Binary {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_floor")).with_file_name("karmada-metrics-adapter");
    assert!(path.exists(), "{}: build it first, as make test does", path.display());
    Binary { kind: Kind::Adapter, path, logs: logs.to_owned() }
}
