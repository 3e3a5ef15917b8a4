//! Service accounts of a cluster and their tokens.

use anyhow::{Context, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::timestamp;

use super::Cluster;

impl Cluster {
    /// A service account's token by TokenRequest. It is valid for ten minutes, the shortest possible time.
    ///
    /// # Errors
    /// If the API server does not issue a token.
    pub async fn token(&self, namespace: &str, service_account: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600},
        });
        let issued = self.api.create(&path, &request).await?;
        Ok(issued["status"]["token"].as_str().context("the TokenRequest has no token")?.to_owned())
    }

    /// The same token with an expiry in `seconds`, signed with the cluster's own key, so that a test need not wait for ten
    /// minutes.
    ///
    /// # Errors
    /// If the token is not from this cluster.
    pub fn shorten(&self, token: &str, seconds: i64) -> anyhow::Result<String> {
        let (signed, _) = token.rsplit_once('.').context("the token has not three parts")?;
        let (header, claims) = signed.split_once('.').context("the token has not three parts")?;
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        ensure!(claims["exp"].is_i64(), "the token has no expiry");
        claims["exp"] = json!(timestamp::now() + seconds);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let key = self.service_accounts.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key)?;
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
