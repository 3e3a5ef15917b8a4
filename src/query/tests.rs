use proptest::prelude::*;

use super::clusters::choose_clusters;
use super::request_target::{check_names, is_segment_name};
use super::*;
use crate::api::group::MetricsResource;

/// A path as a client sends it.
fn read(path: &str, cluster_label: Option<&str>) -> Result<ClientQuery, QueryError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    DecodedQuery::read(&RequestTarget::read(path, query).expect("a well-formed path"), cluster_label)
}

/// Any valid path segment.
fn name() -> impl Strategy<Value = String> {
    "\\PC{1,12}".prop_filter("it is a name", |name| is_segment_name(name))
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "k[a-z]{1,5}=[a-z]{1,5}",
        "k[a-z]{1,5} in \\([a-z]{1,5}, [a-z]{1,5}\\),!k[a-z]{6}",
    ]
}

fn subject() -> impl Strategy<Value = MetricTarget> {
    prop_oneof![
        (name(), name(), name()).prop_map(|(namespace, resource, name)| MetricTarget::Namespaced {
            namespace,
            resource,
            name
        }),
        (name().prop_filter("it is a place", |resource| resource != "namespaces"), name())
            .prop_map(|(resource, name)| MetricTarget::Root { resource, name }),
        name().prop_map(|name| MetricTarget::Namespace { name }),
    ]
}

fn custom() -> impl Strategy<Value = CustomQuery> {
    (prop_oneof![Just(Version::V1Beta1), Just(Version::V1Beta2)], subject(), name(), selector(), selector())
        .prop_map(|(version, subject, metric, label_selector, metric_label_selector)| CustomQuery {
            version,
            subject,
            metric,
            label_selector,
            metric_label_selector,
        })
}

fn resource() -> impl Strategy<Value = ResourceQuery> {
    let fields = prop_oneof![Just(""), Just("metadata.name=a"), Just("metadata.namespace!=b")];
    let of = |resource, namespace, name| ResourceQuery {
        resource,
        namespace,
        name,
        label_selector: Default::default(),
        field_selector: Default::default(),
    };
    let list = prop_oneof![
        Just(of(MetricsResource::Nodes, None, None)),
        Just(of(MetricsResource::Pods, None, None)),
        name().prop_map(move |namespace| of(MetricsResource::Pods, Some(namespace), None)),
    ];
    prop_oneof![
        name().prop_map(move |name| of(MetricsResource::Nodes, None, Some(name))),
        (name(), name()).prop_map(move |(namespace, name)| of(
            MetricsResource::Pods,
            Some(namespace),
            Some(name)
        )),
        (list, selector(), fields).prop_map(|(list, labels, fields)| ResourceQuery {
            label_selector: labels.parse().expect("a selector"),
            field_selector: fields.parse().expect("a selector"),
            ..list
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_for_a_member_is_read_as_the_same_query(
        custom in custom(), namespace in name(), metric in name(), selector in selector(), resource in resource(),
    ) {
        let written = custom.path(custom.version);
        prop_assert_eq!(read(&written, None).map(|asked| asked.question), Ok(DecodedQuery::Custom(custom)));
        let external = ExternalQuery { namespace, metric, label_selector: selector };
        let written = external.path();
        prop_assert_eq!(read(&written, None).map(|asked| asked.question), Ok(DecodedQuery::External(external)));
        let written = resource.path();
        prop_assert_eq!(read(&written, None).map(|asked| asked.question), Ok(DecodedQuery::Resource(resource)));
    }
}

#[test]
fn a_requirement_on_the_cluster_label_chooses_clusters_and_is_not_passed_on() {
    let (clusters, rest) = choose_clusters("cluster in (a,b),verb=GET", Some("cluster")).expect("a selector");
    assert_eq!((clusters.len(), rest.as_str()), (1, "verb=GET"));
    let (clusters, rest) = choose_clusters("verb = GET", Some("cluster")).expect("a selector");
    assert_eq!((clusters.len(), rest.as_str()), (0, "verb = GET"));
    let (clusters, rest) = choose_clusters("cluster=a", None).expect("a selector");
    assert_eq!((clusters.len(), rest.as_str()), (0, "cluster=a"));
}

#[test]
fn names_that_would_be_places_in_a_path_are_refused() {
    for name in ["", ".", "..", "a/b", "../../secrets", "%2e%2e", "a%2Fb"] {
        assert_eq!(check_names(&["pods", name]), Err(QueryError::Path), "{name:?}");
    }
    assert_eq!(check_names(&["namespaces", "default", "pods", "*", "m"]), Ok(()));
}

#[test]
fn what_asks_for_no_metrics_is_told_from_what_asks_wrongly() {
    for (path, expected) in [
        ("/apis/custom.metrics.k8s.io/v1beta3/nodes/*/m", QueryError::NotFound),
        ("/apis/custom.metrics.k8s.io/v1beta2/nodes/m", QueryError::NotFound),
        ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/a/b", QueryError::Path),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/a", QueryError::NotFound),
        ("/apis/metrics.k8s.io/v1beta1/services", QueryError::NotFound),
        ("/apis/apps/v1/namespaces/default/deployments", QueryError::NotFound),
        ("/version", QueryError::NotFound),
    ] {
        assert_eq!(read(path, None), Err(expected), "{path}");
    }
    for path in ["/apis/external.metrics.k8s.io/v1beta1/namespaces/a/m", "/apis/metrics.k8s.io/v1beta1/nodes"]
    {
        assert!(
            matches!(read(&format!("{path}?watch=1"), None), Err(QueryError::NotWatched { .. })),
            "{path}"
        );
        assert!(read(&format!("{path}?watch=false"), None).is_ok(), "{path}");
        let selector = read(&format!("{path}?labelSelector=a%20b"), None);
        assert!(matches!(selector, Err(QueryError::Selector(_))), "{path}");
    }
}
