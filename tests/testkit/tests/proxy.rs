//! The simulated proxies, used by third-party clients of their protocols.

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioExecutor;
use testkit::app::Replica;
use testkit::proxy::{Kind, Proxy};

/// The address of a proxy without and with its credentials.
fn parts(proxy: &Proxy) -> (Uri, String, String) {
    let url: Uri = proxy.url().parse().unwrap();
    let (credentials, address) = url.authority().unwrap().as_str().split_once('@').unwrap();
    let (user, password) = credentials.split_once(':').unwrap();
    (format!("http://{address}").parse().unwrap(), user.to_owned(), password.to_owned())
}

fn client<C>(connector: C) -> Client<C, Empty<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new()).build(connector)
}

#[tokio::test]
async fn http_connect_reaches_the_target_and_records_headers() {
    let (proxy, replica) = (Proxy::start(Kind::Http).await.unwrap(), Replica::start().await.unwrap());
    let target: Uri = format!("http://{}/", replica.address()).parse().unwrap();
    let (address, ..) = parts(&proxy);
    let tunnel = Tunnel::new(address, HttpConnector::new());

    let stranger = client(tunnel.clone());
    assert!(stranger.get(target.clone()).await.is_err(), "the proxy requires credentials");
    let wrong = client(tunnel.clone().with_auth(HeaderValue::from_static("Basic cHJveHktdXNlcjp3cm9uZw==")));
    assert!(wrong.get(target.clone()).await.is_err());
    assert_eq!((proxy.tunnels(), replica.served()), (Vec::new(), 0));

    let right = HeaderValue::from_static("Basic cHJveHktdXNlcjpwcm94eS1wYXNzd29yZA==");
    assert_eq!(client(tunnel.with_auth(right)).get(target).await.unwrap().status(), 200);
    assert_eq!(replica.served(), 1);
    let tunnels = proxy.tunnels();
    assert_eq!((tunnels.len(), &tunnels[0].to), (1, &replica.address().to_string()));
    assert!(tunnels[0].headers.iter().any(|line| line.to_lowercase().starts_with("proxy-authorization: ")));
}

#[tokio::test]
async fn socks_reaches_the_target_with_the_password() {
    let (proxy, replica) = (Proxy::start(Kind::Socks5).await.unwrap(), Replica::start().await.unwrap());
    let target: Uri = format!("http://{}/", replica.address()).parse().unwrap();
    let (address, user, password) = parts(&proxy);
    let socks = SocksV5::new(address, HttpConnector::new());

    let stranger = client(socks.clone());
    assert!(stranger.get(target.clone()).await.is_err(), "the proxy requires credentials");
    let wrong = client(socks.clone().with_auth(user.clone(), "wrong".to_owned()));
    assert!(wrong.get(target.clone()).await.is_err());
    assert_eq!((proxy.tunnels(), replica.served()), (Vec::new(), 0));

    let right = client(socks.with_auth(user, password));
    assert_eq!(right.get(target).await.unwrap().status(), 200);
    assert_eq!(replica.served(), 1);
    assert_eq!(proxy.tunnels()[0].to, replica.address().to_string());
}
