//! The peak memory of discovery.

use super::*;

const DISCOVERY: &str = "/apis/custom.metrics.k8s.io/v1beta2";

#[tokio::test(flavor = "multi_thread")]
async fn discovery_lists_stay_within_the_formula() {
    // Each name is a separate resource, which needs the most memory. Memory suffices for two of these members.
    const MANY: usize = 7_500;
    let some = |sender: usize, except: usize| {
        (0..MANY).filter(|name| *name != except).map(|name| format!("r{sender}{name}/m")).collect()
    };
    let lists: [Vec<String>; 5] = [
        some(0, 0),
        some(1, 0),
        some(2, 0),
        (0..40_000).map(|name| format!("pods/{name}-{}", "m".repeat(480))).collect(),
        vec!["pods/a".to_owned(); 1_000_000],
    ];
    let mut senders = members(1, 1).await;
    for (number, names) in lists.iter().enumerate() {
        let options = MemberOptions { formats: Formats::Json, ..MemberOptions::default() };
        let member = Member::start_with(&format!("sender{number}"), options).await.expect("a member starts");
        member.answer(DISCOVERY, metrics(names));
        senders.push(member);
    }
    let small = ["--inflight-bytes=64Mi", "--last-known-bytes=1Mi", "--discovery-interval=100ms"];
    let stage = stage(senders, &[&small[..], &LONG_TIMEOUTS].concat()).await;
    // One of the first three exceeds the memory, and the last two fail.
    stage.logged("discovery failed", 3).await;
    assert!(names(&stage).await.contains(&"pods/http_requests".to_owned()));
    for change in 1..4 {
        let before = names(&stage).await;
        for sender in 0..3 {
            stage.member(sender + 1).answer(DISCOVERY, metrics(&some(sender, change)));
        }
        let changes = async { while names(&stage).await == before {} };
        tokio::time::timeout(GENEROUS, changes).await.expect("the change is listed");
    }
    let peak = stage.adapter.peak_bytes().expect("the adapter runs");
    let bound = (64 + 1) * MIB + DISCOVERED + lists.len() * WINDOW + BASE;
    println!("peak {} MiB, {} MiB by the formula", peak / MIB, bound / MIB);
    assert!(peak <= bound, "peak {} MiB exceeds the {} MiB of the formula", peak / MIB, bound / MIB);
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
}

/// The resource list of custom metrics.
fn metrics(names: &[String]) -> ScriptedAnswer {
    let entries: Vec<_> = names.iter().map(|name| format!(r#"{{"name":"{name}"}}"#)).collect();
    let head = r#"{"kind":"APIResourceList","apiVersion":"v1","resources":["#;
    let body = format!("{head}{}]}}", entries.join(",")).into();
    ScriptedAnswer { status: StatusCode::OK, content_type: "application/json".to_owned(), body }
}

/// The listed custom metrics. The aggregated document is requested first.
async fn names(stage: &Stage) -> Vec<String> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let headers = [("x-remote-user", "admin"), ("x-remote-group", "system:masters"), ("accept", accept)];
    assert_eq!(stage.get_with("/apis", &headers).await.status, StatusCode::OK);
    let list = stage.get(DISCOVERY).await.json().expect("JSON");
    let entries = list["resources"].as_array().expect("a list").iter();
    entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
}
