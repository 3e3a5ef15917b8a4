//! Changes of the certificates between the control plane and the adapter while both run.

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

/// Time limit until a changed file or ConfigMap is loaded.
const NOTICED: Duration = Duration::from_secs(120);
/// The ConfigMap and the key with the CA bundle of the front proxy.
const AUTHENTICATION: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const FRONT_PROXY_KEY: &str = "requestheader-client-ca-file";

pub async fn serving_certificate_is_rotated(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let own = stage.adapters[0].authority();
    let other = Authority::new("other-serving-ca");
    say("changing to a certificate of another CA; at the end only that CA is trusted");
    change_ca(stage, own, &other).await?;
    say("changing back");
    change_ca(stage, &other, own).await?;
    stage.check_steady().await?;
    availability.check_available().await
}

/// Changes the adapter's serving certificate from the CA `from` to the CA `to`, as in production: both are trusted meanwhile.
async fn change_ca(stage: &Stage, from: &Authority, to: &Authority) -> anyhow::Result<()> {
    let (adapter, port) = (&stage.adapters[0], stage.service.port());
    stage.plane.set_backend(port, &(from.pem() + &to.pem())).await?;
    let service = format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc");
    let serving = to.server(&[&service, "127.0.0.1"]);
    adapter.replace_serving_files(&serving.certificate, &serving.key)?;
    let url = format!("https://{}", adapter.address());
    until("the new certificate", NOTICED, async || {
        let answer = ApiClient::new(&url, &to.pem(), Credentials::None)?.get("/readyz").await?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        Ok(())
    })
    .await?;
    stage.plane.set_backend(port, &to.pem()).await?;
    stage.plane.available().await?;
    let answer = stage.query().await?;
    ensure!(answer.status.is_success(), "{}: {:?}", answer.status, answer.body);
    Ok(())
}

pub async fn front_proxy_ca_is_rotated(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let api = &stage.plane.cluster.api;
    let before = stage.plane.cluster.front_proxy()?;
    let next = Authority::new("next-front-proxy-ca");
    let after = next.client(FRONT_PROXY, &[]);
    ensure!(is_trusted(stage, &before).await?, "the adapter does not trust the front proxy");
    ensure!(
        !is_trusted(stage, &after).await?,
        "the adapter trusts a front proxy with a CA that is not in the ConfigMap"
    );
    say("adding another CA: kube-apiserver writes it into the ConfigMap");
    stage.plane.cluster.announce_front_proxy(&next)?;
    let check_trust = async |proxy: &Identity, wanted| {
        ensure!(is_trusted(stage, proxy).await? == wanted, "the adapter has not loaded the ConfigMap");
        Ok(())
    };
    until("the adapter trusts it", NOTICED, async || check_trust(&after, true).await).await?;
    say("changing kube-apiserver to a certificate of that CA, and removing the old CA from the ConfigMap");
    stage.plane.cluster.change_front_proxy(&next).await?;
    // kube-apiserver adds entries to the ConfigMap and removes none.
    let only = json!({"data": {FRONT_PROXY_KEY: next.pem()}});
    until("the adapter no longer trusts the old one", NOTICED, async || {
        api.patch(AUTHENTICATION, &only).await?;
        check_trust(&before, false).await
    })
    .await?;
    stage.until_complete(&MEMBERS).await?;
    stage.check_steady().await?;
    availability.check_available().await
}

/// Whether the adapter accepts the user headers of a front proxy with this certificate.
async fn is_trusted(stage: &Stage, proxy: &Identity) -> anyhow::Result<bool> {
    let request = Request::builder().uri(TUTORIAL);
    let request = request.header("x-remote-user", "some-user").header("x-remote-group", "system:masters");
    let answer = stage::adapter_client(&stage.adapters[0], proxy)?.send(request.body(Bytes::new())?).await?;
    match answer.status {
        StatusCode::OK => Ok(true),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
        status => Err(anyhow::anyhow!("{status}")).context("unexpected status"),
    }
}
