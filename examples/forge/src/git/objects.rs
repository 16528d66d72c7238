//! Objects between repositories: packed on the writer, taken in behind a quarantine on a replica, fetched in a repair.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tenon_refslog::ObjectId;
use tokio::io::AsyncWriteExt as _;

use super::{Git, GitError, Running, repository};

/// The object directories that a hook in `pre-receive` sees: the quarantine, and what stands behind it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectFolders {
    pub(crate) own: Option<OsString>,
    pub(crate) behind: Option<OsString>,
}

impl ObjectFolders {
    fn apply(&self, invocation: &mut super::Invocation) {
        if let Some(own) = &self.own {
            invocation.env("GIT_OBJECT_DIRECTORY", own);
        }
        if let Some(behind) = &self.behind {
            invocation.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", behind);
        }
    }
}

/// How the quarantines made here are called; those of `receive-pack` are `tmp_objdir-incoming-…`.
pub(crate) const QUARANTINE: &str = "tmp_objdir-forge-";

/// What a pack is made relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PackKind {
    /// Only what is not reachable from the ids the receiver is known to have; deltas may lean on those.
    Thin,
    /// All that is reachable: for a receiver that lags.
    Full,
}

/// Packs what is reachable from `new` (and for [`PackKind::Thin`] not from `known`) into `file`.
///
/// Never "what is in quarantine": after a failed push the retry's quarantine can be empty while a replica still lacks everything.
///
/// # Errors
/// Git failed; the file's content is of no use.
pub(crate) async fn pack(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    (new, known, kind): (&[ObjectId], &[ObjectId], PackKind),
    file: File,
) -> Result<(), GitError> {
    let mut invocation = git.within(repository, "pack-objects");
    folders.apply(&mut invocation);
    invocation.args(["--revs", "--stdout", "--delta-base-offset", "--quiet", "--threads=1"]);
    let mut input = lines("", new);
    if kind == PackKind::Thin {
        invocation.arg("--thin");
        input.push_str(&lines("^", known));
    }
    invocation.output_to(file).run(input.as_bytes()).await?;
    Ok(())
}

/// Whether all that is reachable from `tips` is there, as far as the repository's own refs do not vouch for it already.
///
/// # Errors
/// Something is missing (Git's line says what) or Git failed.
pub(crate) async fn connected(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    tips: &[ObjectId],
) -> Result<(), GitError> {
    if tips.is_empty() {
        return Ok(());
    }
    let mut invocation = git.within(repository, "rev-list");
    folders.apply(&mut invocation);
    let input = lines("", tips);
    invocation.args(["--objects", "--stdin", "--not", "--all", "--quiet"]).run(input.as_bytes()).await?;
    Ok(())
}

/// Takes a pack in: into a quarantine, indexed and checked strictly, connected from `tips`, moved into place, made durable.
///
/// # Errors
/// The pack is not fit or leans on objects that are not here; the repository is as it was.
pub(crate) async fn take_in<E: std::fmt::Display>(
    git: &Git,
    repository: &Path,
    tips: &[ObjectId],
    pack: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), GitError> {
    let io = |source| GitError::Io { what: "index-pack", source };
    let objects = repository.join("objects");
    let quarantine = tempfile::Builder::new().prefix(QUARANTINE).tempdir_in(&objects).map_err(io)?;
    fs::create_dir(quarantine.path().join("pack")).map_err(io)?;
    let folders = ObjectFolders { own: Some(quarantine.path().into()), behind: Some(objects.clone().into()) };
    let mut invocation = git.within(repository, "index-pack");
    folders.apply(&mut invocation);
    let running = invocation.args(["--stdin", "--fix-thin", "--strict", "--threads=1"]).spawn()?;
    let limit = running.limit();
    tokio::time::timeout(limit, pour(running, pack))
        .await
        .map_err(|_| GitError::TooSlow { what: "index-pack", limit })??;
    connected(git, repository, &folders, tips).await?;
    let (from, to) = (quarantine.path().join("pack"), objects.join("pack"));
    let repository = repository.to_owned();
    blocking("index-pack", move || {
        migrate(&from, &to)?;
        repository::sync_objects(&repository)
    })
    .await
}

async fn pour<E: std::fmt::Display>(
    mut running: Running,
    mut pack: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), GitError> {
    let mut stdin = running.stdin.take();
    let mut broken = None;
    while let (Some(pipe), Some(block)) = (stdin.as_mut(), pack.next().await) {
        match block {
            Ok(block) => {
                if pipe.write_all(&block).await.is_err() {
                    stdin = None; // It ended early: its status says why.
                }
            }
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    if let Some(message) = broken {
        return Err(GitError::Failed { what: "index-pack", message });
    }
    drop(stdin);
    running.succeed().await
}

/// Moves the files of a pack, the index last: a pack is there once its index is.
fn migrate(from: &Path, to: &Path) -> io::Result<()> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(from)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    files.sort_by_key(|file| (file.extension().is_some_and(|extension| extension == "idx"), file.clone()));
    for file in files {
        let Some(name) = file.file_name() else { continue };
        File::open(&file)?.sync_all()?;
        let place = to.join(name);
        // The same pack again: the name is a checksum of the content.
        if !place.exists() {
            fs::rename(&file, &place)?;
        }
    }
    Ok(())
}

/// Fetches what is reachable from `ids` from another node's upload-pack.
///
/// # Errors
/// The source could not give it all.
pub(crate) async fn fetch(
    git: &Git,
    repository: &Path,
    url: &str,
    headers: &[String],
    ids: &[ObjectId],
) -> Result<(), GitError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut invocation = git.within(repository, "fetch");
    for header in headers {
        invocation.setting("http.extraHeader", header);
    }
    invocation.setting("protocol.version", "2");
    let input = lines("", ids);
    invocation.args(["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--stdin", url]);
    invocation.run(input.as_bytes()).await?;
    let repository = repository.to_owned();
    blocking("fetch", move || repository::sync_objects(&repository)).await
}

/// Ids as Git reads them, one per line.
fn lines(lead: &str, ids: &[ObjectId]) -> String {
    ids.iter().flat_map(|id| [lead.to_owned(), id.to_hex(), "\n".to_owned()]).collect()
}

async fn blocking(what: &'static str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), GitError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| GitError::Io { what, source })
}
