//! The transcript on the README is what the program prints: its lines are run, and what they print is compared.
//!
//! After a change that is wanted, `UPDATE=1 cargo test -p refs --test readme` writes the page anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const REFS: usize = 2_000;

/// The repository of the page. Dates are fixed, so that its ids are.
fn build(folder: &Path) {
    let git = |words: &[&str], input: &str| {
        let mut command = Command::new("git");
        command.current_dir(folder).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let mut child = command.args(words).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    git(&["init", "-q", "--bare", "-b", "main", "big.git"], "");
    let change = |n: usize| format!("refs/changes/{:02}/{n}/1", n % 100);
    let (mut commits, mut moves) = (String::new(), String::new());
    let names = (1..=REFS).map(|n| (change(n), n)).chain([("refs/heads/main".to_owned(), 0)]);
    for (name, n) in names {
        let text = n.to_string();
        writeln!(commits, "commit {name}\ncommitter a <a@b> 0 +0000\ndata {}\n{text}\n", text.len()).unwrap();
    }
    for n in 0..100 {
        writeln!(moves, "update {} refs/changes/99/99/1", change(n * 17 + 100)).unwrap();
    }
    git(&["-C", "big.git", "fast-import", "--quiet"], &commits);
    git(&["-C", "big.git", "pack-refs", "--all"], "");
    fs::write(folder.join("moves"), moves).unwrap();
}

/// The text, with a word for each time and for each checksum of all refs: those differ from run to run.
fn without_what_differs(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n']).map(|word| {
        let bare = word.trim_end();
        let is_checksum = bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_time = bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[10] == b'T';
        if is_checksum || is_time { word.replace(bare, "…") } else { word.to_owned() }
    });
    words.collect()
}

#[test]
fn the_transcript_is_what_the_program_prints() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(page).unwrap();
    let (before, rest) = readme.split_once("```console\n").unwrap();
    let (transcript, after) = rest.split_once("```").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_refs")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut printed = String::new();
    for line in transcript.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("{line} 2>&1")]).current_dir(folder.path()).env("PATH", &path);
        let out = shell.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        writeln!(printed, "$ {line}").unwrap();
        printed.push_str(&String::from_utf8(out.stdout).unwrap());
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(page, format!("{before}```console\n{printed}```{after}")).unwrap();
    } else {
        let (now, page) = (without_what_differs(&printed), without_what_differs(transcript));
        let differ = now.lines().zip(page.lines()).find(|(now, page)| now != page);
        assert_eq!(differ, None, "printed now, and on the page");
        assert_eq!(now.lines().count(), page.lines().count(), "{now}");
    }
}
