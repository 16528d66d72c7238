//! The snapshot of the project that every job of a run starts from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::git::Repository;
use crate::tree;

/// Where a job in the sandbox sees the objects of the project's repository, read-only.
pub(crate) const OBJECTS_INSIDE: &str = "/job/objects";

/// Which files a job finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Tracked files as they are now, and files that are neither tracked nor ignored.
    Working,
    /// The files of the commit.
    Committed,
}

/// What a snapshot holds.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) tracked: BTreeSet<String>,
    /// In words, for whoever looks on.
    pub(crate) what: String,
}

/// Makes the snapshot, with a repository of its own that borrows the project's objects from `objects`.
pub(crate) fn make(
    repository: &Repository,
    which: Which,
    with_submodules: bool,
    to: &Path,
    objects: &Path,
) -> Result<Made> {
    let short: String = repository.commit.sha.chars().take(8).collect();
    let made = if which == Which::Committed {
        repository.export(to)?;
        let tracked: BTreeSet<String> = repository.tracked(true)?.into_iter().collect();
        let what = format!("the {} files of commit {short}", tracked.len());
        Made { tracked, what }
    } else {
        let (tracked, untracked) = std::thread::scope(|scope| {
            let tracked = scope.spawn(|| repository.tracked(false));
            let untracked = repository.untracked();
            (tracked.join(), untracked)
        });
        let tracked = tracked.map_err(|_| anyhow::anyhow!("the tracked files cannot be listed"))??;
        let untracked = untracked?;
        // A file with conflicts is listed once a side.
        let all: BTreeSet<&String> = tracked.iter().chain(&untracked).collect();
        let all: Vec<String> = all.into_iter().cloned().collect();
        tree::snapshot(&repository.root, &all, to, with_submodules).context("the project's files cannot be copied")?;
        let what = format!(
            "{} tracked files as they are now on {short}, and {} that are neither tracked nor ignored",
            tracked.len(),
            untracked.len()
        );
        Made { tracked: tracked.into_iter().collect(), what }
    };
    repository_for_jobs(repository, which, &to.join(".git"), objects).context("the jobs' repository cannot be made")?;
    Ok(made)
}

fn repository_for_jobs(repository: &Repository, which: Which, git: &Path, objects: &Path) -> Result<()> {
    fs::create_dir_all(git.join("objects/info"))?;
    fs::write(git.join("objects/info/alternates"), format!("{}\n", objects.display()))?;
    tree::copy_all(&repository.common.join("refs"), &git.join("refs"))?;
    for name in ["packed-refs", "shallow"] {
        let from = repository.common.join(name);
        if from.is_file() {
            tree::copy(&from, &git.join(name))?;
        }
    }
    let index = repository.own.join("index");
    if which == Which::Working && index.is_file() {
        tree::copy(&index, &git.join("index"))?;
    }
    // As in a runner's checkout, no branch is checked out.
    fs::write(git.join("HEAD"), format!("{}\n", repository.commit.sha))?;
    let mut config = "[core]\n\tbare = false\n\tlogallrefupdates = true\n".to_owned();
    let format = u8::from(repository.commit.sha.len() == 64);
    // Writing into a text cannot fail.
    let _written = writeln!(config, "\trepositoryformatversion = {format}");
    if format == 1 {
        config.push_str("[extensions]\n\tobjectformat = sha256\n");
    }
    let gitlab_ci::Commit { host, project, .. } = &repository.commit;
    let _written = writeln!(config, "[remote \"origin\"]\n\turl = https://{host}/{project}.git");
    fs::write(git.join("config"), config)?;
    Ok(())
}
