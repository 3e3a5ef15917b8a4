//! One replica: an HTTP server on loopback. Also the small client that scrapes and loads it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::listener::serve_each;

/// Bytes of the longest response that the client reads.
const LONGEST_RESPONSE: usize = 64 << 10;

/// A replica of the sample application. Drop stops it.
///
/// `/` counts requests and returns the number of earlier ones. `/metrics` exposes the count as `http_requests_total`, as
/// luxas/autoscale-demo of the tutorial does. Unlike there, a scrape does not count.
#[derive(Debug)]
pub struct Replica {
    address: SocketAddr,
    served: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Replica {
    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let served = Arc::new(AtomicU64::new(0));
        let count = served.clone();
        let task = tokio::spawn(serve_each(listener, move |stream| serve(stream, count.clone())));
        Ok(Self { address, served, _task: AbortOnDropHandle::new(task) })
    }

    /// The address that the replica listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of requests to `/` so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Sends a GET to a replica over a new connection.
///
/// # Errors
/// If the replica cannot be reached, the status is not 200, or the response is too long.
pub(super) async fn fetch(address: SocketAddr, path: &str) -> io::Result<Bytes> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder().uri(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("{address} responded with {}", response.status())));
    }
    let body =
        Limited::new(response.into_body(), LONGEST_RESPONSE).collect().await.map_err(io::Error::other)?;
    Ok(body.to_bytes())
}

async fn serve(stream: TcpStream, served: Arc<AtomicU64>) {
    let service = service_fn(|request| std::future::ready(respond(&request, &served)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn respond(request: &Request<Incoming>, served: &AtomicU64) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/" => {
            let before = served.fetch_add(1, Ordering::Relaxed);
            format!("Hello! I have served {before} requests before this one.\n")
        }
        "/metrics" => format!(
            "# HELP http_requests_total The number of requests served in total\n\
             # TYPE http_requests_total counter\n\
             http_requests_total {}\n",
            served.load(Ordering::Relaxed)
        ),
        _ => {
            let mut response = Response::new(Full::from("not found\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    Ok(response)
}
