//! The verdicts of `git check-ref-format`, case by case: `REF_FORMAT_CASES` names the file, else the copy here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads its cases")]

use tenon_refslog::{OneLevel, RefName};

/// `\\` is a backslash, `\t` a tab, `\xNN` a byte.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (kind, after) = rest.split_first().expect("an escape has a kind");
        rest = after;
        match kind {
            b'\\' => out.push(b'\\'),
            b't' => out.push(b'\t'),
            b'x' => {
                let (hex, after) = rest.split_at(2);
                out.push(u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap());
                rest = after;
            }
            other => panic!("unknown escape {other}"),
        }
    }
    out
}

#[test]
fn every_case_has_gits_verdict() {
    let local = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/check_ref_format.tsv");
    let path = std::env::var("REF_FORMAT_CASES").unwrap_or_else(|_| local.to_owned());
    let table = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut cases = 0;
    let mut wrong = Vec::new();
    for line in table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let at = line.iter().rposition(|byte| *byte == b'\t').expect("a tab before the verdict");
        let name = unescape(&line[..at]);
        let valid = match &line[at + 1..] {
            b"1" => true,
            b"0" => false,
            other => panic!("no verdict: {other:?}"),
        };
        let verdict = RefName::check(&name, OneLevel::Refuse);
        if verdict.is_ok() != valid {
            wrong.push(format!("{}: Git says {valid}, here {verdict:?}", name.escape_ascii()));
        }
        cases += 1;
    }
    assert!(cases > 0, "{path} holds no case");
    assert!(wrong.is_empty(), "{} of {cases} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}
