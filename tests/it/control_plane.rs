//! Connections to the control plane: their number, detection of a silent server, exec plugins and proxies.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::control_plane::{ADAPTER_USER, MemberSpec};
use testkit::fleet::Fleet;
use testkit::https::Network;
use testkit::member::Member;
use testkit::proxy::{Kind, Proxy};

use crate::stage::{GENEROUS, PODS, Stage, binary, members, until};

/// Starts an adapter with one kubeconfig for all purposes. It has the control plane at `server` and the credentials `user`.
async fn stage(fleet: Fleet, server: &str, user: Value, environment: &[(&str, &str)]) -> Stage {
    let plane = &fleet.plane;
    let cluster = json!({
        "server": server,
        "tls-server-name": "localhost",
        "certificate-authority-data": BASE64_STANDARD.encode(plane.ca_pem()),
    });
    let file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    });
    let kubeconfig = at(&fleet, "of-the-test.kubeconfig");
    fs::write(&kubeconfig, file.to_string()).expect("written");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let invocation = Invocation {
        kubeconfig,
        environment: environment.collect(),
        ..fleet.invocation(binary(), &[]).expect("a kubeconfig is written")
    };
    let mut adapter = AdapterProcess::start(&invocation).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    Stage::of(fleet, adapter)
}

fn at(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.plane.directory().join(name)
}

/// Sends a query as a user that needs an access review.
async fn query_as(stage: &Stage, user: &str) -> StatusCode {
    stage.get_with(PODS, &[("X-Remote-User", user)]).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reviews_share_one_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    assert_eq!(query_as(&stage, "first").await, StatusCode::FORBIDDEN);
    plane.clear_reviews();
    plane.delay_reviews(Duration::from_millis(500));
    let before = plane.connections();
    let users: Vec<String> = (0..50).map(|number| format!("user-{number}")).collect();
    let responses = futures::future::join_all(users.iter().map(|user| query_as(&stage, user))).await;
    assert!(responses.iter().all(|status| *status == StatusCode::FORBIDDEN), "{responses:?}");
    assert!(plane.reviews().len() >= 50);
    assert_eq!(plane.connections(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_control_plane_is_detected() {
    let stage = Stage::start(members(2, 1).await, &["--watch-timeout=1h"]).await;
    stage.fleet.plane.set_line(Network::Frozen);
    stage.logged("watching the control plane failed", 1).await;
    stage.fleet.plane.set_ready("member2", false);
    stage.fleet.plane.set_line(Network::Open);
    until(&stage, |names| names == ["member1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_plugin_runs_only_when_its_credentials_are_rejected() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let (token, runs) = (at(&fleet, "token"), at(&fleet, "runs"));
    fs::write(&token, "t1").expect("written");
    fleet.plane.add_token("t1", ADAPTER_USER, &[]);
    let script = format!(
        "echo run >> {}; printf '{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \
         \"status\": {{\"token\": \"%s\"}}}}' $(cat {})",
        runs.display(),
        token.display()
    );
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "interactiveMode": "Never",
    });
    let server = fleet.plane.url();
    let stage = stage(fleet, &server, json!({"exec": exec}), &[]).await;
    let count = || fs::read_to_string(&runs).expect("the plugin has run").lines().count();
    assert_eq!(query_as(&stage, "first").await, StatusCode::FORBIDDEN);
    // One run each for clusters, for the front proxy's CA and for reviews.
    assert_eq!(count(), 3);

    // Each review gets 401, and the plugin still returns the old token.
    stage.fleet.plane.remove_token("t1");
    for number in 0..20 {
        assert_eq!(query_as(&stage, &format!("refused-{number}")).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let after = count();
    assert!((3..10).contains(&after), "{after} runs");

    stage.fleet.plane.add_token("t2", ADAPTER_USER, &[]);
    fs::write(&token, "t2").expect("written");
    let mut number = 0;
    let accepted = async {
        while query_as(&stage, &format!("again-{number}")).await != StatusCode::FORBIDDEN {
            number += 1;
        }
    };
    tokio::time::timeout(GENEROUS, accepted).await.expect("the plugin is run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_uses_the_proxy_of_the_environment() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let identity = fleet.plane.client_identity(ADAPTER_USER, &[]);
    let user = json!({
        "client-certificate-data": BASE64_STANDARD.encode(identity.certificate),
        "client-key-data": BASE64_STANDARD.encode(identity.key),
    });
    let plane = format!("plane.test:{}", fleet.plane.address().port());
    // Go ignores an empty element. The last element is for another port.
    let exceptions = format!(".svc,,plane.test:{}", 1);
    let environment = [("HTTPS_PROXY", &*proxy.url()), ("NO_PROXY", &*exceptions)];
    let stage = stage(fleet, &format!("https://{plane}"), user, &environment).await;
    until(&stage, |names| names == ["member1"]).await;
    let tunnels = proxy.tunnels();
    assert!(!tunnels.is_empty() && tunnels.iter().all(|tunnel| tunnel.to == plane), "{tunnels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_use_the_proxy_of_the_environment_like_go() {
    let member = Member::start("member1").await.expect("a member starts").with_pods("http_requests", 2);
    let access = member.access();
    let port = access.endpoint.rsplit_once(':').expect("a port").1.to_owned();
    let spec = MemberSpec {
        endpoint: format!("https://member1.test:{port}"),
        insecure: true,
        ..MemberSpec::from(access)
    };
    for (exceptions, is_proxied) in
        [(".svc,", true), (":80,10.0.0.0/8,other.test", true), ("member1.test", false)]
    {
        let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
        let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
        fleet.plane.join(&spec).expect("the cluster joins");
        let environment = [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", exceptions.to_owned())]
            .map(|(name, value)| (name.to_owned(), value));
        let stage = Stage::start_in(fleet, &[], environment.to_vec()).await;
        if is_proxied {
            until(&stage, |names| names == ["member1"]).await;
        } else {
            // Only the proxy can resolve the name.
            let response = stage.get(PODS).await;
            assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(String::from_utf8_lossy(&response.body).contains("NameUnknown"), "{:?}", response.body);
        }
        // The control plane is on loopback, for which no proxy is used.
        let to: Vec<String> = proxy.tunnels().into_iter().map(|tunnel| tunnel.to).collect();
        let is_member = |to: &String| *to == format!("member1.test:{port}");
        assert!(to.is_empty() != is_proxied && to.iter().all(is_member), "{exceptions}: {to:?}");
        if exceptions.starts_with(':') {
            stage.logged("NO_PROXY: ", 1).await;
        }
    }
}
