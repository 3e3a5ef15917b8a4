//! The adapter's Service: connections go round over its endpoints, as kube-proxy lets them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A Service with its endpoints.
pub struct Balancer {
    port: u16,
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Balancer {
    /// A Service without endpoints, on a port of 127.0.0.1.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn start(port: TcpSocket) -> anyhow::Result<Self> {
        let listener = port.listen(1024)?;
        let port = listener.local_addr()?.port();
        let endpoints = Arc::new(Mutex::default());
        let task = AbortOnDropHandle::new(tokio::spawn(serve(listener, endpoints.clone())));
        Ok(Self { port, endpoints, _task: task })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where new connections go from now on; those that are open stay where they are.
    pub fn set_endpoints(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.lock().expect("no holder panics") = endpoints;
    }
}

async fn serve(listener: TcpListener, endpoints: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut connections = JoinSet::new();
    let mut turn = 0;
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                turn += 1;
                let endpoints = endpoints.lock().expect("no holder panics").clone();
                if let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)).copied() {
                    connections.spawn(forward(client, endpoint));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either side ends it.
async fn forward(mut client: TcpStream, endpoint: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(endpoint).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
