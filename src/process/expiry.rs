//! Expiry of certificates: a metric, and log lines before and after a certificate expires.

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

/// A warning is logged this many seconds before a certificate expires.
const WARN_BEFORE: i64 = 30 * DAY;
const DAY: i64 = 24 * 60 * 60;
/// Maximum time between two checks, because the clock of a machine can be changed.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Expiry of the certificates that this process presents or trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expiry {
    gauge: Family<CertificateLabel, Gauge>,
    certificates: Arc<Mutex<BTreeMap<&'static str, TrackedCertificate>>>,
    changed: Arc<Notify>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

/// When a certificate expires, and when this was last logged, both in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct TrackedCertificate {
    not_after: i64,
    logged: Option<i64>,
}

/// Why a certificate is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpiryState {
    ExpiresSoon,
    Expired,
}

impl Expiry {
    /// Creates the state and registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let expiry = Self { gauge: Family::default(), certificates: Arc::default(), changed: Arc::default() };
        let help = "When a certificate expires, in seconds since 1970";
        let name = "karmada_metrics_adapter_certificate_expiry_timestamp_seconds";
        registry.register(name, help, expiry.gauge.clone());
        expiry
    }

    /// Sets when the certificate with the label value `certificate` expires, in seconds since 1970. `None` means that there is
    /// no certificate. Use the earliest time of a chain, and the latest time of a CA bundle.
    pub fn note(&self, certificate: &'static str, not_after: Option<i64>) {
        let label = CertificateLabel { certificate };
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(not_after) = not_after {
            self.gauge.get_or_create(&label).set(not_after);
            certificates.insert(certificate, TrackedCertificate { not_after, logged: None });
        } else {
            self.gauge.remove(&label);
            certificates.remove(certificate);
        }
        drop(certificates);
        self.changed.notify_one();
    }

    /// Logs each certificate that expires soon or has expired, once a day, until the handle is dropped.
    pub fn warn(self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let next = self.check_all(now());
                let _ = tokio::time::timeout(next, self.changed.notified()).await;
            }
        }))
    }

    /// Logs the certificates that are due. Returns the time until the next check.
    fn check_all(&self, now: i64) -> Duration {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        for (certificate, tracked) in certificates.iter_mut() {
            let Some(state) = tracked.expiry_state(now) else { continue };
            tracked.logged = Some(now);
            let not_after =
                Timestamp::new(tracked.not_after, 0).map_or_else(String::new, |at| at.to_string());
            match state {
                ExpiryState::ExpiresSoon => {
                    let days = (tracked.not_after - now) / DAY;
                    tracing::warn!(certificate, not_after, days, "a certificate expires soon: renew it");
                }
                ExpiryState::Expired => {
                    tracing::error!(certificate, not_after, "a certificate has expired: renew it");
                }
            }
        }
        let next =
            certificates.values().map(|tracked| tracked.not_after - now).filter(|&left| left > 0).min();
        next.and_then(|left| u64::try_from(left).ok())
            .map_or(MAX_CHECK_INTERVAL, Duration::from_secs)
            .min(MAX_CHECK_INTERVAL)
    }
}

impl TrackedCertificate {
    fn expiry_state(self, now: i64) -> Option<ExpiryState> {
        let state = match self.not_after - now {
            ..=0 => ExpiryState::Expired,
            left if left <= WARN_BEFORE => ExpiryState::ExpiresSoon,
            _ => return None,
        };
        let expired_since = |logged: i64| logged < self.not_after && state == ExpiryState::Expired;
        let due = self.logged.is_none_or(|logged| expired_since(logged) || now - logged >= DAY);
        due.then_some(state)
    }
}

/// When a certificate (DER) expires, in seconds since 1970; `None` if it cannot be parsed.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The current time, in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_logged_30_days_before_then_daily_and_when_it_happens() {
        let mut tracked = TrackedCertificate { not_after: 100 * DAY, logged: None };
        assert_eq!(tracked.expiry_state(69 * DAY), None);
        assert_eq!(tracked.expiry_state(70 * DAY), Some(ExpiryState::ExpiresSoon));
        tracked.logged = Some(70 * DAY);
        assert_eq!(tracked.expiry_state(71 * DAY - 1), None);
        assert_eq!(tracked.expiry_state(71 * DAY), Some(ExpiryState::ExpiresSoon));
        tracked.logged = Some(100 * DAY - 5);
        assert_eq!(tracked.expiry_state(100 * DAY - 1), None);
        assert_eq!(tracked.expiry_state(100 * DAY), Some(ExpiryState::Expired), "expiry is logged at once");
        tracked.logged = Some(100 * DAY);
        assert_eq!(tracked.expiry_state(101 * DAY - 1), None);
        assert_eq!(tracked.expiry_state(101 * DAY), Some(ExpiryState::Expired));
    }

    #[test]
    fn next_check_is_at_the_next_expiry_or_after_one_hour() {
        let expiry = Expiry::register(&mut Registry::default());
        assert_eq!(expiry.check_all(0), MAX_CHECK_INTERVAL);
        expiry.note("serving", Some(DAY));
        assert_eq!(expiry.check_all(0), MAX_CHECK_INTERVAL);
        expiry.note("client-ca", Some(10));
        assert_eq!(expiry.check_all(0), Duration::from_secs(10));
        assert_eq!(expiry.check_all(20), MAX_CHECK_INTERVAL);
        expiry.note("client-ca", None);
        assert_eq!(expiry.check_all(0), MAX_CHECK_INTERVAL);
    }
}
