//! Refs as Git has them: listed by `for-each-ref`, moved by one `update-ref --stdin` transaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tenon_refslog::{Change, ObjectId, Old, RefName, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::{Git, GitError, Running};

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
}

impl RefTransaction {
    /// Begins a transaction, gives it `commands` (as `update-ref --stdin -z` reads them) and prepares it: every lock is then held
    /// and every old value is checked.
    ///
    /// # Errors
    /// Git refused, and its line says why; nothing is locked.
    pub(crate) async fn prepare(git: &Git, repository: &Path, commands: &[u8]) -> Result<RefTransaction, GitError> {
        let mut running = git.within(repository, "update-ref").args(["--no-deref", "--stdin", "-z"]).spawn()?;
        let (Some(stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(GitError::Failed { what: "update-ref", message: "no pipes".into() });
        };
        let limit = running.limit();
        let mut session = RefTransaction { running, stdin, stdout: BufReader::new(stdout), limit };
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
        match self.ask(b"commit\0", &["commit: ok"]).await {
            Ok(()) => self.close().await,
            Err(error) => Err(self.why(error).await),
        }
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

/// All refs that Git lists, and `HEAD`.
pub(crate) type Listing = BTreeMap<RefName, Value>;

/// Lists the refs of a repository.
///
/// # Errors
/// Git failed, or listed what is no ref.
pub(crate) async fn list(git: &Git, repository: &Path) -> Result<Listing, GitError> {
    let strange = |line: &[u8]| GitError::Failed {
        what: "for-each-ref",
        message: format!("cannot read {:?}", String::from_utf8_lossy(line)),
    };
    let mut listing = Listing::new();
    let output =
        git.within(repository, "for-each-ref").arg("--format=%(objectname) %(symref) %(refname)").run(&[]).await?;
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (Some(id), Some(target), Some(name)) = (words.next(), words.next(), words.next()) else {
            return Err(strange(line));
        };
        let name = RefName::new(name).or_else(|_| RefName::broken(name)).map_err(|_| strange(line))?;
        let value = if target.is_empty() {
            ObjectId::from_hex(id).map(Value::from).map_err(|_| strange(line))?
        } else {
            Value::Symbolic(RefName::new(target).map_err(|_| strange(line))?)
        };
        listing.insert(name, value);
    }
    let head = git.within(repository, "symbolic-ref").args(["-q", "HEAD"]).run_to_end(&[]).await?;
    if head.status.success() {
        let target = head.stdout.trim_ascii_end();
        let target = RefName::new(target).map_err(|_| strange(target))?;
        listing.insert(head_name(), Value::Symbolic(target));
    }
    Ok(listing)
}

/// `HEAD`.
pub(crate) fn head_name() -> RefName {
    RefName::new("HEAD").unwrap_or_else(|_| unreachable!("HEAD is a ref name"))
}

/// The branch that `HEAD` names in a new repository.
pub(crate) fn main_name() -> RefName {
    RefName::new("refs/heads/main").unwrap_or_else(|_| unreachable!("refs/heads/main is a ref name"))
}

/// What has to be done in Git to make refs hold something, whatever they hold now.
///
/// Git refuses to delete `a` and create `a/b` in one transaction; so deletes come first, in their own.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    deletes: Vec<u8>,
    upserts: Vec<u8>,
    symbolic: Vec<(RefName, RefName)>,
}

impl Moves {
    /// From what each ref is to hold; `None` deletes.
    pub(crate) fn to<'a>(wanted: impl IntoIterator<Item = (&'a RefName, Option<&'a Value>)>) -> Moves {
        let mut moves = Moves::default();
        for (name, value) in wanted {
            match value {
                None => command(&mut moves.deletes, "delete", name, &[""]),
                Some(Value::Direct(target)) => {
                    command(&mut moves.upserts, "update", name, &[&target.id().to_hex(), ""]);
                }
                Some(Value::Symbolic(target)) => moves.symbolic.push((name.clone(), target.clone())),
            }
        }
        moves
    }

    /// The difference that makes `is` the same as `wanted`.
    pub(crate) fn between(is: &Listing, wanted: &Listing) -> Moves {
        let gone = is.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name, None));
        let new =
            wanted.iter().filter(|(name, value)| is.get(*name) != Some(value)).map(|(name, value)| (name, Some(value)));
        Moves::to(gone.chain(new))
    }

    /// Does them.
    ///
    /// # Errors
    /// Git failed; some may be done.
    pub(crate) async fn carry_out(&self, git: &Git, repository: &Path) -> Result<(), GitError> {
        for part in [&self.deletes, &self.upserts] {
            if !part.is_empty() {
                RefTransaction::prepare(git, repository, part).await?.commit().await?;
            }
        }
        for (name, target) in &self.symbolic {
            symbolic_ref(git, repository, name, target).await?;
        }
        Ok(())
    }
}

/// Points a symbolic ref at another ref.
///
/// # Errors
/// Git failed; the ref is as it was.
pub(crate) async fn symbolic_ref(git: &Git, repository: &Path, name: &RefName, to: &RefName) -> Result<(), GitError> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = |name: &RefName| std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
    git.within(repository, "symbolic-ref").arg(text(name)).arg(text(to)).run(&[]).await?;
    Ok(())
}

/// A record's direct changes as one checked transaction for `update-ref --stdin -z`: each old value must be what is remembered.
pub(crate) fn checked_commands(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    let hex = |value: &Value| value.id().map(|id| id.to_hex()).unwrap_or_default();
    for change in changes {
        let name = change.name();
        let old = match change.old() {
            Old::Any => String::new(),
            Old::Absent => "0".repeat(40),
            Old::Is(value) => hex(value),
        };
        match change.new_value() {
            None => command(&mut out, "delete", name, &[&old]),
            Some(value @ Value::Direct(_)) => command(&mut out, "update", name, &[&hex(value), &old]),
            Some(Value::Symbolic(_)) => {}
        }
    }
    out
}

fn command(out: &mut Vec<u8>, verb: &str, name: &RefName, values: &[&str]) {
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    for value in values {
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::repository;
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
        RefTransaction::prepare(&git, &path, update.as_bytes()).await.unwrap().abort().await.unwrap();
        assert!(!path.join("refs/heads/main").exists());
        let held = RefTransaction::prepare(&git, &path, update.as_bytes()).await.unwrap();
        assert!(path.join("refs/heads/main.lock").exists());
        held.commit().await.unwrap();
        assert!(path.join("refs/heads/main").exists());
    }

    #[tokio::test]
    async fn a_refusal_tells_gits_reason() {
        let (_folder, path, git, id) = repository().await;
        let update = format!("update refs/heads/main\0{id}\0{}\0", "1".repeat(40));
        let error = RefTransaction::prepare(&git, &path, update.as_bytes()).await.unwrap_err();
        assert!(error.in_one_line().contains("refs/heads/main"), "{error}");
        assert!(repository::clean(&path).unwrap().is_empty(), "Git gave its locks back");
    }

    #[tokio::test]
    async fn dropped_is_killed_and_nothing_moved() {
        let (_folder, path, git, id) = repository().await;
        let update = format!("create refs/heads/main\0{id}\0");
        drop(RefTransaction::prepare(&git, &path, update.as_bytes()).await.unwrap());
        assert!(!path.join("refs/heads/main").exists());
    }
}
