//! What all members list, within a budget of memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::gauge::Gauge;

use crate::api::discovery::{Catalog, Entry};
use crate::process::budget::{Budget, Exhausted, Held, Share};

/// What the name of one metric takes, beside its bytes and however many members list it: it stands in eight documents, of
/// which there are two generations while they change.
const NAME: usize = 2048;
/// How many times the bytes of the name are in all that.
const COPIES: usize = 16;
/// What an entry of one member's list takes, also while all lists are united.
const ENTRY: usize = 4 * size_of::<Arc<Entry>>();

/// The entries of all members' lists, each kept once.
pub struct Names {
    budget: Budget,
    kept: Mutex<Kept>,
}

struct Kept {
    entries: HashSet<Arc<Entry>>,
    share: Share,
}

impl Names {
    /// No names yet; so many bytes of memory are for them.
    pub fn new(bytes: usize) -> Self {
        let budget = Budget::new(bytes);
        let kept = Mutex::new(Kept { entries: HashSet::new(), share: budget.share() });
        Self { budget, kept }
    }

    /// How many bytes they take.
    pub fn gauge(&self) -> Gauge {
        self.budget.gauge()
    }

    /// The list of one member.
    ///
    /// # Errors
    /// If there is no memory left for it.
    pub fn catalog(&self, entries: impl IntoIterator<Item = Entry>) -> Result<Held<Catalog>, Exhausted> {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut share = self.budget.share();
        let mut kept = self.kept.lock().expect("no holder panics");
        let shared = share.grow(entries.len() * ENTRY).and_then(|()| {
            entries.into_iter().map(|entry| kept.keep(entry)).collect::<Result<Vec<_>, Exhausted>>()
        });
        match shared {
            Ok(shared) => Ok(Held::new(Catalog::new(shared), share)),
            Err(exhausted) => {
                kept.forget_unused();
                Err(exhausted)
            }
        }
    }

    /// Forgets what no member lists any more.
    pub fn forget_unused(&self) {
        self.kept.lock().expect("no holder panics").forget_unused();
    }
}

impl Kept {
    fn keep(&mut self, entry: Entry) -> Result<Arc<Entry>, Exhausted> {
        if let Some(kept) = self.entries.get(&entry) {
            return Ok(kept.clone());
        }
        self.share.grow(memory(&entry))?;
        let entry = Arc::new(entry);
        self.entries.insert(entry.clone());
        Ok(entry)
    }

    fn forget_unused(&mut self) {
        self.entries.retain(|entry| Arc::strong_count(entry) > 1);
        self.share.shrink_to(self.entries.iter().map(|entry| memory(entry)).sum());
    }
}

fn memory(entry: &Entry) -> usize {
    NAME + COPIES * entry.name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(names: &[&str]) -> Vec<Entry> {
        names.iter().map(|name| Entry { name: (*name).into(), namespaced: true }).collect()
    }

    #[test]
    fn a_name_takes_memory_once_and_until_no_member_lists_it() {
        let once = NAME + COPIES * 6;
        let names = Names::new(2 * once + 3 * ENTRY);
        let one = names.catalog(entries(&["pods/a", "pods/b"])).expect("there is room");
        let other = names.catalog(entries(&["pods/a"])).expect("there is room");
        assert!(one.contains("pods", "b") && other.contains("pods", "a") && !other.contains("pods", "b"));
        assert_eq!(names.gauge().get(), i64::try_from(2 * once + 3 * ENTRY).expect("a small number"));
        drop(one);
        assert_eq!(names.catalog(entries(&["pods/c"])).map(drop), Err(Exhausted::Budget));
        assert_eq!(names.gauge().get(), i64::try_from(once + ENTRY).expect("a small number"));
        names.catalog(entries(&["pods/c"])).map(drop).expect("there is room");
        names.forget_unused();
        assert_eq!(names.gauge().get(), i64::try_from(once + ENTRY).expect("a small number"));
        drop(other);
        names.forget_unused();
        assert_eq!(names.gauge().get(), 0);
    }
}
