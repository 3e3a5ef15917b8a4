//! What all members list, within a budget of memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::api::discovery::{Catalog, DiscoveryEntry};
use crate::process::budget::{Budget, Exhausted, Reserved, Share};

/// What a name takes, beside its bytes and however many members list it: it stands in four documents, of which there are two
/// generations while they change, and in buffers while they are written.
const PER_NAME: usize = 4096;
/// How many times the bytes of the name are in all that.
const PER_BYTE: usize = 16;
/// What an entry of one member's list takes, also while all lists are united.
const PER_ENTRY: usize = 4 * size_of::<Arc<DiscoveryEntry>>();

/// The entries of all members' lists, each kept once.
#[derive(Debug)]
pub struct SharedEntries {
    bytes: usize,
    budget: Budget,
    kept: Mutex<EntrySet>,
    news: Notify,
}

#[derive(Debug)]
struct EntrySet {
    entries: HashSet<Arc<DiscoveryEntry>>,
    share: Share,
}

impl SharedEntries {
    /// No names yet; so many bytes of memory are for them.
    pub fn new(bytes: usize) -> Self {
        let budget = Budget::new(bytes);
        let kept = Mutex::new(EntrySet { entries: HashSet::new(), share: budget.share() });
        Self { bytes, budget, kept, news: Notify::new() }
    }

    /// How many bytes they take.
    pub fn gauge(&self) -> Gauge {
        self.budget.gauge()
    }

    /// The list of one member.
    ///
    /// # Errors
    /// If it takes more than half of the memory for all lists, or than is left.
    pub fn catalog(&self, entries: Vec<DiscoveryEntry>) -> Result<Reserved<Catalog>, Exhausted> {
        let whole: usize = entries.iter().map(|entry| PER_ENTRY + memory(entry)).sum();
        if whole > self.bytes / 2 {
            return Err(Exhausted::Share);
        }
        let mut share = self.budget.share();
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.share_for(&mut share, &entries)?;
        let shared: Vec<_> = entries.into_iter().map(|entry| kept.keep(entry)).collect();
        drop(kept);
        Ok(Reserved::new(Catalog::new(shared), share))
    }

    /// The list of a member that lists nothing.
    pub fn empty(&self) -> Reserved<Catalog> {
        Reserved::new(Catalog::default(), self.budget.share())
    }

    /// A member's list with one more entry.
    ///
    /// # Errors
    /// If there is no memory left for it.
    pub fn with(&self, catalog: &Catalog, entry: DiscoveryEntry) -> Result<Reserved<Catalog>, Exhausted> {
        let mut share = self.budget.share();
        share.grow(catalog.len() * PER_ENTRY)?;
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.share_for(&mut share, std::slice::from_ref(&entry))?;
        let entry = kept.keep(entry);
        drop(kept);
        let entries = catalog.entries().iter().cloned().chain([entry]);
        Ok(Reserved::new(Catalog::new(entries.collect()), share))
    }

    /// Notes that a member's list has changed.
    pub fn note_addition(&self) {
        self.news.notify_one();
    }

    /// Waits until a member's list has changed. Changes of the meantime are there at once.
    pub async fn added(&self) {
        self.news.notified().await;
    }

    /// Forgets what no member lists any more.
    pub fn forget_unused(&self) {
        self.kept.lock().expect("no holder panics").forget_unused();
    }
}

impl EntrySet {
    /// Reserves what a member's list of these entries takes in `share`, and what the names that are new take here. Names that
    /// no member lists any more give way.
    fn share_for(&mut self, share: &mut Share, entries: &[DiscoveryEntry]) -> Result<(), Exhausted> {
        let new = |kept: &Self| -> usize {
            entries.iter().filter(|entry| !kept.entries.contains(*entry)).map(memory).sum()
        };
        share.grow(entries.len() * PER_ENTRY)?;
        if self.share.grow(new(self)).is_err() {
            self.forget_unused();
            self.share.grow(new(self))?;
        }
        Ok(())
    }

    /// The entry as it is kept; there is memory for it.
    fn keep(&mut self, entry: DiscoveryEntry) -> Arc<DiscoveryEntry> {
        if let Some(kept) = self.entries.get(&entry) {
            return kept.clone();
        }
        let entry = Arc::new(entry);
        self.entries.insert(entry.clone());
        entry
    }

    fn forget_unused(&mut self) {
        self.entries.retain(|entry| Arc::strong_count(entry) > 1);
        self.share.shrink_to(self.entries.iter().map(|entry| memory(entry)).sum());
    }
}

fn memory(entry: &DiscoveryEntry) -> usize {
    PER_NAME + PER_BYTE * entry.name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(names: &[&str]) -> Vec<DiscoveryEntry> {
        names.iter().map(|name| DiscoveryEntry { name: (*name).into(), namespaced: true }).collect()
    }

    #[test]
    fn a_name_takes_memory_once_and_until_no_member_lists_it() {
        let once = PER_NAME + PER_BYTE * 6;
        let names = SharedEntries::new(4 * once + 6 * PER_ENTRY);
        let used = || usize::try_from(names.gauge().get()).expect("a number");
        let list = |of: &[&str]| names.catalog(entries(of));
        let one = list(&["pods/a", "pods/b"]).expect("there is room");
        let other = list(&["pods/a"]).expect("there is room");
        assert!(one.contains("pods", "b") && other.contains("pods", "a") && !other.contains("pods", "b"));
        assert_eq!(used(), 2 * once + 3 * PER_ENTRY);
        let more = list(&["pods/c", "pods/d"]).expect("there is room");
        assert_eq!(list(&["pods/e"]).map(drop), Err(Exhausted::Budget));
        drop(one);
        let changed = list(&["pods/e"]).expect("a name that nobody lists gives way");
        assert_eq!(used(), 4 * once + 4 * PER_ENTRY);
        drop((other, more, changed));
        names.forget_unused();
        assert_eq!(used(), 0);
    }

    #[test]
    fn one_member_takes_half_of_the_memory_at_most() {
        let names = SharedEntries::new(2 * (2 * (PER_NAME + PER_BYTE * 6) + 2 * PER_ENTRY));
        assert_eq!(names.catalog(entries(&["pods/a", "pods/b", "pods/c"])).map(drop), Err(Exhausted::Share));
        assert_eq!(names.gauge().get(), 0);
        assert!(names.catalog(entries(&["pods/a", "pods/b"])).is_ok());
    }

    #[test]
    fn a_list_gains_an_entry() {
        let names = SharedEntries::new(1 << 20);
        let list = names.catalog(entries(&["pods/b"])).expect("there is room");
        let entry = entries(&["pods/a"]).remove(0);
        let longer = names.with(&list, entry).expect("there is room");
        drop(list);
        assert!(longer.is_of(&entries(&["pods/a", "pods/b"])));
        assert_eq!(
            names.gauge().get(),
            i64::try_from(2 * (PER_NAME + PER_BYTE * 6 + PER_ENTRY)).expect("small")
        );
    }
}
