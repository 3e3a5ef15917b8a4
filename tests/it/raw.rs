//! A TLS client that sends any bytes, also those that an HTTP library would not send.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testkit::adapter::AdapterProcess;
use testkit::pki::Identity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const HTTP1: &[u8] = b"http/1.1";
pub const HTTP2: &[u8] = b"h2";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
/// Flag of SETTINGS and PING frames.
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `SETTINGS_MAX_CONCURRENT_STREAMS` and `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const MAX_STREAMS: u16 = 3;
pub const INITIAL_WINDOW: u16 = 4;

/// An HTTP/2 frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection over TLS.
pub struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    /// Opens a TLS connection. ALPN offers only `protocol`. The receive buffer is small, so the client takes few bytes before
    /// it reads them.
    pub async fn connect(
        adapter: &AdapterProcess,
        protocol: &[u8],
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(adapter.ca_pem().as_bytes()).expect("a certificate");
        roots.add(ca).expect("a CA");
        let tls = ClientConfig::builder().with_root_certificates(roots);
        let mut tls = match identity {
            Some(identity) => tls
                .with_client_auth_cert(identity.chain(), identity.private_key())
                .expect("a certificate and its key"),
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        let stream = socket.connect(adapter.address()).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        Ok(Self { stream: TlsConnector::from(Arc::new(tls)).connect(name, stream).await? })
    }

    /// Opens an HTTP/2 connection and sends these settings.
    pub async fn http2(
        adapter: &AdapterProcess,
        identity: Option<&Identity>,
        settings: &[(u16, u32)],
    ) -> io::Result<Self> {
        let mut raw = Self::connect(adapter, HTTP2, identity).await?;
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        raw.send(&self::settings(settings)).await?;
        Ok(raw)
    }

    /// The server certificate in DER.
    pub fn certificate(&self) -> Vec<u8> {
        let (_, session) = self.stream.get_ref();
        session.peer_certificates().and_then(<[_]>::first).expect("a certificate").to_vec()
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads until the server closes or resets the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = self.stream.read(&mut piece).await {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    }

    /// Reads up to 512 bytes. False if the connection is closed.
    pub async fn some(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 512]).await, Ok(1..))
    }

    /// Reads until the data ends with `end`. `None` if the server closes the connection earlier.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            bytes.push(self.stream.read_u8().await.ok()?);
        }
        Some(bytes)
    }

    /// Reads exactly `count` bytes. `None` if the server closes the connection earlier.
    pub async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    }

    /// Reads the next frame. `None` if the connection is closed.
    pub async fn frame(&mut self) -> Option<Frame> {
        Frame::read(&mut self.stream).await
    }

    /// Reads frames until one matches. `None` if the server closes the connection earlier.
    pub async fn frame_like(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

impl Frame {
    /// Reads the next frame. `None` if the connection is closed.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        Some(Self { kind: head[3], flags: head[4], stream: id, payload })
    }

    /// The big-endian `u32` at a byte offset of the payload.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Encodes a SETTINGS frame.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload =
        values.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
}

/// Encodes a request's headers in HPACK, as literals without indexing.
pub fn block(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let fixed = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    literals(fixed.iter().chain(headers))
}

/// Encodes headers in HPACK, as literals without indexing.
pub fn literals<'a>(headers: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            number(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Encodes an integer of RFC 7541 with a 7-bit prefix.
fn number(block: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else {
        return block.push(u8::try_from(number).expect("less than 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("less than 128") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("less than 128"));
}
