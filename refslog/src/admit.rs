//! Would Git let this transaction happen, and what would it change?

mod conflict;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::change::{Change, Old, Value};
use crate::config::{HeadDeletion, RootRefs};
use crate::digest::Checksum;
use crate::id::Point;
use crate::name::RefName;
use crate::record::Record;
use crate::refs::Refs;
use crate::transaction::{Action, Command, Deref, Transaction};
use crate::verdict::{Admitted, Reason, Refused, Verdict};

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
            // An expected id is compared with what a symbolic ref resolves to, even where the command acts on the symbolic
            // ref itself, which must then resolve: counted from its target, as Git's `files` backend does.
            (_, Some(Value::Symbolic(target))) => {
                let name = self.refs.resolve(target).ok_or(Reason::SymrefLoop { max: Refs::READ_DEPTH })?;
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
