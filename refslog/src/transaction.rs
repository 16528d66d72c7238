//! Transactions: commands that a host asks for, all or nothing.

use alloc::vec::Vec;

use crate::change::{Old, Value};
use crate::name::RefName;
use crate::oid::ObjectId;

/// The action of a command on its ref.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Action {
    /// Set the ref to this value.
    Set(Value),
    /// Delete the ref.
    ///
    /// A ref that does not exist counts as deleted, unless an old value was expected.
    Delete,
    /// Only verify the old value. [`Old::Any`] expects the ref not to exist, as Git's `verify` does.
    Verify,
}

/// Whether a command follows a symbolic ref.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Deref {
    /// Follow: act on the ref that the symbolic ref names, as Git's commands do by default. "Update `HEAD`" moves the
    /// branch.
    #[default]
    Follow,
    /// Never follow: act on the symbolic ref itself, as with `--no-deref`.
    Never,
}

/// A command on one ref: its new value, provided that the ref now has the expected old value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Command {
    name: RefName,
    old: Old,
    action: Action,
    deref: Deref,
}

impl Command {
    /// Creates a ref, which must not exist yet.
    #[must_use]
    pub fn create(name: RefName, new: impl Into<Value>) -> Self {
        Self::with(name, Old::Absent, Action::Set(new.into()))
    }

    /// Sets a ref to `new`, whatever its value. [`Command::expecting`] sets an expected value.
    #[must_use]
    pub fn update(name: RefName, new: impl Into<Value>) -> Self {
        Self::with(name, Old::Any, Action::Set(new.into()))
    }

    /// Deletes a ref, whatever its value. [`Command::expecting`] sets an expected value.
    #[must_use]
    pub fn delete(name: RefName) -> Self {
        Self::with(name, Old::Any, Action::Delete)
    }

    /// Verifies that a ref has the value `old`, and changes nothing.
    #[must_use]
    pub fn verify(name: RefName, old: Old) -> Self {
        Self::with(name, old, Action::Verify)
    }

    /// A command as a push brings it: old id, new id, name, with `None` for the null id.
    ///
    /// ```
    /// use tenon_refslog::{Command, ObjectId, RefName};
    /// let name = RefName::new("refs/heads/main")?;
    /// let new = ObjectId::from_hex("1111111111111111111111111111111111111111")?;
    /// assert_eq!(Command::push(None, Some(new), name.clone()), Command::create(name, new));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn push(old: Option<ObjectId>, new: Option<ObjectId>, name: RefName) -> Self {
        let action = new.map_or(Action::Delete, |id| Action::Set(id.into()));
        Self::with(name, Old::known(old.map(Value::from)), action)
    }

    /// Sets the expected old value.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// use tenon_refslog::{Old, Value};
    ///
    /// let command = Command::update(main, id).expecting(Old::Absent);
    /// assert!(!command.old().matches(Some(&Value::from(id))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn expecting(mut self, old: Old) -> Self {
        self.old = old;
        self
    }

    /// Makes the command act on the ref itself, even where that is symbolic.
    #[must_use]
    pub fn no_deref(mut self) -> Self {
        self.deref = Deref::Never;
        self
    }

    /// Makes the command act on the ref at the end of the chain of symbolic refs.
    ///
    /// Git's plain `symref-update` does that: on a `HEAD` that names `main`, it makes `main` symbolic, which is rarely
    /// what was meant.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.deref = Deref::Follow;
        self
    }

    /// A command. One that makes a ref symbolic acts on that ref itself, unless [`Command::follow`] says otherwise.
    fn with(name: RefName, old: Old, action: Action) -> Self {
        let deref = match action {
            Action::Set(Value::Symbolic(_)) => Deref::Never,
            Action::Set(Value::Direct(_)) | Action::Delete | Action::Verify => Deref::Follow,
        };
        Self { name, old, action, deref }
    }

    /// The ref that the command names.
    #[must_use]
    pub const fn name(&self) -> &RefName {
        &self.name
    }

    /// The expected old value.
    #[must_use]
    pub const fn old(&self) -> &Old {
        &self.old
    }

    /// The action of the command.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// Whether the command follows a symbolic ref.
    #[must_use]
    pub const fn deref(&self) -> Deref {
        self.deref
    }
}

/// A transaction: commands that take effect together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Transaction {
    commands: Vec<Command>,
}

impl Transaction {
    /// An empty transaction.
    #[must_use]
    pub const fn new() -> Self {
        Self { commands: Vec::new() }
    }

    /// Adds a command. The order of commands makes no difference to admission.
    pub fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// The commands, in the order in which they were added.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }
}

impl FromIterator<Command> for Transaction {
    fn from_iter<I: IntoIterator<Item = Command>>(commands: I) -> Self {
        Self { commands: commands.into_iter().collect() }
    }
}

impl Extend<Command> for Transaction {
    fn extend<I: IntoIterator<Item = Command>>(&mut self, commands: I) {
        self.commands.extend(commands);
    }
}

impl From<Command> for Transaction {
    fn from(command: Command) -> Self {
        Self::from_iter([command])
    }
}
