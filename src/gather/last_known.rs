//! The last-known cache: members' last pages, used when a metrics API fails.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::ops::compute::Op;
use moka::sync::Cache;

use super::outcome::Outcome;
use crate::api::page::Page;
use crate::config;
use crate::query::Query;

/// Member id and query.
type ReplyKey = (u64, Arc<Query>);

/// The last pages of all members, within a memory budget.
pub(super) struct LastKnownCache {
    pages: Cache<ReplyKey, CachedPage>,
    /// Late replies that are awaited.
    late: Arc<Mutex<HashSet<ReplyKey>>>,
}

/// Maximum late replies that are awaited: of one member, and in total. Each holds a request and the received part of its response.
const MAX_LATE: (usize, usize) = (8, 512);
/// A page of more bytes than this is large.
const LARGE: usize = 64 * 1024;

/// A page, when its request was sent, and when its response came.
#[derive(Clone)]
pub(super) struct CachedPage {
    pub(super) page: Arc<Page>,
    begun: Instant,
    at: Instant,
}

/// Permit to await a late reply; one for each member and query.
pub(super) struct LateReplyPermit {
    key: ReplyKey,
    late: Arc<Mutex<HashSet<ReplyKey>>>,
}

impl LastKnownCache {
    pub(super) fn new(config: config::LastKnownConfig) -> Self {
        let weight = |(_, query): &ReplyKey, cached: &CachedPage| {
            u32::try_from(cached.page.memory() + query.memory()).unwrap_or(u32::MAX)
        };
        let pages = Cache::builder()
            .max_capacity(u64::try_from(config.bytes).unwrap_or(u64::MAX))
            .weigher(weight)
            .time_to_live(config.max_age)
            .build();
        Self { pages, late: Arc::default() }
    }

    /// Stores the page of a request that was sent at `begun`, or removes the cached page if the member no longer has the metric. A
    /// failure changes nothing. The cached page of a newer request stays.
    pub(super) fn store(&self, member: u64, query: &Arc<Query>, begun: Instant, outcome: &Outcome) {
        let page = match outcome {
            Outcome::Page(page) => Some(Arc::clone(page)),
            Outcome::NotFound => None,
            Outcome::LastKnown { .. } | Outcome::Failure(_) => return,
        };
        let is_large = page.as_ref().is_some_and(|page| page.memory() > LARGE);
        self.pages.entry((member, query.clone())).and_compute_with(|cached| {
            let is_newer = cached.as_ref().is_some_and(|cached| cached.value().begun > begun);
            match page {
                _ if is_newer => Op::Nop,
                Some(page) => Op::Put(CachedPage { page, begun, at: Instant::now() }),
                None if cached.is_some() => Op::Remove,
                None => Op::Nop,
            }
        });
        // The cache evicts in its next maintenance task, for which up to 64 pages may wait.
        if is_large {
            self.pages.run_pending_tasks();
        }
    }

    /// A member's last page of exactly this query.
    pub(super) fn get(&self, member: u64, query: &Arc<Query>) -> Option<CachedPage> {
        self.pages.get(&(member, query.clone()))
    }

    /// A permit to await a member's late reply; `None` if that reply is awaited already, or too many are.
    pub(super) fn late_reply(&self, member: u64, query: &Arc<Query>) -> Option<LateReplyPermit> {
        let key = (member, query.clone());
        let mut late = self.late.lock().expect("not poisoned");
        let of_member = late.iter().filter(|(of, _)| *of == member).count();
        let is_new = of_member < MAX_LATE.0 && late.len() < MAX_LATE.1 && late.insert(key.clone());
        is_new.then(|| LateReplyPermit { key, late: self.late.clone() })
    }
}

impl CachedPage {
    pub(super) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

impl Drop for LateReplyPermit {
    fn drop(&mut self) {
        self.late.lock().expect("not poisoned").remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::page::{BodyFormat, Expected};
    use crate::process::budget::{Budget, Reserved};
    use crate::query::{DecodedQuery, ExternalQuery};

    fn page(metric: &str) -> Outcome {
        let body = format!(
            r#"{{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","items":[{{"metricName":"{metric}","value":"1"}}]}}"#
        );
        let page = Page::read(Expected::ExternalValues, BodyFormat::Json, body.into(), &mut |_| Ok(()));
        Outcome::Page(Reserved::new(Arc::new(page.expect("a page")), Budget::new(0).share()))
    }

    #[test]
    fn late_reply_does_not_replace_the_page_of_a_newer_request() {
        let config = config::LastKnownConfig {
            max_age: Duration::from_secs(60),
            bytes: 1 << 20,
            late: Duration::from_secs(1),
        };
        let cache = LastKnownCache::new(config);
        let query = ExternalQuery {
            namespace: "default".to_owned(),
            metric: "queue".to_owned(),
            label_selector: String::new(),
        };
        let query = Arc::new(Query::from(DecodedQuery::External(query)));
        let metric = || {
            let cached = cache.get(1, &query)?;
            let item = cached.page.external().next()?;
            Some(item.metric().decode().into_owned())
        };
        let older = Instant::now();
        let newer = older + Duration::from_millis(1);

        cache.store(1, &query, newer, &page("newer"));
        cache.store(1, &query, older, &page("older"));
        assert_eq!(metric().as_deref(), Some("newer"));
        cache.store(1, &query, older, &Outcome::NotFound);
        assert_eq!(metric().as_deref(), Some("newer"));
        cache.store(1, &query, newer, &Outcome::NotFound);
        assert_eq!(metric(), None);
    }
}
