//! Faults of a member. A test switches them while the member runs.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::wire::{Format, Status};
use crate::https::{Body, full, response, streamed};
use crate::timestamp;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every response is delayed.
    Delay(Duration),
    /// No request gets a response. The connection stays alive and responds to pings.
    Hang,
    /// This status with this text, as from a proxy in front of the metrics API.
    Status(StatusCode, String),
    /// A `Status` with this code, reason and message, as from the API server or the metrics API itself.
    Refusal(StatusCode, &'static str, String),
    /// The connection (HTTP/1.1) or stream (HTTP/2) breaks before the first byte of the response.
    Abort,
    /// The connection (HTTP/1.1) or stream (HTTP/2) breaks in the middle of the body.
    Reset,
    /// The body ends before its `Content-Length`.
    Truncated,
    /// Half of the body is sent, then nothing. The connection stays alive.
    Stalled,
    /// The list never ends.
    Endless,
    /// A 200 with a body that is neither JSON nor protobuf.
    Garbage,
    /// A 200 with a list of pods.
    WrongKind,
    /// The values of metrics are not valid quantities.
    BadQuantity,
    /// The body is sent byte by byte, one byte per interval.
    SlowDrip(Duration),
    /// A 307 to this URL.
    Redirect(String),
    /// A list with items of 100,000 nested brackets.
    DeepJson,
    /// A valid response with additional headers.
    Headers {
        /// Number of headers.
        count: usize,
        /// Bytes of each value.
        bytes: usize,
    },
    /// A valid response that is sent in pieces of this many bytes (HTTP/2: frames).
    Pieces(usize),
    /// Valid responses from a clock that is this many seconds ahead.
    ClockAhead(i64),
    /// Connections are refused and the open ones are cut. Always affects the whole member.
    Refused,
    /// Connections are accepted but carry no bytes, not even the response to a ping. Always affects the whole member.
    Frozen,
    /// The certificate is wrong. The open connections are cut. Always affects the whole member.
    BadCertificate(Flaw),
}

/// A flaw of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Another CA signed it.
    OtherAuthority,
    /// It is for another host name.
    WrongName,
    /// It has expired.
    Expired,
    /// It is not yet valid.
    NotYetValid,
}

/// The faults by path prefix. The longest prefix wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    by_prefix: Vec<(String, Fault)>,
}

impl Faults {
    /// Sets the fault for the paths below a prefix. Replaces the fault of exactly this prefix.
    pub(super) fn set(&mut self, prefix: &str, fault: Fault) {
        self.unset(prefix);
        self.by_prefix.push((prefix.to_owned(), fault));
    }

    /// Removes the fault of exactly this prefix.
    pub(super) fn unset(&mut self, prefix: &str) {
        self.by_prefix.retain(|(of, _)| of != prefix);
    }

    pub(super) fn clear(&mut self) {
        self.by_prefix.clear();
    }

    pub(super) fn of(&self, path: &str) -> Option<Fault> {
        let matching = self.by_prefix.iter().filter(|(prefix, _)| path.starts_with(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, fault)| fault.clone())
    }
}

impl Fault {
    /// The response of a fault that needs no response of the member, in the requested format.
    pub(super) fn answer(&self, path: &str, format: Format) -> Option<Response<Body>> {
        let json = Format::Json.media_type();
        let (list_start, item) = list_of(path);
        Some(match self {
            Self::Status(status, text) => response(*status, "text/plain; charset=utf-8", full(text.clone())),
            Self::Refusal(code, reason, message) => {
                let (code, document) = Status::failure(*code, reason, message).into_answer();
                let encoded = document.encode(code, format);
                response(encoded.status, encoded.content_type, full(encoded.body))
            }
            Self::Redirect(url) => {
                let mut response = response(StatusCode::TEMPORARY_REDIRECT, "text/plain", full(""));
                response.headers_mut().insert(LOCATION, HeaderValue::try_from(url).ok()?);
                response
            }
            Self::Garbage => {
                response(StatusCode::OK, format.media_type(), full(&b"\xff\xfe\x00garbage\x80{[\n"[..]))
            }
            Self::WrongKind => response(StatusCode::OK, json, full(POD_LIST)),
            Self::DeepJson => {
                let brackets = 100_000;
                let deep = format!("{list_start}{}{}]}}", "[".repeat(brackets), "]".repeat(brackets));
                response(StatusCode::OK, json, full(deep))
            }
            Self::Endless => {
                let item = Bytes::from(item.repeat(64));
                let items = stream::repeat_with(move || item.clone());
                response(
                    StatusCode::OK,
                    json,
                    streamed(stream::iter([Bytes::from(list_start)]).chain(items).map(Ok)),
                )
            }
            _ => return None,
        })
    }

    /// Changes a valid response as the fault requires.
    pub(super) async fn spoil(&self, response: Response<Body>) -> io::Result<Response<Body>> {
        if !matches!(
            self,
            Self::Reset
                | Self::Truncated
                | Self::Stalled
                | Self::SlowDrip(_)
                | Self::Headers { .. }
                | Self::Pieces(_)
                | Self::ClockAhead(_)
        ) {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let half = body.slice(..body.len() / 2);
        let body = match self {
            Self::Reset => {
                let broken = Err(io::Error::from(io::ErrorKind::ConnectionReset));
                let frames = stream::iter([Ok(half)]);
                // The first half must be sent before the stream breaks, or it is lost.
                let frames = frames.chain(stream::once(async move {
                    sleep(Duration::from_millis(20)).await;
                    broken
                }));
                streamed(frames)
            }
            Self::Truncated => {
                head.headers.insert(CONTENT_LENGTH, body.len().into());
                streamed(stream::iter([Ok(half)]))
            }
            Self::Stalled => streamed(stream::iter([Ok(half)]).chain(stream::pending())),
            Self::SlowDrip(interval) => {
                let interval = *interval;
                let bytes = stream::iter(0..body.len()).then(move |place| {
                    let byte = body.slice(place..=place);
                    async move {
                        sleep(interval).await;
                        Ok(byte)
                    }
                });
                streamed(bytes)
            }
            Self::Headers { count, bytes } => {
                let value = HeaderValue::try_from("x".repeat(*bytes)).map_err(io::Error::other)?;
                for number in 0..*count {
                    let name = HeaderName::try_from(format!("x-more-{number}")).map_err(io::Error::other)?;
                    head.headers.insert(name, value.clone());
                }
                full(body)
            }
            Self::Pieces(length) => {
                let length = (*length).max(1);
                let pieces: Vec<_> = (0..body.len())
                    .step_by(length)
                    .map(|start| Ok(body.slice(start..(start + length).min(body.len()))))
                    .collect();
                streamed(stream::iter(pieces))
            }
            // hyper does not replace an existing date.
            Self::ClockAhead(seconds) => {
                let then = UNIX_EPOCH + Duration::from_secs((timestamp::now() + seconds).unsigned_abs());
                let date = HeaderValue::try_from(httpdate::fmt_http_date(then)).map_err(io::Error::other)?;
                head.headers.insert(DATE, date);
                full(body)
            }
            _ => full(body),
        };
        Ok(Response::from_parts(head, body))
    }
}

/// The start of the list for a path, and one item with a trailing comma.
fn list_of(path: &str) -> (String, &'static str) {
    let (api_version, kind, item) = match path {
        path if path.starts_with("/apis/external.metrics.k8s.io/") => {
            ("external.metrics.k8s.io/v1beta1", "ExternalMetricValueList", EXTERNAL_METRIC)
        }
        path if path.starts_with("/apis/metrics.k8s.io/v1beta1/nodes") => {
            ("metrics.k8s.io/v1beta1", "NodeMetricsList", NODE_METRICS)
        }
        path if path.starts_with("/apis/metrics.k8s.io/") => {
            ("metrics.k8s.io/v1beta1", "PodMetricsList", POD_METRICS)
        }
        _ => ("custom.metrics.k8s.io/v1beta2", "MetricValueList", CUSTOM_METRIC),
    };
    let start = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{}},"items":["#);
    (start, item)
}

const CUSTOM_METRIC: &str = concat!(
    r#"{"describedObject":{"kind":"Pod","namespace":"default","name":"endless-0","apiVersion":"/v1"},"#,
    r#""metric":{"name":"http_requests","selector":null},"timestamp":"2026-11-21T21:19:22Z","value":"1"},"#,
);

const EXTERNAL_METRIC: &str = concat!(
    r#"{"metricName":"queue","metricLabels":{"queue":"endless"},"timestamp":"2026-11-21T21:19:22Z","#,
    r#""value":"1"},"#,
);

const NODE_METRICS: &str = concat!(
    r#"{"metadata":{"name":"endless-0"},"timestamp":"2026-11-21T21:19:22Z","window":"15s","#,
    r#""usage":{"cpu":"1","memory":"1Mi"}},"#,
);

const POD_METRICS: &str = concat!(
    r#"{"metadata":{"name":"endless-0","namespace":"default"},"timestamp":"2026-11-21T21:19:22Z","#,
    r#""window":"15s","containers":[{"name":"app","usage":{"cpu":"1","memory":"1Mi"}}]},"#,
);

const POD_LIST: &str = concat!(
    r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":["#,
    r#"{"metadata":{"name":"pod-0","namespace":"default"}}]}"#,
    "\n",
);
