//! The certificates between the control plane and the adapter change while both run.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use testkit::api_client::{ApiClient, Credentials};
use testkit::control_plane::{BACKEND_NAMESPACE, BACKEND_SERVICE};
use testkit::pki::{Authority, Identity};

use crate::api::until;
use crate::cluster::FRONT_PROXY;
use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// Until a file or a ConfigMap that has changed is noticed.
const NOTICED: Duration = Duration::from_secs(120);
/// Where an API server says whom to believe as front proxy, and under which key.
const AUTHENTICATION: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const FRONT_PROXY_KEY: &str = "requestheader-client-ca-file";

pub async fn the_serving_certificate_is_rotated(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let own = stage.adapters[0].authority();
    let other = Authority::new("other-serving-ca");
    say("a certificate of another authority, which alone is believed in the end");
    hand_over(stage, own, &other).await?;
    say("and back");
    hand_over(stage, &other, own).await?;
    stage.held().await?;
    availability.held().await
}

/// Lets the adapter serve with a certificate of `to` instead of `from`, as one does: both are believed meanwhile.
async fn hand_over(stage: &Stage, from: &Authority, to: &Authority) -> anyhow::Result<()> {
    let (adapter, port) = (&stage.adapters[0], stage.service.port());
    stage.plane.lead_to(port, &(from.pem() + &to.pem())).await?;
    let service = format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc");
    let serving = to.server(&[&service, "127.0.0.1"]);
    adapter.replace_serving_files(&serving.certificate, &serving.key)?;
    let url = format!("https://{}", adapter.address());
    until("the other certificate", NOTICED, async || {
        let answer = ApiClient::new(&url, &to.pem(), Credentials::None)?.get("/readyz").await?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        Ok(())
    })
    .await?;
    stage.plane.lead_to(port, &to.pem()).await?;
    stage.plane.available().await?;
    let answer = stage.query().await?;
    ensure!(answer.status.is_success(), "{}: {:?}", answer.status, answer.body);
    Ok(())
}

pub async fn the_front_proxys_authority_changes(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let api = &stage.plane.cluster.api;
    let before = stage.plane.cluster.front_proxy()?;
    let next = Authority::new("next-front-proxy-ca");
    let after = next.client(FRONT_PROXY, &[]);
    ensure!(is_believed(stage, &before).await?, "the adapter does not believe the front proxy");
    ensure!(
        !is_believed(stage, &after).await?,
        "the adapter believes a front proxy that nobody has announced"
    );
    say("announcing another authority: kube-apiserver writes it into the ConfigMap");
    stage.plane.cluster.announce_front_proxy(&next)?;
    let believes = async |proxy: &Identity, wanted| {
        ensure!(is_believed(stage, proxy).await? == wanted, "it does not follow the ConfigMap");
        Ok(())
    };
    until("the adapter believes it", NOTICED, async || believes(&after, true).await).await?;
    say("a certificate of that authority for kube-apiserver, and the old authority leaves the ConfigMap");
    stage.plane.cluster.change_front_proxy(&next).await?;
    // kube-apiserver adds to what the ConfigMap has and takes nothing away.
    let only = json!({"data": {FRONT_PROXY_KEY: next.pem()}});
    until("the adapter believes the old one no more", NOTICED, async || {
        api.patch(AUTHENTICATION, &only).await?;
        believes(&before, false).await
    })
    .await?;
    stage.until_answered(&MEMBERS).await?;
    stage.held().await?;
    availability.held().await
}

/// Whether the adapter takes the word of a front proxy with this certificate for who is asking.
async fn is_believed(stage: &Stage, proxy: &Identity) -> anyhow::Result<bool> {
    let request = Request::builder().uri(TUTORIAL);
    let request = request.header("x-remote-user", "somebody").header("x-remote-group", "system:masters");
    let answer = stage::adapter_client(&stage.adapters[0], proxy)?.send(request.body(Bytes::new())?).await?;
    match answer.status {
        StatusCode::OK => Ok(true),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
        status => Err(anyhow::anyhow!("{status}")).context("an answer that says neither"),
    }
}
