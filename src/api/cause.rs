//! Causes: what can be wrong between a client and the value that it asks for.
//!
//! This is the one list of them. `Warning` headers, `details.causes` of a 503, the label `outcome` of metrics, logs, `query` and
//! `check` use these names, and docs/troubleshooting.md has a section for each.

use serde::Serialize;

/// Makes the list: each cause with what it means and what to do about it.
macro_rules! causes {
    ($($(#[doc = $meaning:literal])+ $cause:ident: $remedy:literal,)+) => {
        /// What is wrong, spelled as in Kubernetes' conditions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Cause {
            $($(#[doc = $meaning])+ $cause,)+
        }

        impl Cause {
            /// All of them, in the order of docs/troubleshooting.md.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$cause,)+];

            /// Its name, such as `NoAnswer`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => stringify!($cause),)+
                }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$cause => $remedy,)+
                }
            }
        }
    };
}

causes! {
    /// The control plane does not answer.
    ControlPlaneUnreachable: "check the server of the kubeconfig, and that this host may connect to it",
    /// The control plane does not know the identity.
    ControlPlaneUnauthorized: "renew the credentials in the kubeconfig",
    /// The identity lacks a right in the control plane.
    ControlPlaneForbidden: "grant the right, as deploy/control-plane has it",
    /// An APIService is missing in the control plane.
    APIServiceMissing: "register it: kubectl apply -k apiservice",
    /// An APIService is there and not available.
    APIServiceUnavailable: "see that the adapter runs and is ready, and that the Service leads to it",
    /// An APIService leads to something else.
    APIServiceElsewhere: "another adapter is registered there: point spec.service to this one's Service, or name that with \
        --service and --service-namespace",
    /// The control plane does not accept the adapter's certificate.
    ServingCertificateRefused: "renew the adapter's certificate, or put the CA that signed it into spec.caBundle: see \
        certs/README.md",
    /// The adapter does not believe the control plane's front proxy.
    FrontProxyRefused: "start the adapter with the --requestheader-client-ca-file and --requestheader-allowed-names that \
        this API server has, or with neither",
    /// No clusters have joined.
    NoClusters: "join a cluster: karmadactl join",
    /// A Cluster object cannot be read.
    ClusterMalformed: "correct the Cluster object",
    /// A cluster that cannot be reached from the control plane.
    PullMode: "no metrics can be read of it from here: join it in Push mode, or give it an API endpoint and a Secret",
    /// Karmada says that the cluster is not Ready.
    NotReady: "see why: kubectl get cluster NAME -o yaml, status.conditions",
    /// The Secret that a Cluster refers to does not exist.
    SecretMissing: "join the cluster again, or create the Secret that spec.secretRef names",
    /// The Secret has no token.
    TokenMissing: "put the token of a service account of the member into the Secret",
    /// The credentials are not known yet.
    CredentialsUnknown: "wait a moment; if it stays so, see whether the Secret can be read, or the exec plugin ends",
    /// Endpoint, token, CA bundle or proxy cannot be used.
    CredentialsMalformed: "correct what the message names in the Cluster object, in its Secret or in the kubeconfig",
    /// The exec plugin of a kubeconfig gives no credentials.
    PluginFailed: "run the exec plugin by hand, as the user and on the host of the adapter",
    /// A name that no address belongs to.
    NameUnknown: "correct spec.apiEndpoint, or the name service of this host",
    /// Nothing listens at the address.
    ConnectionRefused: "start the API server, or correct the port in spec.apiEndpoint",
    /// No TCP connection is made to the address, nor is it refused.
    NoConnection: "let packets from here to there through firewalls and network policies",
    /// The proxy cannot be reached, or lets nothing through.
    ProxyFailed: "start the proxy, let it reach the member, or correct what names it: spec.proxyURL, or HTTPS_PROXY and NO_PROXY of the adapter",
    /// The certificate is signed by somebody else.
    UnknownAuthority: "put the CA of the member's API server into the Secret's key caBundle",
    /// The certificate has expired.
    CertificateExpired: "renew the member's serving certificate, or set the clock of this host",
    /// The certificate is not valid yet.
    CertificateNotYetValid: "set the clock of this host or of the member",
    /// The certificate is for another name.
    CertificateNameMismatch: "use a name in spec.apiEndpoint that the certificate has, or issue one with the name in it",
    /// TLS cannot be agreed on.
    TLSFailed: "see that an API server, and nothing else, listens at spec.apiEndpoint",
    /// Something else than an API server answers.
    NotAPIServer: "correct spec.apiEndpoint, its port and its path: what answers there is no Kubernetes API server",
    /// The API server can be connected to and does not answer.
    NoAnswer: "look at the member's API server: it takes connections and does not answer",
    /// The connection broke while a request was in progress.
    ConnectionLost: "look at the member's API server and at what is between: something ends connections",
    /// The API server closed its connections before it processed the request.
    ConnectionClosed: "look at the member's API server: it restarts, or has more connections than it may",
    /// All connections to the member, or all TLS handshakes at a time, are taken.
    Busy: "look at what is slow: --member-connections bounds the requests to one member over HTTP/1.1",
    /// The member is asked as often as it may be.
    Throttled: "raise --cluster-api-qps and --cluster-api-burst, or ask less often",
    /// Members' answers take all the memory that they may.
    NoRoom: "raise --inflight-bytes, or ask for less at a time",
    /// It failed again and again and is not asked until it answers in the background.
    Skipped: "mend the cause that the message names in brackets; it is asked again within a second after that",
    /// The member does not accept the credentials.
    Unauthorized: "renew the token in the Secret: it has expired, or its service account is gone",
    /// The member accepts the credentials, and they lack a right.
    Forbidden: "let the token's service account get what the message names, in the member",
    /// The member's clock and this one differ.
    ClockSkew: "set both clocks by the same source: timestamps and certificates depend on them",
    /// The member has no such metrics API.
    APIMissing: "install what serves it in the member: prometheus-adapter, KEDA or metrics-server, with its APIService",
    /// The member's metrics API is registered and not available.
    APIUnavailable: "in the member: kubectl describe apiservice NAME, and look at what it leads to",
    /// The member's metrics API answers with an error.
    APIFailing: "look at the log of what serves the API in the member, and at its Prometheus",
    /// The member's metrics API does not answer in time.
    Timeout: "look at the log of what serves the API in the member, and at the load of its Prometheus",
    /// An answer is longer than it may be.
    TooLarge: "ask for less by a selector, or raise the limit that the error names",
    /// An answer is not what was asked for.
    Malformed: "see what answers in the member: the message says where it is no list of metrics",
    /// The member lists no such metric.
    MetricUnknown: "see that Prometheus has the series and that a rule of prometheus-adapter makes it this metric",
    /// The metric is listed and has no values for these objects.
    NoSeries: "see that Prometheus scrapes these objects and that the series has their labels",
    /// The namespace does not exist in the member, or has no such objects.
    WrongNamespace: "ask in the namespace of the workload, and see that it is propagated to the member",
    /// The selector matches no object of the namespace.
    SelectorMatchesNothing: "compare the selector with the labels of the objects in the member",
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(path: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn each_cause_is_a_heading_of_the_documentation_and_each_heading_a_cause() {
        let text = read("docs/troubleshooting.md");
        let (_, causes) = text.split_once("\n## Causes\n").unwrap();
        let (causes, _) = causes.split_once("\n## ").unwrap();
        let headings: Vec<&str> = causes.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let names: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(headings, names);
    }

    #[test]
    fn what_documents_and_alerts_call_a_cause_is_one() {
        for path in [
            "README.md",
            "docs/architecture.md",
            "docs/members.md",
            "docs/operations.md",
            "docs/reliability.md",
            "docs/security.md",
            "docs/troubleshooting.md",
            "deploy/monitoring/alerts.yaml",
            "deploy/monitoring/alerts_test.yaml",
        ] {
            let text = read(path);
            let labels = text.split("outcome=\"").skip(1).map(first_word);
            let failures = text.split("failure `").skip(1).map(first_word);
            for name in labels.chain(failures).chain(in_brackets(&text)) {
                let is_known = Cause::ALL.iter().any(|cause| cause.name() == name);
                assert!(is_known || ["Found", "NotFound"].contains(&name), "{path}: {name:?}");
            }
        }
    }

    /// Single words in brackets that are no links.
    fn in_brackets(text: &str) -> impl Iterator<Item = &str> {
        text.split(" [").skip(1).filter_map(|rest| {
            let (word, rest) = rest.split_once(']')?;
            let is_word = word.starts_with(|c: char| c.is_ascii_uppercase()) && first_word(word) == word;
            (is_word && !rest.starts_with(['(', '['])).then_some(word)
        })
    }

    fn first_word(text: &str) -> &str {
        &text[..text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len())]
    }
}
