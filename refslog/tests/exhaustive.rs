//! Compaction over *every* log of a few changes on three names, two of which cannot both exist.
//!
//! For each such log, each stretch of it and each version: a segment brings every replica that it may serve to the end, and
//! refuses every other; composed of any two parts it is byte for byte what it is made of records, and so, part by part, of
//! any partition. Plain runs go up to four changes in a log, the long ones to six:
//! `REFSLOG_CHANGES=6 cargo test --release -p tenon-refslog --test exhaustive`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its depth from a variable")]

mod common;

use common::{LINEAGE, key, name, oid};
use tenon_refslog::{
    Command, Config, DfPolicy, Mode, ObjectFormat, Record, Refs, ReplayError, Replayed, Segment, Transaction, compact,
};

/// `a` stands in the way of `a/b`; `a-b`, between them in the order of names, in nobody's.
const NAMES: [&str; 3] = ["refs/heads/a", "refs/heads/a-b", "refs/heads/a/b"];

/// What a command does to each name: nothing, one of two ids, or away.
const STEPS: usize = 4;

fn transaction(code: usize) -> Transaction {
    let commands =
        NAMES.iter().enumerate().filter_map(|(at, text)| match code / STEPS.pow(u32::try_from(at).unwrap()) % STEPS {
            0 => None,
            1 => Some(Command::delete(name(text))),
            id => Some(Command::update(name(text), oid(id as u64))),
        });
    commands.collect()
}

#[derive(Default)]
struct Seen {
    logs: usize,
    stretches: usize,
    replays: usize,
    refused: usize,
    conflicts: usize,
}

struct Search {
    transactions: Vec<Transaction>,
    records: Vec<Record>,
    /// One more than records.
    states: Vec<Refs>,
    /// Of each stretch that ends at a version, by version and base: as a cover and exact.
    segments: Vec<Vec<[Segment; 2]>>,
    seen: Seen,
}

impl Search {
    /// Checks the log so far, and every log that starts so and has up to `left` changes more.
    fn go(&mut self, left: usize) {
        self.check();
        let refs = self.states.last().unwrap().clone();
        for at in 0..self.transactions.len() {
            let Ok(admitted) = refs.admit(&self.transactions[at]) else {
                self.seen.conflicts += 1;
                continue;
            };
            let commands = self.transactions[at].commands().len();
            // One that leaves a name as it was is the log of a smaller transaction.
            let Some(record) = admitted.into_record().filter(|record| record.changes().len() == commands) else {
                continue;
            };
            if commands > left {
                continue;
            }
            let mut after = refs.clone();
            assert_eq!(after.apply(&record), Ok(Replayed::Applied));
            self.records.push(record);
            self.states.push(after);
            self.go(left - commands);
            self.records.pop();
            self.states.pop();
            self.segments.pop();
        }
    }

    /// Every stretch that ends where the log does; those that end before were checked on the way.
    fn check(&mut self) {
        let end = self.records.len();
        self.seen.logs += 1;
        let mut made = Vec::with_capacity(end + 1);
        for base in 0..=end {
            let of = |mode| compact(self.states[base].point(), mode, &self.records[base..]).unwrap();
            let both = [of(Mode::Cover), of(Mode::Exact)];
            assert_eq!(both[0].clone().exact().unwrap(), both[1]);
            self.seen.stretches += 1;
            made.push(both);
        }
        self.segments.push(made);
        for base in 0..=end {
            self.check_parts(base, end);
            self.check_replays(base, end);
        }
    }

    fn check_parts(&self, base: usize, end: usize) {
        let [cover, exact] = &self.segments[end][base];
        for middle in base..=end {
            let ([left, left_exact], [right, right_exact]) =
                (&self.segments[middle][base], &self.segments[end][middle]);
            assert_eq!(left.then(right).unwrap().encode(), cover.encode(), "{base}..{middle}..{end}");
            for (left, right) in [(left_exact, right_exact), (left, right_exact), (left_exact, right)] {
                assert_eq!(left.then(right).unwrap().encode(), exact.encode(), "{base}..{middle}..{end}");
            }
        }
        assert_eq!(Segment::decode(cover.encode()).as_ref(), Ok(cover));
        assert_eq!(Segment::decode(exact.encode()).as_ref(), Ok(exact));
    }

    fn check_replays(&mut self, base: usize, end: usize) {
        let [cover, exact] = &self.segments[end][base];
        let goal = &self.states[end];
        for (segment, covers) in [(cover, true), (&cover.forward_only(), true), (exact, false)] {
            for at in 0..=end {
                let mut replica = self.states[at].clone();
                let outcome = replica.replay(segment);
                let serves = at == base || at == end || (covers && at > base);
                self.seen.replays += 1;
                if serves {
                    assert_eq!(outcome, Ok(if at == end { Replayed::AlreadyApplied } else { Replayed::Applied }));
                    assert!(replica.point() == goal.point() && replica.iter().eq(goal.iter()), "{base}..{end} at {at}");
                    continue;
                }
                self.seen.refused += 1;
                let outcome = outcome.unwrap_err();
                let right = if at < base {
                    matches!(outcome, ReplayError::Gap { .. })
                } else {
                    matches!(outcome, ReplayError::NotAtBase { .. })
                };
                assert!(right && replica.point() == self.states[at].point(), "{base}..{end} at {at}");
            }
        }
        for segment in [cover, exact] {
            let mut replica = goal.clone();
            replica.rollback(segment).unwrap();
            assert!(replica.iter().eq(self.states[base].iter()), "{base}..{end}");
            if base < end {
                let merged = self.states[base].snapshot().merge(segment).unwrap();
                assert_eq!(merged.as_bytes(), goal.snapshot().as_bytes(), "{base}..{end}");
            }
        }
    }
}

fn depth() -> usize {
    std::env::var("REFSLOG_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

fn search(policy: DfPolicy) -> Seen {
    let config = Config::builder(ObjectFormat::Sha1, key()).df(policy).build().unwrap();
    let all = STEPS.pow(u32::try_from(NAMES.len()).unwrap());
    let mut search = Search {
        transactions: (1..all).map(transaction).collect(),
        records: Vec::new(),
        states: vec![Refs::new(config, LINEAGE)],
        segments: Vec::new(),
        seen: Seen::default(),
    };
    search.go(depth());
    search.seen
}

/// How many logs there are, counted without the crate: a name holds nothing (0) or an id (2 or 3), a step is what it comes
/// to hold, and `a` (the first) and `a/b` (the last) exclude each other.
fn count(holds: [usize; 3], left: usize, policy: DfPolicy) -> usize {
    let choices = [None, Some(0), Some(2), Some(3)];
    let steps = (0..choices.len().pow(3)).map(|code| [choices[code % 4], choices[code / 4 % 4], choices[code / 16]]);
    let next = steps.filter_map(|step| {
        let touched = step.iter().flatten().count();
        let changes = step.iter().zip(holds).all(|(to, from)| *to != Some(from));
        let mut after = holds;
        for (to, held) in step.iter().zip(&mut after) {
            *held = to.unwrap_or(*held);
        }
        let there = |at: usize| holds[at] != 0;
        let in_the_way = match policy {
            DfPolicy::FinalState => after[0] != 0 && after[2] != 0,
            DfPolicy::GitCompat => [(0, 2), (2, 0)].into_iter().any(|(one, other): (usize, usize)| {
                step[one].is_some() && !there(one) && (there(other) || step[other].is_some())
            }),
        };
        let left = left.checked_sub(touched)?;
        (touched > 0 && changes && !in_the_way).then_some((after, left))
    });
    1 + next.map(|(after, left)| count(after, left, policy)).sum::<usize>()
}

#[test]
fn every_log_of_few_changes_is_compacted_right() {
    for policy in [DfPolicy::GitCompat, DfPolicy::FinalState] {
        let seen = search(policy);
        assert_eq!(seen.logs, count([0; 3], depth(), policy), "not all logs were looked at");
        assert!(seen.logs > 500 && seen.conflicts > 500, "{} logs, {} conflicts", seen.logs, seen.conflicts);
        assert!(seen.refused > 500 && seen.replays > seen.refused + 500, "{} of {}", seen.refused, seen.replays);
        assert!(seen.stretches > 3 * seen.logs, "{} stretches", seen.stretches);
    }
}
