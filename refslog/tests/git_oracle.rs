//! Real Git is the oracle: random transactions against `git update-ref --stdin -z`, on both of its backends.
//!
//! Deeper: `REFSLOG_STEPS=5000 cargo test -p tenon-refslog --test git_oracle`; a failure prints its seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test says what it skipped and reads its variables")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::iter::successors;
use std::mem::replace;
use std::path::Path;
use std::process::{Child, ChildStdout, Command as Process, Stdio};

use common::{Chance, open_config, seed_and_steps};
use tenon_refslog::{
    Action, Command, Config, Deref, LineageId, ObjectFormat, ObjectId, Old, Reason, RefName, Refs, Refused, RootRefs,
    Transaction, Value, Version, diff, git,
};

struct Repository {
    folder: tempfile::TempDir,
    format: ObjectFormat,
}

impl Repository {
    fn git(&self, arguments: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
        run(self.folder.path(), arguments, input)
    }

    fn new(backend: &str, format: ObjectFormat) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments =
            ["init", "-q", "--bare", &format!("--ref-format={backend}"), &format!("--object-format={format}")];
        let (ok, _, error) = run(folder.path(), &arguments, b"");
        assert!(ok, "{error}");
        Self { folder, format }
    }

    fn commits(&self, count: usize) -> Vec<ObjectId> {
        let (_, tree, _) = self.git(&["hash-object", "-w", "-t", "tree", "--stdin"], b"");
        let tree = String::from_utf8(tree).unwrap();
        let commit = |n| self.git(&["commit-tree", tree.trim(), "-m", &format!("{n}")], b"").1;
        (0..count).map(|n| ObjectId::from_hex(commit(n).trim_ascii()).unwrap()).collect()
    }

    fn for_each_ref(&self) -> Vec<u8> {
        let format = format!("--format={}", git::FOR_EACH_REF_FORMAT);
        let (ok, out, error) = self.git(&["for-each-ref", "--include-root-refs", &format], b"");
        assert!(ok, "{error}");
        out
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Child {
    Process::new("git")
        .args(["-c", "core.fsync=none", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "a")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@b")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(folder: &Path, arguments: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
    let mut child = git(folder, arguments);
    // Git may refuse before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    (out.status.success(), out.stdout, String::from_utf8_lossy(&out.stderr).into_owned())
}

/// A `git update-ref --stdin -z` that takes one transaction after another, until it refuses one or hears no more: that ends it.
struct UpdateRef {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl UpdateRef {
    fn start(repository: &Repository) -> Self {
        let mut child = git(repository.folder.path(), &["update-ref", "--stdin", "-z"]);
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn transact(&mut self, repository: &Repository, commands: &[u8]) -> Result<(), String> {
        let text = [b"start\0", commands, b"commit\0"].concat();
        // Git may refuse before it has read all.
        let _ = self.child.stdin.as_mut().unwrap().write_all(&text);
        let mut line = String::new();
        while self.answers.read_line(&mut line).unwrap() > 0 {
            if line == "commit: ok\n" {
                return Ok(());
            }
            line.clear();
        }
        let ended = replace(self, Self::start(repository)).child.wait_with_output().unwrap();
        assert!(!ended.status.success(), "Git ended in peace");
        Err(String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}

/// Says it past the test harness, which keeps what a passing test prints to itself.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "git_oracle: {text}");
}

/// Git from 2.46 on has the commands for symbolic refs that these tests use.
fn git_is_there() -> bool {
    let version = Process::new("git").arg("version").output().map(|out| out.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).into_owned();
    let mut numbers = version.trim_start_matches("git version ").split('.').map_while(|part| part.parse::<u32>().ok());
    let there = numbers.next().zip(numbers.next()).is_some_and(|version| version >= (2, 46));
    if !there {
        assert!(std::env::var_os("REFSLOG_NEEDS_GIT").is_none(), "REFSLOG_NEEDS_GIT is set and there is no Git 2.46");
        say("skipped: no Git 2.46 or later");
    }
    there
}

fn printed(refs: &Refs) -> Vec<u8> {
    git::write_for_each_ref(refs).unwrap()
}

/// What Git 2.47 refuses although the crate follows its rules elsewhere; everything else must agree.
fn refused_by_git_alone(backend: &str, command: &Command, refs: &Refs) -> bool {
    if *command.old() == Old::Any && *command.action() != Action::Verify {
        return false;
    }
    let target = |name: &RefName| refs.get(name).and_then(|value| value.target_name().cloned());
    // Before it compares an old value with a symbolic ref's own, `reftable` resolves it from the ref itself; `files`, which
    // the crate follows, from its target: one symbolic ref further.
    let read = |name: &RefName| if backend == "reftable" { refs.resolve(name) } else { refs.resolve(&target(name)?) };
    let itself = command.deref() == Deref::Never && target(command.name()).is_some() && read(command.name()).is_none();
    // A change of the ref that `HEAD` names is noted in `HEAD`'s reflog, and so `HEAD` is read in that way too, and compared
    // with the old value; a symbolic one is taken for an expectation that `HEAD` leads nowhere.
    let head = RefName::new("HEAD").unwrap();
    let next = |at: &RefName| target(at).filter(|_| command.deref() == Deref::Follow);
    let mut reached = successors(Some(command.name().clone()), next).take(100);
    let noted = !command.name().is_head() && target(&head).is_some_and(|below| reached.any(|name| name == below));
    let trips = || match read(&head) {
        Some(end) => matches!(command.old(), Old::Is(Value::Symbolic(_))) && refs.get(&end).is_some(),
        None => true,
    };
    itself || noted && trips()
}

/// Random transactions: Git and the crate agree on each verdict, and on the refs after each few.
fn agree(backend: &str, format: ObjectFormat, seed: u64, steps: usize) {
    let repository = Repository::new(backend, format);
    let ids = repository.commits(4);
    let config = Config::builder(format, common::key()).root_refs(RootRefs::Any).max_symref_depth(64).build().unwrap();
    let head = RefName::new("HEAD").unwrap();
    let main = Value::Symbolic(RefName::new("refs/heads/main").unwrap());
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"], b"");
    let mut refs = Refs::from_entries(config, LineageId(1), Version(1), [(head, main)]).unwrap();
    let mut chance = Chance::new(seed);
    let mut git = UpdateRef::start(&repository);
    let (mut admitted, mut refused, mut refused_alone, mut compared) = (0, 0, 0, 0);
    for step in 0..steps {
        let (transaction, verdict) = loop {
            let transaction = common::transaction(&mut chance, &refs, &ids);
            let verdict = refs.admit(&transaction);
            // Git takes a repository whose `HEAD` was deleted for none.
            let beheads = |refused: &Refused| refused.reasons().any(|(_, why)| *why == Reason::HeadDeletion);
            if !verdict.as_ref().is_err_and(beheads) {
                break (transaction, verdict);
            }
        };
        let answer = git.transact(&repository, &git::write_transaction(&transaction, format));
        let story = || {
            format!(
                "{backend} {format}, step {step}; replay: REFSLOG_SEED={seed} REFSLOG_STEPS={steps} cargo test -p \
                 tenon-refslog --test git_oracle\n{transaction:#?}\ngit: {answer:?}\nrefs:\n{}",
                String::from_utf8_lossy(&printed(&refs))
            ) + &format!("{:?}", refs.iter().collect::<Vec<_>>())
        };
        let alone = transaction.commands().iter().any(|command| refused_by_git_alone(backend, command, &refs));
        match verdict {
            Ok(_) if alone => {
                assert!(answer.is_err(), "Git admits what only the crate should: {}", story());
                refused_alone += 1;
            }
            Ok(admission) => {
                assert!(answer.is_ok(), "Git refuses what is admitted: {}", story());
                admitted += 1;
                if let Some(record) = admission.record() {
                    let _ = refs.apply(record).unwrap();
                }
            }
            Err(refusal) => {
                assert!(answer.is_err(), "Git admits what is refused ({refusal}): {}", story());
                refused += 1;
            }
        }
        if step % 8 == 0 || step + 1 == steps {
            let (git_has, have) = (repository.for_each_ref(), printed(&refs));
            assert_eq!(String::from_utf8_lossy(&git_has), String::from_utf8_lossy(&have), "{step} {seed}");
            compared += 1;
        }
    }
    say(&format!(
        "{backend} {format}: {steps} transactions, {admitted} admitted by both, {refused} refused by both, \
         {refused_alone} by Git alone, as listed; all refs compared {compared} times"
    ));
    assert!(admitted > steps / 10 && refused > steps / 10, "{admitted} admitted, {refused} refused: too lopsided");
}

#[test]
fn verdicts_and_refs_agree_with_the_files_backend() {
    if git_is_there() {
        let (seed, steps) = seed_and_steps(1, 1_500);
        agree("files", ObjectFormat::Sha1, seed, steps);
    }
}

#[test]
fn verdicts_and_refs_agree_with_the_reftable_backend() {
    if git_is_there() {
        let (seed, steps) = seed_and_steps(2, 1_500);
        agree("reftable", ObjectFormat::Sha1, seed, steps);
    }
}

#[test]
fn verdicts_and_refs_agree_under_sha256() {
    if git_is_there() {
        let (seed, steps) = seed_and_steps(3, 1_000);
        agree("files", ObjectFormat::Sha256, seed, steps);
    }
}

/// A segment exported to Git brings a repository at its base to its end.
#[test]
fn exported_changes_bring_git_along() {
    if !git_is_there() {
        return;
    }
    let (seed, steps) = seed_and_steps(4, 40);
    let repository = Repository::new("files", ObjectFormat::Sha1);
    let ids = repository.commits(4);
    let mut chance = Chance::new(seed);
    let mut refs = Refs::new(open_config(), LineageId(1));
    let main = Value::Symbolic(RefName::new("refs/heads/main").unwrap());
    let first = Transaction::from(Command::create(RefName::new("HEAD").unwrap(), main));
    let _ = refs.apply(refs.clone().admit(&first).unwrap().record().unwrap()).unwrap();
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"], b"");
    for step in 0..steps {
        let behind = refs.clone();
        for _ in 0..8 {
            let transaction = common::transaction(&mut chance, &refs, &ids);
            if let Some(record) = refs.clone().admit(&transaction).ok().and_then(tenon_refslog::Admitted::into_record) {
                let _ = refs.apply(&record).unwrap();
            }
        }
        for text in git::write_changes(&diff(&behind, &refs), ObjectFormat::Sha1) {
            let (ok, _, error) = repository.git(&["update-ref", "--stdin", "-z"], &text);
            assert!(ok, "step {step}, seed {seed}: {error}\n{}", String::from_utf8_lossy(&text).replace('\0', "\n"));
        }
        let (git_has, have) = (repository.for_each_ref(), printed(&refs));
        let all: Vec<_> = refs.iter().collect();
        assert_eq!(
            String::from_utf8_lossy(&git_has),
            String::from_utf8_lossy(&have),
            "step {step}, seed {seed}: {all:?}"
        );
    }
}

/// What Git prints is what the crate reads, and what the crate writes is what Git reads.
#[test]
fn texts_pass_between_git_and_the_crate() {
    if !git_is_there() {
        return;
    }
    let repository = Repository::new("files", ObjectFormat::Sha1);
    let ids = repository.commits(2);
    let format = repository.format;
    for (name, id) in [("refs/heads/main", ids[0]), ("refs/heads/x/y", ids[1])] {
        repository.git(&["update-ref", "--create-reflog", "-m", "why", name, &id.to_hex()], b"");
    }
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"], b"");
    repository.git(&["tag", "-a", "-m", "a tag", "v1", "refs/heads/main"], b"");
    let entries = git::parse_for_each_ref(&repository.for_each_ref(), format).unwrap();
    assert_eq!(entries.len(), 4);
    let refs = Refs::from_entries(open_config(), LineageId(1), Version(1), entries.clone()).unwrap();
    assert_eq!(printed(&refs), repository.for_each_ref());

    repository.git(&["pack-refs", "--all"], b"");
    let packed = std::fs::read(repository.folder.path().join("packed-refs")).unwrap();
    let direct: Vec<_> = entries.iter().filter(|(_, value)| value.id().is_some()).cloned().collect();
    assert_eq!(git::parse_packed_refs(&packed, format).unwrap(), direct);
    assert_eq!(git::write_packed_refs(direct).unwrap(), packed);

    let log = std::fs::read(repository.folder.path().join("logs/refs/heads/main")).unwrap();
    let lines = git::parse_reflog(&log, format).unwrap();
    assert_eq!((lines[0].old, lines[0].new, lines[0].message.as_slice()), (None, Some(ids[0]), b"why".as_slice()));
    let mut again = Vec::new();
    for line in &lines {
        git::write_reflog_line(&mut again, line, format);
    }
    assert_eq!(again, log);
}
