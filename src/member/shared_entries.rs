//! The discovery entries of all members, within a memory budget.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use crate::api::discovery::{Catalog, DiscoveryEntry};
use crate::process::budget::{Budget, Exhausted, Reserved, Share};

/// Bytes for each distinct entry, besides its name: it is in four documents, of which two generations exist during a change, and in
/// buffers while they are encoded.
const PER_NAME: usize = 4096;
/// How often those hold each byte of the name.
const PER_BYTE: usize = 16;
/// Bytes for each entry of each member's catalog, also while the catalogs are united.
const PER_ENTRY: usize = 4 * size_of::<Arc<DiscoveryEntry>>();

/// The entries of all members' catalogs. Equal entries are stored once.
#[derive(Debug)]
pub struct SharedEntries {
    bytes: usize,
    budget: Budget,
    entries: Mutex<EntrySet>,
    changes: watch::Sender<u64>,
    published: watch::Sender<u64>,
}

#[derive(Debug)]
struct EntrySet {
    entries: HashSet<Arc<DiscoveryEntry>>,
    share: Share,
}

impl SharedEntries {
    /// An empty set with a budget in bytes.
    pub fn new(bytes: usize) -> Self {
        let budget = Budget::new(bytes);
        let set = Mutex::new(EntrySet { entries: HashSet::new(), share: budget.share() });
        Self {
            bytes,
            budget,
            entries: set,
            changes: watch::Sender::default(),
            published: watch::Sender::default(),
        }
    }

    /// The bytes in use.
    pub fn gauge(&self) -> Gauge {
        self.budget.gauge()
    }

    /// A member's catalog.
    ///
    /// # Errors
    /// If it takes more than half of the budget, or more than is left.
    pub fn catalog(&self, entries: Vec<DiscoveryEntry>) -> Result<Reserved<Catalog>, Exhausted> {
        let whole: usize = entries.iter().map(|entry| PER_ENTRY + memory(entry)).sum();
        if whole > self.bytes / 2 {
            return Err(Exhausted::Share);
        }
        let mut share = self.budget.share();
        let mut set = self.entries.lock().expect("not poisoned");
        set.share_for(&mut share, &entries)?;
        let shared: Vec<_> = entries.into_iter().map(|entry| set.store(entry)).collect();
        drop(set);
        Ok(Reserved::new(Catalog::new(shared), share))
    }

    pub fn empty(&self) -> Reserved<Catalog> {
        Reserved::new(Catalog::default(), self.budget.share())
    }

    /// A catalog with one more entry.
    ///
    /// # Errors
    /// If there is not enough memory left.
    pub fn with(&self, catalog: &Catalog, entry: DiscoveryEntry) -> Result<Reserved<Catalog>, Exhausted> {
        let mut share = self.budget.share();
        share.grow(catalog.len() * PER_ENTRY)?;
        let mut set = self.entries.lock().expect("not poisoned");
        set.share_for(&mut share, std::slice::from_ref(&entry))?;
        let entry = set.store(entry);
        drop(set);
        let entries = catalog.entries().iter().cloned().chain([entry]);
        Ok(Reserved::new(Catalog::new(entries.collect()), share))
    }

    /// Signals that a member's catalog has changed; returns the number of that change.
    pub fn note_change(&self) -> u64 {
        let mut number = 0;
        self.changes.send_modify(|changes| {
            *changes += 1;
            number = *changes;
        });
        number
    }

    /// The number of the last change of a member's catalog.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Records that the united catalogs have all changes up to `change`.
    pub fn set_published(&self, change: u64) {
        self.published.send_replace(change);
    }

    /// Waits until the united catalogs have a change.
    pub async fn published(&self, change: u64) {
        let _ = self.published.subscribe().wait_for(|published| *published >= change).await;
    }

    /// Removes entries that are in no catalog.
    pub fn forget_unused(&self) {
        self.entries.lock().expect("not poisoned").forget_unused();
    }
}

impl EntrySet {
    /// Reserves memory for a catalog of these entries in `share`, and for new entries in this set. Unused entries are removed if the
    /// budget requires that.
    fn share_for(&mut self, share: &mut Share, entries: &[DiscoveryEntry]) -> Result<(), Exhausted> {
        let new = |set: &Self| -> usize {
            entries.iter().filter(|entry| !set.entries.contains(*entry)).map(memory).sum()
        };
        share.grow(entries.len() * PER_ENTRY)?;
        if self.share.grow(new(self)).is_err() {
            self.forget_unused();
            self.share.grow(new(self))?;
        }
        Ok(())
    }

    /// The stored entry. Its memory is reserved already.
    fn store(&mut self, entry: DiscoveryEntry) -> Arc<DiscoveryEntry> {
        if let Some(stored) = self.entries.get(&entry) {
            return stored.clone();
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
        let changed = list(&["pods/e"]).expect("an unused name is removed");
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
        assert!(longer.entries_equal(&entries(&["pods/a", "pods/b"])));
        assert_eq!(
            names.gauge().get(),
            i64::try_from(2 * (PER_NAME + PER_BYTE * 6 + PER_ENTRY)).expect("small")
        );
    }
}
