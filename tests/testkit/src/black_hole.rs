//! An address that never responds, like a host behind a firewall that drops packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::listener::hold_port;

/// A port on loopback with a full connection queue: the kernel drops every further attempt to connect.
pub struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens a black hole.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = hold_port(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?.listen(1)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(connected?);
        }
        Ok(Self { address, _listener: listener, _waiting: waiting })
    }

    /// The address that never responds.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
