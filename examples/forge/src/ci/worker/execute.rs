//! One run of a job: a fresh checkout of its commit, then its script in a shell, then nothing left on disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use sandbox::{Job, Sandbox};
use tokio::sync::{mpsc, watch};

use super::process::{Ended, Guard, Task};
use crate::ci::Jobs;
use crate::ci::plan::PROJECT_DIR;
use crate::ci::wire::{Assignment, RunResult};

/// Where a job apart finds its script.
const SCRIPT: &str = "/job/script";
/// What a job without a sandbox sees of the worker's own environment.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "USER", "SHELL", "TMPDIR"];

/// Where a worker runs its jobs, and how.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) guard: Guard,
    /// Its own folder; emptied at each start.
    pub(crate) folder: PathBuf,
    /// The router, for the checkout.
    pub(crate) server: String,
    /// The worker's token, which the checkout needs and no job sees.
    pub(crate) token: String,
    pub(crate) jobs: Jobs,
}

impl Shop {
    /// Empties the folder: what a killed worker left is of no use.
    pub(crate) fn open(&self) -> io::Result<()> {
        remove(&self.folder)?;
        fs::create_dir_all(&self.folder)
    }

    /// Runs a job to its end, or until `stop` says so.
    pub(crate) async fn run(
        &self,
        job: &Assignment,
        output: &mpsc::Sender<Bytes>,
        stop: &mut watch::Receiver<bool>,
    ) -> RunResult {
        let key = job.lease.key;
        let place = self.folder.join(format!("{}-{}", key.job, key.attempt));
        let result = match self.run_in(&place, job, output, stop).await {
            Ok(Ended::Exit(status)) => RunResult::Exit(status),
            Ok(Ended::Stopped) => RunResult::Stopped,
            Err(Broken(why)) => {
                say(output, &format!("forge: {why}\n")).await;
                RunResult::Broken(why)
            }
        };
        if let Err(e) = remove(&place) {
            tracing::warn!("cannot remove {}: {e}", place.display());
        }
        result
    }

    async fn run_in(
        &self,
        place: &Path,
        job: &Assignment,
        output: &mpsc::Sender<Bytes>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ended, Broken> {
        remove(place)
            .and_then(|()| fs::DirBuilder::new().mode(0o700).create(place))
            .map_err(|e| Broken(format!("no place to build: {e}")))?;
        let checkout = place.join("checkout");
        let short = job.commit.get(..8).unwrap_or(&job.commit);
        say(output, &format!("forge: checking out {short} of {}\n", job.repository)).await;
        for (what, argv) in checkout_steps(&self.server, job, &checkout) {
            let mut env = git_environment();
            if what == "fetch" {
                env.extend(git_token(&self.token));
            }
            let task = Task { argv: &argv, folder: place, env: &env };
            match self.guard.run(&task, output, stop).await {
                Ok(Ended::Exit(0)) => {}
                Ok(Ended::Exit(status)) => return Err(Broken(format!("git {what} ended with status {status}"))),
                Ok(Ended::Stopped) => return Ok(Ended::Stopped),
                Err(e) => return Err(Broken(format!("cannot start git {what}: {e}"))),
            }
        }
        let file = place.join("script");
        let shell = Shell::find();
        fs::write(&file, shell.script(&job.script)).map_err(|e| Broken(format!("cannot write the script: {e}")))?;
        let (argv, env, folder) = match &self.jobs {
            Jobs::Unsafe => {
                let argv = vec![shell.program.clone(), file.into_os_string()];
                (argv, environment(&job.variables, &checkout), checkout)
            }
            Jobs::Apart(sandbox) => {
                let apart = apart(sandbox, place, &shell, &file, &job.variables);
                let argv = apart.map_err(|e| Broken(format!("the sandbox cannot be made: {e}")))?;
                (argv, Sandbox::environment(), place.to_owned())
            }
        };
        let task = Task { argv: &argv, folder: &folder, env: &env };
        self.guard.run(&task, output, stop).await.map_err(|e| Broken(format!("cannot start the shell: {e}")))
    }
}

struct Broken(String);

/// The command that runs a script apart from the machine.
fn apart(
    sandbox: &Sandbox,
    place: &Path,
    shell: &Shell,
    script: &Path,
    variables: &BTreeMap<String, String>,
) -> io::Result<Vec<OsString>> {
    sandbox.give(&place.join("checkout"))?;
    let job = Job::new(place, [shell.program.clone(), SCRIPT.into()]).read_only(script, SCRIPT);
    let job = job.env("LANG", "C.UTF-8").env("CI_PROJECT_DIR", sandbox::CHECKOUT);
    let variables = placed(variables, Path::new(sandbox::CHECKOUT));
    sandbox.argv(&variables.into_iter().fold(job, |job, (name, value)| job.env(name, value)))
}

async fn say(output: &mpsc::Sender<Bytes>, line: &str) {
    let _unheard = output.send(Bytes::copy_from_slice(line.as_bytes())).await;
}

fn checkout_steps(server: &str, job: &Assignment, checkout: &Path) -> [(&'static str, Vec<OsString>); 3] {
    let git = |args: &[&str]| {
        let mut argv: Vec<OsString> = vec!["git".into(), "-C".into(), checkout.into()];
        argv.extend(args.iter().map(OsString::from));
        argv
    };
    let url = format!("{server}/{}.git", job.repository);
    let init = ["git", "init", "--quiet", "--template=", "--initial-branch=main"].map(OsString::from);
    let init = init.into_iter().chain([checkout.into()]).collect();
    [
        ("init", init),
        ("fetch", git(&["fetch", "--quiet", "--depth=1", "--no-tags", &url, &job.commit])),
        ("checkout", git(&["checkout", "--quiet", "--detach", "FETCH_HEAD"])),
    ]
}

/// Nothing of the machine's Git configuration, and no hook of the checkout, has a say.
fn git_environment() -> Vec<(String, OsString)> {
    let mut env = vec![("PATH".to_owned(), std::env::var_os("PATH").unwrap_or_default())];
    for (name, value) in [
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_COUNT", "2"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", "/dev/null"),
        ("GIT_CONFIG_KEY_1", "advice.detachedHead"),
        ("GIT_CONFIG_VALUE_1", "false"),
    ] {
        env.push((name.to_owned(), value.into()));
    }
    env
}

/// The right to fetch, in the environment of one process of Git's: neither in an argument nor in the checkout.
fn git_token(token: &str) -> [(String, OsString); 3] {
    [
        ("GIT_CONFIG_COUNT".to_owned(), "3".into()),
        ("GIT_CONFIG_KEY_2".to_owned(), "http.extraHeader".into()),
        ("GIT_CONFIG_VALUE_2".to_owned(), format!("Authorization: Bearer {token}").into()),
    ]
}

/// Variables in which the folder of the checkout stands where it was not known before.
fn placed(variables: &BTreeMap<String, String>, checkout: &Path) -> BTreeMap<String, String> {
    let folder = checkout.to_string_lossy();
    variables.iter().map(|(name, value)| (name.clone(), value.replace(PROJECT_DIR, &folder))).collect()
}

fn environment(variables: &BTreeMap<String, String>, checkout: &Path) -> Vec<(String, OsString)> {
    let passed = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)));
    let mut env: Vec<_> = passed.collect();
    env.push(("LANG".to_owned(), "C.UTF-8".into()));
    env.push(("CI_PROJECT_DIR".to_owned(), checkout.into()));
    env.extend(placed(variables, checkout).into_iter().map(|(name, value)| (name, value.into())));
    env
}

/// The shell that scripts run in: bash where there is one, as CI files are mostly written for it.
#[derive(Debug)]
struct Shell {
    program: OsString,
    begin: &'static str,
}

impl Shell {
    fn find() -> Self {
        let bash = Path::new("/bin/bash");
        if bash.exists() {
            Self { program: bash.into(), begin: "set -eo pipefail\n" }
        } else {
            Self { program: "/bin/sh".into(), begin: "set -e\n" }
        }
    }

    /// Each command is shown before it runs; the first that fails ends the script.
    fn script(&self, commands: &[String]) -> String {
        let mut script = String::from(self.begin);
        for command in commands {
            let mut lines = command.trim_end().lines();
            let first = lines.next().unwrap_or_default();
            let more = if lines.next().is_some() { " …" } else { "" };
            let shown = format!("$ {first}{more}").replace('\'', r"'\''");
            script.push_str("printf '%s\\n' '");
            script.push_str(&shown);
            script.push_str("'\n");
            script.push_str(command);
            script.push('\n');
        }
        script
    }
}

/// Removes a folder, also one in which a job has locked folders.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let mut left = vec![folder.to_owned()];
            while let Some(path) = left.pop() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        left.push(entry.path());
                    }
                }
            }
            fs::remove_dir_all(folder)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::worker::process::tests::no_guard;
    use std::process::Command;
    use tenon_jobqueue::{Attempt, JobId, JobKey, LeaseToken, Version, WriteId};

    fn git(folder: &Path, args: &[&str]) -> String {
        let env = git_environment();
        let out = Command::new("git").args(args).current_dir(folder).env_clear().envs(env).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A folder that stands for the router: `git fetch` takes it as well as an address.
    fn server(folder: &Path) -> String {
        let repository = folder.join("demo.git");
        fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch=main"]);
        fs::write(repository.join("greeting"), "hello\n").unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first"]);
        git(&repository, &["rev-parse", "HEAD"])
    }

    fn assignment(commit: &str, script: &[&str]) -> Assignment {
        let key = JobKey { job: JobId::new(7), attempt: Attempt::FIRST };
        Assignment {
            lease: LeaseToken { key, version: Version::FIRST, write: WriteId::default() },
            title: "test / a".into(),
            repository: "demo".into(),
            commit: commit.into(),
            script: script.iter().map(|&s| s.to_owned()).collect(),
            variables: BTreeMap::from([("COLOUR".into(), "it's blue".into())]),
            heartbeat_ms: 1000,
            lease_ms: 5000,
            log_limit: 1 << 20,
        }
    }

    async fn run(script: &[&str], wrong_commit: Option<&str>) -> (RunResult, String, usize) {
        let dir = tempfile::tempdir().unwrap();
        let commit = server(dir.path());
        let shop = Shop {
            guard: no_guard(),
            folder: dir.path().join("shop"),
            server: dir.path().display().to_string(),
            token: "t".into(),
            jobs: Jobs::Unsafe,
        };
        shop.open().unwrap();
        let (output, mut lines) = mpsc::channel(64);
        let (_stop, mut stopped) = watch::channel(false);
        let job = assignment(wrong_commit.unwrap_or(&commit), script);
        let result = shop.run(&job, &output, &mut stopped).await;
        drop(output);
        let mut all = Vec::new();
        while let Some(part) = lines.recv().await {
            all.extend_from_slice(&part);
        }
        (result, String::from_utf8(all).unwrap(), fs::read_dir(&shop.folder).unwrap().count())
    }

    #[tokio::test]
    async fn a_script_runs_in_a_fresh_checkout_and_leaves_nothing() {
        let script = ["cat greeting", "echo \"$COLOUR\"", "pwd | grep -c checkout\ntrue", "ls -A"];
        let (result, log, left) = run(&script, None).await;
        assert_eq!(result, RunResult::Exit(0), "{log}");
        let lines: Vec<_> = log.lines().skip(1).collect();
        let wanted = [
            "$ cat greeting",
            "hello",
            "$ echo \"$COLOUR\"",
            "it's blue",
            "$ pwd | grep -c checkout …",
            "1",
            "$ ls -A",
            ".git",
            "greeting",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn the_first_command_that_fails_ends_it() {
        let (result, log, _) = run(&["echo 'a'", "(exit 4)", "echo never"], None).await;
        assert_eq!(result, RunResult::Exit(4));
        assert!(log.ends_with("$ echo 'a'\na\n$ (exit 4)\n"), "{log}");
    }

    #[tokio::test]
    async fn a_commit_that_is_not_there_breaks_the_run() {
        let (result, log, _) = run(&["true"], Some(&"1".repeat(40))).await;
        assert_eq!(result, RunResult::Broken("git fetch ended with status 128".into()));
        assert!(log.contains("forge: git fetch ended with status 128"), "{log}");
    }
}
