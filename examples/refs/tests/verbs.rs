//! The program from the outside: a repository is imported, changed, compacted, compared, exported and verified.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

struct World {
    folder: tempfile::TempDir,
}

fn finished(mut command: Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

impl World {
    /// A bare repository with a commit, `branches` branches and as many annotated tags as a tenth of that.
    fn new(branches: usize) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.bare("repo.git");
        let tree = world.git(&["hash-object", "-w", "-t", "tree", "--stdin"], b"");
        for (name, parents) in [("one", &[][..]), ("two", &["-p", "one"][..])] {
            let mut words = vec!["commit-tree", tree.trim(), "-m", name];
            words.extend(parents);
            let id = world.git(&words, b"");
            world.git(&["update-ref", &format!("refs/tags/{name}"), id.trim()], b"");
            // Named without a folder, so that the second can name the first.
            world.git(&["update-ref", &format!("refs/heads/{name}"), id.trim()], b"");
        }
        let one = world.git(&["rev-parse", "refs/tags/one"], b"");
        let one = one.trim();
        let creates: Vec<String> =
            (0..branches).map(|n| format!("create refs/changes/{:02}/{n}/1 {one}\n", n % 100)).collect();
        world.git(&["update-ref", "--stdin"], creates.concat().as_bytes());
        for n in 0..branches / 10 {
            world.git(&["tag", "-a", "-m", "a tag", &format!("v{n}"), "refs/tags/one"], b"");
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn git_in(&self, repository: &str, words: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.path(repository)).args(["-c", "core.hooksPath=/dev/null"]).args(words);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b");
        }
        let out = finished(command, input);
        assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn git(&self, words: &[&str], input: &[u8]) -> String {
        self.git_in("repo.git", words, input)
    }

    fn bare(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        self.git_in(name, &["init", "-q", "--bare", "-b", "main"], b"");
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refs"));
        command.current_dir(self.folder.path()).args(words);
        finished(command, b"")
    }

    fn refs(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert!(out.status.success(), "refs {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What the program says when it refuses.
    fn refused(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert_eq!(out.status.code(), Some(1), "refs {words:?}: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8(out.stderr).unwrap()
    }

    /// Ten imports, each after a branch moved and another came or went.
    fn history(&self) {
        self.refs(&["import", "repo.git", "log"]);
        for n in 0..10 {
            self.git(&["update-ref", "refs/heads/topic", ["refs/tags/one", "refs/tags/two"][n % 2]], b"");
            let name = format!("refs/heads/short/{}", n / 2);
            if n % 2 == 0 {
                self.git(&["update-ref", &name, "refs/tags/one"], b"");
            } else {
                self.git(&["update-ref", "-d", &name], b"");
            }
            self.refs(&["import", "repo.git", "log"]);
        }
    }

    fn files(&self, log: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path(log)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap() != "lock");
        files.sort();
        files
    }
}

fn every_ref(world: &World, repository: &str) -> String {
    world.git_in(repository, &["for-each-ref", "--format=%(objectname) %(*objectname) %(symref) %(refname)"], b"")
}

/// The refs that are exported are read back by Git, each as it was.
#[test]
fn exported_refs_are_read_by_git() {
    let world = World::new(300);
    world.history();
    world.bare("copy.git");
    world.refs(&["export", "log", "-o", "copy.git/packed-refs"]);
    // The same objects, so that Git can look at what the refs name.
    fs::write(
        world.path("copy.git/objects/info/alternates"),
        format!("{}\n", world.path("repo.git/objects").display()),
    )
    .unwrap();
    assert_eq!(every_ref(&world, "copy.git"), every_ref(&world, "repo.git"));
    // Git itself writes the very same file.
    world.git(&["pack-refs", "--all"], b"");
    let packed = fs::read(world.path("repo.git/packed-refs")).unwrap();
    assert!(packed == fs::read(world.path("copy.git/packed-refs")).unwrap());
    let listed = world.refs(&["export", "log", "--as", "for-each-ref", "--only", "refs/"]);
    assert_eq!(listed, every_ref(&world, "repo.git"));
    assert_eq!(world.refs(&["export", "log", "--only", "refs/tags/v1", "--as", "for-each-ref"]).lines().count(), 11);
}

#[test]
fn versions_are_kept_told_and_folded() {
    let world = World::new(20);
    world.history();
    assert_eq!(world.refs(&["log", "log"]).lines().count(), 11);
    let topic = world.refs(&["log", "log", "refs/heads/topic"]);
    assert_eq!(topic.lines().count(), 11, "it moved ten times");
    assert_eq!(world.refs(&["diff", "log@11", "repo.git"]), "");
    let step = world.refs(&["diff", "log@2", "log@3"]);
    assert!(step.lines().count() == 2 && step.contains(" - refs/heads/short/0"), "{step}");
    assert!(world.refs(&["import", "repo.git", "log"]).contains("nothing has changed"));

    // What is kept can be asked for, version by version; by default that is everything here.
    assert_eq!(world.refs(&["compact", "log", "--dry-run"]), "nothing to do\n");
    assert!(world.refs(&["compact", "log"]).starts_with("0 steps"));
    let before: Vec<String> = (1..11).map(|n| world.refs(&["diff", &format!("log@{n}"), "log"])).collect();
    let keep = ["--keep", "4"];
    assert!(world.refs(&[&["compact", "log", "--dry-run"][..], &keep].concat()).starts_with("would fold 1..7"));
    let over = world.refs(&[&["compact", "log", "--budget", "1"][..], &keep].concat());
    assert!(over.starts_with("the next step is over the budget"), "{over}");
    let said = world.refs(&[&["compact", "log"][..], &keep].concat());
    assert!(said.starts_with("folded 1..7 (6 pieces"), "{said}");
    assert_eq!(world.refs(&["log", "log"]).lines().count(), 6);
    for n in 7..11 {
        assert_eq!(world.refs(&["diff", &format!("log@{n}"), "log"]), before[n - 1], "version {n} is kept");
    }
    let gone = world.refused(&["diff", "log@2", "log@3"]);
    assert!(gone.contains("version 2 was folded: only versions 1 and 7 can be told apart"), "{gone}");
    world.refs(&["verify", "log", "--against", "repo.git"]);

    // Nothing is kept: a log as short as its last version, and as good as ever.
    for n in 0..40 {
        world.git(&["update-ref", &format!("refs/heads/many/{n}"), "refs/tags/two"], b"");
    }
    world.refs(&["import", "repo.git", "log"]);
    let said = world.refs(&["compact", "log", "--keep", "0"]);
    assert!(said.contains("merged into the snapshot"), "{said}");
    assert_eq!(world.files("log").len(), 3, "key, records, snapshot");
    world.refs(&["verify", "log", "--against", "repo.git"]);
    assert_eq!(world.refs(&["log", "log", "--changes"]).lines().count(), 1);
}

/// A ref that Git cannot read was not deleted: whatever is wrong with a repository is said, with the name of the ref, and the
/// log stays as it is.
#[test]
fn damage_is_no_deletion() {
    let world = World::new(3);
    world.history();
    world.git(&["symbolic-ref", "refs/heads/zz", "refs/heads/one"], b"");
    world.refs(&["import", "repo.git", "log"]);
    let before = world.refs(&["log", "log"]);
    let one = fs::read(world.path("repo.git/refs/heads/one")).unwrap();
    let file = |name: &str| world.path("repo.git").join(name);
    for (name, damage) in [
        ("refs/heads/one", &one[..20]),
        ("refs/heads/one", b""),
        ("refs/heads/one", b"ref: \n"),
        ("refs/heads/one", b"0000000000000000000000000000000000000000\n"),
        ("refs/heads/one", b"1234567890123456789012345678901234567890\n"),
        ("refs/heads/bad..name", &one),
        ("HEAD", b"ref: refs/heads/ma in\n"),
    ] {
        let good = fs::read(file(name)).ok();
        fs::write(file(name), damage).unwrap();
        for words in [
            &["import", "repo.git", "log"][..],
            &["verify", "log", "--against", "repo.git"],
            &["diff", "log", "repo.git"],
        ] {
            let said = world.refused(words);
            let named = said.contains(name) || (name == "HEAD" && said.contains("repo.git"));
            assert!(named, "{words:?} on {name} as {:?}: {said}", damage.escape_ascii().to_string());
        }
        assert!(world.run(&["import", "repo.git", "new"]).status.code() == Some(1) && !file("../new").exists());
        match good {
            Some(good) => fs::write(file(name), good).unwrap(),
            None => fs::remove_file(file(name)).unwrap(),
        }
        assert_eq!(world.refs(&["log", "log"]), before, "the log is as it was");
    }
    fs::write(file("packed-refs"), b"# pack-refs with: sorted \n1234").unwrap();
    assert!(world.refused(&["import", "repo.git", "log"]).contains("packed-refs"));
    fs::remove_file(file("packed-refs")).unwrap();
    assert!(world.refs(&["import", "repo.git", "log"]).contains("nothing has changed"));
}

/// Git passes over symbolic refs that lead nowhere, in silence: they are there all the same, on both backends.
#[test]
fn symbolic_refs_that_lead_nowhere_are_kept() {
    for backend in ["files", "reftable"] {
        let world = World::new(0);
        fs::create_dir(world.path("its.git")).unwrap();
        world.git_in("its.git", &["init", "-q", "--bare", "-b", "main", &format!("--ref-format={backend}")], b"");
        let id =
            world.git_in("its.git", &["commit-tree", "-m", "one", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"], b"");
        for name in ["refs/heads/b", "refs/heads/end"] {
            world.git_in("its.git", &["update-ref", name, id.trim()], b"");
        }
        for (name, to) in [("refs/heads/a", "refs/heads/b"), ("refs/heads/chain", "refs/heads/a")] {
            world.git_in("its.git", &["symbolic-ref", name, to], b"");
        }
        world.refs(&["import", "its.git", "log"]);
        let chain = world.refs(&["log", "log", "refs/heads/chain"]);
        assert!(chain.contains("ref:refs/heads/a"), "what it holds, not where it ends: {chain}");
        world.git_in("its.git", &["update-ref", "-d", "refs/heads/b"], b"");
        let said = world.refs(&["import", "its.git", "log"]);
        assert!(said.starts_with("version 2: 1 changes"), "{backend}: only the branch is gone: {said}");
        // What was an id leads nowhere now.
        world.git_in("its.git", &["symbolic-ref", "refs/heads/end", "refs/heads/nowhere"], b"");
        assert!(world.refs(&["import", "its.git", "log"]).starts_with("version 3: 1 changes"));
        let end = world.refs(&["log", "log", "refs/heads/end"]);
        assert!(end.contains("3 ref:refs/heads/nowhere"), "{backend}: {end}");
        world.refs(&["verify", "log", "--against", "its.git"]);
        if backend == "files" {
            world.git_in("its.git", &["symbolic-ref", "refs/heads/new", "refs/heads/nowhere"], b"");
            assert!(world.refs(&["import", "its.git", "log"]).starts_with("version 4: 1 changes"));
        }
    }
}

/// Git takes what `diff --update-ref` prints, and is then where the log says.
#[test]
fn a_repository_is_brought_to_a_version() {
    let world = World::new(20);
    world.history();
    let text = world.run(&["diff", "--update-ref", "repo.git", "log@1"]).stdout;
    world.git(&["update-ref", "--stdin", "-z"], &text);
    assert_eq!(world.refs(&["diff", "repo.git", "log@1"]), "");
    let differs = world.refused(&["verify", "log", "--against", "repo.git"]);
    assert!(differs.contains("repo.git differs from the log in 1 refs"), "{differs}");
}

/// Whatever byte of whatever file is altered, `verify` does not pass.
#[test]
fn a_flipped_byte_is_found_in_every_file() {
    let world = World::new(200);
    world.history();
    world.refs(&["compact", "log", "--keep", "1"]);
    world.git(&["update-ref", "-d", "refs/heads/topic"], b"");
    world.refs(&["import", "repo.git", "log"]);
    world.refs(&["verify", "log"]);
    let files = world.files("log");
    assert_eq!(files.len(), 4, "key, records, segment, snapshot");
    for file in files {
        let good = fs::read(&file).unwrap();
        let places = (0..good.len()).step_by(1 + good.len() / 40).chain([good.len() - 1]);
        for at in places {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&file, damaged).unwrap();
            let said = world.refused(&["verify", "log"]);
            assert!(said.starts_with("refs: "), "{}, byte {at}: {said}", file.display());
        }
        fs::write(&file, good).unwrap();
    }
    world.refs(&["verify", "log"]);
}

#[test]
fn a_record_that_was_cut_short_is_told_and_written_again() {
    let world = World::new(20);
    world.history();
    let path = world.path("log/records");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(world.refused(&["verify", "log"]).contains("not written whole"));
    assert!(world.refs(&["log", "log"]).contains("not written whole"));
    assert!(world.refs(&["import", "repo.git", "log"]).starts_with("version 11: 2 changes"));
    world.refs(&["verify", "log", "--against", "repo.git"]);
    let again = fs::read(&path).unwrap();
    assert_eq!(again.len(), whole.len(), "the same but for the time, and for the checksums that count it");
}

#[test]
fn refusals_say_what_is_wrong() {
    let world = World::new(0);
    world.refs(&["import", "repo.git", "log"]);
    fs::create_dir(world.path("full")).unwrap();
    fs::write(world.path("full/file"), "").unwrap();
    let says = |words: &[&str], what: &str| {
        let said = world.refused(words);
        assert!(said.contains(what), "{words:?}: {said}");
    };
    says(&["log", "nowhere"], "nowhere is no log of refs");
    says(&["import", "nowhere", "log"], "nowhere is no Git repository");
    says(&["import", "repo.git", "full"], "full is neither a log nor empty");
    says(&["diff", "log@0", "log"], "version 0 is before the snapshot at 1");
    says(&["diff", "log@7", "log"], "version 7 is not there yet, the newest is 1");
    says(&["log", "log", "refs/../x"], "'refs/../x' is no ref's name");
    let lock = fs::File::options().write(true).open(world.path("log/lock")).unwrap();
    lock.lock().unwrap();
    says(&["import", "repo.git", "log"], "somebody else is writing to log");
    world.refs(&["verify", "log"]);
    drop(lock);
    world.refs(&["import", "repo.git", "log"]);
    fs::create_dir(world.path("wide.git")).unwrap();
    world.git_in("wide.git", &["init", "-q", "--bare", "--object-format=sha256"], b"");
    says(&["import", "wide.git", "log"], "the log is of format sha1, the repository of sha256");
    assert_eq!(world.run(&["frobnicate"]).status.code(), Some(2), "a word that is no verb");
}

/// No file is there under its name before it is whole, so a name that was left over beside is nothing.
#[test]
fn what_a_crash_left_beside_is_not_read() {
    let world = World::new(5);
    world.history();
    let before = world.refs(&["log", "log"]);
    fs::write(world.path("log/snapshot-00000000000000000099.new"), "half").unwrap();
    fs::write(world.path("log/segment-00000000000000000001-00000000000000000004.new"), "half").unwrap();
    assert_eq!(world.refs(&["log", "log"]), before);
    // A fold that was kept, and whose records were not dropped any more.
    let records = fs::read(world.path("log/records")).unwrap();
    world.refs(&["compact", "log", "--keep", "0"]);
    let folded = world.refs(&["log", "log"]);
    fs::write(world.path("log/records"), &records).unwrap();
    assert_eq!(world.refs(&["log", "log"]), folded);
    world.refs(&["verify", "log", "--against", "repo.git"]);
    world.refs(&["import", "repo.git", "log"]);
    assert!(fs::read(world.path("log/records")).unwrap().is_empty(), "the next writer drops them");
}
