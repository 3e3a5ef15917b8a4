//! A member's token comes to its end and is rotated.

use anyhow::ensure;
use testkit::api_client::{ApiClient, Credentials};

use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{MEMBERS, Stage};

/// How long the token is good, in seconds, and how much longer kube-apiserver takes it: for clocks that differ.
const LASTS: i64 = 15;
const LEEWAY: i64 = 60;

pub async fn a_token_expires_and_another_is_requested(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let member = &stage.members[1];
    say(&format!("a token that is good for {LASTS} s"));
    let token = member.cluster.shorten(&member.token().await?, LASTS - LEEWAY)?;
    let authority = member.cluster.ca_pem();
    let bearer = ApiClient::new(member.cluster.url(), &authority, Credentials::Token(&token))?;
    let status = bearer.get("/api").await?.status;
    ensure!(status.is_success(), "the member refuses a token that is still good: {status}");
    stage.plane.change_token(MEMBERS[1], &token).await?;
    let warning = stage.until_warned(MEMBERS[1]).await?;
    ensure!(warning.contains("401"), "not for its token: {warning}");
    say(&format!("it has expired: {warning}"));
    say("another by TokenRequest");
    let token = stage.members[1].token().await?;
    stage.plane.change_token(MEMBERS[1], &token).await?;
    stage.until_answered(&MEMBERS).await?;
    stage.held().await?;
    availability.held().await
}
