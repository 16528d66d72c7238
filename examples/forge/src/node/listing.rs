//! What Git lists in a repository against what the log says that it holds.

use std::path::Path;

use tenon_quorum::{RepoId, Stamp};
use tenon_refslog::{Checksum, Config, Record, Refs, Value, Version, diff};

use super::Shared;
use super::replica::ReplicaError;
use crate::git::refs::{Listing, head_name, main_name};
use crate::git::{GitError, refs as git_refs};
use crate::wire;

/// The refs at `applied`, if the repository has them or is on its way from them to what the staged record leads to: then it is
/// put back. A crash between moving the refs and persisting the gate leaves such a state.
pub(super) async fn sound(
    shared: &Shared,
    id: RepoId,
    folder: &Path,
    applied: Stamp,
    staged: Option<&Record>,
) -> Result<Option<Refs>, ReplicaError> {
    let is = match git_refs::list(&shared.git, folder).await {
        Err(error @ (GitError::Listing(_) | GitError::Failed { .. })) => {
            // Refs that cannot be read are not what the gate says, whatever they were: a repair makes them anew.
            tracing::error!(%id, "{error}");
            return Ok(None);
        }
        other => other?,
    };
    if let Some(refs) = shared.refs_with(id, applied, &is) {
        return Ok(Some(refs));
    }
    let Some(record) = staged else { return Ok(None) };
    let mut before = is.clone();
    for change in record.changes() {
        match change.old().value() {
            Some(value) => before.insert(change.name().clone(), value.clone()),
            None => before.remove(change.name()),
        };
    }
    let Some(refs) = shared.refs_with(id, applied, &before) else { return Ok(None) };
    tracing::info!(%id, %applied, "a move of refs had been cut short; they are put back to wait for proof");
    shared.match_listing(folder, &is, &refs).await?;
    Ok(Some(refs))
}

impl Shared {
    /// No refs, at `stamp`.
    pub(crate) fn empty(&self, id: RepoId, stamp: Stamp) -> Refs {
        self.refs_of(id, stamp, Listing::new())
            .unwrap_or_else(|| Refs::new(self.rules.clone(), wire::lineage(id, stamp.epoch)))
    }

    /// The refs that `listing` is, if they have the stamp's digest. Git cannot do without a `HEAD`; the log can, at its start.
    pub(crate) fn refs_with(&self, id: RepoId, stamp: Stamp, listing: &Listing) -> Option<Refs> {
        let mut listing = listing.clone();
        let whole = self.refs_of(id, stamp, listing.clone())?;
        if whole.checksum().prefix16() == stamp.digest.0 {
            return Some(whole);
        }
        listing.remove(&head_name());
        self.refs_of(id, stamp, listing).filter(|refs| refs.checksum().prefix16() == stamp.digest.0)
    }

    /// Makes the refs in a repository, which are `is`, the same as `wanted`.
    pub(crate) async fn match_listing(&self, folder: &Path, is: &Listing, wanted: &Refs) -> Result<(), GitError> {
        let mut wanted: Listing = wanted.iter().collect();
        // A repository has a HEAD even where the log does not say so yet.
        wanted.entry(head_name()).or_insert_with(|| Value::Symbolic(main_name()));
        let (id, stamp) = (RepoId(0), Stamp::BLANK);
        let (Some(is), Some(wanted)) = (self.refs_of(id, stamp, is.clone()), self.refs_of(id, stamp, wanted)) else {
            return Err(GitError::Failed { what: "update-ref", message: "ids of another object format".into() });
        };
        git_refs::carry_out(&self.git, folder, &diff(&is, &wanted)).await
    }

    /// The checksum of a listing, whatever it ought to be.
    pub(crate) fn checksum(&self, id: RepoId, stamp: Stamp, listing: &Listing) -> Checksum {
        self.refs_of(id, stamp, listing.clone()).map_or(Checksum::EMPTY, |refs| refs.checksum())
    }

    fn refs_of(&self, id: RepoId, stamp: Stamp, listing: Listing) -> Option<Refs> {
        let rules: Config = self.rules.clone();
        Refs::from_entries(rules, wire::lineage(id, stamp.epoch), Version(stamp.version.0), listing).ok()
    }
}
