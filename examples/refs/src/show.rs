//! `refs log`, `refs diff` and `refs export`: what there is, as text.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tenon_refslog::{Change, LogConfig, ObjectFormat, Old, Piece, RefName, Refs, Value, diff, git};

use crate::note::Note;
use crate::place::Place;
use crate::store::{Access, Store};

/// How much of each piece is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Counts,
    Changes,
}

/// `old new name`, with `-` for no ref and `?` for an old value that was not kept.
pub(crate) fn line(change: &Change) -> String {
    let old = match change.old() {
        Old::Any => "?".to_owned(),
        Old::Absent => "-".to_owned(),
        Old::Is(value) => value.to_string(),
    };
    format!("{old} {} {}", holds(change.new_value()), change.name())
}

fn holds(value: Option<&Value>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Which versions a piece makes, and what it is called.
fn title(piece: &Piece) -> (String, &'static str) {
    match piece {
        Piece::Record(record) => (record.version().to_string(), "record"),
        Piece::Segment(segment) => (format!("{}..{}", segment.base().version, segment.end().version), "segment"),
    }
}

/// The pieces of a log, oldest first.
pub(crate) fn pieces(folder: &Path, detail: Detail, out: &mut impl Write) -> Result<()> {
    let store = Store::open(folder, Access::Read)?;
    let log = store.log(LogConfig::builder().build()?)?;
    let snapshot = log.snapshot();
    let point = snapshot.point();
    writeln!(out, "{:>12} snapshot {:>9} refs    {}", point.version, snapshot.len(), point.checksum)?;
    for piece in log.pieces() {
        let (versions, kind) = title(piece);
        let end = match piece {
            Piece::Record(record) => record.after(),
            Piece::Segment(segment) => segment.end(),
        };
        let note = match piece {
            Piece::Record(record) => Note::of(record).map(|note| format!(" {note}")).unwrap_or_default(),
            Piece::Segment(_) => String::new(),
        };
        writeln!(out, "{versions:>12} {kind:<8} {:>9} changes {}{note}", piece.changes().len(), end.checksum)?;
        if detail == Detail::Changes {
            for change in piece.changes() {
                writeln!(out, "{:>13}{}", "", line(change))?;
            }
        }
    }
    if let Some(torn) = store.torn() {
        writeln!(out, "the last record was not written whole, at byte {}", torn.at)?;
    }
    Ok(())
}

/// What became of one ref.
pub(crate) fn history(folder: &Path, name: &str, out: &mut impl Write) -> Result<()> {
    let name = RefName::broken(name).with_context(|| format!("'{name}' is no ref's name"))?;
    let log = Store::open(folder, Access::Read)?.log(LogConfig::builder().build()?)?;
    let snapshot = log.snapshot();
    writeln!(out, "{:>12} {}", snapshot.point().version, holds(snapshot.get(&name)?.as_ref()))?;
    for piece in log.pieces() {
        let changes = piece.changes();
        if let Ok(at) = changes.binary_search_by(|change| change.name().cmp(&name)) {
            writeln!(out, "{:>12} {}", title(piece).0, holds(changes[at].new_value()))?;
        }
    }
    Ok(())
}

/// What leads from one place to another.
#[derive(Debug)]
pub(crate) struct Changes {
    changes: Vec<Change>,
    format: ObjectFormat,
}

impl Changes {
    pub(crate) fn between(from: &Place, to: &Place) -> Result<Self> {
        let (from, to) = (from.refs()?, to.refs()?);
        Ok(Self { changes: diff(&from, &to), format: to.config().format() })
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        for change in &self.changes {
            writeln!(out, "{}", line(change))?;
        }
        Ok(())
    }

    /// Each text of the crate is a transaction of its own: deletions first, so that they make way.
    pub(crate) fn write_update_ref(&self, out: &mut impl Write) -> Result<()> {
        for text in git::write_changes(&self.changes, self.format) {
            out.write_all(b"start\0")?;
            out.write_all(&text)?;
            out.write_all(b"commit\0")?;
        }
        Ok(())
    }
}

/// A text format of Git's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Text {
    /// The file `packed-refs`: all but HEAD and other symbolic refs
    PackedRefs,
    /// `git for-each-ref` with ids, peeled ids, symbolic targets and names
    ForEachRef,
}

/// All refs whose names start with `only`.
pub(crate) fn export(place: &Place, only: &[u8], text: Text, out: &mut impl Write) -> Result<()> {
    let refs = place.refs()?;
    let bytes = match text {
        Text::PackedRefs => git::write_packed_refs(refs.iter_prefix(only))?,
        Text::ForEachRef if only.is_empty() => git::write_for_each_ref(&refs)?,
        Text::ForEachRef => {
            let some =
                Refs::from_entries(refs.config().clone(), refs.lineage(), refs.version(), refs.iter_prefix(only))?;
            git::write_for_each_ref(&some)?
        }
    };
    Ok(out.write_all(&bytes)?)
}
