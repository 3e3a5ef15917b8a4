//! Watches of objects.

use serde_json::{Value, json};
use testkit::control_plane::ControlPlane;

use super::{CLUSTERS, SECRETS, Watch, get, member, revision, within};

#[tokio::test]
async fn watch_sends_all_later_changes_in_order() {
    let plane = ControlPlane::start().await.unwrap();
    plane.join(&member("member1")).unwrap();
    let from = revision(&get(&plane, CLUSTERS).await.json().unwrap());
    plane.set_ready("member1", false);
    let mut watch =
        Watch::open(&plane, &format!("{CLUSTERS}?watch=true&resourceVersion={from}&timeoutSeconds=60")).await;
    let (kind, name, modified) = watch.event().await;
    assert_eq!((kind.as_str(), name.as_str()), ("MODIFIED", "member1"));
    plane.join(&member("member2")).unwrap();
    let (kind, name, added) = watch.event().await;
    assert_eq!((kind.as_str(), name.as_str()), ("ADDED", "member2"));
    plane.remove("member1");
    let (kind, name, deleted) = watch.event().await;
    assert_eq!((kind.as_str(), name.as_str()), ("DELETED", "member1"));
    assert!(from < modified && modified < added && added < deleted, "a deletion has its own revision");
}

#[tokio::test]
async fn watch_without_a_revision_starts_with_the_existing_objects() {
    let plane = ControlPlane::start().await.unwrap();
    plane.join(&member("member1")).unwrap();
    for start in ["", "&resourceVersion=0"] {
        let mut watch = Watch::open(&plane, &format!("{SECRETS}?watch=1{start}")).await;
        assert_eq!(watch.event().await.1, "member1");
        assert_eq!(watch.event().await.1, "member1-impersonator");
    }
    let mut everywhere = Watch::open(&plane, "/api/v1/secrets?watch=1").await;
    assert_eq!(everywhere.event().await.1, "member1");
}

#[tokio::test]
async fn object_that_no_longer_matches_is_deleted_for_the_watch() {
    let plane = ControlPlane::start().await.unwrap();
    let labelled = |tier: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"tier": tier}},
        })
    };
    let mut watch =
        Watch::open(&plane, "/api/v1/namespaces/default/configmaps?watch=1&labelSelector=tier%3Dfront").await;
    for (tier, event) in [("front", "ADDED"), ("back", "DELETED"), ("front", "ADDED")] {
        plane.apply(labelled(tier)).unwrap();
        assert_eq!(watch.event().await.0, event);
    }
}

#[tokio::test]
async fn compacted_revision_is_expired() {
    let plane = ControlPlane::start().await.unwrap();
    plane.join(&member("member1")).unwrap();
    let from = revision(&get(&plane, CLUSTERS).await.json().unwrap());
    let path = format!("{CLUSTERS}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
    let mut running = Watch::open(&plane, &path).await;
    plane.set_ready("member1", false);
    assert_eq!(running.event().await.0, "MODIFIED");
    plane.compact();
    let event = running.next().await.unwrap().unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(running.next().await.unwrap(), None);
    let mut late = Watch::open(&plane, &path).await;
    let event = late.next().await.unwrap().unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["message"], format!("too old resource version: {from} ({})", from + 1));
    assert_eq!(late.next().await.unwrap(), None);
    plane.refuse_gone_watches();
    assert_eq!(get(&plane, &path).await.status, 410);
}

#[tokio::test]
async fn bookmarks_come_if_allowed_and_before_the_end() {
    let plane = ControlPlane::start().await.unwrap();
    let mut watch =
        Watch::open(&plane, &format!("{CLUSTERS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=2")).await;
    plane.send_bookmarks();
    let bookmark = watch.next().await.unwrap().unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Cluster");
    assert_eq!(revision(&bookmark["object"]), revision(&get(&plane, CLUSTERS).await.json().unwrap()));
    assert_eq!(watch.event().await.0, "BOOKMARK");
    assert_eq!(watch.next().await.unwrap(), None);

    let mut without = Watch::open(&plane, &format!("{CLUSTERS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(without.next().await.unwrap(), None);
}

#[tokio::test]
async fn initial_list_in_the_stream_is_rejected() {
    let plane = ControlPlane::start().await.unwrap();
    let path = format!("{CLUSTERS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let refused = get(&plane, &path).await;
    assert_eq!(refused.status, 422);
    let status: Value = refused.json().unwrap();
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(
        status["message"],
        "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden \
         for watch unless the WatchList feature gate is enabled"
    );
}

#[tokio::test]
async fn watches_can_be_dropped_and_the_server_restarted() {
    let plane = ControlPlane::start().await.unwrap();
    let mut dropped = Watch::open(&plane, &format!("{CLUSTERS}?watch=1")).await;
    plane.drop_watches();
    dropped.next().await.expect_err("a dropped watch breaks off");
    let mut cut = Watch::open(&plane, &format!("{CLUSTERS}?watch=1")).await;
    within(plane.restart()).await;
    cut.next().await.expect_err("a restart cuts watches");
    plane.join(&member("member1")).unwrap();
    let mut after = Watch::open(&plane, &format!("{CLUSTERS}?watch=1")).await;
    assert_eq!(after.event().await.1, "member1");
}

#[tokio::test]
async fn silenced_watch_catches_up_later() {
    let plane = ControlPlane::start().await.unwrap();
    let mut watch =
        Watch::open(&plane, &format!("{CLUSTERS}?watch=1&allowWatchBookmarks=1&timeoutSeconds=1")).await;
    plane.silence_watches(true);
    plane.join(&member("member1")).unwrap();
    plane.send_bookmarks();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(1500), watch.next()).await;
    assert!(quiet.is_err(), "the watch must not even end");
    plane.silence_watches(false);
    assert_eq!(watch.event().await.1, "member1");
}

#[tokio::test]
async fn drop_ends_all_connections() {
    let plane = ControlPlane::start().await.unwrap();
    let (address, kubeconfig) = (plane.address(), plane.adapter_kubeconfig().unwrap());
    let mut watch = Watch::open(&plane, &format!("{CLUSTERS}?watch=1")).await;
    drop(plane);
    watch.next().await.expect_err("the connection is cut");
    within(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!kubeconfig.exists());
}
