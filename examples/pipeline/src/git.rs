//! What Git knows of the project: commit, branch, files, changes. All of it through the `git` command, read-only.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use gitlab_ci::Commit;

/// A repository with a work tree and at least one commit.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The root of its work tree.
    pub(crate) root: PathBuf,
    /// Where its objects and shared refs are.
    pub(crate) common: PathBuf,
    /// Where `HEAD` and the index of this work tree are.
    pub(crate) own: PathBuf,
    pub(crate) commit: Commit,
    /// The checked-out branch, if there is one.
    pub(crate) branch: Option<String>,
}

impl Repository {
    /// The repository that holds this folder.
    pub(crate) fn find(folder: &Path) -> Result<Self> {
        let git = |args: &[&str]| run(folder, args);
        let words =
            ["rev-parse", "--show-toplevel", "--path-format=absolute", "--git-common-dir", "--absolute-git-dir"];
        let told = git(&words).map_err(|why| {
            anyhow::anyhow!(
                "{} is not in the work tree of a Git repository ({why}): run `git init` and commit first",
                folder.display()
            )
        })?;
        let mut lines = told.lines().map(PathBuf::from);
        let (Some(root), Some(common), Some(own)) = (lines.next(), lines.next(), lines.next()) else {
            bail!("git did not say where the repository of {} is", folder.display());
        };
        // Each is a process of its own: together they take as long as the longest.
        let (log, refs, remote) = std::thread::scope(|scope| {
            let log = scope.spawn(|| git(&["log", "-1", "--format=%H%x00%P%x00%an <%ae>%x00%aI%x00%B"]));
            let names = ["refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master"];
            let refs =
                scope.spawn(move || git(&[&["for-each-ref", "--format=%(refname) %(symref)"][..], &names].concat()));
            let remote = git(&["config", "--get", "remote.origin.url"]).unwrap_or_default();
            (log.join().ok().and_then(Result::ok), refs.join().ok().and_then(Result::ok), remote)
        });
        let log = log.with_context(|| format!("{} has no commit yet: a pipeline runs for a commit", root.display()))?;
        let mut parts = log.splitn(5, '\0');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (sha, parents, author, timestamp) = (part(), part(), part(), part());
        let message = part().trim_end().to_owned();
        let head = fs::read_to_string(own.join("HEAD")).unwrap_or_default();
        let branch = head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned);
        let default_branch = default_branch(&refs.unwrap_or_default());
        let (host, project) = place_of(remote.trim(), &root);
        let before = parents.split(' ').next().filter(|parent| !parent.is_empty());
        let before_sha = before.map_or_else(|| "0".repeat(40), str::to_owned);
        let commit = Commit { sha, before_sha, message, author, timestamp, project, host, default_branch };
        Ok(Self { root, common, own, commit, branch })
    }

    /// What a `git` command prints, as lines ended by a zero byte.
    fn names(&self, args: &[&str]) -> Result<Vec<String>> {
        let text = run(&self.root, args)?;
        Ok(text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Tracked files.
    pub(crate) fn tracked(&self, committed: bool) -> Result<Vec<String>> {
        if committed {
            self.names(&["ls-tree", "-r", "-z", "--name-only", "HEAD"])
        } else {
            self.names(&["ls-files", "-z"])
        }
    }

    /// Files that are neither tracked nor ignored.
    pub(crate) fn untracked(&self) -> Result<Vec<String>> {
        self.names(&["ls-files", "-z", "--others", "--exclude-standard"])
    }

    /// The bytes of a file of the commit.
    pub(crate) fn committed(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let name = format!("HEAD:{path}");
        let done = git(&self.root, &["cat-file", "blob", &name]).output().context("git cannot be started")?;
        Ok(done.status.success().then_some(done.stdout))
    }

    /// Puts the files of the commit into a folder.
    pub(crate) fn export(&self, to: &Path) -> Result<()> {
        let index = to.with_extension("index");
        let mut prefix = to.as_os_str().to_owned();
        prefix.push("/");
        for args in [
            vec![OsStr::new("read-tree"), OsStr::new("HEAD")],
            vec![OsStr::new("checkout-index"), OsStr::new("--all"), OsStr::new("--prefix"), &prefix],
        ] {
            let mut command = git::<&OsStr>(&self.root, &args);
            let done = command.env("GIT_INDEX_FILE", &index).output().context("git cannot be started")?;
            if !done.status.success() {
                bail!("git cannot write the commit's files: {}", String::from_utf8_lossy(&done.stderr).trim());
            }
        }
        fs::remove_file(&index)?;
        Ok(())
    }

    /// The commit that changes are counted from, and how it is called; `None` if there is none.
    pub(crate) fn base(&self, wanted: Option<&str>, target: Option<&str>) -> Result<Option<(String, String)>> {
        if let Some(wanted) = wanted {
            let candidates =
                [format!("refs/remotes/origin/{wanted}"), format!("refs/heads/{wanted}"), wanted.to_owned()];
            let found = candidates.iter().find_map(|name| Some((name, self.merge_base(name)?)));
            let Some((name, base)) = found else { bail!("there is no commit `{wanted}` to compare with") };
            return Ok(Some((base, format!("the merge base with {name}"))));
        }
        let default = target.unwrap_or(&self.commit.default_branch);
        for name in [format!("refs/remotes/origin/{default}"), format!("refs/heads/{default}")] {
            if let Some(base) = self.merge_base(&name).filter(|base| *base != self.commit.sha) {
                return Ok(Some((base, format!("the merge base with {}", name.trim_start_matches("refs/")))));
            }
        }
        let before = run(&self.root, &["rev-parse", "--verify", "--quiet", "HEAD~1"]).ok();
        Ok(before.map(|before| (before.trim().to_owned(), "the commit before".to_owned())))
    }

    fn merge_base(&self, with: &str) -> Option<String> {
        run(&self.root, &["merge-base", "HEAD", with]).ok().map(|base| base.trim().to_owned())
    }

    /// The files that differ from a commit, uncommitted changes included.
    pub(crate) fn changed_since(&self, base: &str, committed: bool) -> Result<Vec<String>> {
        if committed {
            return self.names(&["diff", "--name-only", "-z", base, "HEAD"]);
        }
        let mut changed = self.names(&["diff", "--name-only", "-z", base])?;
        changed.extend(self.untracked()?);
        Ok(changed)
    }
}

fn git<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(args).stdin(Stdio::null());
    command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    command
}

fn run(folder: &Path, args: &[&str]) -> Result<String> {
    let done = git(folder, args).output().context("`git` cannot be started: is it installed?")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        bail!("{}", if said.is_empty() { done.status.to_string() } else { said });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn default_branch(refs: &str) -> String {
    let remote = refs.lines().find_map(|line| line.strip_prefix("refs/remotes/origin/HEAD refs/remotes/origin/"));
    let own = ["main", "master"]
        .into_iter()
        .find(|name| refs.lines().any(|line| line.trim() == format!("refs/heads/{name}")));
    remote.or(own).unwrap_or("main").to_owned()
}

/// Host and path of a remote's URL; for a project without one, a path of its own.
fn place_of(url: &str, root: &Path) -> (String, String) {
    let rest = url.split_once("://").map(|(_, rest)| rest);
    let (host, path) = match rest {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        // `git@host:group/name.git`
        None => url.split_once(':').filter(|(host, _)| !host.contains('/')).unwrap_or(("", "")),
    };
    let host = host.rsplit('@').next().unwrap_or(host).split(':').next().unwrap_or_default();
    let path = path.trim_matches('/').trim_end_matches(".git");
    let name = root.file_name().map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned());
    let is_project = host.contains('.') && path.contains('/') && !path.contains("..");
    if is_project { (host.to_owned(), path.to_owned()) } else { ("gitlab.com".to_owned(), format!("local/{name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_says_host_and_path() {
        let of = |url: &str| place_of(url, Path::new("/x/name"));
        let place = |host: &str, path: &str| (host.to_owned(), path.to_owned());
        assert_eq!(of("git@gitlab.com:group/sub/x.git"), place("gitlab.com", "group/sub/x"));
        assert_eq!(of("https://user:pass@example.org:8443/g/x"), place("example.org", "g/x"));
        assert_eq!(of("ssh://git@example.org/g/x.git/"), place("example.org", "g/x"));
        for local in ["", "/srv/x.git", "../x", "file:///x"] {
            assert_eq!(of(local), place("gitlab.com", "local/name"), "{local}");
        }
    }

    #[test]
    fn the_default_branch_is_the_remotes_or_main() {
        let remote = "refs/heads/main \nrefs/remotes/origin/HEAD refs/remotes/origin/trunk\n";
        assert_eq!(default_branch(remote), "trunk");
        assert_eq!(default_branch("refs/heads/master \n"), "master");
        assert_eq!(default_branch(""), "main");
    }
}
