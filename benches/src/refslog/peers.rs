//! The peers: `gix-ref` on a `packed-refs` file, and the installed Git on both of its backends.
//!
//! Git writes files and syncs; the crate computes. So each of Git's times stands beside two of ours: what the crate
//! computes, and the same with the bytes written to a plain file and synced.

use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Instant;

use tenon_refslog::{Command, LineageId, ObjectFormat, ObjectId, Refs, Snapshot, Transaction, git};

use super::{Chance, change_ref, config, decoded, record, state, updates};
use crate::{Bound, Row, Scale, interleave, median_ns};

pub(super) fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = gix_rows(scale).unwrap_or_else(|error| vec![Row::absent("gix-ref on packed-refs", "ns", error)]);
    for backend in ["files", "reftable"] {
        rows.extend(
            git_rows(backend, scale)
                .unwrap_or_else(|error| vec![Row::absent(format!("git update-ref, {backend}"), "ms", error)]),
        );
    }
    rows
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn gix_rows(scale: Scale) -> Result<Vec<Row>, String> {
    let mut chance = Chance(9);
    let refs = state(scale.pick(1_000_000, 100_000), &mut chance);
    let snapshot = refs.snapshot();
    let folder = tempfile::tempdir().map_err(text)?;
    let path = folder.path().join("packed-refs");
    std::fs::write(&path, git::write_packed_refs(refs.iter()).map_err(text)?).map_err(text)?;
    let open = || gix_ref::packed::Buffer::open(path.clone(), 32 * 1024, gix_hash::Kind::Sha1).map_err(text);
    let packed = open()?;
    let names: Vec<_> = (0..2_000).map(|_| change_ref(chance.below(refs.len()))).collect();
    let plain: Vec<String> = names.iter().map(ToString::to_string).collect();
    let lookup = interleave(
        7,
        || {
            for name in &names {
                black_box(snapshot.get(name).expect("a good file"));
            }
            names.len()
        },
        || {
            for name in &plain {
                black_box(packed.try_find(name.as_str()).expect("a good file"));
            }
            plain.len()
        },
    );
    let decode = interleave(5, || decoded(&snapshot), || packed.iter().expect("a good file").map(black_box).count());
    let bytes = snapshot.as_bytes().clone();
    let opening = interleave(
        11,
        || {
            let _ = black_box(Snapshot::open(bytes.clone()).expect("a good file"));
            1
        },
        || {
            black_box(open().expect("a good file"));
            1
        },
    );
    let row = |name: &str, pair: crate::Pair, by: f64, unit| {
        let row = Row::new(name, pair.subject_ns / by, unit, Bound::RatioAtMost(1.0));
        row.beside("gix-ref packed-refs", pair.peer_ns / by, pair.ratio)
    };
    Ok(vec![
        row("snapshot lookup beside gix-ref", lookup, 1e3, "µs"),
        row("snapshot decode a ref beside gix-ref", decode, 1.0, "ns"),
        row("snapshot open beside gix-ref (a file)", opening, 1e3, "µs"),
    ])
}

fn run(folder: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Process::new("git")
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "a")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@b")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input));
    let out = child.wait_with_output().map_err(text)?;
    match written {
        Some(Ok(())) if out.status.success() => Ok(out.stdout),
        _ => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    }
}

fn milliseconds(work: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Admits, encodes, writes to a file and syncs.
fn durable(folder: &Path, refs: &Refs, transaction: &Transaction) -> f64 {
    let path = folder.join("log");
    let spent = median_ns(3, || {
        let bytes = record(refs, transaction).encode();
        let mut file = std::fs::File::create(&path).expect("a folder of our own");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("a folder of our own");
        1
    });
    spent / 1e6
}

fn git_rows(backend: &str, scale: Scale) -> Result<Vec<Row>, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let path = folder.path();
    run(path, &["init", "-q", "--bare", &format!("--ref-format={backend}")], b"")?;
    let tree = run(path, &["hash-object", "-w", "-t", "tree", "--stdin"], b"")?;
    let tree = String::from_utf8_lossy(&tree).trim().to_owned();
    let commit = |n: &str| -> Result<ObjectId, String> {
        let id = run(path, &["commit-tree", &tree, "-m", n], b"")?;
        ObjectId::from_hex(id.trim_ascii()).map_err(text)
    };
    let (one, two) = (commit("one")?, commit("two")?);
    let many = scale.pick(100_000, 5_000);
    let creates: Transaction = (0..many).map(|n| Command::create(change_ref(n), one)).collect();
    let update_ref = |transaction: &Transaction| {
        let text = git::write_transaction(transaction, ObjectFormat::Sha1).map_err(text)?;
        milliseconds(|| run(path, &["update-ref", "--stdin", "-z"], &text).map(drop))
    };
    let making = update_ref(&creates)?;
    let empty = Refs::new(config(), LineageId(1));
    let ours = durable(path, &empty, &creates);
    let mut refs = empty;
    let _ = refs.apply(&record(&refs, &creates)).map_err(text)?;
    let mut chance = Chance(5);
    let mut picks: Vec<usize> = (0..many / 10).map(|_| chance.below(many)).collect();
    picks.sort_unstable();
    picks.dedup();
    let count = picks.len();
    // The same commands, to an object that is there.
    let moves: Transaction = updates(&refs, picks.into_iter(), &mut chance)
        .commands()
        .iter()
        .map(|command| Command::update(command.name().clone(), two).expecting(command.old().clone()))
        .collect();
    let updated = update_ref(&moves)?;
    let ours_moved = durable(path, &refs, &moves);
    let row = |name: String, ours: f64, theirs: f64| {
        Row::new(name, ours, "ms", Bound::RatioAtMost(1.0)).beside(&format!("git {backend}"), theirs, ours / theirs)
    };
    Ok(vec![
        row(format!("{} k creates, written and synced", many / 1_000), ours, making)
            .note("Git's own settings for sync"),
        row(format!("{count} compare-and-set updates, written and synced"), ours_moved, updated),
    ])
}
