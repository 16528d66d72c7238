//! The judges. They share nothing with the crates but the numbers that were told: what was promised to whom, and whether it
//! is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tenon_quorum::RepoId;

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One repository, as its clients know it: a register whose versions only grow.
#[derive(Clone, Debug, Default)]
struct Register {
    /// The largest version that any client was told of.
    known: u64,
    /// The content of each version that was committed or served.
    contents: BTreeMap<u64, [u8; 16]>,
    /// Requests that were answered as not applied.
    refused: BTreeSet<u64>,
    applied: u64,
}

/// All repositories.
#[derive(Clone, Debug, Default)]
pub(crate) struct RepoLedger {
    repos: BTreeMap<RepoId, Register>,
    /// Versions that the store once held, whatever a backup has forgotten.
    pub(crate) commits: u64,
    pub(crate) reads: u64,
    /// Something that was told and is wrong, found where nothing can be returned.
    wrong: Option<Broken>,
}

/// The request that a content was made by.
fn request_of(content: [u8; 16]) -> u64 {
    u64::from_be_bytes(content[..8].try_into().unwrap_or_default())
}

impl RepoLedger {
    /// What a read that begins now must see at least.
    pub(crate) fn floor(&self, repo: RepoId) -> u64 {
        self.repos.get(&repo).map_or(0, |register| register.known)
    }

    fn content(&mut self, repo: RepoId, version: u64, content: [u8; 16]) -> Result<(), Broken> {
        let register = self.repos.entry(repo).or_default();
        if version > 0 && register.refused.contains(&request_of(content)) {
            let request = request_of(content);
            return Err(Broken(format!("{repo}: version {version} is of request {request}, answered as not applied")));
        }
        match register.contents.insert(version, content) {
            Some(old) if old != content => {
                Err(Broken(format!("{repo}: version {version} had another content: {old:?}, now {content:?}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The store took a commit.
    pub(crate) fn committed(&mut self, repo: RepoId, version: u64, content: [u8; 16]) -> Result<(), Broken> {
        self.commits += 1;
        self.content(repo, version, content)
    }

    /// An open row shows this version as the newest.
    pub(crate) fn row(&mut self, repo: RepoId, version: u64) -> Result<(), Broken> {
        let known = self.floor(repo);
        if version < known {
            return Err(Broken(format!(
                "{repo}: an open row is at version {version}, and {known} was told to a client"
            )));
        }
        Ok(())
    }

    /// A push was answered as applied.
    pub(crate) fn applied(&mut self, repo: RepoId, request: u64, version: u64, content: [u8; 16]) {
        if request_of(content) != request {
            self.wrong =
                Some(Broken(format!("{repo}: request {request} was told to be version {version}: {content:?}")));
        }
        if let Err(broken) = self.content(repo, version, content) {
            self.wrong = Some(broken);
        }
        let register = self.repos.entry(repo).or_default();
        register.known = register.known.max(version);
        register.applied += 1;
    }

    /// A push was answered as not applied, for good.
    pub(crate) fn not_applied(&mut self, repo: RepoId, request: u64) {
        let register = self.repos.entry(repo).or_default();
        if let Some((version, _)) = register.contents.iter().find(|(_, content)| request_of(**content) == request) {
            self.wrong = Some(Broken(format!("{repo}: request {request} is version {version}, told as not applied")));
        }
        register.refused.insert(request);
    }

    /// A read was served with this version; it had to see `floor` at least.
    pub(crate) fn read(&mut self, repo: RepoId, floor: u64, version: u64, content: [u8; 16]) -> Result<(), Broken> {
        self.reads += 1;
        if version < floor {
            return Err(Broken(format!("{repo}: a read saw version {version}, and {floor} was known when it began")));
        }
        if version > 0 {
            self.content(repo, version, content)?;
        }
        let register = self.repos.entry(repo).or_default();
        register.known = register.known.max(version);
        Ok(())
    }

    /// What was found where nothing could be said.
    pub(crate) fn take_wrong(&mut self) -> Result<(), Broken> {
        self.wrong.take().map_or(Ok(()), Err)
    }
}
