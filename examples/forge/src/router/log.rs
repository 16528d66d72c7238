//! Compaction of a repository's refs log, as `tenon-refslog` plans it: old records are folded into
//! segments that cover them, old segments go into a snapshot, and what they replace is dropped.
//!
//! A segment *covers* its records: a replica that stands anywhere inside it can still be brought
//! forward. Only a replica from before the snapshot starts from that.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tenon_quorum::{NodeId, RepoId, Row};
use tenon_refslog::{Log, LogConfig, Piece, Plan, Record, Refs, ReplicaId, Segment, Snapshot, Version};
use tracing::{info, warn};

use super::http::Failure;
use super::nodes::Nodes;
use super::store::{Compaction, LogRows, SegmentRow, Store};
use super::{Host, reads};
use crate::wire;

/// Bytes that one step of a compaction reads at most.
const BUDGET: u64 = 256 << 20;
/// How often logs are looked at, and how many records of one gather before it is compacted.
const EVERY: Duration = Duration::from_secs(20);
const MANY: usize = 256;

/// Stands for the pipelines among the replicas; no node has this number.
const PIPELINES: NodeId = NodeId(0);

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compacted {
    /// The newest version.
    pub(crate) newest: u64,
    /// Records that were folded.
    pub(crate) folded: usize,
    /// Records that are left.
    pub(crate) records: usize,
    pub(crate) segments: usize,
    /// The version of the snapshot that the log starts from, if there is one.
    pub(crate) snapshot: Option<u64>,
    pub(crate) bytes_before: usize,
    pub(crate) bytes: usize,
}

/// Compacts as far as the replicas allow.
pub(crate) async fn compact(host: &Host, repo: RepoId) -> Result<Compacted, Failure> {
    let route = reads::route(&host.driver, repo, None).await?;
    host.survey(repo).await?;
    let newest = route.proof.newest;
    let mut replicas = host.applied(repo);
    // Pipelines read the log as a replica does: what they have not followed yet stays as it is.
    replicas.push((PIPELINES, host.ci.followed(repo.0).await?));
    let rows = host.driver.stored(move |store| store.log(repo.0, 0)).await?;
    let genesis = Refs::new(host.repos.config().clone(), wire::lineage(repo, newest.epoch));
    let planned = tokio::task::spawn_blocking(move || plan(&genesis, rows, &replicas));
    let (mut done, compaction) = planned.await.map_err(Failure::unavailable)?.map_err(Failure::unavailable)?;
    done.newest = newest.version.0;
    if done.folded > 0 {
        host.driver.stored(move |store| store.compact(repo.0, &compaction)).await?;
        info!(%repo, folded = done.folded, segments = done.segments, "compacted");
    }
    Ok(done)
}

/// Sees that the log leads to what `row` shows: the records that a restored store has forgotten are nowhere, but what
/// they led to is with every node that has applied it.
///
/// # Errors
/// `source` has not applied it, or cannot be reached; the log is as it was.
pub(crate) async fn mend(store: &Arc<dyn Store>, nodes: &Nodes, row: &Row, source: NodeId) -> Result<()> {
    let (repo, newest) = (row.repo, row.newest);
    let reader = Arc::clone(store);
    let rows = tokio::task::spawn_blocking(move || reader.log(repo.0, 0)).await??;
    if rows.leads_to(newest.version.0) {
        return Ok(());
    }
    let bytes = nodes.snapshot(source, repo, newest).await?;
    let point = Snapshot::open(bytes.clone())?.point();
    ensure!(point.checksum.prefix16() == newest.digest.0, "{source} has another state than {newest}");
    let version = newest.version.0;
    let compaction = Compaction { snapshot: Some((version, bytes.into())), segments: Vec::new(), through: version };
    let writer = Arc::clone(store);
    tokio::task::spawn_blocking(move || writer.compact(repo.0, &compaction)).await??;
    info!(%repo, version, "the log goes on from a snapshot of {source}: records before it were lost with the store");
    Ok(())
}

/// Compacts logs that have grown, for ever.
pub(crate) async fn keep_short(host: Host) {
    loop {
        tokio::time::sleep(EVERY).await;
        let long = match host.driver.stored(|store| store.long_logs(MANY)).await {
            Ok(long) => long,
            Err(e) => {
                warn!("the logs cannot be looked at: {e}");
                continue;
            }
        };
        for repo in long {
            if let Err(e) = compact(&host, RepoId(repo)).await {
                warn!(repo, "not compacted: {e}");
            }
        }
    }
}

/// The log as it becomes, and what to store for it.
fn plan(genesis: &Refs, rows: LogRows, replicas: &[(NodeId, u64)]) -> Result<(Compacted, Compaction)> {
    let bytes_before = rows.bytes();
    let start = match &rows.snapshot {
        Some((_, bytes)) => Snapshot::open(bytes.clone())?,
        None => genesis.snapshot(),
    };
    // Nobody asks for old versions here; whoever still needs some is told as a replica below.
    let config = LogConfig::builder().min_records(2).retain_versions(0).build()?;
    let mut log = Log::new(config, start.clone());
    for segment in rows.segments {
        let _new = log.append_segment(Segment::decode(segment.bytes)?)?;
    }
    let records = rows.tail.len();
    for row in &rows.tail {
        let _new = log.append(Record::decode(&row.record)?)?;
    }
    for (node, applied) in replicas {
        let _new = log.handle_progress(ReplicaId(node.0.into()), Version(*applied))?;
    }
    let end = log.end();
    fold(&mut log)?;
    let mut refs = Refs::restore(genesis.config().clone(), log.snapshot())?;
    let mut compaction = Compaction { snapshot: None, segments: Vec::new(), through: log.snapshot().point().version.0 };
    let mut leading = true;
    let mut left = 0;
    for piece in log.pieces() {
        match piece {
            Piece::Segment(segment) => {
                refs.replay(segment)?;
                // What stands behind a record that is kept stays as records, too.
                if leading {
                    compaction.through = segment.end().version.0;
                    let (base, end) = (segment.base().version.0, segment.end().version.0);
                    compaction.segments.push(SegmentRow { base, end, bytes: segment.encode().into() });
                }
            }
            Piece::Record(record) => {
                refs.apply(record)?;
                leading = false;
                left += 1;
            }
        }
    }
    if refs.point() != end {
        bail!("the folded log leads to {:?}, not to {end:?}", refs.point());
    }
    if log.snapshot().point() != start.point() {
        compaction.snapshot = Some((log.snapshot().point().version.0, log.snapshot().as_bytes().to_vec()));
    }
    let kept = rows.tail.iter().filter(|row| row.version > compaction.through);
    let snapshot = compaction.snapshot.clone().or(rows.snapshot);
    let bytes = snapshot.as_ref().map_or(0, |s| s.1.len())
        + compaction.segments.iter().map(|s| s.bytes.len()).sum::<usize>()
        + kept.map(|row| row.record.len()).sum::<usize>();
    let done = Compacted {
        newest: end.version.0,
        folded: records - left,
        records: left,
        segments: compaction.segments.len(),
        snapshot: snapshot.map(|s| s.0),
        bytes_before,
        bytes,
    };
    Ok((done, compaction))
}

/// Asks, does and tells until there is nothing to fold.
fn fold(log: &mut Log) -> Result<()> {
    loop {
        match log.plan(BUDGET) {
            Plan::Nothing | Plan::OverBudget(_) => return Ok(()),
            Plan::Fold(stretch) => {
                let folded = log.fold(&stretch)?;
                let _taken = log.handle_folded(folded.segment);
            }
            Plan::Absorb(stretch) => {
                let snapshot = log.absorb(&stretch)?.snapshot;
                let _taken = log.handle_absorbed(snapshot);
            }
        }
    }
}

impl LogRows {
    /// Whether every version from the start to `version` is there, in some form.
    fn leads_to(&self, version: u64) -> bool {
        let mut at = self.snapshot.as_ref().map_or(0, |(version, _)| *version);
        for segment in &self.segments {
            at = if segment.base <= at { at.max(segment.end) } else { at };
        }
        for row in &self.tail {
            at += u64::from(row.version == at + 1 && !row.record.is_empty());
        }
        at >= version
    }

    fn bytes(&self) -> usize {
        let snapshot = self.snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len());
        let segments: usize = self.segments.iter().map(|s| s.bytes.len()).sum();
        snapshot + segments + self.tail.iter().map(|row| row.record.len()).sum::<usize>()
    }
}
