//! Members' last replies, kept to stand in for the next one when a metrics API fails.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::outcome::Outcome;
use crate::api::page::Page;
use crate::config;
use crate::query::Query;

/// Which reply of which member.
type ReplyKey = (u64, Arc<Query>);

/// The last replies of all members, within a budget of memory.
pub(super) struct LastKnownCache {
    pages: Cache<ReplyKey, CachedPage>,
    /// Replies that are still waited for after their answers have gone.
    late: Arc<Mutex<HashSet<ReplyKey>>>,
}

/// Most late replies that are waited for, of one member and of all: each keeps a request and what has come of its reply.
const LATE: (usize, usize) = (8, 512);
/// From how many bytes on a reply is large.
const LARGE: usize = 64 * 1024;

/// A reply and when it came.
#[derive(Clone)]
pub(super) struct CachedPage {
    pub(super) page: Arc<Page>,
    at: Instant,
}

/// The right to wait for a late reply: one for each member and query.
pub(super) struct LateReplyPermit {
    key: ReplyKey,
    late: Arc<Mutex<HashSet<ReplyKey>>>,
}

impl LastKnownCache {
    pub(super) fn new(config: config::LastKnownConfig) -> Self {
        let weigh = |(_, query): &ReplyKey, kept: &CachedPage| {
            u32::try_from(kept.page.memory() + query.memory()).unwrap_or(u32::MAX)
        };
        let pages = Cache::builder()
            .max_capacity(u64::try_from(config.bytes).unwrap_or(u64::MAX))
            .weigher(weigh)
            .time_to_live(config.max_age)
            .build();
        Self { pages, late: Arc::default() }
    }

    /// Keeps a member's page, and forgets it when the member has the metric no more. A failure changes nothing.
    pub(super) fn take(&self, member: u64, query: &Arc<Query>, outcome: &Outcome) {
        let key = (member, query.clone());
        match outcome {
            Outcome::Page(page) => {
                let is_large = page.memory() > LARGE;
                self.pages.insert(key, CachedPage { page: Arc::clone(page), at: Instant::now() });
                // The cache drops what is too much at its next task, for which 64 pages may wait.
                if is_large {
                    self.pages.run_pending_tasks();
                }
            }
            Outcome::NotFound => self.pages.invalidate(&key),
            Outcome::StoodIn { .. } | Outcome::Failure(_) => {}
        }
    }

    /// What a member last replied to this very query.
    pub(super) fn of(&self, member: u64, query: &Arc<Query>) -> Option<CachedPage> {
        self.pages.get(&(member, query.clone()))
    }

    /// The right to wait for a member's late reply, unless somebody does already or too many are waited for.
    pub(super) fn late(&self, member: u64, query: &Arc<Query>) -> Option<LateReplyPermit> {
        let key = (member, query.clone());
        let mut late = self.late.lock().expect("no holder panics");
        let of_member = late.iter().filter(|(of, _)| *of == member).count();
        let is_new = of_member < LATE.0 && late.len() < LATE.1 && late.insert(key.clone());
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
        self.late.lock().expect("no holder panics").remove(&self.key);
    }
}
