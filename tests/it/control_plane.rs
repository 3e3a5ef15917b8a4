//! How the control plane is reached: few connections, a silent one that is noticed, plugins, proxies.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::control_plane::{ADAPTER_USER, MemberSpec};
use testkit::fleet::Fleet;
use testkit::https::Line;
use testkit::member::Member;
use testkit::proxy::{Kind, Proxy};

use crate::stage::{GENEROUS, PODS, Stage, binary, members, until};

/// An adapter whose kubeconfigs are one file: the control plane at `server`, asked as `user`.
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

/// Asks as a user whose access has to be reviewed.
async fn ask_as(stage: &Stage, user: &str) -> StatusCode {
    stage.get_with(PODS, &[("X-Remote-User", user)]).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reviews_at_a_time_share_one_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    assert_eq!(ask_as(&stage, "first").await, StatusCode::FORBIDDEN);
    plane.clear_reviews();
    plane.delay_reviews(Duration::from_millis(500));
    let before = plane.connections();
    let users: Vec<String> = (0..50).map(|number| format!("user-{number}")).collect();
    let answers = futures::future::join_all(users.iter().map(|user| ask_as(&stage, user))).await;
    assert!(answers.iter().all(|status| *status == StatusCode::FORBIDDEN), "{answers:?}");
    assert!(plane.reviews().len() >= 50);
    assert_eq!(plane.connections(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_answers_nothing_any_more_is_noticed_by_its_silence() {
    let stage = Stage::start(members(2, 1).await, &["--watch-timeout=1h"]).await;
    stage.fleet.plane.set_line(Line::Frozen);
    stage.logged("watching the control plane failed", 1).await;
    stage.fleet.plane.set_ready("member2", false);
    stage.fleet.plane.set_line(Line::Open);
    until(&stage, |names| names == ["member1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_the_kubeconfig_is_run_when_its_login_is_refused_and_not_all_the_time() {
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
    let count = || fs::read_to_string(&runs).expect("it was run").lines().count();
    assert_eq!(ask_as(&stage, "first").await, StatusCode::FORBIDDEN);
    // For clusters, for the front proxy's authority, for reviews.
    assert_eq!(count(), 3);

    // Each review is refused, and the plugin knows nothing better.
    stage.fleet.plane.remove_token("t1");
    for number in 0..20 {
        assert_eq!(ask_as(&stage, &format!("refused-{number}")).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let after = count();
    assert!((3..10).contains(&after), "{after} runs");

    stage.fleet.plane.add_token("t2", ADAPTER_USER, &[]);
    fs::write(&token, "t2").expect("written");
    let mut number = 0;
    let answered = async {
        while ask_as(&stage, &format!("again-{number}")).await != StatusCode::FORBIDDEN {
            number += 1;
        }
    };
    tokio::time::timeout(GENEROUS, answered).await.expect("the plugin is run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_is_asked_through_the_environments_proxy() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let identity = fleet.plane.client_identity(ADAPTER_USER, &[]);
    let user = json!({
        "client-certificate-data": BASE64_STANDARD.encode(identity.certificate),
        "client-key-data": BASE64_STANDARD.encode(identity.key),
    });
    let plane = format!("plane.test:{}", fleet.plane.address().port());
    // An element that Go passes over, and one that is for another port.
    let exceptions = format!(".svc,,plane.test:{}", 1);
    let environment = [("HTTPS_PROXY", &*proxy.url()), ("NO_PROXY", &*exceptions)];
    let stage = stage(fleet, &format!("https://{plane}"), user, &environment).await;
    until(&stage, |names| names == ["member1"]).await;
    let tunnels = proxy.tunnels();
    assert!(!tunnels.is_empty() && tunnels.iter().all(|tunnel| tunnel.to == plane), "{tunnels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_asked_through_the_environments_proxy_as_go_does() {
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
        fleet.plane.join(&spec).expect("it joins");
        let environment = [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", exceptions.to_owned())]
            .map(|(name, value)| (name.to_owned(), value));
        let stage = Stage::start_in(fleet, &[], environment.to_vec()).await;
        if is_proxied {
            until(&stage, |names| names == ["member1"]).await;
        } else {
            // Nobody but the proxy knows the name.
            let answer = stage.get(PODS).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(String::from_utf8_lossy(&answer.body).contains("NameUnknown"), "{:?}", answer.body);
        }
        // The control plane is on loopback and never asked through a proxy.
        let to: Vec<String> = proxy.tunnels().into_iter().map(|tunnel| tunnel.to).collect();
        let is_member = |to: &String| *to == format!("member1.test:{port}");
        assert!(to.is_empty() != is_proxied && to.iter().all(is_member), "{exceptions}: {to:?}");
        if exceptions.starts_with(':') {
            stage.logged("NO_PROXY: ", 1).await;
        }
    }
}
