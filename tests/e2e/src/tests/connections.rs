//! Members whose connections end again and again, or go through a proxy.

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

/// How long clients ask.
const WHILE: Duration = Duration::from_secs(10);
/// How often it is looked which connections there are.
const LOOK: Duration = Duration::from_millis(20);
/// How long a change of a Cluster may take until queries go by it.
const SOON: Duration = Duration::from_secs(60);

pub async fn an_api_server_that_closes_its_connections_loses_no_query(
    stage: &mut Stage,
) -> anyhow::Result<()> {
    stage.steady().await?;
    let adapter = stage.adapters[0].id().context("it does not run")?;
    let url = stage.members[0].cluster.url();
    let port: u16 = url.rsplit_once(':').context("no port")?.1.parse()?;
    say("8 clients ask without a pause while the API server of member1 closes connections (--goaway-chance)");
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
    ensure!(seen.len() > 3, "its API server has closed no connection: {seen:?}");
    Ok(())
}

pub async fn a_member_behind_a_proxy_that_wants_a_password_is_asked_through_it(
    stage: &mut Stage,
) -> anyhow::Result<()> {
    stage.steady().await?;
    let proxy = Proxy::start(Kind::Http).await?;
    let direct = stage.members[1].spec().await?;
    let through = |url: String| MemberSpec { proxy_url: Some(url), ..direct.clone() };
    say("member2 gets a proxyURL with a user and a password");
    stage.plane.join(&through(proxy.url())).await?;
    until("a tunnel", SOON, async || {
        stage.query().await?;
        ensure!(!proxy.tunnels().is_empty(), "none was asked for");
        Ok(())
    })
    .await?;
    let load = Load::start(&stage.plane.cluster.api, service);
    sleep(WHILE).await;
    none_failed(&load)?;
    drop(load);
    say("another password");
    stage.plane.join(&through(proxy.url().replace("proxy-password", "another"))).await?;
    let warning = stage.until_warned(MEMBERS[1]).await?;
    let words = "HTTP 407 Proxy Authentication Required [ProxyFailed]";
    ensure!(warning.contains(words) && !warning.contains("another"), "{warning}");
    say("no proxy any more");
    stage.plane.join(&direct).await?;
    stage.until_answered(&MEMBERS).await
}

/// The metric of the Service that both members have, asked so that no two queries share an answer. It is read without a list
/// of pods, which the members' adapters ask for five times a second at most.
fn service(number: usize) -> String {
    format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/{WEB}/http_requests?metricLabelSelector=a%20notin%20%28x{number}%29"
    )
}

fn none_failed(load: &Load) -> anyhow::Result<()> {
    let (answered, failed) = load.counts();
    say(&format!("{answered} queries were answered, {failed} failed"));
    ensure!(failed == 0, "{failed} queries failed: {}", load.last_failure());
    ensure!(answered > 0, "no query was answered");
    Ok(())
}
