//! The input of `git update-ref --stdin -z`.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, put_id_or_null};
use crate::change::{Change, Old, Value};
use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};
use crate::transaction::{Action, Command, Deref, Transaction};

/// Writes changes as texts for `git update-ref --stdin -z`, to be run in this order, each as a transaction of its own.
///
/// Deletions come first, then everything else, then `HEAD`; texts without a command are left out.
///
/// Git refuses a new name beside the deletion of one that it conflicts with (`a` and `a/b`), and `HEAD` beside the branch
/// that it names: hence several. Symbolic refs are not followed: the changes are physical. Each change expects its old id
/// (or absence) where that is known, so take the changes from [`Refs::pending`](crate::Refs::pending) or
/// [`diff`](crate::diff), which know what is there.
///
/// They do not heal a ref that Git cannot read ([`ListingError::Unread`](super::ListingError::Unread)): no command of Git's
/// writes over a damaged file or deletes it. Remove that file first, and take the changes from a listing made after that.
#[must_use]
pub fn write_changes<'a>(changes: impl IntoIterator<Item = &'a Change>, format: ObjectFormat) -> Vec<Vec<u8>> {
    let (mut deletions, mut rest, mut head) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        if change.is_no_op() {
            continue;
        }
        let action = change.new_value().map_or(Action::Delete, |value| Action::Set(value.clone()));
        let out = match action {
            _ if change.name().is_head() => &mut head,
            Action::Delete | Action::Verify => &mut deletions,
            Action::Set(_) => &mut rest,
        };
        // Git refuses to compare with a symbolic ref that leads nowhere, so what was symbolic is not expected.
        let symbolic = change.old().value().is_some_and(|old| old.target_name().is_some());
        let old = if symbolic { &Old::Any } else { change.old() };
        put_command(out, change.name(), old, &action, Deref::Never, format);
    }
    [deletions, rest, head].into_iter().filter(|text| !text.is_empty()).collect()
}

/// Writes a transaction as commands for `git update-ref --stdin -z`, without `start` and `commit` around them.
///
/// # Errors
/// A command that Git has no words for: an id in place of an expected symbolic value ("detach `HEAD` if it names `main`").
/// Written without its expectation, Git would carry out what [`Refs::admit`](crate::Refs::admit) refuses.
pub fn write_transaction(transaction: &Transaction, format: ObjectFormat) -> Result<Vec<u8>, UnwritableCommand> {
    let mut out = Vec::new();
    for (at, command) in transaction.commands().iter().enumerate() {
        let expects_symbolic = matches!(command.old(), Old::Is(Value::Symbolic(_)));
        if expects_symbolic && matches!(command.action(), Action::Set(Value::Direct(_))) {
            return Err(UnwritableCommand { at, name: command.name().clone() });
        }
        put_command(&mut out, command.name(), command.old(), command.action(), command.deref(), format);
    }
    Ok(out)
}

/// A command that `git update-ref` cannot express: it replaces an expected symbolic value by an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("command {at}: git update-ref cannot replace '{name}', expected to be symbolic, by an id")]
pub struct UnwritableCommand {
    /// The index of the command.
    pub at: usize,
    /// The name of its ref.
    pub name: RefName,
}

fn put_command(out: &mut Vec<u8>, name: &RefName, old: &Old, action: &Action, deref: Deref, format: ObjectFormat) {
    let symbolic = matches!(action, Action::Set(Value::Symbolic(_))) || matches!(old, Old::Is(Value::Symbolic(_)));
    if deref == Deref::Never {
        out.extend_from_slice(b"option no-deref\0");
    }
    if symbolic {
        put_symbolic(out, name, old, action, format);
        return;
    }
    let old_id = old.value().and_then(Value::id);
    match action {
        Action::Set(value) => {
            put_word(out, "update", name);
            put_id_or_null(out, value.id(), format);
            out.push(0);
        }
        // "delete" takes no null id: to expect absence, a deletion is an update to the null id.
        Action::Delete if *old == Old::Absent => {
            put_word(out, "update", name);
            put_id_or_null(out, None, format);
            out.push(0);
        }
        Action::Delete => put_word(out, "delete", name),
        Action::Verify => put_word(out, "verify", name),
    }
    if *old != Old::Any {
        put_id_or_null(out, old_id, format);
    }
    out.push(0);
}

fn put_symbolic(out: &mut Vec<u8>, name: &RefName, old: &Old, action: &Action, format: ObjectFormat) {
    match action {
        Action::Set(Value::Symbolic(target)) => {
            put_word(out, "symref-update", name);
            out.extend_from_slice(target.as_bytes());
            out.push(0);
            // Git reads two fields of old value whatever they say.
            match old {
                Old::Any => out.push(0),
                Old::Is(Value::Symbolic(expected)) => {
                    out.extend_from_slice(b"ref\0");
                    out.extend_from_slice(expected.as_bytes());
                }
                Old::Absent | Old::Is(Value::Direct(_)) => {
                    out.extend_from_slice(b"oid\0");
                    put_id_or_null(out, old.value().and_then(Value::id), format);
                }
            }
            out.push(0);
        }
        // An id in place of a symbolic value is not written with its expectation: there is no such command.
        Action::Set(Value::Direct(_)) => {}
        Action::Delete | Action::Verify => {
            let word = if *action == Action::Delete { "symref-delete" } else { "symref-verify" };
            put_word(out, word, name);
            if let Some(expected) = old.value().and_then(Value::target_name) {
                out.extend_from_slice(expected.as_bytes());
            }
            out.push(0);
        }
    }
}

fn put_word(out: &mut Vec<u8>, word: &str, name: &RefName) {
    out.extend_from_slice(word.as_bytes());
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

/// How far Git's own transaction is, while it reads commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No transaction was asked for: the end of the input commits.
    Open,
    /// `start` was read: the end of the input aborts.
    Started,
    /// `prepare` was read: only `commit` and `abort` may follow.
    Prepared,
    Committed,
}

impl Stage {
    /// After a word that only steers the transaction; `None` where it stands out of place.
    fn steered(self, word: &[u8]) -> Option<Self> {
        match (self, word) {
            (Self::Open, b"start") => Some(Self::Started),
            (Self::Open | Self::Started, b"prepare") => Some(Self::Prepared),
            (Self::Open | Self::Started | Self::Prepared, b"commit") => Some(Self::Committed),
            _ => None,
        }
    }
}

/// Parses input for `git update-ref --stdin -z` as one transaction, which Git would commit if it admits it.
///
/// `start`, `prepare` and `commit` may stand around the commands, as Git has them; `abort` is refused, and so are anything
/// after `commit` and anything but `commit` after `prepare`. Where Git's transaction was begun, the input has to end with
/// `commit`: Git aborts one that is cut off.
///
/// ```
/// use tenon_refslog::{ObjectFormat, git};
///
/// let text = format!("create refs/heads/main\0{}\0", "a".repeat(40));
/// assert_eq!(git::parse_update_ref(text.as_bytes(), ObjectFormat::Sha1)?.commands().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first field that Git would not have taken, or [`ParseErrorKind::Unfinished`].
pub fn parse_update_ref(text: &[u8], format: ObjectFormat) -> Result<Transaction, ParseError> {
    let mut fields = text.split_inclusive(|byte| *byte == 0);
    let mut input = Input { next: &mut || fields.next(), at: 0, format };
    let mut transaction = Transaction::new();
    // Stays until the next command, over whatever only steers.
    let mut no_deref = Deref::Follow;
    let mut stage = Stage::Open;
    while let Some(field) = input.maybe()? {
        let (word, rest) = super::split_once(field, b' ').unwrap_or((field, b""));
        let place = input.fields();
        let out_of_place = place.error(ParseErrorKind::OutOfPlace);
        match (word, rest) {
            (b"start" | b"abort" | b"prepare" | b"commit", b"") => stage = stage.steered(word).ok_or(out_of_place)?,
            _ if matches!(stage, Stage::Prepared | Stage::Committed) => return Err(out_of_place),
            (b"start" | b"abort" | b"prepare" | b"commit", _) => return Err(out_of_place),
            (b"option", b"no-deref") => no_deref = Deref::Never,
            _ => {
                let command = input.command(word, place.name(rest)?)?;
                // Without the option, Git follows, even for what makes a ref symbolic; two commands then refuse to.
                transaction.push(match (no_deref, word) {
                    (Deref::Never, _) => command.no_deref(),
                    (Deref::Follow, b"symref-verify" | b"symref-delete") => {
                        return Err(place.error(ParseErrorKind::OutOfPlace));
                    }
                    (Deref::Follow, _) => command.follow(),
                });
                no_deref = Deref::Follow;
            }
        }
    }
    match stage {
        Stage::Open | Stage::Committed => Ok(transaction),
        Stage::Started | Stage::Prepared => Err(ParseError::new(input.at, ParseErrorKind::Unfinished)),
    }
}

struct Input<'a, 'f> {
    next: &'f mut dyn FnMut() -> Option<&'a [u8]>,
    at: usize,
    format: ObjectFormat,
}

impl<'a> Input<'a, '_> {
    fn fields(&self) -> Fields {
        Fields { line: self.at, format: self.format }
    }

    fn maybe(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        self.at += 1;
        let unterminated = ParseError::new(self.at, ParseErrorKind::Unterminated);
        (self.next)().map(|field| field.strip_suffix(b"\0").ok_or(unterminated)).transpose()
    }

    fn field(&mut self) -> Result<&'a [u8], ParseError> {
        self.maybe()?.ok_or_else(|| self.fields().error(ParseErrorKind::Fields))
    }

    fn id(&mut self) -> Result<Option<ObjectId>, ParseError> {
        let field = self.field()?;
        // An empty new id is the null id, as in Git.
        if field.is_empty() { Ok(None) } else { self.fields().id_or_null(field) }
    }

    fn old(&mut self) -> Result<Old, ParseError> {
        let field = self.field()?;
        if field.is_empty() {
            return Ok(Old::Any);
        }
        Ok(Old::known(self.fields().id_or_null(field)?.map(Value::from)))
    }

    fn null(&self) -> ParseError {
        self.fields().error(ParseErrorKind::Oid(crate::OidError::Null))
    }

    fn target(&mut self) -> Result<Option<RefName>, ParseError> {
        let field = self.field()?;
        if field.is_empty() { Ok(None) } else { self.fields().name(field).map(Some) }
    }

    fn needed_target(&mut self) -> Result<RefName, ParseError> {
        self.target()?.ok_or_else(|| self.fields().error(ParseErrorKind::Fields))
    }

    fn command(&mut self, word: &[u8], name: RefName) -> Result<Command, ParseError> {
        match word {
            b"update" => {
                let new = self.id()?;
                let old = self.old()?;
                let command = match new {
                    Some(id) => Command::update(name, id),
                    None => Command::delete(name),
                };
                Ok(command.expecting(old))
            }
            b"create" => {
                let new = self.id()?.ok_or_else(|| self.null())?;
                Ok(Command::create(name, new))
            }
            b"delete" => match self.old()? {
                Old::Absent => Err(self.null()),
                old @ (Old::Any | Old::Is(_)) => Ok(Command::delete(name).expecting(old)),
            },
            b"verify" => Ok(Command::verify(name, self.old()?)),
            b"symref-create" => Ok(Command::create(name, Value::Symbolic(self.needed_target()?))),
            b"symref-update" => {
                let target = self.needed_target()?;
                let old = self.symbolic_old()?;
                Ok(Command::update(name, Value::Symbolic(target)).expecting(old))
            }
            b"symref-delete" => {
                let old = self.target()?.map_or(Old::Any, |target| Old::Is(Value::Symbolic(target)));
                Ok(Command::delete(name).expecting(old))
            }
            b"symref-verify" => {
                let old = self.target()?.map_or(Old::Absent, |target| Old::Is(Value::Symbolic(target)));
                Ok(Command::verify(name, old))
            }
            _ => Err(self.fields().error(ParseErrorKind::Unknown)),
        }
    }

    /// Git takes this one command without its last fields where the input ends there.
    fn symbolic_old(&mut self) -> Result<Old, ParseError> {
        match self.maybe()?.unwrap_or_default() {
            b"" => match self.maybe()?.unwrap_or_default() {
                b"" => Ok(Old::Any),
                _ => Err(self.fields().error(ParseErrorKind::Fields)),
            },
            b"ref" => Ok(Old::Is(Value::Symbolic(self.needed_target()?))),
            b"oid" => {
                let field = self.field()?;
                Ok(Old::known(self.fields().id_or_null(field)?.map(Value::from)))
            }
            _ => Err(self.fields().error(ParseErrorKind::Unknown)),
        }
    }
}
