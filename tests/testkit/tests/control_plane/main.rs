//! The simulated control plane over real sockets, and with the real kubectl if it is installed.

mod access;
mod aggregation;
mod kubectl;
mod lists;
mod watches;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use testkit::api_client::Answer;
use testkit::control_plane::{ControlPlane, MemberSpec};

const CLUSTERS: &str = "/apis/cluster.karmada.io/v1alpha1/clusters";
const SECRETS: &str = "/api/v1/namespaces/karmada-cluster/secrets";

/// A member with an address that never responds.
fn member(name: &str) -> MemberSpec {
    MemberSpec {
        name: name.to_owned(),
        endpoint: "https://127.0.0.1:1".to_owned(),
        ca_bundle: Some("a bundle".to_owned()),
        token: Some("a token".to_owned()),
        ready: true,
        ..MemberSpec::default()
    }
}

async fn get(plane: &ControlPlane, path: &str) -> Answer {
    within(plane.admin_client().get(path)).await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("the future ends in time")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("the list has items");
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// A watch as its client receives it: line by line.
struct Watch {
    body: Incoming,
    buffered: BytesMut,
}

impl Watch {
    async fn open(plane: &ControlPlane, path: &str) -> Self {
        let request = Request::get(path).body(Bytes::new()).unwrap();
        let response = within(plane.admin_client().open(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), buffered: BytesMut::new() }
    }

    /// The next event. `None` at the normal end; an error if the stream breaks off.
    async fn next(&mut self) -> Result<Option<Value>, hyper::Error> {
        loop {
            if let Some(end) = self.buffered.iter().position(|&byte| byte == b'\n') {
                let line = self.buffered.split_to(end);
                self.buffered.advance(1);
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            match within(self.body.frame()).await {
                Some(frame) => self.buffered.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }

    /// The type, object name and resourceVersion of the next event.
    async fn event(&mut self) -> (String, String, u64) {
        let event = self.next().await.expect("the watch does not break off").expect("the watch continues");
        let metadata = &event["object"]["metadata"];
        let revision = metadata["resourceVersion"].as_str().unwrap_or("0").parse().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&metadata["name"]), revision)
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
