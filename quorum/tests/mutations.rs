//! Does each safety rule have a test that notices when it is broken?
//!
//! `tests/mutations.txt` lists breaks: a rule, a file, what stands there (`-`) and what is put in its place (`+`). A
//! plain `cargo test` checks that the list still fits the source. With `QUORUM_MUTATIONS=all`, or a part of a rule's text, each such break
//! is made in a copy of the crate, and the crate's own tests must fail on it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, is switched on by the environment, and prints what it did"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

struct Mutation {
    rule: String,
    file: String,
    old: String,
    new: String,
}

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn mutations() -> Vec<Mutation> {
    let text = fs::read_to_string(crate_dir().join("tests/mutations.txt")).unwrap();
    let parse = |entry: &str| {
        let lines = |mark: &str| {
            let marked: Vec<&str> = entry.lines().filter_map(|line| line.strip_prefix(mark)).collect();
            marked.join("\n")
        };
        let mut head = entry.lines();
        Mutation {
            rule: head.next().unwrap().to_owned(),
            file: head.next().unwrap().strip_prefix("in ").unwrap().to_owned(),
            old: lines("- "),
            new: lines("+ "),
        }
    };
    text.split("\n== ").skip(1).map(parse).collect()
}

#[test]
fn the_list_fits_the_source() {
    let all = mutations();
    assert!(all.len() >= 30, "only {} breaks", all.len());
    for mutation in all {
        let source = fs::read_to_string(crate_dir().join(&mutation.file)).unwrap();
        let found = source.matches(&mutation.old).count();
        assert_eq!(found, 1, "{}: in {}, found {found} times: {}", mutation.rule, mutation.file, mutation.old);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs cargo on the copy; whether it went well.
fn cargo(dir: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(dir).env("CARGO_TARGET_DIR", dir.join("target")).env("RUST_BACKTRACE", "0");
    command.args(arguments).output().unwrap().status.success()
}

#[test]
fn every_break_is_noticed() {
    let Ok(which) = env::var("QUORUM_MUTATIONS") else {
        println!("skipped: takes minutes; QUORUM_MUTATIONS=all cargo test -p tenon-quorum --test mutations");
        return;
    };
    let dir = env::temp_dir().join(format!("quorum-mutations-{}", std::process::id()));
    for part in ["src", "tests"] {
        copy(&crate_dir().join(part), &dir.join(part));
    }
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    let own: Vec<&str> = manifest.lines().filter(|line| !line.contains("workspace")).collect();
    let own = (own.join("\n") + "\n")
        .replace("[package]\n", "[package]\nversion = \"0.0.0\"\nedition = \"2024\"\n")
        .replace("[dependencies]\n", "[dependencies]\nthiserror = { version = \"2\", default-features = false }\nserde = { version = \"1\", default-features = false, features = [\"derive\", \"alloc\"], optional = true }\n")
        .replace("[lints]\n", "[workspace]\n");
    fs::write(dir.join("Cargo.toml"), own).unwrap();
    let tests = ["--offline", "--test", "gate", "--test", "scenarios", "--test", "laws", "--test", "model"];
    let build: Vec<&str> = ["test", "--no-run"].into_iter().chain(tests).collect();
    let run: Vec<&str> = ["test"].into_iter().chain(tests).collect();
    assert!(cargo(&dir, &build) && cargo(&dir, &run), "the unbroken copy must pass; see {}", dir.display());
    let mut survivors = Vec::new();
    let chosen = |mutation: &Mutation| which == "all" || mutation.rule.contains(&which);
    for mutation in mutations().into_iter().filter(chosen) {
        let path = dir.join(&mutation.file);
        let source = fs::read_to_string(&path).unwrap();
        fs::write(&path, source.replacen(&mutation.old, &mutation.new, 1)).unwrap();
        assert!(cargo(&dir, &build), "{} does not compile", mutation.rule);
        let noticed = !cargo(&dir, &run);
        println!("{} {}", if noticed { "noticed " } else { "SURVIVED" }, mutation.rule);
        if !noticed {
            survivors.push(mutation.rule);
        }
        fs::write(&path, source).unwrap();
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(survivors.is_empty(), "nothing noticed: {survivors:#?}");
}
