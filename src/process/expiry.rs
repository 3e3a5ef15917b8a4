//! When certificates end: as a metric, and in the log ahead of time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::api::time::Timestamp;

/// How long before its end a certificate is warned of.
const AHEAD: i64 = 30 * DAY;
const DAY: i64 = 24 * 60 * 60;
/// The longest that ends go unwatched: the clock of a machine can be set.
const WATCH: Duration = Duration::from_secs(60 * 60);

/// The ends of the certificates that this process serves with or trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expiry {
    gauge: Family<CertificateLabel, Gauge>,
    ends: Arc<Mutex<BTreeMap<&'static str, TrackedCertificate>>>,
    news: Arc<Notify>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

/// When a certificate ends and when the log last said so; seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct TrackedCertificate {
    at: i64,
    said: Option<i64>,
}

/// What there is to say of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpiryState {
    Soon,
    Over,
}

impl Expiry {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let expiry = Self { gauge: Family::default(), ends: Arc::default(), news: Arc::default() };
        let help = "When a certificate ends, in seconds since 1970";
        let name = "karmada_metrics_adapter_certificate_expiry_timestamp_seconds";
        registry.register(name, help, expiry.gauge.clone());
        expiry
    }

    /// Notes that the certificate called `certificate` ends `at` so many seconds after 1970; `None` that there is none.
    /// [`end`] reads it from a certificate. Of a chain the first end counts, of a bundle of authorities the last.
    pub fn note(&self, certificate: &'static str, at: Option<i64>) {
        let label = CertificateLabel { certificate };
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = at {
            self.gauge.get_or_create(&label).set(at);
            ends.insert(certificate, TrackedCertificate { at, said: None });
        } else {
            self.gauge.remove(&label);
            ends.remove(certificate);
        }
        drop(ends);
        self.news.notify_one();
    }

    /// Warns of certificates that end soon or have ended, each once a day, as long as the handle is kept.
    pub fn warn(self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let next = self.check_all(now());
                let _ = tokio::time::timeout(next, self.news.notified()).await;
            }
        }))
    }

    /// Says what there is to say, and how long there will be nothing more.
    fn check_all(&self, now: i64) -> Duration {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (certificate, end) in ends.iter_mut() {
            let Some(word) = end.expiry_state(now) else { continue };
            end.said = Some(now);
            let not_after = Timestamp::new(end.at, 0).map_or_else(String::new, |at| at.to_string());
            match word {
                ExpiryState::Soon => {
                    let days = (end.at - now) / DAY;
                    tracing::warn!(certificate, not_after, days, "a certificate ends soon: renew it");
                }
                ExpiryState::Over => {
                    tracing::error!(certificate, not_after, "a certificate has ended: renew it");
                }
            }
        }
        let next = ends.values().map(|end| end.at - now).filter(|&left| left > 0).min();
        next.and_then(|left| u64::try_from(left).ok()).map_or(WATCH, Duration::from_secs).min(WATCH)
    }
}

impl TrackedCertificate {
    fn expiry_state(self, now: i64) -> Option<ExpiryState> {
        let word = match self.at - now {
            ..=0 => ExpiryState::Over,
            left if left <= AHEAD => ExpiryState::Soon,
            _ => return None,
        };
        let turned = |said: i64| said < self.at && word == ExpiryState::Over;
        let due = self.said.is_none_or(|said| turned(said) || now - said >= DAY);
        due.then_some(word)
    }
}

/// When a certificate (DER) ends, in seconds since 1970; `None` if it cannot be read.
pub fn end(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The present, in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_thirty_days_ahead_once_a_day_and_at_its_end() {
        let mut end = TrackedCertificate { at: 100 * DAY, said: None };
        assert_eq!(end.expiry_state(69 * DAY), None);
        assert_eq!(end.expiry_state(70 * DAY), Some(ExpiryState::Soon));
        end.said = Some(70 * DAY);
        assert_eq!(end.expiry_state(71 * DAY - 1), None);
        assert_eq!(end.expiry_state(71 * DAY), Some(ExpiryState::Soon));
        end.said = Some(100 * DAY - 5);
        assert_eq!(end.expiry_state(100 * DAY - 1), None);
        assert_eq!(end.expiry_state(100 * DAY), Some(ExpiryState::Over), "its end is said at once");
        end.said = Some(100 * DAY);
        assert_eq!(end.expiry_state(101 * DAY - 1), None);
        assert_eq!(end.expiry_state(101 * DAY), Some(ExpiryState::Over));
    }

    #[test]
    fn the_next_look_is_at_the_next_end_or_within_the_hour() {
        let expiry = Expiry::register(&mut Registry::default());
        assert_eq!(expiry.check_all(0), WATCH);
        expiry.note("serving", Some(DAY));
        assert_eq!(expiry.check_all(0), WATCH);
        expiry.note("client-ca", Some(10));
        assert_eq!(expiry.check_all(0), Duration::from_secs(10));
        assert_eq!(expiry.check_all(20), WATCH);
        expiry.note("client-ca", None);
        assert_eq!(expiry.check_all(0), WATCH);
    }
}
