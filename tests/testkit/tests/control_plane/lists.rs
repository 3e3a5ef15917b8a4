//! Reads and writes of objects.

use http::Method;
use serde_json::json;
use testkit::control_plane::ControlPlane;

use super::{CLUSTERS, SECRETS, get, member, names, revision};

#[tokio::test]
async fn joined_member_is_a_cluster_and_two_secrets() {
    let plane = ControlPlane::start().await.unwrap();
    plane.join(&member("member1")).unwrap();
    let clusters = get(&plane, CLUSTERS).await.json().unwrap();
    assert_eq!(clusters["kind"], "ClusterList");
    assert_eq!(clusters["apiVersion"], "cluster.karmada.io/v1alpha1");
    let cluster = &clusters["items"][0];
    assert_eq!(cluster["spec"]["apiEndpoint"], "https://127.0.0.1:1");
    assert_eq!(cluster["spec"]["secretRef"], json!({"namespace": "karmada-cluster", "name": "member1"}));
    assert_eq!(cluster["status"]["conditions"][0]["status"], "True");
    let secrets = get(&plane, SECRETS).await.json().unwrap();
    assert_eq!(names(&secrets), ["member1", "member1-impersonator"]);
    assert_eq!(secrets["items"][0]["data"], json!({"caBundle": "YSBidW5kbGU=", "token": "YSB0b2tlbg=="}));

    plane.set_ready("member1", false);
    let cluster = get(&plane, &format!("{CLUSTERS}/member1")).await.json().unwrap();
    assert_eq!(cluster["status"]["conditions"][0]["status"], "False");
    plane.remove("member1");
    assert!(names(&get(&plane, CLUSTERS).await.json().unwrap()).is_empty());
    assert!(names(&get(&plane, "/api/v1/secrets").await.json().unwrap()).is_empty());
}

#[tokio::test]
async fn paged_list_has_one_revision_until_it_is_compacted() {
    let plane = ControlPlane::start().await.unwrap();
    for index in 0..5 {
        plane.join(&member(&format!("member{index}"))).unwrap();
    }
    let first = get(&plane, &format!("{CLUSTERS}?limit=2")).await.json().unwrap();
    assert_eq!(names(&first), ["member0", "member1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    plane.remove("member2");
    plane.join(&member("member9")).unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap().replace('=', "%3D").replace('+', "%2B");
    let second = get(&plane, &format!("{CLUSTERS}?limit=3&continue={token}")).await.json().unwrap();
    assert_eq!(names(&second), ["member2", "member3", "member4"]);
    assert_eq!(revision(&second), revision(&first));
    assert!(second["metadata"].get("continue").is_none());

    let exact = format!("{CLUSTERS}?resourceVersionMatch=Exact&resourceVersion={}", revision(&first));
    assert_eq!(names(&get(&plane, &exact).await.json().unwrap()).len(), 5);
    plane.compact();
    for gone in [exact, format!("{CLUSTERS}?continue={token}")] {
        let answer = get(&plane, &gone).await;
        assert_eq!(answer.status, 410);
        assert_eq!(answer.json().unwrap()["reason"], "Expired");
    }
    let answer = get(&plane, &format!("{CLUSTERS}?resourceVersion=999999")).await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json().unwrap()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn writes_match_an_api_server() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.admin_client();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "foo"},
    });
    let send = |method, path: &str, body| {
        let (client, path) = (client.clone(), path.to_owned());
        async move { client.send_json(method, &path, &body).await.unwrap() }
    };
    let created = send(Method::POST, SECRETS, secret.clone()).await;
    assert_eq!(created.status, 201);
    let created = created.json().unwrap();
    assert_eq!(created["data"]["token"], "Zm9v");
    assert_eq!(created["metadata"]["namespace"], "karmada-cluster");
    let twice = send(Method::POST, SECRETS, secret).await;
    assert_eq!(twice.status, 409);
    assert_eq!(twice.json().unwrap()["message"], "secrets \"s\" already exists");

    let path = format!("{SECRETS}/s");
    let unchanged = send(Method::PUT, &path, created.clone()).await.json().unwrap();
    assert_eq!(revision(&unchanged), revision(&created), "a write without a change makes no revision");
    let mut changed = created.clone();
    changed["data"]["token"] = json!("YmFy");
    let changed = send(Method::PUT, &path, changed).await.json().unwrap();
    assert!(revision(&changed) > revision(&created));
    assert_eq!(changed["metadata"]["uid"], created["metadata"]["uid"]);
    let late = send(Method::PUT, &path, created).await;
    assert_eq!(late.status, 409);
    assert_eq!(late.json().unwrap()["reason"], "Conflict");

    assert_eq!(send(Method::DELETE, &path, json!({})).await.json().unwrap()["status"], "Success");
    let gone = get(&plane, &path).await;
    assert_eq!(gone.status, 404);
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound",
        "message": "secrets \"s\" not found", "details": {"kind": "secrets", "name": "s"}, "code": 404,
    });
    assert_eq!(gone.json().unwrap(), status);
    let unknown = get(&plane, "/apis/unknown.io/v1/things").await;
    assert_eq!((unknown.status.as_u16(), &unknown.body[..]), (404, b"404 page not found\n".as_slice()));
}

#[tokio::test]
async fn lists_can_be_emptied_and_restored() {
    let plane = ControlPlane::start().await.unwrap();
    plane.join(&member("member1")).unwrap();
    plane.empty_lists(true);
    assert!(names(&get(&plane, CLUSTERS).await.json().unwrap()).is_empty());
    plane.empty_lists(false);
    assert_eq!(names(&get(&plane, CLUSTERS).await.json().unwrap()), ["member1"]);
}

#[tokio::test]
async fn authentication_config_map_is_selected_by_name() {
    let plane = ControlPlane::start().await.unwrap();
    let path = "/api/v1/namespaces/kube-system/configmaps\
                ?fieldSelector=metadata.name%3Dextension-apiserver-authentication";
    let list = get(&plane, path).await.json().unwrap();
    assert_eq!(names(&list), ["extension-apiserver-authentication"]);
    let data = &list["items"][0]["data"];
    assert_eq!(data["client-ca-file"], plane.client_ca_pem());
    assert_eq!(data["requestheader-client-ca-file"], plane.front_proxy_ca_pem());
    assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(data["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
    let other = path.replace("extension-apiserver-authentication", "other");
    assert!(names(&get(&plane, &other).await.json().unwrap()).is_empty());
}
