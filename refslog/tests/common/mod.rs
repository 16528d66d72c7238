//! What the test files share: short constructors, and chance from a seed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and reads its seed")]

use tenon_refslog::{
    Action, ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, Old, RefName, Refs, RootRefs, Transaction,
    Value,
};

pub fn name(text: &str) -> RefName {
    RefName::new(text).unwrap()
}

/// A SHA-1 id that is easy to tell from others.
pub fn oid(n: u64) -> ObjectId {
    let mut bytes = [0x11; 20];
    bytes[..8].copy_from_slice(&(n + 1).to_be_bytes());
    ObjectId::from_bytes(&bytes).unwrap()
}

pub fn id(n: u64) -> Value {
    oid(n).into()
}

pub fn symbolic(target: &str) -> Value {
    Value::Symbolic(name(target))
}

pub fn key() -> ChecksumKey {
    ChecksumKey::new([7; 32])
}

pub fn config() -> Config {
    Config::builder(ObjectFormat::Sha1, key()).build().unwrap()
}

pub fn open_config() -> Config {
    Config::builder(ObjectFormat::Sha1, key()).root_refs(RootRefs::Any).build().unwrap()
}

pub const LINEAGE: LineageId = LineageId(0x1122_3344_5566_7788);

pub fn empty() -> Refs {
    Refs::new(config(), LINEAGE)
}

pub fn refs_of(entries: &[(&str, Value)]) -> Refs {
    let mut refs = empty();
    let tx: Transaction = entries.iter().map(|(n, v)| Command::update(name(n), v.clone()).no_deref()).collect();
    if let Some(record) = refs.admit(&tx).unwrap().into_record() {
        let _ = refs.apply(&record).unwrap();
    }
    refs
}

/// `SplitMix64`: the same seed gives the same test.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Names that conflict with each other in every way, and some that only seem to.
pub const NAMES: [&str; 14] = [
    "HEAD",
    "refs/heads/main",
    "refs/heads/a",
    "refs/heads/a/b",
    "refs/heads/a/b/c",
    "refs/heads/a-b",
    "refs/heads/a.b",
    "refs/heads/a0",
    "refs/heads/z",
    "refs/tags/v1",
    "refs/tags/v1.0",
    "refs/sym/one",
    "refs/sym/two",
    "refs/changes/34/1234/1",
];

/// Every class of name that Git or a policy tells apart.
pub const CLASSES: [&str; 16] = [
    "HEAD",
    "FETCH_HEAD",
    "MERGE_HEAD",
    "ORIG_HEAD",
    "FOO_HEAD",
    "AUTO_MERGE",
    "lower",
    "Mixed_HEAD",
    "foo/bar",
    "refs/bisect/bad",
    "refs/rewritten/x",
    "refs/worktree/x",
    "main-worktree/HEAD",
    "worktrees/w/HEAD",
    "refs/one",
    "refs/stash",
];

/// One of [`NAMES`].
pub fn ordinary(chance: &mut Chance) -> RefName {
    name(NAMES[chance.below(NAMES.len())])
}

/// One of [`NAMES`], and one time in five one of [`CLASSES`].
pub fn of_any_class(chance: &mut Chance) -> RefName {
    if chance.one_in(5) { name(CLASSES[chance.below(CLASSES.len())]) } else { ordinary(chance) }
}

/// A random command over the names that `pick` gives and the first `ids` ids.
pub fn command(chance: &mut Chance, refs: &Refs, ids: &[ObjectId], pick: fn(&mut Chance) -> RefName) -> Command {
    let target = pick(chance);
    let current = refs.get(&target);
    let old = |chance: &mut Chance| match chance.below(8) {
        0 => Old::Absent,
        1 => Old::Is((*chance.pick(ids)).into()),
        2 => Old::Any,
        // Mostly what is there, so that most transactions pass.
        _ => match refs.resolve(&target).and_then(|end| refs.get(&end)) {
            Some(Value::Direct(at)) => Old::Is(at.id().into()),
            Some(Value::Symbolic(_)) | None => Old::Any,
        },
    };
    let command = match chance.below(12) {
        0..=3 => Command::create(target, *chance.pick(ids)),
        4..=6 => {
            let old = old(chance);
            Command::update(target, *chance.pick(ids)).expecting(old)
        }
        7..=8 => {
            let old = old(chance);
            Command::delete(target).expecting(old)
        }
        9 => {
            let old = old(chance);
            Command::verify(target, old)
        }
        _ => {
            let old = match current {
                Some(Value::Symbolic(at)) if chance.one_in(2) => Old::Is(Value::Symbolic(at)),
                _ if chance.one_in(8) => Old::Is(Value::Symbolic(pick(chance))),
                _ => Old::Any,
            };
            let to = Value::Symbolic(pick(chance));
            match chance.below(8) {
                0 => return Command::delete(target).expecting(old).no_deref(),
                1 => return Command::verify(target, old).no_deref(),
                2 => return Command::update(target, *chance.pick(ids)).expecting(old).no_deref(),
                3 => return Command::update(target, to).expecting(old).follow(),
                _ => Command::update(target, to).expecting(old),
            }
        }
    };
    if chance.one_in(6) && !matches!(command.action(), Action::Set(Value::Symbolic(_))) {
        command.no_deref()
    } else {
        command
    }
}

/// A random transaction of one to five commands.
pub fn transaction(chance: &mut Chance, refs: &Refs, ids: &[ObjectId]) -> Transaction {
    transaction_over(chance, refs, ids, ordinary)
}

/// A random transaction over the names that `pick` gives.
pub fn transaction_over(
    chance: &mut Chance,
    refs: &Refs,
    ids: &[ObjectId],
    pick: fn(&mut Chance) -> RefName,
) -> Transaction {
    let count = 1 + chance.below(chance.clone().below(5) + 1);
    (0..count).map(|_| command(chance, refs, ids, pick)).collect()
}

/// The seed of a random test: from `REFSLOG_SEED`, else the given one; how many steps: `REFSLOG_STEPS`.
pub fn seed_and_steps(seed: u64, steps: usize) -> (u64, usize) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    (
        number("REFSLOG_SEED").unwrap_or(seed),
        number("REFSLOG_STEPS").and_then(|n| usize::try_from(n).ok()).unwrap_or(steps),
    )
}
