//! Would Git let this transaction happen, and what would it change?

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;

use crate::change::{Change, Old, Value};
use crate::config::{DfPolicy, HeadDeletion, RootRefs};
use crate::digest::Checksum;
use crate::id::Point;
use crate::name::{NameError, RefName};
use crate::oid::ObjectFormat;
use crate::record::Record;
use crate::refs::Refs;
use crate::transaction::{Action, Command, Deref, Transaction};

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// The name of a ref to be made breaks Git's rules.
    #[error("the name is not allowed: {0}")]
    BadName(NameError),
    /// The name of a ref to be made is longer than the configuration allows.
    #[error("the name has {len} bytes, {max} are allowed")]
    NameTooLong {
        /// Bytes of the name.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name is outside of `refs/`, and not `HEAD`.
    #[error("refs outside of 'refs/' are not served")]
    OutsideRefs,
    /// The name is a file of Git's own that is no ref (`FETCH_HEAD`, `MERGE_HEAD`).
    #[error("a pseudo ref is no ref")]
    PseudoRef,
    /// The ref belongs to one worktree (`refs/bisect/…`, `refs/worktree/…`, `refs/rewritten/…`).
    #[error("the ref belongs to one worktree and is not shared")]
    PerWorktree,
    /// The value's id is of another object format.
    #[error("the id is not {want}, the repository's object format")]
    ObjectFormat {
        /// The repository's format.
        want: ObjectFormat,
    },
    /// Another command touches the same ref, perhaps through a symbolic ref.
    #[error("'{name}' is touched by command {other} too")]
    Duplicate {
        /// The ref.
        name: RefName,
        /// Index of the other command.
        other: usize,
    },
    /// The ref should not exist and does.
    #[error("the ref exists already, with {actual}")]
    Exists {
        /// What it holds.
        actual: Value,
    },
    /// The ref should hold a value and does not exist.
    #[error("the ref does not exist, {expected} was expected")]
    Missing {
        /// What it should hold.
        expected: Value,
    },
    /// The ref holds another value than was expected.
    #[error("the ref holds {actual}, {expected} was expected")]
    Stale {
        /// What it should hold.
        expected: Value,
        /// What it holds.
        actual: Value,
    },
    /// A ref cannot be both a directory and a file: the other one exists.
    #[error("conflicts with '{with}', which exists")]
    Conflict {
        /// The ref that exists.
        with: RefName,
    },
    /// A ref cannot be both a directory and a file: the other one is in this transaction.
    #[error("conflicts with '{with}' in the same transaction")]
    ConflictWithin {
        /// The other ref.
        with: RefName,
    },
    /// Symbolic refs that name each other in a circle, or a chain longer than the configuration allows.
    #[error("a chain of symbolic refs has no end within {max}")]
    SymrefLoop {
        /// Longest chain followed.
        max: usize,
    },
    /// `HEAD` itself would be deleted.
    #[error("HEAD cannot be deleted")]
    HeadDeletion,
    /// The transaction has more commands than the configuration allows.
    #[error("{count} commands, {max} are allowed")]
    TooManyCommands {
        /// Commands of the transaction.
        count: usize,
        /// Commands allowed.
        max: usize,
    },
}

impl Reason {
    /// A number for the reason that never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::BadName(_) => 1,
            Self::NameTooLong { .. } => 2,
            Self::OutsideRefs => 3,
            Self::PseudoRef => 4,
            Self::PerWorktree => 5,
            Self::ObjectFormat { .. } => 6,
            Self::Duplicate { .. } => 7,
            Self::Exists { .. } => 8,
            Self::Missing { .. } => 9,
            Self::Stale { .. } => 10,
            Self::Conflict { .. } => 11,
            Self::ConflictWithin { .. } => 12,
            Self::SymrefLoop { .. } => 13,
            Self::HeadDeletion => 14,
            Self::TooManyCommands { .. } => 15,
        }
    }
}

/// What admission says of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// It passes and changes its ref.
    Changes,
    /// It passes and leaves its ref as it is.
    Unchanged,
    /// It does not pass, and so neither does its transaction.
    Refused(Reason),
}

impl Verdict {
    /// Why the command was refused, if it was.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Changes | Self::Unchanged => None,
        }
    }
}

/// A transaction that may happen: append its record to the log, then [`Refs::apply`] it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    record: Option<Record>,
    verdicts: Vec<Verdict>,
}

impl Admitted {
    /// What to append to the log; `None` where the transaction changes nothing, and so makes no version.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// As [`Admitted::record`], by value.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        self.record
    }

    /// One verdict per command, in their order; none is a refusal.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }
}

/// A transaction that may not happen. Nothing of it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    verdicts: Vec<Verdict>,
}

impl Refused {
    /// One verdict per command, in their order. What passes by itself is not refused here, but does not happen either.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// The refused commands: index and reason.
    pub fn reasons(&self) -> impl Iterator<Item = (usize, &Reason)> {
        self.verdicts.iter().enumerate().filter_map(|(at, verdict)| verdict.reason().map(|reason| (at, reason)))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reasons().next() {
            Some((at, reason)) => write!(f, "command {at}: {reason}"),
            None => f.write_str("refused"),
        }
    }
}

impl core::error::Error for Refused {}

impl Refs {
    /// Asks what a transaction would do, by the rules of `git update-ref`. Changes nothing.
    ///
    /// The same rules, in Git's order: names; symbolic refs are resolved; no ref twice, also through a symbolic ref;
    /// old values; no directory where a file is. Whether objects exist, and whether a branch may move back, is the
    /// host's to ask: objects never pass through here.
    ///
    /// # Errors
    /// A verdict per command, at least one of which is refused.
    pub fn admit(&self, transaction: &Transaction) -> Result<Admitted, Refused> {
        let commands = transaction.commands();
        let max = self.config.max_commands;
        if commands.len() > max {
            let reason = Reason::TooManyCommands { count: commands.len(), max };
            return Err(Refused { verdicts: alloc::vec![Verdict::Refused(reason); commands.len()] });
        }
        let mut admission = Admission {
            refs: self,
            steps: Vec::with_capacity(commands.len()),
            verdicts: Vec::with_capacity(commands.len()),
            touched: BTreeMap::new(),
        };
        for command in commands {
            admission.plan(command);
        }
        admission.refuse_duplicates();
        admission.refuse_conflicts();
        admission.finish(commands)
    }
}

/// Where a command lands.
struct Step<'a> {
    command: &'a Command,
    /// The physical ref.
    name: RefName,
    current: Option<&'a Value>,
}

struct Admission<'a> {
    refs: &'a Refs,
    steps: Vec<Step<'a>>,
    verdicts: Vec<Verdict>,
    /// Every name that a command names or reaches, with the commands that do.
    touched: BTreeMap<RefName, Vec<usize>>,
}

impl<'a> Admission<'a> {
    /// Checks what a command needs by itself, and notes which names it touches.
    fn plan(&mut self, command: &'a Command) {
        let at = self.steps.len();
        let mut name = command.name().clone();
        let mut current = self.refs.map.get(&name);
        self.touched.entry(name.clone()).or_default().push(at);
        let mut verdict = self.check_name(command);
        if command.deref() == Deref::Follow {
            let mut depth = 0;
            while let Some(Value::Symbolic(target)) = current {
                depth += 1;
                let max = self.refs.config.max_symref_depth;
                if depth > max {
                    verdict = verdict.and(Err(Reason::SymrefLoop { max }));
                    break;
                }
                name = target.clone();
                current = self.refs.map.get(&name);
                self.touched.entry(name.clone()).or_default().push(at);
            }
        }
        let step = Step { command, name, current };
        let verdict = verdict.and_then(|()| self.check_step(&step));
        self.verdicts.push(verdict.unwrap_or_else(Verdict::Refused));
        self.steps.push(step);
    }

    fn check_name(&self, command: &Command) -> Result<(), Reason> {
        let config = &self.refs.config;
        let name = command.name();
        let bytes = name.as_bytes();
        if matches!(bytes, b"FETCH_HEAD" | b"MERGE_HEAD") {
            return Err(Reason::PseudoRef);
        }
        if PER_WORKTREE.iter().any(|prefix| bytes.starts_with(prefix)) {
            return Err(Reason::PerWorktree);
        }
        if config.root_refs == RootRefs::HeadOnly && !name.is_head() && !bytes.starts_with(b"refs/") {
            return Err(Reason::OutsideRefs);
        }
        let Action::Set(value) = command.action() else {
            return Ok(());
        };
        if !value.fits(config.format) {
            return Err(Reason::ObjectFormat { want: config.format });
        }
        if bytes.len() > config.max_name_len {
            return Err(Reason::NameTooLong { len: bytes.len(), max: config.max_name_len });
        }
        RefName::check(bytes, crate::OneLevel::Allow).map_err(Reason::BadName)?;
        if let Some(target) = value.target_name() {
            RefName::check(target.as_bytes(), crate::OneLevel::Allow).map_err(Reason::BadName)?;
        }
        Ok(())
    }

    /// Checks the old value; answers whether the ref would change.
    fn check_step(&self, step: &Step<'_>) -> Result<Verdict, Reason> {
        let command = step.command;
        if *command.action() == Action::Delete
            && step.name.is_head()
            && self.refs.config.head_deletion == HeadDeletion::Refuse
        {
            return Err(Reason::HeadDeletion);
        }
        self.check_old(step)?;
        let changes = match command.action() {
            Action::Set(value) => step.current != Some(value),
            Action::Delete => step.current.is_some(),
            Action::Verify => false,
        };
        Ok(if changes { Verdict::Changes } else { Verdict::Unchanged })
    }

    fn check_old(&self, step: &Step<'_>) -> Result<(), Reason> {
        let expected = match (step.command.action(), step.command.old()) {
            (Action::Verify, Old::Any) => &Old::Absent,
            (_, old) => old,
        };
        let resolved = match (expected, step.current) {
            (Old::Any, _) => return Ok(()),
            // Like Git, an expected id is compared with what a symbolic ref resolves to, even where the command acts on
            // the symbolic ref itself, which must then resolve.
            (_, Some(Value::Symbolic(_))) => {
                let end = self.refs.resolve(&step.name).ok_or(Reason::SymrefLoop { max: Refs::READ_DEPTH })?;
                if matches!(expected, Old::Is(Value::Symbolic(_))) { step.current } else { self.refs.map.get(&end) }
            }
            _ => step.current,
        };
        if expected.matches(resolved) {
            return Ok(());
        }
        Err(match (expected.value().cloned(), resolved.cloned()) {
            (Some(expected), Some(actual)) => Reason::Stale { expected, actual },
            (Some(expected), None) => Reason::Missing { expected },
            (None, Some(actual)) => Reason::Exists { actual },
            (None, None) => return Ok(()),
        })
    }

    fn refuse(&mut self, at: usize, reason: Reason) {
        if let Some(verdict) = self.verdicts.get_mut(at)
            && verdict.reason().is_none()
        {
            *verdict = Verdict::Refused(reason);
        }
    }

    /// No ref twice: neither by name, nor through a symbolic ref, nor `HEAD` beside the branch that it names.
    fn refuse_duplicates(&mut self) {
        let head = b"HEAD".as_slice();
        let mut refusals = Vec::new();
        for (name, commands) in &self.touched {
            let on_head = match self.refs.map.get(head) {
                Some(Value::Symbolic(target)) if target == name => self.touched.get(head),
                _ => None,
            };
            let all = || commands.iter().chain(on_head.into_iter().flatten()).copied();
            for at in all() {
                if let Some(other) = all().find(|other| *other != at) {
                    let name = name.clone();
                    refusals.push((at, Reason::Duplicate { name, other }));
                }
            }
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
    }

    /// No directory where a file is: every proper prefix, and everything from `name/` up to `name0` ('0' follows '/').
    fn refuse_conflicts(&mut self) {
        let mut refusals = Vec::new();
        for (name, commands) in &self.touched {
            let reason = match self.refs.config.df {
                DfPolicy::GitCompat => self.git_conflict(name),
                DfPolicy::FinalState => self.final_conflict(name),
            };
            if let Some(reason) = reason {
                refusals.extend(commands.iter().map(|at| (*at, reason.clone())));
            }
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
    }

    /// Git checks each touched name that does not exist, whatever is to become of it, against all that exists and all
    /// that is touched.
    fn git_conflict(&self, name: &RefName) -> Option<Reason> {
        let existing = &self.refs.map;
        if existing.contains_key(name) {
            return None;
        }
        neighbour(existing, name, |_| true)
            .map(|with| Reason::Conflict { with })
            .or_else(|| neighbour(&self.touched, name, |_| true).map(|with| Reason::ConflictWithin { with }))
    }

    fn final_conflict(&self, name: &RefName) -> Option<Reason> {
        if !self.makes(name) {
            return None;
        }
        neighbour(&self.refs.map, name, |other| !self.drops(other)).map(|with| Reason::Conflict { with }).or_else(
            || neighbour(&self.touched, name, |other| self.makes(other)).map(|with| Reason::ConflictWithin { with }),
        )
    }

    fn action_on(&self, name: &RefName) -> Option<&Action> {
        let commands = self.touched.get(name)?;
        let step = commands.iter().filter_map(|at| self.steps.get(*at)).find(|step| step.name == *name)?;
        Some(step.command.action())
    }

    fn makes(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Set(_)))
    }

    fn drops(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Delete))
    }

    fn finish(self, commands: &[Command]) -> Result<Admitted, Refused> {
        let Self { refs, steps, verdicts, .. } = self;
        debug_assert_eq!(verdicts.len(), commands.len(), "one verdict per command");
        if verdicts.iter().any(|verdict| verdict.reason().is_some()) {
            return Err(Refused { verdicts });
        }
        let mut changes: Vec<Change> = steps
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Changes)
            .map(|(step, _)| {
                let new = match step.command.action() {
                    Action::Set(value) => Some(value.clone()),
                    Action::Delete | Action::Verify => None,
                };
                Change::new(step.name, Old::known(step.current.cloned()), new)
            })
            .collect();
        changes.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let record = refs.point.version.next().filter(|_| !changes.is_empty()).map(|version| {
            let point = Point { lineage: refs.point.lineage, version, checksum: checksum_after(refs, &changes) };
            Record::from_admission(point, changes)
        });
        Ok(Admitted { record, verdicts })
    }
}

/// Refs of which each worktree has its own.
const PER_WORKTREE: [&[u8]; 5] =
    [b"refs/bisect/", b"refs/rewritten/", b"refs/worktree/", b"main-worktree/", b"worktrees/"];

fn checksum_after(refs: &Refs, changes: &[Change]) -> Checksum {
    let key = &refs.config.key;
    changes.iter().fold(refs.point.checksum, |sum, change| {
        let sum = match change.old().value() {
            Some(value) => sum.minus(key.entry(change.name(), value)),
            None => sum,
        };
        match change.new_value() {
            Some(value) => sum.plus(key.entry(change.name(), value)),
            None => sum,
        }
    })
}

/// A name in `map` that is a directory of `name`, or that `name` is a directory of.
fn neighbour<V>(map: &BTreeMap<RefName, V>, name: &RefName, counts: impl Fn(&RefName) -> bool) -> Option<RefName> {
    let above = name
        .parents()
        .filter_map(|parent| map.get_key_value(parent))
        .map(|(other, _)| other)
        .find(|other| counts(other));
    if let Some(other) = above {
        return Some(other.clone());
    }
    let mut low = Vec::with_capacity(name.as_bytes().len() + 1);
    low.extend_from_slice(name.as_bytes());
    let mut high = low.clone();
    low.push(b'/');
    high.push(b'0');
    map.range::<[u8], _>((Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice())))
        .map(|(other, _)| other)
        .find(|other| counts(other))
        .cloned()
}
