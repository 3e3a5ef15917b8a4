//! A member's API server that sends single HTTP/2 frames, also those that an HTTP library would not send.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::control_plane::MemberSpec;
use testkit::https;
use testkit::pki::Authority;
use testkit::serve_each;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, MAX_STREAMS, PING, RESET, SETTINGS, frame,
    literals, settings,
};

/// The length in bytes of the HTTP/2 client preface.
const PREFACE: usize = 24;
/// `REFUSED_STREAM`
const REFUSED: u32 = 7;

/// How a member handles requests.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// On each connection, the member sends GOAWAY with the request of this number as the last one. It responds to earlier
    /// requests and ignores later ones.
    GoAwayAt(usize),
    /// Each response is split into DATA frames of this length, which are sent at once.
    Frames(usize),
    /// On each connection, every n-th request is refused with `REFUSED_STREAM`.
    RefuseEvery(usize),
}

/// A member that returns the same value of `http_requests` for each request.
pub struct RawMember {
    spec: MemberSpec,
    behaviour: Arc<Mutex<Behaviour>>,
    responded: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Server {
    name: String,
    behaviour: Arc<Mutex<Behaviour>>,
    latency: Duration,
    responded: Arc<AtomicUsize>,
}

impl RawMember {
    /// Starts a member. `latency` is the time before each response.
    pub async fn start(name: &str, behaviour: Behaviour, latency: Duration) -> Self {
        let ca = Authority::new("raw-ca");
        let tls = https::tls(&ca.server(&["127.0.0.1"]), None, &["h2"]).expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (responded, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let server = Server {
            name: name.to_owned(),
            behaviour: behaviour.clone(),
            latency,
            responded: responded.clone(),
        };
        let accepted = connections.clone();
        let task = tokio::spawn(serve_each(listener, move |stream: TcpStream| {
            let (server, acceptor, accepted) = (server.clone(), acceptor.clone(), accepted.clone());
            async move {
                accepted.fetch_add(1, Ordering::Relaxed);
                server.serve(&acceptor, stream).await;
            }
        }));
        let spec = MemberSpec {
            name: name.to_owned(),
            endpoint: format!("https://{address}"),
            ca_bundle: Some(ca.pem()),
            token: Some("token".to_owned()),
            ready: true,
            ..MemberSpec::default()
        };
        Self { spec, behaviour, responded, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// The spec with which the member joins a fleet.
    pub fn spec(&self) -> &MemberSpec {
        &self.spec
    }

    /// Changes the behaviour.
    pub fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("not poisoned") = behaviour;
    }

    /// The number of responses so far.
    pub fn responded(&self) -> usize {
        self.responded.load(Ordering::Relaxed)
    }

    /// The number of accepted connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Server {
    async fn serve(self, acceptor: &TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let (mut reading, mut writing) = tokio::io::split(stream);
        if reading.read_exact(&mut [0; PREFACE]).await.is_err() {
            return;
        }
        let (frames, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let _ = frames.send(settings(&[(MAX_STREAMS, 250)]));
        let write = async {
            while let Some(bytes) = queue.recv().await {
                if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                    return;
                }
            }
        };
        let read = async {
            let mut requests = 0;
            let mut is_closing = false;
            while let Some(received) = Frame::read(&mut reading).await {
                match received.kind {
                    SETTINGS if received.flags & ACK == 0 => drop(frames.send(frame(SETTINGS, ACK, 0, &[]))),
                    PING if received.flags & ACK == 0 => {
                        drop(frames.send(frame(PING, ACK, 0, &received.payload)));
                    }
                    HEADERS if !is_closing => {
                        requests += 1;
                        let behaviour = *self.behaviour.lock().expect("not poisoned");
                        match behaviour {
                            Behaviour::GoAwayAt(last) if requests == last => {
                                is_closing = true;
                                let payload = [received.stream.to_be_bytes(), [0; 4]].concat();
                                let _ = frames.send(frame(GOAWAY, 0, 0, &payload));
                            }
                            Behaviour::RefuseEvery(nth) if requests % nth == 0 => {
                                let _ = frames.send(frame(RESET, 0, received.stream, &REFUSED.to_be_bytes()));
                                continue;
                            }
                            _ => {}
                        }
                        let length =
                            if let Behaviour::Frames(length) = behaviour { length } else { usize::MAX };
                        self.respond(received.stream, length, frames.clone());
                    }
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    }

    /// Responds in frames of this length. Short frames get a body that is larger than half of the smallest window.
    fn respond(&self, stream: u32, length: usize, frames: mpsc::UnboundedSender<Vec<u8>>) {
        let Self { name, latency, responded, .. } = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(latency).await;
            let headers = literals(&[(":status", "200"), ("content-type", "application/json")]);
            let body = format!(
                r#"{{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","metadata":{{}},"items":[
                {{"describedObject":{{"kind":"Pod","namespace":"default","name":"{name}-0","apiVersion":"/v1"}},
                "metric":{{"name":"http_requests","selector":null}},"timestamp":"2026-11-21T21:19:22Z","value":"1"}}]}}"#
            );
            let spaces = if length == usize::MAX { 0 } else { 40_000 };
            let body = format!("{body}{}", " ".repeat(spaces));
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
            for piece in body.as_bytes().chunks(length) {
                bytes.extend(frame(DATA, 0, stream, piece));
            }
            bytes.extend(frame(DATA, END_STREAM, stream, &[]));
            if frames.send(bytes).is_ok() {
                responded.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}
