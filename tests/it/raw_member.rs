//! A member's API server below any library's manners: HTTP/2 frame by frame.

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

/// What comes before the first frame of a client.
const PREFACE: usize = 24;
/// `REFUSED_STREAM`
const REFUSED: u32 = 7;

/// What a member does at a request.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Each connection's request of this number is the last that it processes: it says so by GOAWAY, answers what it has
    /// begun and ignores what comes later.
    GoAwayAt(usize),
    /// Each answer comes in frames of so many bytes, all at once.
    Frames(usize),
    /// One in so many requests of a connection is refused before it is processed.
    RefuseEach(usize),
}

/// A member that answers each request with the same value of `http_requests`.
pub struct RawMember {
    spec: MemberSpec,
    manner: Arc<Mutex<Manner>>,
    answered: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Server {
    name: String,
    manner: Arc<Mutex<Manner>>,
    latency: Duration,
    answered: Arc<AtomicUsize>,
}

impl RawMember {
    /// Starts a member that takes so long for each answer.
    pub async fn start(name: &str, manner: Manner, latency: Duration) -> Self {
        let authority = Authority::new("raw-ca");
        let tls = https::tls(&authority.server(&["127.0.0.1"]), None, &["h2"]).expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answered, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let manner = Arc::new(Mutex::new(manner));
        let server =
            Server { name: name.to_owned(), manner: manner.clone(), latency, answered: answered.clone() };
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
            ca_bundle: Some(authority.pem()),
            token: Some("token".to_owned()),
            ready: true,
            ..MemberSpec::default()
        };
        Self { spec, manner, answered, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// How it joins a fleet.
    pub fn spec(&self) -> &MemberSpec {
        &self.spec
    }

    /// Behaves otherwise from now on.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().expect("no holder panics") = manner;
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
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
                        let manner = *self.manner.lock().expect("no holder panics");
                        match manner {
                            Manner::GoAwayAt(last) if requests == last => {
                                is_closing = true;
                                let payload = [received.stream.to_be_bytes(), [0; 4]].concat();
                                let _ = frames.send(frame(GOAWAY, 0, 0, &payload));
                            }
                            Manner::RefuseEach(nth) if requests % nth == 0 => {
                                let _ = frames.send(frame(RESET, 0, received.stream, &REFUSED.to_be_bytes()));
                                continue;
                            }
                            _ => {}
                        }
                        let length = if let Manner::Frames(length) = manner { length } else { usize::MAX };
                        self.answer(received.stream, length, frames.clone());
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

    /// Answers in frames of this length, with a body of more than half of the smallest window where they are short.
    fn answer(&self, stream: u32, length: usize, frames: mpsc::UnboundedSender<Vec<u8>>) {
        let Self { name, latency, answered, .. } = self.clone();
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
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}
