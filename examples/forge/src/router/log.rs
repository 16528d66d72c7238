//! Compaction: old records of a repository's refs log are folded into segments that cover them, and
//! dropped.
//!
//! Folded is what every replica that can be asked has applied. A segment *covers* its records: a
//! replica that stands anywhere inside it can still be brought forward. Segments grow
//! geometrically: one is folded into the one before it once it is half as large.

use serde::{Deserialize, Serialize};
use tenon_quorum::RepoId;
use tenon_refslog::{Mode, Point, Record, Refs, Segment, compact as fold};
use tracing::info;

use super::http::Failure;
use super::store::{Compaction, LogRows, SegmentRow};
use super::{Host, reads};
use crate::wire;

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compacted {
    /// The version up to which records were folded.
    pub(crate) through: u64,
    /// The newest version.
    pub(crate) newest: u64,
    pub(crate) records_folded: usize,
    pub(crate) segments_before: usize,
    pub(crate) segments: usize,
    pub(crate) bytes_before: usize,
    pub(crate) bytes: usize,
}

/// Folds what every replica has applied.
pub(crate) async fn compact(host: &Host, repo: RepoId) -> Result<Compacted, Failure> {
    let route = reads::route(&host.driver, repo).await?;
    host.survey(repo).await?;
    let newest = route.proof.newest;
    let horizon = host.horizon(repo, newest.version.0);
    let log = host.driver.stored(move |store| store.log(repo.0, 0)).await?;
    let before = log.clone();
    let config = host.repos.config().clone();
    let lineage = wire::lineage(repo, newest.epoch);
    let folded = tokio::task::spawn_blocking(move || {
        let start = Refs::new(config, lineage);
        plan(&start, log, horizon)
    });
    let (compaction, records_folded) = folded.await.map_err(Failure::unavailable)?.map_err(Failure::unavailable)?;
    let kept: usize =
        before.tail.iter().filter(|row| row.version > compaction.through).map(|row| row.record.len()).sum();
    let done = Compacted {
        through: compaction.through,
        newest: newest.version.0,
        records_folded,
        segments_before: before.segments.len(),
        segments: compaction.segments.len(),
        bytes_before: bytes(&before),
        bytes: kept + compaction.segments.iter().map(|s| s.bytes.len()).sum::<usize>(),
    };
    if records_folded > 0 {
        host.driver.stored(move |store| store.compact(repo.0, &compaction)).await?;
        info!(%repo, through = done.through, records = records_folded, "compacted");
    }
    Ok(done)
}

fn bytes(log: &LogRows) -> usize {
    let snapshot = log.snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len());
    let segments: usize = log.segments.iter().map(|s| s.bytes.len()).sum();
    snapshot + segments + log.tail.iter().map(|row| row.record.len()).sum::<usize>()
}

/// What the log becomes, checked: replayed from its start it leads where it led before.
fn plan(start: &Refs, log: LogRows, horizon: u64) -> anyhow::Result<(Compaction, usize)> {
    let mut segments =
        log.segments.into_iter().map(|s| Ok(Segment::decode(s.bytes)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let foldable = log.tail.iter().filter(|row| row.version <= horizon);
    let records = foldable.map(|row| Ok(Record::decode(&row.record)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let base = segments.last().map_or(start.point(), Segment::end);
    if !records.is_empty() {
        segments.push(fold(base, Mode::Cover, &records)?);
    }
    while let [.., before, last] = segments.as_slice()
        && last.changes().len() * 2 >= before.changes().len()
    {
        let both = before.then(last)?;
        segments.truncate(segments.len() - 2);
        segments.push(both);
    }
    let mut refs = start.clone();
    for segment in &segments {
        refs.replay(segment)?;
    }
    let end: Point = records.last().map_or(base, Record::after);
    anyhow::ensure!(refs.point() == end, "the folded log leads to {:?}, not to {end:?}", refs.point());
    let rows = segments.iter().map(|s| SegmentRow {
        base: s.base().version.0,
        end: s.end().version.0,
        bytes: s.encode().into(),
    });
    let compaction = Compaction { snapshot: None, segments: rows.collect(), through: end.version.0 };
    Ok((compaction, records.len()))
}
