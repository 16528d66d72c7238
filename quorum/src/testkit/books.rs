//! The model of the store: each repository's row and feed, now and in its backup, and every commit ever made.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use crate::id::{Fence, RepoId, RouterId, Version};
use crate::row::{FeedEntry, Row, RowState};

/// The store's expected content for one repository.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) row: Option<Row>,
    /// The row before that.
    pub(super) past: Option<Row>,
    /// The router that waits.
    pub(super) note: Option<RouterId>,
    feed: BTreeMap<Version, FeedEntry>,
}

impl Book {
    /// The last entry of the feed.
    pub(super) fn last(&self) -> Option<FeedEntry> {
        self.feed.last_key_value().map(|(_, entry)| *entry)
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    open: BTreeMap<RepoId, Book>,
    backup: Option<BTreeMap<RepoId, Book>>,
    /// Every commit ever made, even those that a backup has forgotten.
    history: BTreeMap<(RepoId, Version), FeedEntry>,
}

impl Books {
    pub(super) fn of(&self, repo: RepoId) -> Book {
        self.open.get(&repo).cloned().unwrap_or_default()
    }

    pub(super) fn row(&self, repo: RepoId) -> Option<&Row> {
        self.open.get(&repo)?.row.as_ref()
    }

    /// Which router waits is written beside a row that is there.
    pub(super) fn note(&mut self, repo: RepoId, router: Option<RouterId>) {
        if let Some(book) = self.open.get_mut(&repo).filter(|book| book.row.is_some()) {
            book.note = router;
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.open.values().filter_map(|book| book.row.as_ref())
    }

    /// The newest version that was ever committed.
    pub(super) fn committed(&self, repo: RepoId) -> Version {
        self.newest(repo).map_or(Version(0), FeedEntry::version)
    }

    fn newest(&self, repo: RepoId) -> Option<&FeedEntry> {
        self.history.range((repo, Version(0))..=(repo, Version(u64::MAX))).next_back().map(|(_, entry)| entry)
    }

    /// What was committed under a fence.
    pub(super) fn committed_under(&self, repo: RepoId, fence: Fence) -> Option<&FeedEntry> {
        self.history.iter().find(|((of, _), entry)| *of == repo && entry.fence == fence).map(|(_, entry)| entry)
    }

    /// The row is `next` now. What was committed stays committed, whatever the store has forgotten in between.
    pub(super) fn moved(&mut self, next: &Row, feed: Option<&FeedEntry>) -> Result<(), String> {
        let repo = next.repo;
        if let Some(entry) = feed {
            let known = *self.history.entry((repo, entry.version())).or_insert(*entry);
            if known.stamp != entry.stamp {
                return Err(format!("{repo}: {} is committed, and {} was", entry.stamp, known.stamp));
            }
        }
        // What is only decided on is not acted on: the next swap says what it amounts to.
        let held = self.newest(repo).filter(|_| next.state != RowState::Decided);
        if let Some(held) = held.filter(|held| held.stamp.is_beyond(next.newest)) {
            return Err(format!("{repo}: {} was committed, and the row goes on from {}", held.stamp, next.newest));
        }
        let book = self.open.entry(repo).or_default();
        book.past = book.row.replace(next.clone());
        book.feed.extend(feed.map(|entry| (entry.version(), *entry)));
        Ok(())
    }

    pub(super) fn back_up(&mut self) {
        self.backup = Some(self.open.clone());
    }

    /// As it was at the last backup; `false` if there is none.
    pub(super) fn restore(&mut self) -> bool {
        self.open = self.backup.clone().unwrap_or_else(|| core::mem::take(&mut self.open));
        self.backup.is_some()
    }
}
