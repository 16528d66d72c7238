//! Repair: this node becomes exactly what a row shows, from the router's log and another node's objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tenon_quorum::{Digest, GateRefusal, Proof, Report, Stamp};
use tenon_refslog::{ObjectId, Record, Refs, Segment, Snapshot, Value, Version};

use super::Shared;
use super::drill::Point;
use super::push::without_url;
use super::replica::{Replica, ReplicaError};
use crate::git::objects::{self, ObjectFolders};
use crate::git::{refs as git_refs, repository};
use crate::wire::{self, LogPart, Peer, SyncAsk};

/// Makes the replica what `ask.row` shows: the gate is raised first, objects come before refs, and only a listing with the right
/// digest is installed.
///
/// # Errors
/// The replica serves nothing newer than before; its refs may be between two states, and its gate says that they are lost then.
pub(crate) async fn run(shared: &Arc<Shared>, replica: &Replica, ask: &SyncAsk) -> Result<Report, ReplicaError> {
    let proof = &ask.row.proof();
    shared.drills.at(Point::BeforeSync).await;
    // A vote that the row proves is carried out if it can be; if it cannot, this repair does without it.
    let report = match replica.settle(&ask.row).await {
        Ok(report) => report,
        Err(ReplicaError::Git(error)) => {
            tracing::warn!(repo = %replica.id, %error, "a proven vote cannot be carried out here");
            replica.report().await
        }
        Err(error) => return Err(error),
    };
    if report.applied == proof.newest {
        return Ok(report);
    }
    let turn = replica.turn().await;
    if proof.newest.digest == Digest::TOMBSTONE {
        return bury(shared, replica, proof).await;
    }
    replica.make().await?;
    repository::settle_config(&replica.folder)?;
    let wanted = match &ask.source {
        None => shared.empty(replica.id, proof.newest),
        Some(_) => wanted(shared, replica, proof).await?,
    };
    if wanted.checksum().prefix16() != proof.newest.digest.0 {
        return Err(ReplicaError::Refused(format!("the log does not lead to {}; ask again", proof.newest)));
    }
    if let Some(source) = &ask.source {
        fetch_objects(shared, replica, proof, source, &wanted).await?;
    }
    shared.drills.at(Point::InSync).await;
    check_direction(replica, proof).await?;
    if let Err(error) = match_refs(shared, replica, &wanted).await {
        let _ = replica.lose().await;
        return Err(error);
    }
    let is = git_refs::list(&shared.git, &replica.folder).await?;
    if shared.refs_with(replica.id, proof.newest, &is).is_none() {
        let _ = replica.lose().await;
        return Err(ReplicaError::Refused("the refs did not become what the log says".into()));
    }
    let report = replica.install(proof, wanted).await;
    drop(turn);
    report
}

/// The repository is deleted: nothing but the gate remains of it.
async fn bury(shared: &Shared, replica: &Replica, proof: &Proof) -> Result<Report, ReplicaError> {
    check_direction(replica, proof).await?;
    let alone = replica.refs_lock.write().await;
    repository::remove(&replica.folder)?;
    drop(alone);
    replica.install(proof, shared.empty(replica.id, proof.newest)).await
}

/// Asks the gate before any ref moves whether it would take the result.
async fn check_direction(replica: &Replica, proof: &Proof) -> Result<(), GateRefusal> {
    replica.state().await.gate.install(proof).map(drop)
}

/// The refs at the proof's version, by the router's log: from where this replica stands, or from the log's start.
async fn wanted(shared: &Shared, replica: &Replica, proof: &Proof) -> Result<Refs, ReplicaError> {
    let state = replica.state().await;
    let applied = state.gate.applied();
    let near = applied != Stamp::BLANK && applied.epoch == proof.newest.epoch && applied.version < proof.newest.version;
    let base = near.then(|| state.refs.clone());
    drop(state);
    if let Some(refs) = base {
        let from = refs.version();
        if let Ok(refs) = replay(shared, refs, &log(shared, replica, from, proof).await?) {
            return Ok(refs);
        }
    }
    let born = Stamp { version: tenon_quorum::Version(0), ..proof.newest };
    let start = shared.empty(replica.id, born);
    let parts = log(shared, replica, Version::GENESIS, proof).await?;
    replay(shared, start, &parts)
        .map_err(|reason| ReplicaError::Refused(format!("the log cannot be replayed: {reason}")))
}

async fn log(shared: &Shared, replica: &Replica, from: Version, proof: &Proof) -> Result<Vec<LogPart>, ReplicaError> {
    let url =
        format!("{}/internal/repos/{}/log?from={}&to={}", shared.router, replica.id.0, from.0, proof.newest.version.0);
    let failed = |error: reqwest::Error| ReplicaError::Refused(format!("the log: {}", without_url(error)));
    let answer = shared.http.get(url).bearer_auth(&shared.token).send().await.map_err(failed)?;
    let body: Bytes = answer.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?;
    LogPart::all(body).ok_or_else(|| ReplicaError::Refused("the log: malformed answer".into()))
}

fn replay(shared: &Shared, mut refs: Refs, parts: &[LogPart]) -> Result<Refs, String> {
    for part in parts {
        match part {
            LogPart::Snapshot(bytes) => {
                let snapshot = Snapshot::open(bytes.clone()).map_err(|error| error.to_string())?;
                refs = Refs::restore(shared.rules.clone(), &snapshot).map_err(|error| error.to_string())?;
            }
            LogPart::Segment(bytes) => {
                let segment = Segment::decode(bytes.clone()).map_err(|error| error.to_string())?;
                refs.replay(&segment).map_err(|error| error.to_string())?;
            }
            LogPart::Record(bytes) => {
                let record = Record::decode(bytes).map_err(|error| error.to_string())?;
                refs.apply(&record).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(refs)
}

/// Fetches what the wanted refs need and this replica lacks; afterwards all of it is here and durable.
async fn fetch_objects(
    shared: &Shared,
    replica: &Replica,
    proof: &Proof,
    source: &Peer,
    wanted: &Refs,
) -> Result<(), ReplicaError> {
    let ids = |refs: &Refs| refs.iter().filter_map(|(_, value)| Value::id(&value)).collect::<BTreeSet<ObjectId>>();
    let have = ids(&replica.state().await.refs);
    let new: Vec<ObjectId> = ids(wanted).difference(&have).copied().collect();
    let folders = ObjectFolders::default();
    if objects::connected(&shared.git, &replica.folder, &folders, &new).await.is_ok() {
        return Ok(());
    }
    let url = format!("{}/repos/{}", source.url, replica.id.0);
    let headers = [
        format!("authorization: Bearer {}", shared.token),
        format!("{}: {}", wire::ASK, wire::to_header(proof).to_str().unwrap_or_default()),
    ];
    objects::fetch(&shared.git, &replica.folder, &url, &headers, &new).await?;
    Ok(objects::connected(&shared.git, &replica.folder, &folders, &new).await?)
}

/// Makes the refs in the repository what they should be: the difference to what Git lists, deletes first.
async fn match_refs(shared: &Shared, replica: &Replica, wanted: &Refs) -> Result<(), ReplicaError> {
    let _alone = replica.refs_lock.write().await;
    repository::unlock(&replica.folder, &mut Vec::new())?;
    repository::settle_head(&replica.folder)?;
    let is = git_refs::list_mended(&shared.git, &replica.folder).await?;
    Ok(shared.match_listing(&replica.folder, &is, wanted).await?)
}
