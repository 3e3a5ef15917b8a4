//! Members that close connections often, and members behind a proxy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::control_plane::MemberSpec;
use testkit::proxy::{Kind, Proxy};
use testkit::sockets::connections;
use tokio::time::sleep;

use super::load::Load;
use crate::api::until;
use crate::say;
use crate::scaling::WEB;
use crate::stage::{MEMBERS, Stage};

/// How long clients send queries.
const WHILE: Duration = Duration::from_secs(10);
/// Interval of reads of the open connections.
const LOOK: Duration = Duration::from_millis(20);
/// Time limit until queries use a changed Cluster.
const SOON: Duration = Duration::from_secs(60);

pub async fn no_query_is_lost_if_an_api_server_closes_connections(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let adapter = stage.adapters[0].id().context("the adapter does not run")?;
    let url = stage.members[0].cluster.url();
    let port: u16 = url.rsplit_once(':').context("the URL has no port")?.1.parse()?;
    say(
        "8 clients query without a pause while the API server of member1 closes connections (--goaway-chance)",
    );
    let load = Load::start(&stage.plane.cluster.api, service);
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    while began.elapsed() < WHILE {
        let to_member = connections(adapter)?.into_iter().filter(|connection| connection.remote == port);
        seen.extend(to_member.map(|connection| connection.local));
        sleep(LOOK).await;
    }
    none_failed(&load)?;
    say(&format!("{} connections to member1 were seen", seen.len()));
    ensure!(seen.len() > 3, "the API server has closed no connection: {seen:?}");
    Ok(())
}

pub async fn member_behind_a_proxy_with_password_is_queried(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let proxy = Proxy::start(Kind::Http).await?;
    let direct = stage.members[1].spec().await?;
    let through = |url: String| MemberSpec { proxy_url: Some(url), ..direct.clone() };
    say("member2 gets a proxyURL with a user and a password");
    stage.plane.join(&through(proxy.url())).await?;
    until("a tunnel", SOON, async || {
        stage.query().await?;
        ensure!(!proxy.tunnels().is_empty(), "no tunnel was requested");
        Ok(())
    })
    .await?;
    let load = Load::start(&stage.plane.cluster.api, service);
    sleep(WHILE).await;
    none_failed(&load)?;
    drop(load);
    say("setting a wrong password");
    stage.plane.join(&through(proxy.url().replace("proxy-password", "another"))).await?;
    let warning = stage.until_warned(MEMBERS[1]).await?;
    let words = "HTTP 407 Proxy Authentication Required [ProxyFailed]";
    ensure!(warning.contains(words) && !warning.contains("another"), "{warning}");
    say("removing the proxy");
    stage.plane.join(&direct).await?;
    stage.until_complete(&MEMBERS).await
}

/// The path of a metric of the Service in both members. Each number gives a different query, so that no two queries share a
/// response. The metric needs no list of pods: the members' adapters list pods at most five times per second.
fn service(number: usize) -> String {
    format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/{WEB}/http_requests?metricLabelSelector=a%20notin%20%28x{number}%29"
    )
}

fn none_failed(load: &Load) -> anyhow::Result<()> {
    let (succeeded, failed) = load.counts();
    say(&format!("{succeeded} queries succeeded, {failed} failed"));
    ensure!(failed == 0, "{failed} queries failed: {}", load.last_failure());
    ensure!(succeeded > 0, "no query succeeded");
    Ok(())
}
