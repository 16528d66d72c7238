//! `refs verify`: every byte is read, every version is made again, and every checksum compared.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tenon_refslog::{LogConfig, Piece, Refs, diff};

use crate::progress;
use crate::repository;
use crate::show::line;
use crate::store::{Access, Store};

pub(crate) fn verify(folder: &Path, against: Option<&Path>, out: &mut impl Write) -> Result<()> {
    let store = Store::open(folder, Access::Read)?;
    let log = store.log(LogConfig::builder().build()?)?;
    let working = progress::bar("verifying", 1 + log.pieces().count());
    let snapshot = log.snapshot();
    // Every block, name and id, how it is cut into blocks, its index, and the checksum of all refs.
    let mut refs = Refs::restore(store.config()?, snapshot).context("the snapshot is damaged")?;
    writeln!(out, "snapshot at {}: {} refs", refs.version(), refs.len())?;
    working.inc(1);
    let (mut records, mut segments) = (0, 0);
    for piece in log.pieces() {
        // Each change must find what it replaces, and all of them lead to the checksum that was written.
        let _ = refs.take_piece(piece).with_context(|| format!("version {} does not lead on", refs.version()))?;
        match piece {
            Piece::Record(_) => records += 1,
            Piece::Segment(_) => segments += 1,
        }
        working.inc(1);
    }
    working.finish_and_clear();
    writeln!(out, "then {segments} segments and {records} records, up to version {}", refs.version())?;
    if let Some(torn) = store.torn() {
        bail!(
            "the last record was not written whole: {} bytes after byte {} are cut off by the next import",
            torn.len,
            torn.at
        );
    }
    if let Some(repository) = against {
        let listing = repository::list(repository, refs.iter().map(|(name, _)| name))?;
        let now = Refs::from_entries(store.config()?, refs.lineage(), refs.version(), listing.entries)?;
        let changes = diff(&refs, &now);
        for change in changes.iter().take(10) {
            writeln!(out, "{}", line(change))?;
        }
        if !changes.is_empty() {
            bail!("{} differs from the log in {} refs", repository.display(), changes.len());
        }
        writeln!(out, "{} holds the same", repository.display())?;
    }
    writeln!(out, "whole: {} refs, checksum {}", refs.len(), refs.checksum())?;
    Ok(())
}
