//! A proxy in front of a member: HTTP CONNECT, HTTP CONNECT over TLS, or SOCKS5. It requires a user and a password.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::https;
use crate::listener::serve_each;
use crate::pki::Authority;

/// The user and password that the proxy requires.
const USER: (&str, &str) = ("proxy-user", "proxy-password");

/// Bytes of the longest line in the head of a CONNECT request.
const LONGEST_LINE: u64 = 16 << 10;
/// The SOCKS authentication method "username/password".
const USER_AND_PASSWORD: u8 = 2;

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT over TLS.
    Https,
    /// SOCKS version 5.
    Socks5,
}

/// A running proxy; it stops when dropped.
pub struct Proxy {
    kind: Kind,
    address: SocketAddr,
    authority: Authority,
    tunnels: Arc<Mutex<Vec<Tunnel>>>,
    _task: AbortOnDropHandle<()>,
}

/// A tunnel that a client requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The target, `host:port`.
    pub to: String,
    /// The header lines of the CONNECT request.
    pub headers: Vec<String>,
}

impl Proxy {
    /// Starts a proxy that requires a user and a password.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(kind: Kind) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let authority = Authority::new("proxy-ca");
        let tls = https::tls(&authority.server(&["127.0.0.1"]), None, &[]).map_err(io::Error::other)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let tunnels = Arc::new(Mutex::new(Vec::new()));
        let record = tunnels.clone();
        let task = tokio::spawn(serve_each(listener, move |stream| {
            let (record, acceptor) = (record.clone(), acceptor.clone());
            async move {
                let _ = match kind {
                    Kind::Http => connect(stream, &record).await,
                    Kind::Https => match acceptor.accept(stream).await {
                        Ok(stream) => connect(stream, &record).await,
                        Err(error) => Err(error),
                    },
                    Kind::Socks5 => socks(stream, &record).await,
                };
            }
        }));
        Ok(Self { kind, address, authority, tunnels, _task: AbortOnDropHandle::new(task) })
    }

    /// The URL with user and password, as in the kubeconfig field `proxyURL`.
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
        };
        format!("{scheme}://{}:{}@{}", USER.0, USER.1, self.address)
    }

    /// The CA of the proxy's certificate.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The tunnels so far. A host name that ends in `.test` leads to this machine.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.tunnels.lock().expect("not poisoned").clone()
    }
}

/// HTTP CONNECT as in RFC 9110, section 9.3.6, with basic credentials (RFC 7617).
async fn connect(stream: impl AsyncRead + AsyncWrite + Unpin, record: &Mutex<Vec<Tunnel>>) -> io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if (&mut client).take(LONGEST_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.collect();
    let ["CONNECT", to, "HTTP/1.1"] = *request.split(' ').collect::<Vec<_>>() else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n\r\n").await;
    };
    let expected = BASE64_STANDARD.encode(format!("{}:{}", USER.0, USER.1).as_bytes());
    let authorized = headers.iter().any(|line| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        let (scheme, credentials) = value.split_once(' ').unwrap_or_default();
        name.eq_ignore_ascii_case("proxy-authorization")
            && scheme.eq_ignore_ascii_case("basic")
            && credentials == expected
    });
    if !authorized {
        let refusal =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n\
                        Connection: close\r\n\r\n";
        return client.write_all(refusal).await;
    }
    // Host names in `.test` have no DNS entry and lead to loopback. Proxies of the environment are not used for loopback
    // itself.
    let address = match to.rsplit_once(".test:") {
        Some((_, port)) => format!("127.0.0.1:{port}"),
        None => to.to_owned(),
    };
    let Ok(mut server) = TcpStream::connect(address).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n").await;
    };
    let to = to.to_owned();
    record.lock().expect("not poisoned").push(Tunnel { to, headers });
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// SOCKS as in RFC 1928 and RFC 1929, reduced to what a client of one address needs.
async fn socks(mut client: TcpStream, record: &Mutex<Vec<Tunnel>>) -> io::Result<()> {
    let [_version, methods] = read(&mut client).await?;
    let mut offered = vec![0; usize::from(methods)];
    client.read_exact(&mut offered).await?;
    if !offered.contains(&USER_AND_PASSWORD) {
        return client.write_all(&[5, 0xff]).await;
    }
    client.write_all(&[5, USER_AND_PASSWORD]).await?;
    let [_version] = read(&mut client).await?;
    let (user, password) = (short_string(&mut client).await?, short_string(&mut client).await?);
    if (user.as_str(), password.as_str()) != USER {
        return client.write_all(&[1, 1]).await;
    }
    client.write_all(&[1, 0]).await?;
    let [_version, command, _reserved, kind] = read(&mut client).await?;
    let host = match (command, kind) {
        (1, 1) => Ipv4Addr::from(read(&mut client).await?).to_string(),
        (1, 3) => short_string(&mut client).await?,
        _ => return client.write_all(&socks_reply(7)).await,
    };
    let to = format!("{host}:{}", u16::from_be_bytes(read(&mut client).await?));
    let Ok(mut server) = TcpStream::connect(&to).await else {
        return client.write_all(&socks_reply(5)).await;
    };
    record.lock().expect("not poisoned").push(Tunnel { to, headers: Vec::new() });
    client.write_all(&socks_reply(0)).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A SOCKS reply without an address.
fn socks_reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn short_string(stream: &mut TcpStream) -> io::Result<String> {
    let [length] = read(stream).await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
