//! A bare repository as a folder: made whole or not at all, kept to its settings, freed of what a killed Git left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Git, GitError};

/// The only configuration a repository of forge has; every other setting comes with each process.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";

/// Makes the bare repository `folder`, or leaves it as it is when it is there.
///
/// It is made beside its place and moved there, so that a half-made one is never seen. One call at a time; what stands in its
/// place without being a repository is removed.
///
/// # Errors
/// Git or the file system failed; `folder` is then absent.
pub(crate) async fn make(git: &Git, folder: &Path) -> Result<(), GitError> {
    if folder.join("HEAD").is_file() {
        return Ok(());
    }
    let io = |source| GitError::Io { what: "init", source };
    let draft = folder.with_extension("making");
    remove(&draft).map_err(io)?;
    remove(folder).map_err(io)?;
    fs::create_dir_all(&draft).map_err(io)?;
    git.bare("init")
        .args(["--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main"])
        .arg(&draft)
        .run(&[])
        .await?;
    fs::write(draft.join("config"), CONFIG).map_err(io)?;
    fs::create_dir_all(draft.join("objects/pack")).map_err(io)?;
    for part in ["objects/pack", "objects", "refs", ""] {
        sync_folder(&draft.join(part)).map_err(io)?;
    }
    fs::rename(&draft, folder).map_err(io)?;
    sync_folder(folder.parent().unwrap_or(folder)).map_err(io)
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in a folder durable: Git syncs files, never folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes freshly migrated packs durable by name.
pub(crate) fn sync_objects(repository: &Path) -> io::Result<()> {
    sync_folder(&repository.join("objects/pack"))?;
    sync_folder(&repository.join("objects"))
}

/// Puts back the repository's own `config` if somebody changed it; tells whether that was needed. (A repository's hooks
/// need no such care: Git is told to look for hooks elsewhere.)
pub(crate) fn settle_config(repository: &Path) -> io::Result<Settled> {
    let config = repository.join("config");
    if fs::read(&config).is_ok_and(|found| found == CONFIG.as_bytes()) {
        return Ok(Settled::AsMade);
    }
    let draft = repository.join("config.making");
    fs::write(&draft, CONFIG)?;
    fs::rename(&draft, &config)?;
    Ok(Settled::PutBack)
}

/// Puts a `HEAD` in the place of one that a power loss cut short: without one, a folder is no repository to Git, and
/// nothing in it can be mended.
pub(crate) fn settle_head(repository: &Path) -> io::Result<Settled> {
    let head = repository.join("HEAD");
    let text = fs::read(&head)?;
    let text = text.strip_suffix(b"\n").unwrap_or_default();
    let symbolic = text
        .strip_prefix(b"ref: ")
        .is_some_and(|name| name.starts_with(b"refs/heads/") && tenon_refslog::RefName::new(name).is_ok());
    if symbolic || tenon_refslog::ObjectId::from_hex(text).is_ok() {
        return Ok(Settled::AsMade);
    }
    let draft = repository.join("HEAD.making");
    fs::write(&draft, "ref: refs/heads/main\n")?;
    fs::rename(&draft, &head)?;
    Ok(Settled::PutBack)
}

/// Removes all refs but `HEAD`, whatever they are: they are about to be made anew.
pub(crate) fn drop_refs(repository: &Path) -> io::Result<()> {
    match fs::remove_file(repository.join("packed-refs")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove(&repository.join("refs"))?;
    fs::create_dir(repository.join("refs"))?;
    sync_folder(&repository.join("refs"))?;
    sync_folder(repository)
}

/// What [`settle_config`] or [`settle_head`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    AsMade,
    PutBack,
}

/// Deletes what Git processes that were killed left in a repository. None may be running in it.
///
/// Quarantines, temporary packs, lock files of refs (one of which blocks its ref for ever) and `.keep` files (which make a
/// retry of the same pack fail). Returns what was deleted.
pub(crate) fn clean(repository: &Path) -> io::Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    let objects = repository.join("objects");
    for entry in list(&objects)? {
        if name(&entry).starts_with("tmp_objdir-") {
            fs::remove_dir_all(&entry)?;
            gone.push(entry);
        } else if name(&entry).starts_with("tmp_obj_") {
            fs::remove_file(&entry)?;
            gone.push(entry);
        }
    }
    for entry in list(&objects.join("pack"))? {
        let file = name(&entry);
        if file.starts_with("tmp_") || file.starts_with(".tmp-") || ends_in(&entry, "keep") {
            fs::remove_file(&entry)?;
            gone.push(entry);
        }
    }
    unlock(repository, &mut gone)?;
    Ok(gone)
}

/// Deletes the lock files of refs that a killed Git left: one blocks its ref for ever. Whoever asks has the right to move refs,
/// and no Git process of its own at work on them.
pub(crate) fn unlock(repository: &Path, gone: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in list(repository)? {
        if ends_in(&entry, "lock") || ends_in(&entry, "making") {
            fs::remove_file(&entry)?;
            gone.push(entry);
        }
    }
    for folder in ["refs", "reftable"] {
        clean_locks(&repository.join(folder), gone)?;
    }
    Ok(())
}

fn clean_locks(folder: &Path, gone: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in list(&folder)? {
            if fs::symlink_metadata(&entry)?.is_dir() {
                folders.push(entry);
            } else if ends_in(&entry, "lock") {
                fs::remove_file(&entry)?;
                gone.push(entry);
            }
        }
    }
    Ok(())
}

/// The entries of a folder; none if it is not there.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn leftovers_go_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("1.git");
        let git = Git::find(Duration::from_secs(20)).await.unwrap();
        make(&git, &repository).await.unwrap();
        let before = tree(&repository);
        fs::create_dir_all(repository.join("objects/tmp_objdir-incoming-ab12/pack")).unwrap();
        fs::create_dir_all(repository.join("refs/heads/deep")).unwrap();
        for leftover in [
            "objects/tmp_objdir-incoming-ab12/pack/x",
            "objects/pack/tmp_pack_Q",
            "objects/pack/pack-1.keep",
            "refs/heads/deep/main.lock",
            "packed-refs.lock",
            "HEAD.lock",
        ] {
            fs::write(repository.join(leftover), "x").unwrap();
        }
        assert_eq!(clean(&repository).unwrap().len(), 6);
        fs::remove_dir(repository.join("refs/heads/deep")).unwrap();
        assert_eq!(tree(&repository), before);
        assert!(clean(&repository).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_changed_config_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("1.git");
        let git = Git::find(Duration::from_secs(20)).await.unwrap();
        make(&git, &repository).await.unwrap();
        assert_eq!(settle_config(&repository).unwrap(), Settled::AsMade);
        fs::write(repository.join("config"), "[core]\n\thooksPath = /tmp\n").unwrap();
        assert_eq!(settle_config(&repository).unwrap(), Settled::PutBack);
        assert_eq!(settle_config(&repository).unwrap(), Settled::AsMade);
    }

    fn tree(folder: &Path) -> Vec<PathBuf> {
        let mut folders = vec![folder.to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in list(&folder).unwrap() {
                if entry.is_dir() {
                    folders.push(entry.clone());
                }
                found.push(entry);
            }
        }
        found.sort();
        found
    }
}
