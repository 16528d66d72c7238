//! Real Git is the oracle: random transactions against `git update-ref --stdin -z`, on both of its backends.
//!
//! Deeper: `REFSLOG_STEPS=5000 cargo test -p tenon-refslog --test git_oracle`; a failure prints its seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the reasons that are ours are told apart by their codes")]
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

/// The symbolic refs, by the files in which the `files` backend keeps them: Git lists none that leads nowhere.
fn symbolic_in_files(repository: &Repository) -> Vec<(String, String)> {
    let names = common::NAMES.iter().chain(&common::CLASSES[1..]);
    let mut found: Vec<(String, String)> = names
        .filter_map(|name| {
            let text = std::fs::read_to_string(repository.folder.path().join(name)).ok()?;
            Some(((*name).to_owned(), text.strip_prefix("ref: ")?.trim_end().to_owned()))
        })
        .collect();
    found.sort();
    found
}

fn symbolic_in(refs: &Refs) -> Vec<(String, String)> {
    refs.iter().filter_map(|(name, value)| Some((name.to_string(), value.target_name()?.to_string()))).collect()
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

/// Whether the crate refuses what Git would carry out: by a policy that keeps replicas and `HEAD` whole. Such a transaction is
/// not shown to Git, which might then have no repository any more.
fn refused_by_policy_alone(refused: &Refused, transaction: &Transaction) -> bool {
    refused.reasons().any(|(at, reason)| {
        let command = &transaction.commands()[at];
        let sets = matches!(command.action(), Action::Set(_));
        let name = command.name();
        match reason {
            Reason::HeadDeletion | Reason::HeadTarget | Reason::PerWorktree => true,
            // By its name, Git refuses it too.
            Reason::PseudoRef => !["FETCH_HEAD", "MERGE_HEAD"].map(str::as_bytes).contains(&name.as_bytes()),
            // Git makes those and does not delete them.
            Reason::OutsideRefs => sets || name.as_bytes().starts_with(b"refs/") || name.is_root(),
            // A reason of Git's own.
            other => !matches!(other.code(), 1..=15),
        }
    })
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
    let (mut admitted, mut refused, mut refused_alone, mut compared, mut policy, mut odd) = (0, 0, 0, 0, 0, 0);
    for step in 0..steps {
        let (transaction, verdict, text) = loop {
            let transaction = common::transaction_over(&mut chance, &refs, &ids, common::of_any_class);
            let verdict = refs.admit(&transaction);
            // What Git has no words for cannot be shown to it.
            let Ok(text) = git::write_transaction(&transaction, format) else { continue };
            if !verdict.as_ref().is_err_and(|refused| refused_by_policy_alone(refused, &transaction)) {
                break (transaction, verdict, text);
            }
            policy += 1;
        };
        odd += usize::from(
            transaction.commands().iter().any(|command| common::CLASSES[1..].contains(&&*command.name().to_string())),
        );
        // What is written is read as it was meant.
        let read = git::parse_update_ref(&text, format);
        assert_eq!(read.is_ok_and(|read| refs.admit(&read).is_ok()), verdict.is_ok(), "{transaction:#?}");
        let answer = git.transact(&repository, &text);
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
            if backend == "files" {
                assert_eq!(symbolic_in_files(&repository), symbolic_in(&refs), "{step} {seed}");
            }
            compared += 1;
        }
    }
    say(&format!(
        "{backend} {format}: {steps} transactions, {admitted} admitted by both, {refused} refused by both, \
         {refused_alone} by Git alone, as listed; {odd} touched odd names; {policy} more were refused by policy alone; \
         all refs compared {compared} times"
    ));
    assert!(odd > steps / 10 && policy > steps / 10, "{odd} {policy}: no class of name is left out");
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

/// Streams of commands with words that steer in any place, cut off anywhere: what the parser takes, Git commits if it is
/// admitted; what the parser refuses, Git does not carry out.
#[test]
fn streams_that_are_cut_off_are_not_committed() {
    if !git_is_there() {
        return;
    }
    let (seed, steps) = seed_and_steps(5, 250);
    let repository = Repository::new("files", ObjectFormat::Sha1);
    let ids = repository.commits(4);
    let mut chance = Chance::new(seed);
    let main = Value::Symbolic(RefName::new("refs/heads/main").unwrap());
    let head = [(RefName::new("HEAD").unwrap(), main)];
    let mut refs = Refs::from_entries(open_config(), LineageId(1), Version(1), head).unwrap();
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"], b"");
    let (mut committed, mut cut) = (0, 0);
    for step in 0..steps {
        let transaction = common::transaction(&mut chance, &refs, &ids);
        let admitted = refs.admit(&transaction);
        let policy = admitted.as_ref().is_err_and(|refused| refused_by_policy_alone(refused, &transaction));
        let alone = transaction.commands().iter().any(|command| refused_by_git_alone("files", command, &refs));
        let Ok(commands) = git::write_transaction(&transaction, ObjectFormat::Sha1) else { continue };
        if policy || alone {
            continue;
        }
        let mut text = Vec::new();
        for (word, odds) in [("start", 2), ("", 1), ("prepare", 2), ("start", 12), ("commit", 2)] {
            if word.is_empty() {
                text.extend_from_slice(&commands);
            } else if chance.one_in(odds) {
                text.extend_from_slice(word.as_bytes());
                text.push(0);
            }
            if word != "commit" && chance.one_in(30) {
                text.extend_from_slice(b"option no-deref\0");
            }
        }
        if chance.one_in(3) {
            // At the end of a field: Git does not miss the last zero of a whole one.
            let ends: Vec<usize> = (0..text.len()).filter(|at| text[*at] == 0).map(|at| at + 1).collect();
            text.truncate(*chance.pick(&ends));
        }
        let (ok, _, error) = repository.git(&["update-ref", "--stdin", "-z"], &text);
        let story =
            || format!("step {step}, seed {seed}: {error}\n{}", String::from_utf8_lossy(&text).replace('\0', "\n"));
        let parsed = git::parse_update_ref(&text, ObjectFormat::Sha1);
        match parsed.as_ref().map(|read| refs.admit(read)) {
            Ok(Ok(admission)) => {
                assert!(ok, "Git refuses what is read and admitted: {}", story());
                if let Some(record) = admission.record() {
                    let _ = refs.apply(record).unwrap();
                    committed += 1;
                }
            }
            Ok(Err(_)) => assert!(!ok, "Git takes what is read and refused: {}", story()),
            // Perhaps without a complaint: what was begun is aborted.
            Err(_) => cut += 1,
        }
        let (git_has, have) = (repository.for_each_ref(), printed(&refs));
        assert_eq!(String::from_utf8_lossy(&git_has), String::from_utf8_lossy(&have), "{parsed:?}; {}", story());
        assert_eq!(symbolic_in_files(&repository), symbolic_in(&refs), "{parsed:?}; {}", story());
    }
    assert!(committed > steps / 20 && cut > steps / 10, "{committed} committed, {cut} cut off");
}

/// The longest component that is admitted is the longest that Git can lock a file for.
#[test]
fn the_widest_name_is_the_widest_that_git_takes() {
    if !git_is_there() {
        return;
    }
    let repository = Repository::new("files", ObjectFormat::Sha1);
    let id = repository.commits(1)[0];
    let refs = Refs::new(common::config(), LineageId(1));
    for (bytes, takes) in [(250, true), (251, false)] {
        let create = Transaction::from(Command::create(common::name(&format!("refs/heads/{}", "n".repeat(bytes))), id));
        let text = git::write_transaction(&create, ObjectFormat::Sha1).unwrap();
        assert_eq!(refs.admit(&create).is_ok(), takes, "{bytes}");
        assert_eq!(repository.git(&["update-ref", "--stdin", "-z"], &text).0, takes, "{bytes}");
    }
}

/// What Git cannot read is told with its name; that it is not listed does not mean that it was deleted.
#[test]
fn a_listing_that_is_not_complete_is_none() {
    if !git_is_there() {
        return;
    }
    let repository = Repository::new("files", ObjectFormat::Sha1);
    let id = repository.commits(1)[0].to_hex();
    let file = |name: &str| repository.folder.path().join("refs/heads").join(name);
    let listed = || {
        let format = format!("--format={}", git::FOR_EACH_REF_FORMAT);
        let out = git(repository.folder.path(), &["for-each-ref", &format]).wait_with_output().unwrap();
        assert!(out.status.success(), "Git says so on standard error only");
        git::parse_for_each_ref(&out.stdout, &out.stderr, ObjectFormat::Sha1)
    };
    for name in ["a", "b"] {
        repository.git(&["update-ref", &format!("refs/heads/{name}"), &id], b"");
    }
    assert_eq!(listed().unwrap().len(), 2);
    for (name, text, reason) in [
        ("b", &id[..20], git::UnreadReason::Broken),
        ("b", "", git::UnreadReason::Broken),
        ("bad..name", &*id, git::UnreadReason::BadName),
    ] {
        std::fs::write(file(name), text).unwrap();
        let told = listed().unwrap_err();
        let git::ListingError::Unread { first, rest } = &told else { panic!("{told}") };
        assert_eq!((first.reason, rest.len()), (reason, 0), "{told}");
        assert!(told.to_string().contains(&format!("refs/heads/{name}")), "{told}");
        std::fs::write(file("b"), format!("{id}\n")).unwrap();
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
    let entries = git::parse_for_each_ref(&repository.for_each_ref(), b"", format).unwrap();
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
