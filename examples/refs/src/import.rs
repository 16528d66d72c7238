//! `refs import`: a repository's refs become the newest version of a log.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use tenon_refslog::{ChecksumKey, Config, LineageId, LogConfig, Record, Refs, Version};

use crate::note::Note;
use crate::repository::{self, Listing};
use crate::store::{Access, Kept, Store};

pub(crate) fn import(from: &Path, folder: &Path, note: &Note, out: &mut impl Write) -> Result<()> {
    if Store::is_at(folder) {
        update(from, folder, note, out)
    } else {
        begin(repository::list(from, std::iter::empty())?, folder, out)
    }
}

/// The first import makes the log: a snapshot at version 1.
fn begin(listing: Listing, folder: &Path, out: &mut impl Write) -> Result<()> {
    let mut secret = [0; 32];
    let no_numbers = |error| anyhow::anyhow!("the system gives no random numbers: {error}");
    getrandom::fill(&mut secret).map_err(no_numbers)?;
    let lineage = LineageId(getrandom::u64().map_err(no_numbers)?);
    let config = Config::builder(listing.format, ChecksumKey::new(secret)).build()?;
    let refs = Refs::from_entries(config, lineage, Version(1), listing.entries)?;
    let snapshot = refs.snapshot();
    let bytes = snapshot.as_bytes();
    let mut store = Store::create(folder, &secret)?;
    store.put_snapshot(refs.version(), bytes.clone())?;
    writeln!(out, "version 1: {} refs in {} bytes, checksum {}", refs.len(), bytes.len(), refs.checksum())?;
    Ok(())
}

/// Every later one appends what is different now, as one record.
fn update(from: &Path, folder: &Path, note: &Note, out: &mut impl Write) -> Result<()> {
    let mut store = Store::open(folder, Access::Write)?;
    let config = store.config()?;
    let log = store.log(LogConfig::builder().build()?)?;
    let mut refs = log.restore_at(config.clone(), log.end().version)?;
    let listing = repository::list(from, refs.iter().map(|(name, _)| name))?;
    if listing.format != config.format() {
        bail!("the log is of format {}, the repository of {}", config.format(), listing.format);
    }
    let now = Refs::from_entries(config, refs.lineage(), refs.version(), listing.entries)?;
    let Some(record) = refs.record_to(&now)? else {
        writeln!(out, "version {}: nothing has changed, {} refs", refs.version(), refs.len())?;
        return Ok(());
    };
    append(&mut store, &mut refs, record, note, out)
}

/// Keeps a record with its note, and says so.
pub(crate) fn append(
    store: &mut Store,
    refs: &mut Refs,
    record: Record,
    note: &Note,
    out: &mut impl Write,
) -> Result<()> {
    let record = record.with_payload(note.encode()?)?;
    let (version, count) = (record.version(), record.changes().len());
    // What does not lead where it says is not appended.
    let _ = refs.apply(&record)?;
    let bytes = record.encode();
    let len = bytes.len();
    if store.append(version, bytes)? == Kept::Before {
        bail!("version {version} was appended by somebody else");
    }
    writeln!(
        out,
        "version {version}: {count} changes in {len} bytes, {} refs, checksum {}",
        refs.len(),
        refs.checksum()
    )?;
    Ok(())
}
