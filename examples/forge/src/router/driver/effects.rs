//! What the core orders, done: one task per effect, one fact (or none: then a time-out follows).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tenon_quorum::{
    Ask, Effect, FeedEntry, Generation, NodeId, RepoId, RouterId, Row, StoreMeta, SwapResult, SyncResult, TaskId,
    Ticket, Version,
};

use tracing::{error, info, warn};

use super::{Driver, Proposal};
use crate::router::log;
use crate::router::nodes::{Answer, Life};
use crate::router::store::{FeedRow, Pipelines, Said, Store, StoreError, Swap, Swapped};
use crate::wire::{CureAsk, Peer, SyncAsk};

/// A swap on its way to the store.
struct Sent {
    store: Generation,
    expect: Option<Row>,
    next: Row,
    feed: Option<FeedEntry>,
    clears_note: bool,
}

fn meta(said: Said) -> StoreMeta {
    StoreMeta::new(Generation(said.life)).note(said.note.map(RouterId))
}

impl Driver {
    pub(super) async fn carry_out(self: Arc<Self>, effect: Effect, proposal: Option<Proposal>) {
        match effect {
            Effect::SwapRow { ticket, store, expect, next, feed, clears_note } => {
                self.swap(ticket, Sent { store, expect, next, feed, clears_note }, proposal).await;
            }
            Effect::LeaveNote { repo, router } => {
                if let Err(e) = self.stored(move |store| store.note(repo.0, router.0)).await {
                    warn!(%repo, "a note that this router waits was not left: {e}");
                }
            }
            Effect::Cure { ask, node, incarnation, row, boot, serial } => {
                info!(repo = %row.repo, %node, "its disk went back in time; it is cured");
                let order = CureAsk { row, boot, serial };
                let answer = self.nodes.cure(Life { node, incarnation }, &order).await;
                self.tell_answer(node, Some(ask), answer).await;
            }
            Effect::FetchRow { ask, repo } => self.fetch_row(ask, repo).await,
            Effect::FetchFeed { ask, repo, version } => self.fetch_feed(ask, repo, version).await,
            Effect::FetchFamily { ask, family } => self.fetch_family(ask, family).await,
            Effect::RaiseGate { ask, node, incarnation, row } => {
                let answer = self.nodes.raise(Life { node, incarnation }, &row).await;
                self.tell_answer(node, Some(ask), answer).await;
            }
            Effect::Probe { ask, node, repo } => match self.nodes.report(node, repo).await {
                Ok(report) => self.tell(|core, now| core.router.handle_report(now, Some(ask), &report)),
                Err(e) => self.node_failed(node, &e).await,
            },
            Effect::Promise { node, incarnation, repo, generation } => {
                match self.nodes.promise(Life { node, incarnation }, repo, generation).await {
                    Ok(gate) => self.tell(|core, now| core.router.handle_promise(now, &gate)),
                    Err(e) => self.node_failed(node, &e).await,
                }
            }
            Effect::Initialise { task, target, incarnation, row } => {
                self.sync(task, Life { node: target, incarnation }, SyncAsk { row, source: None }).await;
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let Some(known) = self.nodes.known(source) else { return };
                let source = Peer { node: source, url: known.url };
                self.sync(task, Life { node: target, incarnation }, SyncAsk { row, source: Some(source) }).await;
            }
            Effect::Grant(_) | Effect::Answer { .. } | Effect::Changed { .. } => {
                error!("an answer was not given where it was due");
            }
        }
    }

    async fn swap(self: &Arc<Self>, ticket: Ticket, sent: Sent, proposal: Option<Proposal>) {
        let Sent { store: life, expect, next, feed, clears_note } = sent;
        let repo = next.repo;
        let row = feed.map(|feed| {
            let proposal = proposal.unwrap_or_default();
            FeedRow { pipelines: proposal.pipelines, ..feed_row(&feed, proposal.record) }
        });
        let (expect, next) = (expect.map(|row| encode(&row)), encode(&next));
        let swap = move |store: &dyn Store| {
            let (expect, feed) = (expect.as_deref(), row.as_ref());
            store.swap(&Swap { life: life.0, repo: repo.0, expect, next: &next, feed, clears_note })
        };
        let done = self.stored(swap).await;
        self.full.store(done.as_ref().is_err_and(StoreError::is_full), Ordering::Relaxed);
        if done.is_ok() {
            self.failures.store(0, Ordering::Relaxed);
        }
        let (said, result) = match done {
            Ok((said, Swapped::Moved)) => (meta(said), SwapResult::Moved),
            Ok((said, Swapped::OtherLife)) => (meta(said), SwapResult::OtherStore),
            Ok((said, Swapped::Conflict(found))) => {
                (meta(said), SwapResult::Conflict(found.and_then(|body| decode(repo, &body))))
            }
            Err(e) => {
                error!(%repo, "whether the row moved is unknown: {e}");
                // A full disk fails at once, and would be asked again at once.
                let before = self.failures.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pause_after(before)).await;
                (StoreMeta::new(life), SwapResult::Unknown)
            }
        };
        self.tell(|core, now| core.router.handle_swap(now, ticket, &said, &result));
    }

    pub(crate) async fn fetch_row(self: &Arc<Self>, ask: Ask, repo: RepoId) {
        match self.stored(move |store| store.look(repo.0)).await {
            Ok((said, body)) => {
                let row = body.and_then(|body| decode(repo, &body));
                self.tell(|core, now| core.router.handle_row(now, ask, &meta(said), repo, row.as_ref()));
            }
            Err(e) => error!(%repo, "the row cannot be read: {e}"),
        }
    }

    async fn fetch_feed(self: &Arc<Self>, ask: Ask, repo: RepoId, version: Version) {
        let after = version.0.saturating_sub(1);
        // The store's life changes only while nobody has it open.
        match self.stored(move |store| Ok((store.look(repo.0)?.0, store.feed(repo.0, after, 1)?))).await {
            Ok((said, rows)) => {
                let entry = rows.first().filter(|row| row.version == version.0).map(FeedRow::entry);
                self.tell(|core, now| core.router.handle_feed(now, ask, &meta(said), repo, entry));
            }
            Err(e) => error!(%repo, "the feed cannot be read: {e}"),
        }
    }

    async fn fetch_family(self: &Arc<Self>, ask: Ask, family: RepoId) {
        let rows = self.stored(move |store| {
            let ids = store.names()?.into_iter().map(|(id, _)| id);
            let rows = ids.map(|id| Ok(store.row(id)?.and_then(|body| decode(RepoId(id), &body))));
            Ok((store.look(family.0)?.0, rows.collect::<Result<Vec<_>, StoreError>>()?))
        });
        match rows.await {
            Ok((said, rows)) => {
                let members: Vec<RepoId> =
                    rows.into_iter().flatten().filter(|row| row.family == family).map(|row| row.repo).collect();
                self.tell(|core, now| core.router.handle_family(now, ask, &meta(said), family, &members));
            }
            Err(e) => error!(%family, "the rows cannot be read: {e}"),
        }
    }

    async fn sync(self: &Arc<Self>, task: TaskId, to: Life, ask: SyncAsk) {
        let (repo, target) = (ask.row.repo, to.node);
        let result = match self.nodes.sync(to, &ask).await {
            Ok(Answer::Report(report)) => {
                info!(%repo, node = %target, to = %report.applied, "brought up to date");
                SyncResult::Done(report)
            }
            Ok(Answer::Refused(refused)) => {
                warn!(%repo, node = %target, "not brought up to date: {}", refused.reason);
                self.tell_answer(target, None, Ok(Answer::Refused(refused))).await;
                // A store that came back from a backup has forgotten records: what is missing is taken from the source.
                if let Some(source) = &ask.source
                    && let Err(e) = log::mend(&self.store, &self.nodes, &ask.row, source.node).await
                {
                    warn!(%repo, "its log cannot be mended from {}: {e:#}", source.node);
                }
                SyncResult::Failed
            }
            Err(e) => {
                warn!(%repo, node = %target, "not brought up to date: {e:#}");
                SyncResult::Failed
            }
        };
        self.tell(|core, now| core.router.handle_synced(now, task, &result));
    }

    /// What a gate answered, either way, is told.
    pub(crate) async fn tell_answer(self: &Arc<Self>, node: NodeId, ask: Option<Ask>, answer: anyhow::Result<Answer>) {
        match answer {
            Ok(Answer::Report(report)) => self.tell(|core, now| core.router.handle_report(now, ask, &report)),
            Ok(Answer::Refused(refused)) => {
                if let Some(report) = refused.report {
                    self.tell(|core, now| core.router.handle_report(now, ask, &report));
                }
            }
            Err(e) => self.node_failed(node, &e).await,
        }
    }
}

/// How long to wait after so many failures: longer each time, and never for long.
pub(crate) fn pause_after(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(3);
    (FIRST * 2_u32.pow(failures.min(10))).min(MOST)
}

impl FeedRow {
    pub(crate) fn entry(&self) -> FeedEntry {
        use tenon_quorum::{Digest, Epoch, Fence, Generation, Stamp, Version};
        FeedEntry {
            stamp: Stamp { epoch: Epoch(self.epoch), version: Version(self.version), digest: Digest(self.digest) },
            fence: Fence { generation: Generation(self.fence.0), counter: self.fence.1 },
        }
    }
}

pub(crate) fn feed_row(entry: &FeedEntry, record: Bytes) -> FeedRow {
    FeedRow {
        version: entry.stamp.version.0,
        digest: entry.stamp.digest.0,
        fence: (entry.fence.generation.0, entry.fence.counter),
        epoch: entry.stamp.epoch.0,
        record: record.into(),
        pipelines: Pipelines::Wanted,
    }
}

/// The one byte string of a row: what the compare-and-set compares.
pub(crate) fn encode(row: &Row) -> Vec<u8> {
    // Plain data without maps: it cannot fail.
    serde_json::to_vec(row).unwrap_or_default()
}

pub(crate) fn decode(repo: RepoId, body: &[u8]) -> Option<Row> {
    serde_json::from_slice(body).map_err(|e| error!(%repo, "the row in the store is none: {e}")).ok()
}
