//! Causes: the names of all failures between a client and a metric value.
//!
//! This is the only list of causes. `Warning` headers, `details.causes` of a 503, the label `outcome` of metrics, logs, `query`
//! and `check` use these names. docs/troubleshooting.md has a section for each cause.

use serde::Serialize;

/// Defines [`Cause`]: each cause has a meaning (its doc comment) and a remedy.
macro_rules! causes {
    ($($(#[doc = $meaning:literal])+ $cause:ident: $remedy:literal,)+) => {
        /// Name of a failure, spelled like the reasons of Kubernetes' conditions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Cause {
            $($(#[doc = $meaning])+ $cause,)+
        }

        impl Cause {
            /// All causes, in the order of docs/troubleshooting.md.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The name, such as `NoAnswer`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => stringify!($cause),)+
                }
            }

            /// The remedy: what the operator can do.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$cause => $remedy,)+
                }
            }
        }
    };
}

causes! {
    /// The control plane does not respond.
    ControlPlaneUnreachable: "check the server in the kubeconfig, and check that this host can connect to it",
    /// The control plane does not accept the credentials.
    ControlPlaneUnauthorized: "renew the credentials in the kubeconfig",
    /// The identity has no permission in the control plane.
    ControlPlaneForbidden: "grant the missing permission: deploy/control-plane has the RBAC rules",
    /// The control plane has no such APIService.
    APIServiceMissing: "register it: kubectl apply -k apiservice",
    /// An APIService exists but is not available.
    APIServiceUnavailable: "check that the adapter runs and is ready, and that the Service points to it",
    /// An APIService points to another backend.
    APIServiceElsewhere: "another adapter is registered: point spec.service to the Service of this adapter, \
        or name the other Service with --service and --service-namespace",
    /// The control plane does not accept the adapter's certificate.
    ServingCertificateRefused: "renew the adapter's certificate, or put the CA that signed it into \
        spec.caBundle: see certs/README.md",
    /// The adapter does not trust the control plane's front proxy.
    FrontProxyRefused: "start the adapter with the same --requestheader-client-ca-file and \
        --requestheader-allowed-names as Karmada's API server, or without both flags",
    /// No clusters have joined.
    NoClusters: "join a cluster: karmadactl join",
    /// A Cluster object is invalid.
    ClusterMalformed: "correct the Cluster object",
    /// The control plane cannot reach the cluster: its Cluster has no endpoint or no Secret.
    PullMode: "metrics of this cluster cannot be read from here: join it in Push mode, or give it an API \
        endpoint and a Secret",
    /// Karmada reports the cluster as not Ready.
    NotReady: "see status.conditions in the output of: kubectl get cluster NAME -o yaml",
    /// The Secret that a Cluster refers to does not exist.
    SecretMissing: "join the cluster again, or create the Secret that spec.secretRef names",
    /// The Secret has no token.
    TokenMissing: "put the token of a service account of the member into the Secret",
    /// The credentials are not loaded yet.
    CredentialsUnknown: "wait a few seconds; if this continues, check that the Secret can be read, or that \
        the exec plugin terminates",
    /// The endpoint, the token, the CA bundle or the proxy is invalid.
    CredentialsMalformed: "correct the field that the message names: in the Cluster object, in its Secret or \
        in the kubeconfig",
    /// The exec plugin of a kubeconfig returns no credentials.
    PluginFailed: "run the exec plugin by hand, on the host of the adapter and as the same user",
    /// DNS has no address for the host name.
    NameUnknown: "correct spec.apiEndpoint, or DNS on this host",
    /// The host refuses TCP connections: no process listens on the port.
    ConnectionRefused: "start the API server, or correct the port in spec.apiEndpoint",
    /// The TCP connection is neither accepted nor refused: it times out or has no route.
    NoConnection: "allow connections from the adapter to the member in firewalls and network policies",
    /// The proxy cannot be reached, or it rejects the connection.
    ProxyFailed: "start the proxy, allow it to reach the member, or correct the proxy settings: \
        spec.proxyURL, or HTTPS_PROXY and NO_PROXY of the adapter",
    /// No trusted CA signed the certificate.
    UnknownAuthority: "put the CA of the member's API server into the Secret's key caBundle",
    /// The member's serving certificate has expired.
    CertificateExpired: "renew the member's serving certificate, or correct the clock of this host",
    /// The member's serving certificate is not valid yet.
    CertificateNotYetValid: "correct the clock of this host or of the member",
    /// The certificate does not contain the host name.
    CertificateNameMismatch: "use a host name from the certificate in spec.apiEndpoint, or issue a \
        certificate with this host name",
    /// The TLS handshake failed.
    TLSFailed: "check that an API server, and no other service, listens at spec.apiEndpoint",
    /// The endpoint is not a Kubernetes API server.
    NotAPIServer: "correct host, port and path of spec.apiEndpoint: it is not a Kubernetes API server",
    /// The API server accepts the connection but does not respond in time.
    NoAnswer: "check the member's API server: it accepts connections but does not respond",
    /// The connection broke while a request was in progress.
    ConnectionLost: "check the member's API server and the load balancers before it: connections are reset",
    /// The API server closed its connections before it processed the request.
    ConnectionClosed: "check the member's API server: it restarts, or it has reached its connection limit",
    /// All connections to the member, or all slots for TLS handshakes, are in use.
    Busy: "find out why responses are slow: --member-connections limits the concurrent requests to one \
        member over HTTP/1.1",
    /// The adapter's rate limit for requests to the member is reached.
    Throttled: "raise --cluster-api-qps and --cluster-api-burst, or query less often",
    /// The responses of members use all memory of `--inflight-bytes`.
    NoRoom: "raise --inflight-bytes, or run smaller or fewer queries at a time",
    /// The circuit breaker is open after repeated failures. It closes when a probe in the background succeeds.
    Skipped: "fix the cause that the message names in brackets; queries resume within a second after that",
    /// The member does not accept the credentials.
    Unauthorized: "renew the token in the Secret: it has expired, or its service account is gone",
    /// The member accepts the credentials, but they have no permission for the request.
    Forbidden: "in the member, grant the token's service account the permission that the message names",
    /// The clocks of the member and of this host differ.
    ClockSkew: "synchronize both clocks with the same source: timestamps and certificates depend on them",
    /// The member has no such metrics API.
    APIMissing: "install the backend of the API in the member: prometheus-adapter, KEDA or metrics-server, \
        with its APIService",
    /// The member's metrics API is registered but not available.
    APIUnavailable: "in the member, run kubectl describe apiservice NAME, and check the backend that it \
        points to",
    /// The member's metrics API responds with an error.
    APIFailing: "check the log of the API's backend in the member, and check its Prometheus",
    /// The member's metrics API does not respond in time.
    Timeout: "check the log of the API's backend in the member, and check the load of its Prometheus",
    /// A response is larger than its limit.
    TooLarge: "use a selector to get fewer items, or raise the limit that the error names",
    /// A response is not the requested object.
    Malformed: "check the API's backend in the member: the message describes why the response is not a list \
        of metrics",
    /// The member's discovery does not list the metric.
    MetricUnknown: "check that Prometheus has the series, and that a rule of prometheus-adapter maps it to \
        this metric",
    /// Discovery lists the metric, but it has no values for these objects.
    NoSeries: "check that Prometheus scrapes these objects, and that the series has their labels",
    /// The namespace does not exist in the member, or has no such objects.
    WrongNamespace: "query the namespace of the workload, and check that the workload is propagated to the \
        member",
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
    fn causes_match_the_headings_of_the_documentation() {
        let text = read("docs/troubleshooting.md");
        let (_, causes) = text.split_once("\n## Causes\n").unwrap();
        let (causes, _) = causes.split_once("\n## ").unwrap();
        let headings: Vec<&str> = causes.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let names: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(headings, names);
    }

    #[test]
    fn causes_in_documents_and_alerts_exist() {
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

    /// Single words in brackets that are not links.
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
