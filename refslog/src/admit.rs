//! Would Git let this transaction happen, and what would it change?

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::change::{Change, Old, Value};
use crate::codec::run::common_prefix;
use crate::config::{DfPolicy, HeadDeletion, RootRefs};
use crate::digest::Checksum;
use crate::id::Point;
use crate::name::{NameError, RefName};
use crate::oid::ObjectFormat;
use crate::record::Record;
use crate::refs::Refs;
use crate::store::Place;
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
    /// It does not pass, and so neither does its transaction. Boxed: few are refused, and there is one verdict per command.
    Refused(Box<Reason>),
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
            return Err(Refused { verdicts: alloc::vec![Verdict::Refused(Box::new(reason)); commands.len()] });
        }
        let mut admission = Admission {
            refs: self,
            steps: Vec::with_capacity(commands.len()),
            verdicts: Vec::with_capacity(commands.len()),
            touched: Vec::with_capacity(commands.len()),
            leaf: 0,
        };
        for command in commands {
            admission.plan(command);
        }
        admission.touched.sort_unstable();
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
    current: Option<Value>,
}

struct Admission<'a> {
    refs: &'a Refs,
    steps: Vec<Step<'a>>,
    verdicts: Vec<Verdict>,
    /// Every name that a command names or reaches, with the command's index; sorted once all are there.
    touched: Vec<(RefName, usize)>,
    /// The leaf that was looked in last: names mostly come in order.
    leaf: usize,
}

impl<'a> Admission<'a> {
    /// Checks what a command needs by itself, and notes which names it touches.
    fn plan(&mut self, command: &'a Command) {
        let at = self.steps.len();
        let mut name = command.name().clone();
        let mut current = self.look_up(&name);
        self.touched.push((name.clone(), at));
        let mut verdict = self.check_name(command);
        if command.deref() == Deref::Follow {
            let mut depth = 0;
            while let Some(Value::Symbolic(target)) = current {
                let max = self.refs.config.max_symref_depth;
                current = self.refs.get(&target);
                name = target;
                self.touched.push((name.clone(), at));
                depth += 1;
                if depth > max {
                    verdict = verdict.and(Err(Reason::SymrefLoop { max }));
                    break;
                }
            }
        }
        let step = Step { command, name, current };
        let verdict = verdict.and_then(|()| self.check_step(&step));
        self.verdicts.push(verdict.unwrap_or_else(|reason| Verdict::Refused(Box::new(reason))));
        self.steps.push(step);
    }

    fn look_up(&mut self, name: &RefName) -> Option<Value> {
        let found = self.refs.map.find_near(self.leaf, name.as_bytes());
        self.leaf = found.unwrap_or_else(|place| place).leaf;
        self.refs.map.value_at(found.ok()?, name.as_bytes())
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
            Action::Set(value) => step.current.as_ref() != Some(value),
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
        let end;
        let seen = match (expected, &step.current) {
            (Old::Any, _) => return Ok(()),
            // Like Git, an expected id is compared with what a symbolic ref resolves to, even where the command acts on
            // the symbolic ref itself, which must then resolve.
            (_, Some(Value::Symbolic(_))) => {
                let name = self.refs.resolve(&step.name).ok_or(Reason::SymrefLoop { max: Refs::READ_DEPTH })?;
                if matches!(expected, Old::Is(Value::Symbolic(_))) {
                    step.current.as_ref()
                } else {
                    end = self.refs.get(&name);
                    end.as_ref()
                }
            }
            (_, current) => current.as_ref(),
        };
        if expected.matches(seen) {
            return Ok(());
        }
        Err(match (expected.value().cloned(), seen.cloned()) {
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
            *verdict = Verdict::Refused(Box::new(reason));
        }
    }

    /// The commands that touch a name.
    fn touching(&self, name: &RefName) -> &[(RefName, usize)] {
        let start = self.touched.partition_point(|(other, _)| other < name);
        let rest = self.touched.get(start..).unwrap_or_default();
        rest.get(..rest.iter().take_while(|(other, _)| other == name).count()).unwrap_or_default()
    }

    /// No ref twice: neither by name, nor through a symbolic ref, nor `HEAD` beside the branch that it names.
    fn refuse_duplicates(&mut self) {
        let mut refusals = Vec::new();
        let mut refuse = |name: &RefName, one: usize, other: usize| {
            refusals.push((one, Reason::Duplicate { name: name.clone(), other }));
            refusals.push((other, Reason::Duplicate { name: name.clone(), other: one }));
        };
        for group in self.touched.chunk_by(|(one, _), (other, _)| one == other) {
            for pair in group.windows(2) {
                if let [(name, one), (_, other)] = pair
                    && one != other
                {
                    refuse(name, *one, *other);
                }
            }
        }
        if let Some((name, Value::Symbolic(below))) = self.head() {
            for (_, one) in self.touching(&name) {
                for (_, other) in self.touching(&below).iter().filter(|(_, other)| other != one) {
                    refuse(&below, *one, *other);
                }
            }
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
    }

    fn head(&self) -> Option<(RefName, Value)> {
        let head = RefName::store(b"HEAD");
        let value = self.refs.get(&head)?;
        Some((head, value))
    }

    /// No directory where a file is: every proper prefix, and everything from `name/` up to `name0` ('0' follows '/').
    fn refuse_conflicts(&mut self) {
        let mut refusals = Vec::new();
        let mut known = Parents::default();
        // Names that the current one starts with. Not only the neighbour: `a-b` stands between `a` and `a/b`.
        let mut leads: Vec<(&RefName, &[(RefName, usize)])> = Vec::new();
        let mut place = Place::START;
        for group in self.touched.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((name, _)) = group.first() else { continue };
            while leads.pop_if(|(lead, _)| !name.as_bytes().starts_with(lead.as_bytes())).is_some() {}
            let mut refuse = |group: &[(RefName, usize)], reason: &Reason| {
                refusals.extend(group.iter().map(|(_, at)| (*at, reason.clone())));
            };
            let found = self.refs.map.find_near(place.leaf, name.as_bytes());
            place = found.unwrap_or_else(|place| place);
            if let Some(reason) = self.conflict_with_existing(name, found, &mut known) {
                refuse(group, &reason);
            }
            for (lead, others) in &leads {
                if name.as_bytes().get(lead.as_bytes().len()) == Some(&b'/') && self.exclude_each_other(lead, name) {
                    if self.counts_as_new(name) {
                        refuse(group, &Reason::ConflictWithin { with: (*lead).clone() });
                    }
                    if self.counts_as_new(lead) {
                        refuse(others, &Reason::ConflictWithin { with: name.clone() });
                    }
                }
            }
            leads.push((name, group));
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
    }

    /// Git checks each touched name that does not exist, whatever is to become of it; the other policy what is made.
    fn counts_as_new(&self, name: &RefName) -> bool {
        match self.refs.config.df {
            DfPolicy::GitCompat => !self.refs.map.contains(name.as_bytes()),
            DfPolicy::FinalState => self.makes(name),
        }
    }

    /// Whether two touched names, one a directory of the other, cannot be in one transaction.
    fn exclude_each_other(&self, one: &RefName, other: &RefName) -> bool {
        match self.refs.config.df {
            DfPolicy::GitCompat => true,
            DfPolicy::FinalState => self.makes(one) && self.makes(other),
        }
    }

    fn conflict_with_existing(
        &self,
        name: &RefName,
        found: Result<Place, Place>,
        known: &mut Parents,
    ) -> Option<Reason> {
        let map = &self.refs.map;
        let stays = match self.refs.config.df {
            DfPolicy::GitCompat if found.is_ok() => return None,
            DfPolicy::GitCompat => |_: &Self, _: &[u8]| true,
            DfPolicy::FinalState if !self.makes(name) => return None,
            DfPolicy::FinalState => |it: &Self, other: &[u8]| !it.drops(&RefName::store(other)),
        };
        for parent in known.unknown(name) {
            if map.contains(parent) && stays(self, parent) {
                return Some(Reason::Conflict { with: RefName::store(parent) });
            }
        }
        known.note(name);
        let next = match found {
            Ok(place) => map.after(place),
            Err(place) => map.normal(place),
        };
        if !map.starts_with(next, name.as_bytes()) {
            return None;
        }
        let below = [name.as_bytes(), b"/"].concat();
        let mut place = map.seek(&below);
        let mut other = Vec::new();
        while map.starts_with(place, &below) && map.read_name(place, &mut other) {
            if stays(self, &other) {
                return Some(Reason::Conflict { with: RefName::store(&other) });
            }
            place = map.after(place);
        }
        None
    }

    fn action_on(&self, name: &RefName) -> Option<&Action> {
        let steps = self.touching(name).iter().filter_map(|(_, at)| self.steps.get(*at));
        Some(steps.into_iter().find(|step| step.name == *name)?.command.action())
    }

    fn makes(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Set(_)))
    }

    fn drops(&self, name: &RefName) -> bool {
        matches!(self.action_on(name), Some(Action::Delete))
    }

    fn finish(self, commands: &[Command]) -> Result<Admitted, Refused> {
        let Self { refs, steps: mut plans, verdicts, touched, .. } = self;
        debug_assert_eq!(verdicts.len(), commands.len(), "one verdict per command");
        if verdicts.iter().any(|verdict| verdict.reason().is_some()) {
            return Err(Refused { verdicts });
        }
        let mut changes: Vec<Change> = Vec::with_capacity(plans.len());
        // In the order of names; a name that a command only passes through is not the one that it changes.
        for (name, at) in touched {
            let moves = verdicts.get(at) == Some(&Verdict::Changes);
            let Some(step) = plans.get_mut(at).filter(|step| moves && step.name == name) else { continue };
            let new = match step.command.action() {
                Action::Set(value) => Some(value.clone()),
                Action::Delete | Action::Verify => None,
            };
            changes.push(Change::new(name, Old::known(step.current.take()), new));
        }
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

/// The directories of the name that was looked at last, and was found clear: the next one in order shares most of them.
#[derive(Default)]
struct Parents {
    last: Option<RefName>,
}

impl Parents {
    /// The parents of `name` that are not among the last one's.
    fn unknown<'a>(&self, name: &'a RefName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let last = self.last.as_ref().map_or(&[][..], RefName::as_bytes);
        let common = common_prefix(last, name.as_bytes());
        name.parents().skip_while(move |parent| parent.len() < common)
    }

    fn note(&mut self, name: &RefName) {
        self.last = Some(name.clone());
    }
}
