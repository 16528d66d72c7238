//! Objects between repositories: packed on the writer, taken in behind a quarantine on a replica, fetched in a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tenon_refslog::ObjectId;
use tokio::io::AsyncWriteExt as _;

use super::{Git, GitError, Running, repository};

/// Where a Git process finds objects: by default in the repository alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectFolders {
    own: Option<OsString>,
    behind: Option<OsString>,
}

impl ObjectFolders {
    /// What is in the parcel, and what the repository holds behind it.
    pub(crate) fn with_parcel(repository: &Path, parcel: &Path) -> ObjectFolders {
        ObjectFolders { own: Some(parcel.into()), behind: Some(repository.join("objects").into()) }
    }

    pub(crate) fn apply(&self, invocation: &mut super::Invocation) {
        if let Some(own) = &self.own {
            invocation.env("GIT_OBJECT_DIRECTORY", own);
        }
        if let Some(behind) = &self.behind {
            invocation.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", behind);
        }
    }
}

/// What Git's check of objects finds in old repositories and what harms nobody: with these, a push passes. All others refuse it,
/// those above all by which a checkout could be tricked (`.git` in a tree, links in the place of `.gitmodules`, and the like).
const HARMLESS: [&str; 13] = [
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badFilemode",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// How strictly the objects of a push are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// The known harmless faults of old repositories pass.
    Usual,
    /// Nothing passes that Git finds fault with.
    Full,
}

impl Strictness {
    fn flag(self) -> String {
        match self {
            Strictness::Usual => format!("--strict={}", HARMLESS.map(|id| format!("{id}=warn")).join(",")),
            Strictness::Full => "--strict".to_owned(),
        }
    }
}

/// Packs all that is reachable from `tips` into `file`: for a receiver of which nothing is known.
///
/// # Errors
/// Git failed; the file's content is of no use.
pub(crate) async fn pack(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    tips: &[ObjectId],
    file: File,
) -> Result<(), GitError> {
    let mut invocation = git.within(repository, "pack-objects");
    folders.apply(&mut invocation);
    invocation.args(["--revs", "--stdout", "--delta-base-offset", "--quiet", "--threads=1"]);
    invocation.output_to(file).run(lines(tips).as_bytes()).await?;
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
    let input = lines(tips);
    invocation.args(["--objects", "--stdin", "--not", "--all", "--quiet"]).run(input.as_bytes()).await?;
    Ok(())
}

/// Takes a pack into `parcel`, a folder that is not there yet: indexed and checked, connected from `tips` with what the
/// repository holds, durable. The repository's own objects stay as they are.
///
/// # Errors
/// The pack is not fit, or leans on objects that are not here; the folder is gone again.
pub(crate) async fn take_in<E: std::fmt::Display>(
    git: &Git,
    repository: &Path,
    (parcel, tips, strictness): (&Path, &[ObjectId], Strictness),
    pack: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), TakeInError> {
    let io = |source| TakeInError::Git(GitError::Io { what: "index-pack", source });
    let parcels = parcel.parent().unwrap_or(parcel);
    if !parcels.is_dir() {
        fs::create_dir_all(parcels).map_err(io)?;
        repository::sync_folder(repository).map_err(io)?;
    }
    fs::create_dir_all(parcel.join("pack")).map_err(io)?;
    let taken = index(git, repository, (parcel, tips, strictness), pack).await;
    if taken.is_err() {
        repository::remove(parcel).map_err(io)?;
    }
    taken
}

/// Why a pack was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeInError {
    /// It is damaged, or holds what no repository should.
    #[error("{0}")]
    Bad(String),
    /// It is sound as far as it goes, but leans on objects that are not here.
    #[error("objects are missing: {0}")]
    Incomplete(String),
    #[error(transparent)]
    Git(#[from] GitError),
}

/// What `index-pack` says when a delta has no base, or a link leads nowhere.
const INCOMPLETE: [&str; 3] = ["unresolved delta", "is missing", "did not receive expected object"];

async fn index<E: std::fmt::Display>(
    git: &Git,
    repository: &Path,
    (parcel, tips, strictness): (&Path, &[ObjectId], Strictness),
    pack: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), TakeInError> {
    let folders = ObjectFolders::with_parcel(repository, parcel);
    let mut invocation = git.within(repository, "index-pack");
    folders.apply(&mut invocation);
    let flag = strictness.flag();
    let running = invocation.args(["--stdin", "--fix-thin", &flag, "--threads=1"]).spawn()?;
    let limit = running.limit();
    let poured = tokio::time::timeout(limit, pour(running, pack)).await;
    match poured.map_err(|_| GitError::TooSlow { what: "index-pack", limit })? {
        Err(GitError::Failed { message, .. }) if INCOMPLETE.iter().any(|said| message.contains(said)) => {
            return Err(TakeInError::Incomplete(message));
        }
        Err(GitError::Failed { message, .. }) => return Err(TakeInError::Bad(message)),
        other => other?,
    }
    match connected(git, repository, &folders, tips).await {
        Err(GitError::Failed { message, .. }) => return Err(TakeInError::Incomplete(message)),
        other => other?,
    }
    let parcel = parcel.to_owned();
    Ok(blocking("index-pack", move || {
        repository::sync_folder(&parcel.join("pack"))?;
        repository::sync_folder(&parcel)?;
        repository::sync_folder(parcel.parent().unwrap_or(&parcel))
    })
    .await?)
}

/// Makes the objects of a parcel the repository's own, durably, and removes its folder. Nothing happens if it is gone already.
pub(crate) async fn adopt(repository: &Path, parcel: &Path) -> Result<(), GitError> {
    let (parcel, repository) = (parcel.to_owned(), repository.to_owned());
    blocking("index-pack", move || {
        if !parcel.is_dir() {
            return Ok(());
        }
        migrate(&parcel.join("pack"), &repository.join("objects/pack"))?;
        repository::sync_objects(&repository)?;
        repository::remove(&parcel)
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
    let input = lines(ids);
    invocation.args(["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--stdin", url]);
    invocation.run(input.as_bytes()).await?;
    let repository = repository.to_owned();
    blocking("fetch", move || repository::sync_objects(&repository)).await
}

/// Of what kind each object is: `commit`, `tree`, `blob`, `tag`; objects that are not there are left out.
///
/// # Errors
/// Git failed.
pub(crate) async fn kinds(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    ids: &[ObjectId],
) -> Result<BTreeMap<ObjectId, String>, GitError> {
    let mut invocation = git.within(repository, "cat-file");
    folders.apply(&mut invocation);
    let output = invocation.arg("--batch-check=%(objectname) %(objecttype)").run(lines(ids).as_bytes()).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pair = |line: &str| {
        let (id, kind) = line.split_once(' ')?;
        Some((ObjectId::from_hex(id).ok()?, kind.to_owned())).filter(|(_, kind)| kind != "missing")
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// Whether the history of the first commit has the second in it.
///
/// # Errors
/// Git failed.
pub(crate) async fn contains(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    (commit, ancestor): (ObjectId, ObjectId),
) -> Result<bool, GitError> {
    let mut invocation = git.within(repository, "merge-base");
    folders.apply(&mut invocation);
    let output = invocation.args(["--is-ancestor", &ancestor.to_hex(), &commit.to_hex()]).run_to_end(&[]).await?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(GitError::Failed { what: "merge-base", message: super::last_line(&output.stderr) }),
    }
}

/// Of some commits the one with the newest date.
///
/// # Errors
/// Git failed.
pub(crate) async fn newest(
    git: &Git,
    repository: &Path,
    folders: &ObjectFolders,
    commits: &[ObjectId],
) -> Result<Option<ObjectId>, GitError> {
    let mut invocation = git.within(repository, "rev-list");
    folders.apply(&mut invocation);
    invocation.args(["--no-walk=sorted", "--max-count=1", "--stdin"]);
    let output = invocation.run(lines(commits).as_bytes()).await?;
    Ok(ObjectId::from_hex(String::from_utf8_lossy(&output.stdout).trim()).ok())
}

/// Packs what is reachable from `roots` and not from `without` into the repository itself, durably; the pack's name.
///
/// # Errors
/// Git failed; what it has written counts for nothing.
pub(crate) async fn repack(
    git: &Git,
    repository: &Path,
    roots: &BTreeSet<ObjectId>,
    without: &BTreeSet<ObjectId>,
) -> Result<Option<String>, GitError> {
    let ids = |ids: &BTreeSet<ObjectId>| lines(&ids.iter().copied().collect::<Vec<_>>());
    let mut input = ids(roots);
    input.extend(ids(without).lines().flat_map(|id| ["^", id, "\n"]));
    let mut invocation = git.within(repository, "pack-objects");
    invocation.args(["--revs", "--non-empty", "--delta-base-offset", "--quiet", "--threads=1", "objects/pack/pack"]);
    let output = invocation.run(input.as_bytes()).await?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = repository.to_owned();
    blocking("pack-objects", move || repository::sync_objects(&folder)).await?;
    Ok((!name.is_empty()).then_some(name))
}

/// Whether the refs reach all these commits.
///
/// # Errors
/// Git failed.
pub(crate) async fn reachable(git: &Git, repository: &Path, commits: &[ObjectId]) -> Result<bool, GitError> {
    let mut invocation = git.within(repository, "rev-list");
    invocation.args(["--max-count=1", "--stdin", "--not", "--all"]);
    Ok(invocation.run(lines(commits).as_bytes()).await?.stdout.is_empty())
}

/// All objects that the refs reach.
///
/// # Errors
/// Git failed, or there are too many to list.
pub(crate) async fn all_reachable(git: &Git, repository: &Path) -> Result<Vec<ObjectId>, GitError> {
    let output = git.within(repository, "rev-list").args(["--objects", "--all"]).run(&[]).await?;
    let ids = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| ObjectId::from_hex(line.get(..40)?).ok());
    Ok(ids.collect())
}

/// Ids as Git reads them, one per line.
fn lines(ids: &[ObjectId]) -> String {
    ids.iter().map(|id| id.to_hex() + "\n").collect()
}

pub(super) async fn blocking(
    what: &'static str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), GitError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| GitError::Io { what, source })
}
