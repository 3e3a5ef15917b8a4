//! The adapter's Service: distributes connections over its endpoints in turn, like kube-proxy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use testkit::serve_each;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A Service with its endpoints.
pub struct Balancer {
    port: u16,
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Balancer {
    /// A Service without endpoints on a port of 127.0.0.1.
    ///
    /// # Errors
    /// If it cannot listen on the port.
    pub fn start(port: TcpSocket) -> anyhow::Result<Self> {
        let listener = port.listen(1024)?;
        let port = listener.local_addr()?.port();
        let endpoints = Arc::new(Mutex::default());
        let (all, turn) = (endpoints.clone(), AtomicUsize::new(0));
        let serving = serve_each(listener, move |client| {
            let endpoints: MutexGuard<'_, Vec<SocketAddr>> = all.lock().expect("not poisoned");
            let next = turn.fetch_add(1, Ordering::Relaxed) % endpoints.len().max(1);
            forward(client, endpoints.get(next).copied())
        });
        let task = AbortOnDropHandle::new(tokio::spawn(serving));
        Ok(Self { port, endpoints, _task: task })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the endpoints for new connections. Open connections are not changed.
    pub fn set_endpoints(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.lock().expect("not poisoned") = endpoints;
    }
}

/// Forwards one connection until one side closes it.
async fn forward(mut client: TcpStream, endpoint: Option<SocketAddr>) {
    let Some(endpoint) = endpoint else { return };
    if let Ok(mut server) = TcpStream::connect(endpoint).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
