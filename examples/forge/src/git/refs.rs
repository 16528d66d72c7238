//! Refs as Git has them: listed by `for-each-ref`, moved by one `update-ref --stdin` transaction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenon_refslog::git::{
    FOR_EACH_REF_FORMAT, ListingError, UnreadReason, UnreadRef, parse_for_each_ref, write_changes,
};
use tenon_refslog::{Change, ChecksumKey, Config, ConfigError, DfPolicy, ObjectFormat, RefName, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::objects::ObjectFolders;
use super::{Git, GitError, Running, repository};

/// A ref transaction that is open in a Git process: begun, perhaps prepared, not yet committed.
///
/// Dropped, it is aborted: the process is killed and its locks are cleaned up by [`super::repository::clean`] at the next opening, or
/// by Git itself when [`RefTransaction::abort`] was asked for.
#[derive(Debug)]
pub(crate) struct RefTransaction {
    running: Running,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    limit: Duration,
    /// What Git does not make durable ref by ref: that is done here, for all of them together.
    unsynced: Vec<PathBuf>,
}

/// More refs than this are made durable together. Git syncs each before it writes the next, and waits for the disk every time;
/// of files that are all written, the first sync takes the others along.
const MANY: usize = 16;

impl RefTransaction {
    /// Begins a transaction, gives it `commands` (as `update-ref --stdin -z` reads them) and prepares it: every lock is then held
    /// and every old value is checked.
    ///
    /// # Errors
    /// Git refused, and its line says why; nothing is locked.
    pub(crate) async fn prepare(
        git: &Git,
        repository: &Path,
        folders: &ObjectFolders,
        (commands, unsynced): (&[u8], Vec<PathBuf>),
    ) -> Result<RefTransaction, GitError> {
        let mut invocation = git.within(repository, "update-ref");
        folders.apply(&mut invocation);
        if !unsynced.is_empty() {
            invocation.setting("core.fsync", "all,-reference");
        }
        let mut running = invocation.args(["--no-deref", "--stdin", "-z"]).spawn()?;
        let (Some(stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(GitError::Failed { what: "update-ref", message: "no pipes".into() });
        };
        let limit = running.limit();
        let mut session = RefTransaction { running, stdin, stdout: BufReader::new(stdout), limit, unsynced };
        let mut input = b"start\0".to_vec();
        input.extend_from_slice(commands);
        input.extend_from_slice(b"prepare\0");
        match session.ask(&input, &["start: ok", "prepare: ok"]).await {
            Ok(()) => Ok(session),
            Err(error) => Err(session.why(error).await),
        }
    }

    /// Moves the refs.
    ///
    /// # Errors
    /// Some or none of them moved: compare with what was wanted.
    pub(crate) async fn commit(mut self) -> Result<(), GitError> {
        let unsynced = std::mem::take(&mut self.unsynced);
        match self.ask(b"commit\0", &["commit: ok"]).await {
            Ok(()) => self.close().await?,
            Err(error) => return Err(self.why(error).await),
        }
        if unsynced.is_empty() {
            return Ok(());
        }
        super::objects::blocking("update-ref", move || sync_all(&unsynced)).await
    }

    /// Gives the locks back; nothing moved.
    ///
    /// # Errors
    /// Git did not answer; its locks may have to be cleaned up.
    pub(crate) async fn abort(mut self) -> Result<(), GitError> {
        match self.ask(b"abort\0", &["abort: ok"]).await {
            Ok(()) => self.close().await,
            Err(error) => Err(self.why(error).await),
        }
    }

    async fn ask(&mut self, input: &[u8], answers: &[&str]) -> Result<(), GitError> {
        let (stdin, stdout) = (&mut self.stdin, &mut self.stdout);
        // Writing and reading go together: a long transaction must not wait on a full pipe.
        let write = async {
            stdin.write_all(input).await?;
            stdin.flush().await
        };
        let read = async {
            for answer in answers {
                let mut line = String::new();
                stdout.read_line(&mut line).await?;
                if line.trim_end() != *answer {
                    return Err(std::io::Error::other(format!("expected {answer:?}, got {:?}", line.trim_end())));
                }
            }
            Ok(())
        };
        let both = async {
            let (written, answered) = tokio::join!(write, read);
            answered.and(written)
        };
        match tokio::time::timeout(self.limit, both).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.running.io(source)),
            Err(_) => Err(GitError::TooSlow { what: "update-ref", limit: self.limit }),
        }
    }

    async fn close(self) -> Result<(), GitError> {
        let RefTransaction { running, stdin, .. } = self;
        drop(stdin);
        running.succeed().await
    }

    /// Git's own reason, if it ended by itself; else `error`.
    async fn why(self, error: GitError) -> GitError {
        let RefTransaction { running, stdin, .. } = self;
        drop(stdin);
        match tokio::time::timeout(Duration::from_secs(5), running.succeed()).await {
            Ok(Err(reason)) => reason,
            Ok(Ok(())) | Err(_) => error,
        }
    }
}

/// The files of the refs that change, if they are many, and the folders that they stand in.
fn files(repository: &Path, changes: &[Change]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    if changes.len() <= MANY {
        return Vec::new();
    }
    let of = |change: &Change| repository.join(std::ffi::OsStr::from_bytes(change.name().as_bytes()));
    let mut files: Vec<PathBuf> = changes.iter().map(of).collect();
    let folders: std::collections::BTreeSet<PathBuf> = files
        .iter()
        .flat_map(|file| file.ancestors().skip(1).take_while(|folder| folder.starts_with(repository)))
        .map(Path::to_owned)
        .collect();
    files.push(repository.join("packed-refs"));
    files.extend(folders);
    files
}

/// Makes files and folders durable; what is not there is passed over.
fn sync_all(files: &[PathBuf]) -> std::io::Result<()> {
    for file in files {
        match std::fs::File::open(file) {
            Ok(open) => open.sync_all()?,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All refs that Git lists, and `HEAD`.
pub(crate) type Listing = BTreeMap<RefName, Value>;

/// What the objects of forge's repositories are named by.
pub(crate) const FORMAT: ObjectFormat = ObjectFormat::Sha1;

/// What the refs of every repository are held to. As a push to plain Git, one may delete `x` and make `x/y`.
///
/// # Errors
/// Never, as it stands.
pub(crate) fn rules(checksum_key: [u8; 32]) -> Result<Config, ConfigError> {
    Config::builder(FORMAT, ChecksumKey::new(checksum_key)).df(DfPolicy::FinalState).build()
}

/// Lists the refs of a repository.
///
/// # Errors
/// Git failed, listed what is no ref, or could not read all of them.
pub(crate) async fn list(git: &Git, repository: &Path) -> Result<Listing, GitError> {
    let format = format!("--format={FOR_EACH_REF_FORMAT}");
    let output = git.within(repository, "for-each-ref").arg(format).run(&[]).await?;
    let refs = parse_for_each_ref(&output.stdout, output.stderr.as_bytes(), FORMAT)?;
    let mut listing: Listing = refs.into_iter().collect();
    // Older Gits do not list it, and no Git lists one that names no branch yet.
    let head = git.within(repository, "symbolic-ref").args(["-q", "HEAD"]).run_to_end(&[]).await?;
    if head.status.success() {
        let target = RefName::new(head.stdout.trim_ascii_end())
            .map_err(|error| GitError::Failed { what: "symbolic-ref", message: error.to_string() })?;
        listing.insert(head_name(), Value::Symbolic(target));
    } else if !head.stderr.is_empty() {
        return Err(GitError::Failed { what: "symbolic-ref", message: super::last_line(&head.stderr) });
    }
    Ok(listing)
}

/// Lists the refs of a repository that are about to be made what the log says. What Git cannot read is removed first: no
/// command of Git's replaces a damaged ref.
///
/// # Errors
/// Git or the file system failed.
pub(crate) async fn list_mended(git: &Git, repository: &Path) -> Result<Listing, GitError> {
    let io = |source| GitError::Io { what: "for-each-ref", source };
    match list(git, repository).await {
        Err(GitError::Listing(ListingError::Unread { first, rest })) => {
            for unread in std::iter::once(first).chain(rest) {
                tracing::warn!(folder = %repository.display(), "removed what Git cannot read: {unread}");
                remove_unread(git, repository, &unread).await?;
            }
        }
        Err(error @ (GitError::Listing(_) | GitError::Failed { .. })) => {
            tracing::warn!(folder = %repository.display(), "all refs are made anew: {error}");
            repository::drop_refs(repository).map_err(io)?;
        }
        other => return other,
    }
    list(git, repository).await
}

async fn remove_unread(git: &Git, repository: &Path, unread: &UnreadRef) -> Result<(), GitError> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = RefName::broken(&unread.name)
        .map_err(|error| GitError::Failed { what: "for-each-ref", message: format!("{unread}; {error}") })?;
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    if unread.reason == UnreadReason::BadName {
        git.within(repository, "update-ref").args(["--no-deref", "-d"]).arg(name).run(&[]).await?;
        return Ok(());
    }
    std::fs::remove_file(repository.join(name)).map_err(|source| GitError::Io { what: "for-each-ref", source })
}

/// `HEAD`.
pub(crate) fn head_name() -> RefName {
    RefName::new("HEAD").unwrap_or_else(|_| unreachable!("HEAD is a ref name"))
}

/// The branch that `HEAD` names in a new repository.
pub(crate) fn main_name() -> RefName {
    RefName::new("refs/heads/main").unwrap_or_else(|_| unreachable!("refs/heads/main is a ref name"))
}

/// Makes refs change, as several transactions where Git does not take them as one.
///
/// # Errors
/// Git failed; some may have changed.
pub(crate) async fn carry_out(git: &Git, repository: &Path, changes: &[Change]) -> Result<(), GitError> {
    for text in write_changes(direct(changes), FORMAT) {
        let commands = (text.as_slice(), files(repository, changes));
        RefTransaction::prepare(git, repository, &ObjectFolders::default(), commands).await?.commit().await?;
    }
    move_head(git, repository, changes).await
}

/// The changes of one record, locked and checked as far as Git can do that before they are decided.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What is locked.
    first: Option<RefTransaction>,
    /// Git takes a new name beside the deletion of one that it conflicts with (`a` and `a/b`) only afterwards.
    then: Option<Vec<u8>>,
}

impl Prepared {
    /// Locks what changes, and has Git check it; objects may still be where `folders` says.
    ///
    /// # Errors
    /// Git refused, and its line says why; nothing is locked.
    pub(crate) async fn begin(
        git: &Git,
        repository: &Path,
        folders: &ObjectFolders,
        changes: &[Change],
    ) -> Result<Prepared, GitError> {
        let texts = write_changes(direct(changes), FORMAT);
        let (first, then) = match texts.as_slice() {
            [deletions, rest] if conflict(changes) => (deletions.clone(), Some(rest.clone())),
            _ => (texts.concat(), None),
        };
        let first = if first.is_empty() {
            None
        } else {
            Some(RefTransaction::prepare(git, repository, folders, (&first, files(repository, changes))).await?)
        };
        Ok(Prepared { first, then })
    }

    /// Moves the refs, `HEAD` last.
    ///
    /// # Errors
    /// Some or none of them moved: compare with what was wanted.
    pub(crate) async fn commit(self, git: &Git, repository: &Path, changes: &[Change]) -> Result<(), GitError> {
        if let Some(first) = self.first {
            first.commit().await?;
        }
        if let Some(then) = self.then {
            let commands = (then.as_slice(), files(repository, changes));
            RefTransaction::prepare(git, repository, &ObjectFolders::default(), commands).await?.commit().await?;
        }
        move_head(git, repository, changes).await
    }

    /// Gives the locks back; nothing moved.
    ///
    /// # Errors
    /// Git did not answer; its locks may have to be cleaned up.
    pub(crate) async fn abort(self) -> Result<(), GitError> {
        match self.first {
            Some(first) => first.abort().await,
            None => Ok(()),
        }
    }
}

/// Whether a name is deleted that a new one stands below, or above.
fn conflict(changes: &[Change]) -> bool {
    let split = |deleted: bool| changes.iter().filter(move |change| change.new_value().is_none() == deleted);
    let below = |name: &RefName, other: &RefName| {
        let rest = name.as_bytes().strip_prefix(other.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&b'/'))
    };
    let mut gone: Vec<&RefName> = split(true).map(Change::name).collect();
    gone.sort_unstable();
    split(false).map(Change::name).any(|name| {
        let above = name.parents().any(|parent| gone.binary_search_by(|gone| gone.as_bytes().cmp(parent)).is_ok());
        let next = gone.partition_point(|gone| *gone < name);
        above
            || gone[next..]
                .iter()
                .take_while(|gone| gone.as_bytes().starts_with(name.as_bytes()))
                .any(|gone| below(gone, name))
    })
}

fn direct(changes: &[Change]) -> impl Iterator<Item = &Change> {
    changes.iter().filter(|change| !change.name().is_head())
}

/// Moves `HEAD`, if it is among the changes: by its own command, since `update-ref` knows symbolic refs only from Git 2.46 on.
///
/// # Errors
/// Git failed; `HEAD` is as it was.
pub(crate) async fn move_head(git: &Git, repository: &Path, changes: &[Change]) -> Result<(), GitError> {
    let head = changes.iter().find(|change| change.name().is_head());
    match head.and_then(Change::new_value).and_then(Value::target_name) {
        Some(target) => symbolic_ref(git, repository, &head_name(), target).await,
        None => Ok(()),
    }
}

/// Points a symbolic ref at another ref.
///
/// # Errors
/// Git failed; the ref is as it was.
async fn symbolic_ref(git: &Git, repository: &Path, name: &RefName, to: &RefName) -> Result<(), GitError> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = |name: &RefName| std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
    git.within(repository, "symbolic-ref").arg(text(name)).arg(text(to)).run(&[]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn repository() -> (tempfile::TempDir, std::path::PathBuf, Git, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.git");
        let git = Git::find(Duration::from_secs(20)).await.unwrap();
        repository::make(&git, &path).await.unwrap();
        let tree = git.within(&path, "mktree").run(b"").await.unwrap().stdout;
        let tree = String::from_utf8(tree).unwrap().trim().to_owned();
        let mut commit = git.within(&path, "commit-tree");
        commit.env("GIT_AUTHOR_NAME", "a").env("GIT_AUTHOR_EMAIL", "a@a").args([&tree, "-m", "one"]);
        let id = String::from_utf8(commit.run(b"").await.unwrap().stdout).unwrap().trim().to_owned();
        (folder, path, git, id)
    }

    #[tokio::test]
    async fn prepared_then_committed_or_aborted() {
        let (_folder, path, git, id) = repository().await;
        let update = format!("create refs/heads/main\0{id}\0");
        RefTransaction::prepare(&git, &path, &ObjectFolders::default(), (update.as_bytes(), Vec::new()))
            .await
            .unwrap()
            .abort()
            .await
            .unwrap();
        assert!(!path.join("refs/heads/main").exists());
        let held = RefTransaction::prepare(&git, &path, &ObjectFolders::default(), (update.as_bytes(), Vec::new()))
            .await
            .unwrap();
        assert!(path.join("refs/heads/main.lock").exists());
        held.commit().await.unwrap();
        assert!(path.join("refs/heads/main").exists());
    }

    #[tokio::test]
    async fn a_refusal_tells_gits_reason() {
        let (_folder, path, git, id) = repository().await;
        let update = format!("update refs/heads/main\0{id}\0{}\0", "1".repeat(40));
        let error = RefTransaction::prepare(&git, &path, &ObjectFolders::default(), (update.as_bytes(), Vec::new()))
            .await
            .unwrap_err();
        assert!(error.in_one_line().contains("refs/heads/main"), "{error}");
        assert!(repository::clean(&path).unwrap().is_empty(), "Git gave its locks back");
    }

    /// A power loss cuts a loose ref short: that it is not listed does not mean that it was deleted.
    #[tokio::test]
    async fn damaged_refs_are_named_and_made_anew() {
        let (_folder, path, git, id) = repository().await;
        let create = |name: &str| format!("create refs/heads/{name}\0{id}\0");
        let both = create("main") + &create("other");
        RefTransaction::prepare(&git, &path, &ObjectFolders::default(), (both.as_bytes(), Vec::new()))
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
        let whole = list(&git, &path).await.unwrap();
        let wanted: Vec<Change> = whole
            .iter()
            .map(|(name, value)| Change::new(name.clone(), tenon_refslog::Old::Any, Some(value.clone())))
            .collect();
        std::fs::write(path.join("refs/heads/main"), &id[..20]).unwrap();
        let refused = list(&git, &path).await.unwrap_err().to_string();
        assert!(refused.contains("'refs/heads/main'"), "{refused}");
        assert!(carry_out(&git, &path, &wanted).await.is_err(), "Git cannot write over it");
        let mended = list_mended(&git, &path).await.unwrap();
        assert_eq!(mended.len(), whole.len() - 1);
        carry_out(&git, &path, &wanted).await.unwrap();
        assert_eq!(list(&git, &path).await.unwrap(), whole);
        for (file, damage) in [("packed-refs", "# pack-refs with: sorted \nabcd"), ("HEAD", "ref: refs/he")] {
            std::fs::write(path.join(file), damage).unwrap();
            repository::settle_head(&path).unwrap();
            list_mended(&git, &path).await.unwrap();
            carry_out(&git, &path, &wanted).await.unwrap();
            assert_eq!(list(&git, &path).await.unwrap(), whole, "{file}");
        }
    }

    #[tokio::test]
    async fn dropped_is_killed_and_nothing_moved() {
        let (_folder, path, git, id) = repository().await;
        let update = format!("create refs/heads/main\0{id}\0");
        drop(
            RefTransaction::prepare(&git, &path, &ObjectFolders::default(), (update.as_bytes(), Vec::new()))
                .await
                .unwrap(),
        );
        assert!(!path.join("refs/heads/main").exists());
    }
}
