//! A backup of the store, and its way back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, OpenFlags, params};

use super::Sqlite;

/// Repositories of one life of the store at most. Each life counts its ids from a place of its own: what was made after
/// the backup keeps its id, though the store has forgotten it.
const IDS: u64 = 1 << 20;

/// Writes the store as it is now into a new file, while it is in use.
///
/// # Errors
/// There is no store, or the file is there already.
pub(crate) fn back_up(store: &Path, to: &Path) -> Result<()> {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("there is no store at {}", store.display()))?;
    let name = to.to_str().context("the backup's name is no text")?;
    connection.execute("VACUUM INTO ?1", [name]).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(File::open(to)?.sync_all()?)
}

/// Puts a backup in the store's place, in the store's next life. Nobody may have the store open.
///
/// # Errors
/// The backup is none, or cannot be copied: the store is as it was.
pub(crate) fn restore(backup: &Path, store: &Path, generation: u32) -> Result<()> {
    ensure!(backup.is_file(), "there is no backup at {}", backup.display());
    let next = store.with_extension("new");
    fs::copy(backup, &next).with_context(|| format!("cannot copy {}", backup.display()))?;
    // Whatever it is, it is a store of this version after that, or this ends here.
    drop(Sqlite::open(&next).with_context(|| format!("{} is no backup of a store", backup.display()))?);
    let connection = Connection::open(&next)?;
    let first = i64::try_from(u64::from(generation) * IDS)?;
    connection.execute(
        "INSERT INTO sqlite_sequence(name, seq) SELECT 'repos', 0
         WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'repos')",
        [],
    )?;
    connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'repos'", params![first])?;
    connection
        .execute("INSERT OR REPLACE INTO meta(key, value) VALUES('life', ?1)", params![generation.to_string()])?;
    connection.execute("DELETE FROM notes", [])?;
    // Leaves one file, without a log beside it.
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    drop(connection);
    File::open(&next)?.sync_all()?;
    for log in ["-wal", "-shm"] {
        let mut name = store.as_os_str().to_owned();
        name.push(log);
        match fs::remove_file(&name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    fs::rename(&next, store)?;
    Ok(File::open(store.parent().unwrap_or(Path::new(".")))?.sync_all()?)
}
