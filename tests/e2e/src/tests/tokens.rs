//! Expiry and rotation of a member's token.

use anyhow::ensure;
use testkit::api_client::{ApiClient, Credentials};

use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{MEMBERS, Stage};

/// Validity of the token in seconds, and the additional time that kube-apiserver accepts it because of clock differences.
const VALIDITY: i64 = 15;
const LEEWAY: i64 = 60;

pub async fn expired_token_is_replaced(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    let availability = AvailabilityWatch::start(&stage.plane);
    let member = &stage.members[1];
    say(&format!("a token that is valid for {VALIDITY} s"));
    let token = member.cluster.shorten(&member.token().await?, VALIDITY - LEEWAY)?;
    let authority = member.cluster.ca_pem();
    let bearer = ApiClient::new(member.cluster.url(), &authority, Credentials::Token(&token))?;
    let status = bearer.get("/api").await?.status;
    ensure!(status.is_success(), "the member rejects a valid token: {status}");
    stage.plane.change_token(MEMBERS[1], &token).await?;
    let warning = stage.until_warned(MEMBERS[1]).await?;
    ensure!(warning.contains("401"), "the warning has no 401: {warning}");
    say(&format!("the token has expired: {warning}"));
    say("requesting another token (TokenRequest)");
    let token = stage.members[1].token().await?;
    stage.plane.change_token(MEMBERS[1], &token).await?;
    stage.until_complete(&MEMBERS).await?;
    stage.check_steady().await?;
    availability.check_available().await
}
