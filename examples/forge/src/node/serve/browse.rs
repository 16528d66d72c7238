//! A repository's content for people to read: refs, commits, folders, files. Git's plumbing reads it; nothing is written.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path as Folder;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use tenon_refslog::ObjectId;

use super::git::admit;
use super::with;
use crate::git::{Git, GitError};
use crate::node::replica::ReplicaError;
use crate::node::{Shared, wants};
use crate::wire::browse::{CommitLine, Content, Entry, EntryKind, Look, LookAt, Readme, RefLine, Summary};

/// Branches, and tags, that are shown.
const MOST_REFS: usize = 50;
/// Commits that are shown.
const MOST_COMMITS: usize = 20;
/// Entries of a folder that are shown.
const MOST_ENTRIES: usize = 2000;
/// The largest file that is shown, in bytes.
const MOST_TEXT: u64 = 512 << 10;
/// The longest message that is shown, in characters.
const MOST_MESSAGE: usize = 8000;

pub(super) async fn summary(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        let listed = replica.refs_lock.read().await;
        let summary = summarise(&this.git, &replica.folder).await?;
        drop(listed);
        Ok(Json(summary).into_response())
    })
    .await
}

async fn summarise(git: &Git, folder: &Folder) -> Result<Summary, GitError> {
    let head = git.within(folder, "symbolic-ref").args(["-q", "--short", "HEAD"]).run_to_end(&[]).await?;
    let mut summary = Summary { head: text(head.stdout.trim_ascii_end()), ..Summary::default() };
    (summary.branches, summary.branch_count) = refs(git, folder, "refs/heads/").await?;
    (summary.tags, summary.tag_count) = refs(git, folder, "refs/tags/").await?;
    let tip = git.within(folder, "rev-parse").args(["-q", "--verify", "HEAD^{commit}"]).run_to_end(&[]).await?;
    if tip.status.success() {
        let tip = text(tip.stdout.trim_ascii_end());
        summary.commits = commits(git, folder, &tip, MOST_COMMITS).await?.into_iter().map(|(line, ..)| line).collect();
        summary.readme = match entries(git, folder, tip.as_bytes()).await? {
            Some(entries) => readme(git, folder, &[tip.as_bytes(), b":"].concat(), &entries).await?,
            None => None,
        };
    }
    Ok(summary)
}

/// The newest refs below a prefix, and how many there are.
async fn refs(git: &Git, folder: &Folder, prefix: &str) -> Result<(Vec<RefLine>, usize), GitError> {
    let format = "--format=%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)%00%(creatordate:unix)%00%(contents:subject)";
    let output = git.within(folder, "for-each-ref").args(["--sort=-creatordate", format, prefix]).run(&[]).await?;
    let lines = || output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let line = |line: &[u8]| {
        let mut parts = line.splitn(7, |byte| *byte == 0);
        let mut next = || parts.next().unwrap_or_default();
        let (name, kind, id, below, peeled, at, subject) = (next(), next(), next(), next(), next(), next(), next());
        let commit = if kind == b"commit" { Some(id) } else { Some(peeled).filter(|_| below == b"commit") };
        let name = name.strip_prefix(prefix.as_bytes()).unwrap_or(name);
        RefLine {
            name: text(name),
            commit: commit.map(text),
            subject: text(subject),
            at: text(at).parse().unwrap_or_default(),
        }
    };
    Ok((lines().take(MOST_REFS).map(line).collect(), lines().count()))
}

/// Commits from one on, newest first: the line, the message, the parents.
async fn commits(
    git: &Git,
    folder: &Folder,
    from: &str,
    most: usize,
) -> Result<Vec<(CommitLine, String, Vec<String>)>, GitError> {
    let count = format!("--max-count={most}");
    let format = "--format=%H%x00%an%x00%ct%x00%s%x00%P%x00%B%x00";
    let output = git.within(folder, "log").args(["-z", &count, format, from, "--"]).run(&[]).await?;
    let all = text(&output.stdout);
    let parts: Vec<&str> = all.split('\0').collect();
    // Six parts each, and an empty one between two commits.
    let one = |parts: &[&str]| {
        let [id, author, at, subject, parents, message, ..] = parts else { return None };
        let line = CommitLine {
            id: (*id).to_owned(),
            author: (*author).to_owned(),
            at: at.parse().unwrap_or_default(),
            subject: (*subject).to_owned(),
        };
        let message = message.chars().take(MOST_MESSAGE).collect();
        Some((line, message, parents.split_whitespace().map(str::to_owned).collect()))
    };
    Ok(parts.chunks(7).filter_map(one).collect())
}

pub(super) async fn look(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(at): Json<LookAt>,
) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        let Ok(commit) = ObjectId::from_hex(&at.commit) else {
            return Err(ReplicaError::Refused("no commit's id".into()));
        };
        if at.path.contains(&0) || !wants::is_reachable_commit(&this, &replica, commit).await? {
            return Ok(Json(None::<Look>).into_response());
        }
        Ok(Json(look_at(&this.git, &replica.folder, &commit.to_hex(), &at.path).await?).into_response())
    })
    .await
}

async fn look_at(git: &Git, folder: &Folder, id: &str, path: &[u8]) -> Result<Option<Look>, GitError> {
    let Some((commit, message, parents)) = commits(git, folder, id, 1).await?.into_iter().next() else {
        return Ok(None);
    };
    let name = [id.as_bytes(), b":", path].concat();
    let content = if let Some(entries) = entries(git, folder, &name).await? {
        let below = if path.is_empty() { name } else { [name.as_slice(), b"/"].concat() };
        let readme = readme(git, folder, &below, &entries).await?;
        Content::Folder { entries, readme }
    } else {
        match file(git, folder, &name).await? {
            Some(content) => content,
            None => return Ok(None),
        }
    };
    let message = if path.is_empty() { message } else { String::new() };
    Ok(Some(Look { commit, message, parents, content }))
}

/// What a folder has in it; `None` if the name leads to none.
async fn entries(git: &Git, folder: &Folder, name: &[u8]) -> Result<Option<Vec<Entry>>, GitError> {
    let name = OsString::from_vec(name.to_vec());
    let output = git.within(folder, "ls-tree").args(["-z", "-l"]).arg(name).run_to_end(&[]).await?;
    if !output.status.success() {
        return Ok(None);
    }
    let entry = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'\t')?;
        let head = text(&line[..at]);
        let mut words = head.split_whitespace();
        let (mode, _kind, _id, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let kind = match mode {
            "040000" => EntryKind::Folder,
            "120000" => EntryKind::Link,
            "160000" => EntryKind::Submodule,
            _ => EntryKind::File,
        };
        Some(Entry { name: line[at + 1..].to_vec(), kind, bytes: size.parse().ok() })
    };
    let mut found: Vec<Entry> = output.stdout.split(|byte| *byte == 0).filter_map(entry).take(MOST_ENTRIES).collect();
    found.sort_by(|a, b| (a.kind != EntryKind::Folder, &a.name).cmp(&(b.kind != EntryKind::Folder, &b.name)));
    Ok(Some(found))
}

/// The README of a folder, if it has one that is text.
async fn readme(git: &Git, folder: &Folder, below: &[u8], entries: &[Entry]) -> Result<Option<Readme>, GitError> {
    let is = |entry: &&Entry| {
        let name = entry.name.to_ascii_lowercase();
        entry.kind == EntryKind::File && (name == b"readme" || name.starts_with(b"readme."))
    };
    let Some(entry) = entries.iter().find(is) else { return Ok(None) };
    match file(git, folder, &[below, &entry.name].concat()).await? {
        Some(Content::Text { text: said, .. }) => Ok(Some(Readme { name: text(&entry.name), text: said })),
        Some(_) | None => Ok(None),
    }
}

/// A file; `None` if there is none of that name.
async fn file(git: &Git, folder: &Folder, name: &[u8]) -> Result<Option<Content>, GitError> {
    let name = OsString::from_vec(name.to_vec());
    let size = git.within(folder, "cat-file").arg("-s").arg(&name).run_to_end(&[]).await?;
    let Ok(bytes) = text(size.stdout.trim_ascii_end()).parse::<u64>() else { return Ok(None) };
    if bytes > MOST_TEXT {
        return Ok(Some(Content::Other { bytes }));
    }
    let blob = git.within(folder, "cat-file").arg("blob").arg(&name).run_to_end(&[]).await?;
    if !blob.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(blob.stdout).ok().filter(|text| !text.contains('\0'));
    Ok(Some(text.map_or(Content::Other { bytes }, |text| Content::Text { text, bytes })))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
