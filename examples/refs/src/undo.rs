//! `refs undo`: what refs held before a version, a push or an actor is given back, where nobody has moved them since.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tenon_refslog::{Kept, KeptReason, Log, LogConfig, Record, Refs, Undo, Version, diff, git};

use crate::import;
use crate::note::Note;
use crate::repository;
use crate::show::line;
use crate::store::{Access, Store};

/// Whose changes are taken back: exactly one of these.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// The changes of this version; may be said again for more
    #[arg(long = "version", value_name = "VERSION")]
    versions: Vec<u64>,
    /// All changes that came by this push
    #[arg(long, value_name = "ID")]
    push: Option<String>,
    /// All changes of this actor
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

impl Chosen {
    fn takes(&self, record: &Record) -> bool {
        let note = Note::of(record).unwrap_or_default();
        self.versions.contains(&record.version().0)
            || self.push.is_some() && note.push == self.push
            || self.actor.is_some() && note.actor == self.actor
    }
}

/// A log at its end, and what gives the chosen changes back there.
struct Planned {
    store: Store,
    snapshot: Version,
    refs: Refs,
    undo: Undo,
    /// What the transaction of `undo` comes to; `None` where nothing can be given back.
    record: Option<Record>,
}

impl Planned {
    fn read(store: Store, chosen: &Chosen, repository: &Path) -> Result<Self> {
        let log: Log = store.log(LogConfig::builder().build()?)?;
        let refs = log.restore_at(store.config()?, log.end().version)?;
        let listing = repository::list(repository, refs.iter().map(|(name, _)| name))?;
        let now = Refs::from_entries(store.config()?, refs.lineage(), refs.version(), listing.entries)?;
        let moved = diff(&refs, &now).len();
        if moved > 0 {
            bail!("{} differs from the log in {moved} refs: import it first", repository.display());
        }
        let undo = log.undo(&refs, |record| chosen.takes(record))?;
        let record = refs.admit(&undo.transaction)?.into_record();
        Ok(Self { store, snapshot: log.snapshot().point().version, refs, undo, record })
    }

    fn changes(&self) -> usize {
        self.record.as_ref().map_or(0, |record| record.changes().len())
    }

    /// What is given back and what stays, line by line.
    fn write(&self, out: &mut impl Write) -> Result<()> {
        for change in self.record.iter().flat_map(Record::changes) {
            writeln!(out, "{}", line(change))?;
        }
        for kept in &self.undo.kept {
            writeln!(out, "stays: {}, changed by version {}: {}", kept.name, kept.version, why(kept))?;
        }
        // An import makes version 1 as a snapshot: before it, there was nothing to look at.
        if self.snapshot > Version(1) {
            writeln!(out, "not looked at: versions 1..{}, which only the snapshot holds", self.snapshot)?;
        }
        for (base, end) in &self.undo.folded {
            writeln!(out, "not looked at: versions {}..{end}, which are folded", base.0 + 1)?;
        }
        ensure!(!self.undo.versions.is_empty(), "no such record is in the log");
        Ok(())
    }
}

fn why(kept: &Kept) -> String {
    match &kept.reason {
        KeptReason::MovedSince { by } => format!("version {by} has moved it since"),
        KeptReason::OldUnknown => "what it held before is not known any more".to_owned(),
        KeptReason::Refused(reason) => format!("{reason}"),
        _ => "it cannot be given back".to_owned(),
    }
}

/// Says what would be given back, and what cannot be.
pub(crate) fn plan(folder: &Path, repository: &Path, chosen: &Chosen, out: &mut impl Write) -> Result<()> {
    let planned = Planned::read(Store::open(folder, Access::Read)?, chosen, repository)?;
    planned.write(out)?;
    writeln!(out, "would give back {} refs; {} changes stay", planned.changes(), planned.undo.kept.len())?;
    Ok(())
}

/// Gives it back: in the repository first, which Git does whole or not at all, and then in the log.
pub(crate) fn undo(folder: &Path, repository: &Path, chosen: &Chosen, out: &mut impl Write) -> Result<()> {
    let mut planned = Planned::read(Store::open(folder, Access::Write)?, chosen, repository)?;
    planned.write(out)?;
    let Some(record) = planned.record.take() else { bail!("nothing can be given back") };
    let format = planned.refs.config().format();
    let commands = git::write_transaction(&planned.undo.transaction, format).context("Git has no words for this")?;
    let text = [b"start\0", &*commands, b"commit\0"].concat();
    // Each command expects what the log says, so that a push that came meanwhile makes Git refuse. Should this program die
    // before it has written its record, the next import records the same changes.
    repository::transact(repository, &text)?;
    let undoes = planned.undo.versions.iter().map(|version| version.0).collect();
    let note = Note { undoes, ..Note::now()? };
    import::append(&mut planned.store, &mut planned.refs, record, &note, out)
}
