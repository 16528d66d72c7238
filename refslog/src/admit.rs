//! Admission: would Git let this transaction happen, and what would it change?

mod conflict;
mod source;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::change::{Change, Old, Value};
use crate::config::{HeadDeletion, RootRefs};
use crate::digest::{Checksum, ChecksumKey};
use crate::id::Point;
use crate::name::RefName;
use crate::record::Record;
use crate::refs::Refs;
use crate::transaction::{Action, Command, Deref, Transaction};
use crate::verdict::{Admitted, Reason, Refused, Verdict};

pub(crate) use source::{Around, Source};

impl Refs {
    /// Admits or refuses a transaction by the rules of `git update-ref`. Changes nothing.
    ///
    /// The same rules, in Git's order: names; symbolic refs are resolved; no ref twice, also through a symbolic ref;
    /// old values; no directory where a file is. Every name that a command touches or points to, directly or through a
    /// symbolic ref, passes the same checks. Whether objects exist, and whether a branch may move back, is the
    /// host's to ask: objects never pass through here.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// let create: Transaction = [Command::create(main, id)].into_iter().collect();
    /// let record = refs.admit(&create)?.into_record().expect("the ref is new"); // append it to the log
    /// refs.apply(&record)?;
    /// let refused = refs.admit(&create).unwrap_err();
    /// assert_eq!(refused.to_string(), format!("command 0: the ref exists already, with {}", "a".repeat(40)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A verdict per command, at least one of which is refused.
    pub fn admit(&self, transaction: &Transaction) -> Result<Admitted, Refused> {
        match admit(&source::Resident::new(self), transaction) {
            Ok(verdict) => verdict,
            Err(never) => match never {},
        }
    }
}

/// Admission over any source of refs.
///
/// # Errors
/// The source cannot be read; within, a verdict per command, at least one of which is refused.
pub(crate) fn admit<S: Source>(source: &S, transaction: &Transaction) -> Result<Result<Admitted, Refused>, S::Error> {
    let commands = transaction.commands();
    let max = source.config().max_commands;
    if commands.len() > max {
        let reason = Reason::TooManyCommands { count: commands.len(), max };
        let verdicts = alloc::vec![Verdict::Refused(Box::new(reason)); commands.len()];
        return Ok(Err(Refused { verdicts }));
    }
    let mut admission = Admission {
        source,
        steps: Vec::with_capacity(commands.len()),
        verdicts: Vec::with_capacity(commands.len()),
        touched: Vec::with_capacity(commands.len()),
    };
    for command in commands {
        admission.plan(command)?;
    }
    admission.touched.sort_unstable();
    admission.refuse_duplicates()?;
    admission.refuse_conflicts()?;
    Ok(admission.finish(commands))
}

/// Where a command lands.
struct Step<'a> {
    command: &'a Command,
    /// The physical ref.
    name: RefName,
    current: Option<Value>,
}

struct Admission<'a, S> {
    source: &'a S,
    steps: Vec<Step<'a>>,
    verdicts: Vec<Verdict>,
    /// Every name that a command names or reaches, with the command's index; sorted once all are there.
    touched: Vec<(RefName, usize)>,
}

/// The use that a transaction makes of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The name is only read, passed through or deleted.
    Touched,
    /// A ref of this name is made or written, or a symbolic ref is made to point to it.
    Written,
}

impl<'a, S: Source> Admission<'a, S> {
    /// Checks what a command needs by itself, and notes which names it touches.
    fn plan(&mut self, command: &'a Command) -> Result<(), S::Error> {
        let at = self.steps.len();
        let mut name = command.name().clone();
        let mut current = self.source.look_up(name.as_bytes())?;
        self.touched.push((name.clone(), at));
        let writes = if matches!(command.action(), Action::Set(_)) { Use::Written } else { Use::Touched };
        let mut verdict = self.check_name(&name, writes).and_then(|()| self.check_value(command));
        if command.deref() == Deref::Follow {
            let max = self.source.config().max_symref_depth;
            let mut depth = 0;
            while let Some(Value::Symbolic(target)) = current {
                current = self.source.look_up(target.as_bytes())?;
                name = target;
                self.touched.push((name.clone(), at));
                // What is reached through a symbolic ref is held to what a name given directly is.
                verdict = verdict.and_then(|()| self.check_name(&name, writes));
                depth += 1;
                if depth > max {
                    verdict = verdict.and(Err(Reason::SymrefLoop { max }));
                    break;
                }
            }
        }
        let step = Step { command, name, current };
        let verdict = match verdict {
            Ok(()) => self.check_step(&step)?,
            Err(reason) => Err(reason),
        };
        self.verdicts.push(verdict.unwrap_or_else(|reason| Verdict::Refused(Box::new(reason))));
        self.steps.push(step);
        Ok(())
    }

    fn check_name(&self, name: &RefName, becomes: Use) -> Result<(), Reason> {
        let config = self.source.config();
        let bytes = name.as_bytes();
        if matches!(bytes, b"FETCH_HEAD" | b"MERGE_HEAD") {
            return Err(Reason::PseudoRef);
        }
        if PER_WORKTREE.iter().any(|prefix| bytes.starts_with(prefix)) {
            return Err(Reason::PerWorktree);
        }
        let served = bytes.starts_with(b"refs/")
            || match config.root_refs {
                RootRefs::HeadOnly => name.is_head(),
                RootRefs::Any => name.is_root(),
            };
        if !served {
            return Err(Reason::OutsideRefs);
        }
        if becomes == Use::Touched {
            return Ok(());
        }
        if bytes.len() > config.max_name_len {
            return Err(Reason::NameTooLong { len: bytes.len(), max: config.max_name_len });
        }
        let longest = bytes.split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap_or_default();
        if longest > config.max_component_len {
            return Err(Reason::ComponentTooLong { len: longest, max: config.max_component_len });
        }
        RefName::check(bytes, crate::OneLevel::Allow).map_err(Reason::BadName)
    }

    /// Checks what a command writes: the format of an id, the name that a symbolic ref is to point to.
    fn check_value(&self, command: &Command) -> Result<(), Reason> {
        let Action::Set(value) = command.action() else { return Ok(()) };
        if !value.fits(self.source.config().format) {
            return Err(Reason::ObjectFormat { want: self.source.config().format });
        }
        value.target_name().map_or(Ok(()), |target| self.check_name(target, Use::Written))
    }

    /// Checks the old value; answers whether the ref would change.
    fn check_step(&self, step: &Step<'_>) -> Result<Result<Verdict, Reason>, S::Error> {
        if let Err(reason) = self.check_head(step) {
            return Ok(Err(reason));
        }
        let old = self.check_old(step)?;
        Ok(old.map(|()| {
            let changes = match step.command.action() {
                Action::Set(value) => step.current.as_ref() != Some(value),
                Action::Delete => step.current.is_some(),
                Action::Verify => false,
            };
            if changes { Verdict::Changes } else { Verdict::Unchanged }
        }))
    }

    /// Refuses a `HEAD` that is deleted or names anything but a ref below `refs/`: Git takes such a folder for no
    /// repository.
    fn check_head(&self, step: &Step<'_>) -> Result<(), Reason> {
        if !step.name.is_head() {
            return Ok(());
        }
        match step.command.action() {
            Action::Delete if self.source.config().head_deletion == HeadDeletion::Refuse => Err(Reason::HeadDeletion),
            Action::Set(Value::Symbolic(target)) if !target.as_bytes().starts_with(b"refs/") => Err(Reason::HeadTarget),
            Action::Delete | Action::Set(_) | Action::Verify => Ok(()),
        }
    }

    fn check_old(&self, step: &Step<'_>) -> Result<Result<(), Reason>, S::Error> {
        let expected = match (step.command.action(), step.command.old()) {
            (Action::Verify, Old::Any) => &Old::Absent,
            (_, old) => old,
        };
        let end;
        let seen = match (expected, &step.current) {
            (Old::Any, _) => return Ok(Ok(())),
            // An expected id is compared with what a symbolic ref resolves to, even where the command acts on the symbolic
            // ref itself, which must then resolve: counted from its target, as Git's `files` backend does.
            (_, Some(Value::Symbolic(target))) => {
                let Some(name) = self.source.resolve(target)? else {
                    return Ok(Err(Reason::SymrefLoop { max: Refs::READ_DEPTH }));
                };
                if matches!(expected, Old::Is(Value::Symbolic(_))) {
                    step.current.as_ref()
                } else {
                    end = self.source.look_up(name.as_bytes())?;
                    end.as_ref()
                }
            }
            (_, current) => current.as_ref(),
        };
        if expected.matches(seen) {
            return Ok(Ok(()));
        }
        Ok(match (expected.value().cloned(), seen.cloned()) {
            (Some(expected), Some(actual)) => Err(Reason::Stale { expected, actual }),
            (Some(expected), None) => Err(Reason::Missing { expected }),
            (None, Some(actual)) => Err(Reason::Exists { actual }),
            (None, None) => Ok(()),
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
    fn refuse_duplicates(&mut self) -> Result<(), S::Error> {
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
        let head = RefName::store(b"HEAD");
        if let Some(Value::Symbolic(below)) = self.source.look_up(head.as_bytes())? {
            for (_, one) in self.touching(&head) {
                for (_, other) in self.touching(&below).iter().filter(|(_, other)| other != one) {
                    refuse(&below, *one, *other);
                }
            }
        }
        for (at, reason) in refusals {
            self.refuse(at, reason);
        }
        Ok(())
    }

    fn finish(self, commands: &[Command]) -> Result<Admitted, Refused> {
        let Self { source, steps: mut plans, verdicts, touched } = self;
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
        let Point { lineage, version, checksum } = source.point();
        let record = version.next().filter(|_| !changes.is_empty()).map(|version| {
            let checksum = checksum_after(&source.config().key, checksum, &changes);
            Record::from_admission(Point { lineage, version, checksum }, changes)
        });
        Ok(Admitted { record, verdicts })
    }
}

/// Refs of which each worktree has its own.
const PER_WORKTREE: [&[u8]; 5] =
    [b"refs/bisect/", b"refs/rewritten/", b"refs/worktree/", b"main-worktree/", b"worktrees/"];

/// The checksum after changes that keep their old values.
pub(crate) fn checksum_after(key: &ChecksumKey, before: Checksum, changes: &[Change]) -> Checksum {
    changes.iter().fold(before, |sum, change| {
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
