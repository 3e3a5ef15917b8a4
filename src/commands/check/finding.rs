//! What was found: one finding for each link, and what to do about each cause.

use serde::Serialize;

/// What one link is like.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The cluster's name; nothing for the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Which link.
    pub link: String,
    /// How it is.
    pub verdict: Verdict,
    /// Why it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What was seen.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Well.
    Ok,
    /// Well enough to serve, and not as it should be.
    Warning,
    /// Values are missing because of it.
    Broken,
}

/// Why a link is not well. Its name is a heading of docs/troubleshooting.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The control plane does not answer.
    ControlPlaneUnreachable,
    /// The control plane does not know the identity.
    ControlPlaneUnauthorized,
    /// The identity lacks a right in the control plane.
    ControlPlaneForbidden,
    /// An APIService is missing in the control plane.
    ApiServiceMissing,
    /// An APIService is there and not available.
    ApiServiceUnavailable,
    /// An APIService leads to something else.
    ApiServiceElsewhere,
    /// The control plane does not accept the adapter's certificate.
    ServingCertificate,
    /// The adapter does not believe the control plane's front proxy.
    FrontProxyRefused,
    /// No clusters have joined.
    NoClusters,
    /// A Cluster object cannot be read.
    ClusterMalformed,
    /// A cluster that is not reached from the control plane.
    PullMode,
    /// Karmada says that the cluster is not Ready.
    NotReady,
    /// The Secret that a Cluster refers to does not exist.
    SecretMissing,
    /// The Secret has no token, or no CA bundle where one is needed.
    SecretKeyMissing,
    /// Endpoint, token, CA bundle or proxy cannot be used.
    CredentialsMalformed,
    /// A name that no address belongs to.
    NameUnknown,
    /// Nothing listens at the endpoint.
    Refused,
    /// Nobody answers at the endpoint.
    BlackHole,
    /// The proxy cannot be reached, or lets nothing through.
    ProxyDead,
    /// The certificate is signed by somebody else.
    WrongAuthority,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not valid yet.
    CertificateNotYetValid,
    /// The certificate is for another name.
    CertificateName,
    /// TLS cannot be agreed on.
    Tls,
    /// Something else than an API server answers.
    NotAnApiServer,
    /// The API server is connected to and does not answer.
    NoAnswer,
    /// The token is not accepted.
    TokenRefused,
    /// The token is accepted and lacks a right.
    Forbidden,
    /// The member's clock and this one differ.
    ClockSkew,
    /// The member has no such metrics API.
    ApiAbsent,
    /// The member's metrics API is registered and not available.
    ApiUnavailable,
    /// The member's metrics API answers with an error, or not at all.
    ApiFailing,
    /// The member lists no such metric.
    MetricUnknown,
    /// The metric is listed and has no values for these objects.
    NoSeries,
    /// The namespace does not exist in the member, or has no such objects.
    WrongNamespace,
    /// The selector matches no object of the namespace.
    SelectorMatchesNothing,
}

impl Finding {
    /// A link that is well.
    pub fn ok(cluster: Option<&str>, link: impl Into<String>, message: impl Into<String>) -> Self {
        let (cluster, verdict) = (cluster.map(str::to_owned), Verdict::Ok);
        Self { cluster, link: link.into(), verdict, cause: None, message: message.into(), remedy: None }
    }

    /// A link that is not.
    pub fn amiss(
        cluster: Option<&str>,
        link: impl Into<String>,
        verdict: Verdict,
        cause: Cause,
        message: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.map(str::to_owned),
            link: link.into(),
            verdict,
            cause: Some(cause),
            message: message.into(),
            remedy: Some(cause.remedy()),
        }
    }
}

impl Cause {
    /// Its name, as reports and the documentation spell it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::ControlPlaneUnreachable => {
                "check the server of the kubeconfig, and that this host may connect to it"
            }
            Self::ControlPlaneUnauthorized => "renew the credentials in the kubeconfig",
            Self::ControlPlaneForbidden => "grant the right, as deploy/control-plane has it",
            Self::ApiServiceMissing => "register it: kubectl apply -k apiservice",
            Self::ApiServiceUnavailable => {
                "see that the adapter runs and is ready, and that the Service leads to it"
            }
            Self::ApiServiceElsewhere => {
                "another adapter is registered there: point spec.service to this one's Service, or name that with \
                 --service and --service-namespace"
            }
            Self::ServingCertificate => {
                "renew the adapter's certificate, or put the CA that signed it into spec.caBundle: see certs/README.md"
            }
            Self::FrontProxyRefused => {
                "start the adapter with the --requestheader-client-ca-file and --requestheader-allowed-names that this \
                 API server has, or with neither"
            }
            Self::NoClusters => "join a cluster: karmadactl join",
            Self::ClusterMalformed => "correct the Cluster object",
            Self::PullMode => {
                "no metrics can be read of it from here: join it in Push mode, or give it an API endpoint and a Secret"
            }
            Self::NotReady => "see why: kubectl get cluster NAME -o yaml, status.conditions",
            Self::SecretMissing => "join the cluster again, or create the Secret that spec.secretRef names",
            Self::SecretKeyMissing => {
                "put what the message names into the Secret: the token of a service account of the member, its CA as \
                 caBundle"
            }
            Self::CredentialsMalformed => {
                "correct what the message names in the Cluster object or in its Secret"
            }
            Self::NameUnknown => "correct spec.apiEndpoint (or proxyURL), or the name service of this host",
            Self::Refused => "start the API server, or correct the port in spec.apiEndpoint",
            Self::BlackHole => "let packets from here to there through firewalls and network policies",
            Self::ProxyDead => {
                "start the proxy, let it reach the member, or correct spec.proxyURL and its credentials"
            }
            Self::WrongAuthority => "put the member's CA into the Secret's key caBundle",
            Self::CertificateExpired => {
                "renew the member's serving certificate, or set the clock of this host"
            }
            Self::CertificateNotYetValid => "set the clock of this host or of the member",
            Self::CertificateName => {
                "use a name in spec.apiEndpoint that the certificate has, or issue one with the name in it"
            }
            Self::Tls => "see that an API server, and nothing else, listens at spec.apiEndpoint",
            Self::NotAnApiServer => {
                "correct spec.apiEndpoint, its port and its path: what answers there is no Kubernetes API server"
            }
            Self::NoAnswer => "look at the member's API server: it takes connections and does not answer",
            Self::TokenRefused => {
                "renew the token in the Secret: it has expired, or its service account is gone"
            }
            Self::Forbidden => "let the token's service account get what the message names, in the member",
            Self::ClockSkew => {
                "set both clocks by the same source: timestamps and certificates depend on them"
            }
            Self::ApiAbsent => {
                "install what serves it in the member: prometheus-adapter, KEDA or metrics-server, with its APIService"
            }
            Self::ApiUnavailable => {
                "in the member: kubectl describe apiservice NAME, and look at what it leads to"
            }
            Self::ApiFailing => "look at the log of what serves the API in the member, and at its Prometheus",
            Self::MetricUnknown => {
                "see that Prometheus has the series and that a rule of prometheus-adapter makes it this metric"
            }
            Self::NoSeries => {
                "see that Prometheus scrapes these objects and that the series has their labels"
            }
            Self::WrongNamespace => {
                "ask in the namespace of the workload, and see that it is propagated to the member"
            }
            Self::SelectorMatchesNothing => {
                "compare the selector with the labels of the objects in the member"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_cause_is_a_heading_of_the_documentation_and_each_heading_a_cause() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, causes) = text.split_once("\n## Causes\n").unwrap();
        let (causes, _) = causes.split_once("\n## ").unwrap();
        let headings: Vec<&str> = causes.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let names: Vec<String> = Cause::value_variants().iter().map(|cause| cause.name()).collect();
        assert_eq!(headings, names);
    }
}
