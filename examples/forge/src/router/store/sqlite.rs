//! [`Store`] on `SQLite`: write-ahead log, every commit synced to disk before it is answered.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use tenon_quorum::{Boot, BootRecord, Generation, Incarnation, Start};

use super::{
    Compaction, FeedRow, LogRows, Newborn, Pipelines, Protection, Said, SegmentRow, Store, StoreError, Swap, Swapped,
};

const SCHEMA: &str = "3";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS repos(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS rows(repo INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS feed(
  repo INTEGER NOT NULL, version INTEGER NOT NULL, epoch INTEGER NOT NULL, digest BLOB NOT NULL,
  generation INTEGER NOT NULL, counter INTEGER NOT NULL, record BLOB NOT NULL,
  skip_ci INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(repo, version)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS swept(repo INTEGER PRIMARY KEY, version INTEGER NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS newborns(repo INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS protected(
  repo INTEGER NOT NULL, branch TEXT NOT NULL, PRIMARY KEY(repo, branch)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments(
  repo INTEGER NOT NULL, base INTEGER NOT NULL, \"end\" INTEGER NOT NULL, bytes BLOB NOT NULL,
  PRIMARY KEY(repo, base)) STRICT;
CREATE TABLE IF NOT EXISTS notes(repo INTEGER PRIMARY KEY, router INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS boots(
  node INTEGER NOT NULL, incarnation INTEGER NOT NULL, record TEXT NOT NULL,
  PRIMARY KEY(node, incarnation)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots(repo INTEGER PRIMARY KEY, version INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
";

/// What a store of an older schema lacks: (the schema, what makes the next of it).
const STEPS: [(&str, &str); 2] = [("1", "ALTER TABLE feed ADD COLUMN skip_ci INTEGER NOT NULL DEFAULT 0"), ("2", "")];

/// The embedded store: one file, one connection.
#[derive(Debug)]
pub(crate) struct Sqlite {
    connection: Mutex<Connection>,
}

impl Sqlite {
    /// Opens the file, or makes it.
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(TABLES)?;
        let store = Self { connection: Mutex::new(connection) };
        store.meta("schema", &|| SCHEMA.to_owned())?;
        store.bring_up_to_date()?;
        Ok(store)
    }

    /// Takes a store of an older schema step by step to this one's, all at once or not at all.
    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut found: String = tx.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |r| r.get(0))?;
            for (from, step) in STEPS {
                if found == from {
                    tx.execute_batch(step)?;
                    if from == "2" {
                        write_rows_anew(tx)?;
                    }
                    found = (from.parse::<u32>().unwrap_or_default() + 1).to_string();
                    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [&found])?;
                }
            }
            if found == SCHEMA { Ok(()) } else { Err(StoreError::Schema { found, known: SCHEMA.to_owned() }) }
        })
    }

    /// A panic while the lock was held cannot leave half a change: transactions roll back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = change(&tx)?;
        tx.commit()?;
        Ok(done)
    }
}

impl Store for Sqlite {
    fn meta(&self, key: &str, make: &dyn Fn() -> String) -> Result<String, StoreError> {
        self.write(|tx| {
            let found: Option<String> =
                tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0)).optional()?;
            if let Some(value) = found {
                return Ok(value);
            }
            let value = make();
            tx.execute("INSERT INTO meta(key, value) VALUES(?1, ?2)", params![key, value])?;
            Ok(value)
        })
    }

    fn name(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let id: Option<i64> = self
            .lock()
            .prepare_cached("SELECT id FROM repos WHERE name = ?1")?
            .query_row([name], |r| r.get(0))
            .optional()?;
        id.map(unsigned).transpose()
    }

    fn add_name(&self, name: &str) -> Result<u64, StoreError> {
        self.write(|tx| {
            tx.execute("INSERT OR IGNORE INTO repos(name) VALUES(?1)", [name])?;
            let id: i64 = tx.query_row("SELECT id FROM repos WHERE name = ?1", [name], |r| r.get(0))?;
            unsigned(id)
        })
    }

    fn adopt(&self, repo: u64, name: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute("INSERT OR IGNORE INTO repos(id, name) VALUES(?1, ?2)", params![signed(repo)?, name])?;
            Ok(())
        })
    }

    fn rename(&self, repo: u64, name: &str) -> Result<bool, StoreError> {
        self.write(|tx| {
            let taken = "SELECT count(*) FROM repos WHERE name = ?1 AND id != ?2";
            let taken: i64 = tx.query_row(taken, params![name, signed(repo)?], |r| r.get(0))?;
            if taken > 0 {
                return Ok(false);
            }
            tx.execute("UPDATE repos SET name = ?1 WHERE id = ?2", params![name, signed(repo)?])?;
            Ok(true)
        })
    }

    fn forget(&self, repo: u64) -> Result<(), StoreError> {
        self.write(|tx| {
            let repo = signed(repo)?;
            for table in ["feed", "segments", "snapshots", "newborns", "protected", "swept"] {
                tx.execute(&format!("DELETE FROM {table} WHERE repo = ?1"), [repo])?;
            }
            tx.execute("DELETE FROM repos WHERE id = ?1", [repo])?;
            Ok(())
        })
    }

    fn set_newborn(&self, repo: u64, newborn: Newborn) -> Result<(), StoreError> {
        let change = match newborn {
            Newborn::Yes => "INSERT OR IGNORE INTO newborns(repo) VALUES(?1)",
            Newborn::No => "DELETE FROM newborns WHERE repo = ?1",
        };
        self.lock().execute(change, [signed(repo)?])?;
        Ok(())
    }

    fn newborns(&self) -> Result<Vec<u64>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT repo FROM newborns ORDER BY repo")?;
        let rows = query.query_map([], |r| r.get::<_, i64>(0))?;
        rows.map(|id| unsigned(id?)).collect()
    }

    fn protected(&self, repo: u64) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT branch FROM protected WHERE repo = ?1 ORDER BY branch")?;
        let rows = query.query_map([signed(repo)?], |r| r.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn protect(&self, repo: u64, branch: &str, protection: Protection) -> Result<(), StoreError> {
        let change = match protection {
            Protection::On => "INSERT OR IGNORE INTO protected(repo, branch) VALUES(?1, ?2)",
            Protection::Off => "DELETE FROM protected WHERE repo = ?1 AND branch = ?2",
        };
        self.lock().execute(change, params![signed(repo)?, branch])?;
        Ok(())
    }

    fn swept(&self, repo: u64, version: Option<u64>, now_ms: u64) -> Result<Option<(u64, u64)>, StoreError> {
        self.write(|tx| {
            if version.is_some() {
                tx.execute(
                    "INSERT OR IGNORE INTO swept(repo, version, at_ms) VALUES(?1, 0, ?2)",
                    params![signed(repo)?, signed(now_ms)?],
                )?;
            }
            let found: Option<(i64, i64)> = tx
                .query_row("SELECT version, at_ms FROM swept WHERE repo = ?1", [signed(repo)?], |r| {
                    Ok((r.get(0)?, r.get(1)?))
                })
                .optional()?;
            found.map(|(version, at)| Ok((unsigned(version)?, unsigned(at)?))).transpose()
        })
    }

    fn set_swept(&self, repo: u64, version: u64, now_ms: u64) -> Result<(), StoreError> {
        self.lock().execute(
            "INSERT OR REPLACE INTO swept(repo, version, at_ms) VALUES(?1, ?2, ?3)",
            params![signed(repo)?, signed(version)?, signed(now_ms)?],
        )?;
        Ok(())
    }

    fn shorten_feed(&self, repo: u64, followed: u64, keep: u32) -> Result<(), StoreError> {
        self.lock().execute(
            "DELETE FROM feed WHERE repo = ?1 AND version <= ?2 AND record = x''
             AND version <= (SELECT MAX(version) FROM feed WHERE repo = ?1) - ?3",
            params![signed(repo)?, signed(followed)?, keep],
        )?;
        Ok(())
    }

    fn names(&self) -> Result<Vec<(u64, String)>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT id, name FROM repos ORDER BY name")?;
        let rows = query.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get(1)?)))?;
        rows.map(|row| {
            let (id, name) = row?;
            Ok((unsigned(id)?, name))
        })
        .collect()
    }

    fn row(&self, repo: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .lock()
            .prepare_cached("SELECT body FROM rows WHERE repo = ?1")?
            .query_row([signed(repo)?], |r| r.get(0))
            .optional()?)
    }

    fn look(&self, repo: u64) -> Result<(Said, Option<Vec<u8>>), StoreError> {
        let mut connection = self.lock();
        let tx = connection.transaction()?;
        let repo = signed(repo)?;
        let row =
            tx.prepare_cached("SELECT body FROM rows WHERE repo = ?1")?.query_row([repo], |r| r.get(0)).optional()?;
        Ok((said(&tx, repo)?, row))
    }

    fn note(&self, repo: u64, router: u32) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO notes(repo, router) SELECT repo, ?2 FROM rows WHERE repo = ?1",
                params![signed(repo)?, router],
            )?;
            Ok(())
        })
    }

    fn draw_life(&self) -> Result<Incarnation, StoreError> {
        self.write(|tx| {
            let life = life(tx)?;
            let last: Option<String> =
                tx.query_row("SELECT value FROM meta WHERE key = 'disks'", [], |r| r.get(0)).optional()?;
            // Lives of disks are counted anew in each life of the store, which they name.
            let last = last.and_then(|text| text.parse().ok()).map_or(Incarnation(0), Incarnation);
            let first = Incarnation::drawn(Generation(life), 1);
            let next = if last < first { first } else { Incarnation(last.0.saturating_add(1)) };
            tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES('disks', ?1)", [next.0.to_string()])?;
            Ok(next)
        })
    }

    fn start_node(&self, node: u32, incarnation: Incarnation, disk: Boot) -> Result<Start, StoreError> {
        let key = (node, i64::from_ne_bytes(incarnation.0.to_ne_bytes()));
        self.write(|tx| {
            let known: Option<String> = tx
                .query_row("SELECT record FROM boots WHERE node = ?1 AND incarnation = ?2", key, |r| r.get(0))
                .optional()?;
            let unreadable = |e: serde_json::Error| StoreError::Value(format!("the record of a boot: {e}"));
            let record: BootRecord = known
                .map_or_else(|| Ok(BootRecord::default()), |text| serde_json::from_str(&text).map_err(unreadable))?;
            let (record, start) = record.start(Generation(life(tx)?), disk);
            let record = serde_json::to_string(&record).map_err(unreadable)?;
            tx.execute(
                "INSERT OR REPLACE INTO boots(node, incarnation, record) VALUES(?1, ?2, ?3)",
                params![key.0, key.1, record],
            )?;
            Ok(start)
        })
    }

    fn swap(&self, swap: &Swap<'_>) -> Result<(Said, Swapped), StoreError> {
        let Swap { expect, next, feed, .. } = *swap;
        let repo = signed(swap.repo)?;
        self.write(|tx| {
            if life(tx)? != swap.life {
                return Ok((said(tx, repo)?, Swapped::OtherLife));
            }
            let changed = match expect {
                Some(expect) => tx
                    .prepare_cached("UPDATE rows SET body = ?2 WHERE repo = ?1 AND body = ?3")?
                    .execute(params![repo, next, expect])?,
                None => tx
                    .prepare_cached("INSERT OR IGNORE INTO rows(repo, body) VALUES(?1, ?2)")?
                    .execute(params![repo, next])?,
            };
            if changed == 0 {
                let found = tx
                    .prepare_cached("SELECT body FROM rows WHERE repo = ?1")?
                    .query_row([repo], |r| r.get(0))
                    .optional()?;
                return Ok((said(tx, repo)?, Swapped::Conflict(found)));
            }
            if let Some(row) = feed {
                tx.prepare_cached(
                    "INSERT INTO feed(repo, version, epoch, digest, generation, counter, record, skip_ci)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    repo,
                    signed(row.version)?,
                    row.epoch,
                    row.digest,
                    row.fence.0,
                    signed(row.fence.1)?,
                    row.record,
                    row.pipelines == Pipelines::Skipped
                ])?;
            }
            if swap.clears_note {
                tx.prepare_cached("DELETE FROM notes WHERE repo = ?1")?.execute([repo])?;
            }
            Ok((said(tx, repo)?, Swapped::Moved))
        })
    }

    fn feed(&self, repo: u64, after: u64, limit: usize) -> Result<Vec<FeedRow>, StoreError> {
        feed(&self.lock(), repo, after, limit)
    }

    fn log(&self, repo: u64, from: u64) -> Result<LogRows, StoreError> {
        // One transaction: a compaction between the reads would leave a gap.
        let mut connection = self.lock();
        let tx = connection.transaction()?;
        let id = signed(repo)?;
        let snapshot: Option<(i64, Vec<u8>)> = tx
            .prepare_cached("SELECT version, bytes FROM snapshots WHERE repo = ?1")?
            .query_row([id], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let mut log = LogRows::default();
        let mut at = from;
        if let Some((version, bytes)) = snapshot {
            let version = unsigned(version)?;
            if version > from {
                log.snapshot = Some((version, bytes));
                at = version;
            }
        }
        for segment in segments(&tx, id)? {
            if segment.end > at {
                at = segment.end;
                log.segments.push(segment);
            }
        }
        log.tail = feed(&tx, repo, at, usize::MAX)?;
        Ok(log)
    }

    fn long_logs(&self, many: usize) -> Result<Vec<u64>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT repo FROM feed WHERE record != x'' GROUP BY repo HAVING count(*) > ?1 ORDER BY repo",
        )?;
        let rows = query.query_map([i64::try_from(many).unwrap_or(i64::MAX)], |r| r.get::<_, i64>(0))?;
        rows.map(|id| unsigned(id?)).collect()
    }

    fn compact(&self, repo: u64, done: &Compaction) -> Result<(), StoreError> {
        let repo = signed(repo)?;
        self.write(|tx| {
            if let Some((version, bytes)) = &done.snapshot {
                tx.execute(
                    "INSERT OR REPLACE INTO snapshots(repo, version, bytes) VALUES(?1, ?2, ?3)",
                    params![repo, signed(*version)?, bytes],
                )?;
            }
            tx.execute("DELETE FROM segments WHERE repo = ?1", [repo])?;
            for s in &done.segments {
                tx.execute(
                    "INSERT INTO segments(repo, base, \"end\", bytes) VALUES(?1, ?2, ?3, ?4)",
                    params![repo, signed(s.base)?, signed(s.end)?, s.bytes],
                )?;
            }
            // The rows stay (who committed what is still asked when an outcome is unknown); the
            // records they carried go.
            tx.execute(
                "UPDATE feed SET record = x'' WHERE repo = ?1 AND version <= ?2",
                params![repo, signed(done.through)?],
            )?;
            Ok(())
        })
    }
}

/// Rows are compared as they are written: those of an older crate get what it did not know of.
fn write_rows_anew(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let mut query = tx.prepare("SELECT repo, body FROM rows")?;
    let rows = query.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, Vec<u8>>(1)?)))?;
    for (repo, body) in rows.collect::<Result<Vec<_>, _>>()? {
        if let Ok(row) = serde_json::from_slice::<tenon_quorum::Row>(&body) {
            let body = serde_json::to_vec(&row).map_err(|e| StoreError::Value(format!("a row: {e}")))?;
            tx.execute("UPDATE rows SET body = ?2 WHERE repo = ?1", params![repo, body])?;
        }
    }
    Ok(())
}

/// The life that the store is in: the first, if it never came back from a backup.
fn life(connection: &Connection) -> Result<u32, StoreError> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE key = 'life'")?;
    let text: Option<String> = query.query_row([], |r| r.get(0)).optional()?;
    let Some(text) = text else { return Ok(1) };
    text.parse().map_err(|_| StoreError::Value(format!("the life of the store is {text}")))
}

fn said(connection: &Connection, repo: i64) -> Result<Said, StoreError> {
    let mut query = connection.prepare_cached("SELECT router FROM notes WHERE repo = ?1")?;
    Ok(Said { life: life(connection)?, note: query.query_row([repo], |r| r.get(0)).optional()? })
}

fn segments(connection: &Connection, repo: i64) -> Result<Vec<SegmentRow>, StoreError> {
    let mut query =
        connection.prepare_cached("SELECT base, \"end\", bytes FROM segments WHERE repo = ?1 ORDER BY base")?;
    let rows = query.query_map([repo], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get(2)?)))?;
    rows.map(|row| {
        let (base, end, bytes) = row?;
        Ok(SegmentRow { base: unsigned(base)?, end: unsigned(end)?, bytes })
    })
    .collect()
}

fn feed(connection: &Connection, repo: u64, after: u64, limit: usize) -> Result<Vec<FeedRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT version, epoch, digest, generation, counter, record, skip_ci FROM feed
         WHERE repo = ?1 AND version > ?2 ORDER BY version LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query.query_map(params![signed(repo)?, signed(after)?, limit], |r| {
        Ok((r.get::<_, i64>(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get::<_, i64>(4)?, r.get(5)?, r.get::<_, bool>(6)?))
    })?;
    rows.map(|row| {
        let (version, epoch, digest, generation, counter, record, skipped) = row?;
        let pipelines = if skipped { Pipelines::Skipped } else { Pipelines::Wanted };
        let fence = (generation, unsigned(counter)?);
        Ok(FeedRow { version: unsigned(version)?, epoch, digest, fence, record, pipelines })
    })
    .collect()
}

/// The database's integers are signed; ids, versions and counters are not, and never grow that far.
fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Value(format!("{value} is too large")))
}

fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Value(format!("{value} is negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("store.db")).unwrap();
        (dir, store)
    }

    fn swap(store: &Sqlite, repo: u64, expect: Option<&[u8]>, next: &[u8], feed: Option<&FeedRow>) -> Swapped {
        store.swap(&Swap { life: 1, repo, expect, next, feed, clears_note: true }).unwrap().1
    }

    fn change(version: u64) -> FeedRow {
        FeedRow {
            version,
            digest: [7; 16],
            fence: (1, version),
            epoch: 1,
            record: vec![u8::try_from(version).unwrap(); 3],
            pipelines: if version == 6 { Pipelines::Skipped } else { Pipelines::Wanted },
        }
    }

    #[test]
    fn a_swap_moves_the_whole_row_and_the_feed_or_nothing() {
        let (_dir, store) = store();
        let repo = store.add_name("a").unwrap();
        assert_eq!(swap(&store, repo, None, b"r0", None), Swapped::Moved);
        assert_eq!(swap(&store, repo, None, b"other", None), Swapped::Conflict(Some(b"r0".to_vec())));
        assert_eq!(swap(&store, repo, Some(b"r0"), b"r1", Some(&change(1))), Swapped::Moved);
        assert_eq!(swap(&store, repo, Some(b"r0"), b"r2", Some(&change(2))), Swapped::Conflict(Some(b"r1".to_vec())));
        assert_eq!(store.row(repo).unwrap(), Some(b"r1".to_vec()));
        assert_eq!(store.feed(repo, 0, 10).unwrap(), vec![change(1)]);
        // A feed row that is there already rolls the whole swap back.
        let twice = change(1);
        let again = Swap { life: 1, repo, expect: Some(b"r1"), next: b"r2", feed: Some(&twice), clears_note: false };
        assert!(store.swap(&again).is_err());
        // A swap of a router that does not know that the store came back from a backup.
        let other = Swap { life: 2, feed: None, ..again };
        assert_eq!(store.swap(&other).unwrap().1, Swapped::OtherLife);
        assert_eq!(store.row(repo).unwrap(), Some(b"r1".to_vec()));
    }

    #[test]
    fn a_log_is_what_lies_above_the_reader() {
        let (_dir, store) = store();
        let repo = store.add_name("a").unwrap();
        swap(&store, repo, None, &[0], None);
        for v in 1..=6_u8 {
            swap(&store, repo, Some(&[v - 1]), &[v], Some(&change(v.into())));
        }
        let segment = |base, end| SegmentRow { base, end, bytes: vec![1] };
        store
            .compact(repo, &Compaction { snapshot: Some((2, vec![9])), segments: vec![segment(2, 4)], through: 4 })
            .unwrap();
        let log = store.log(repo, 0).unwrap();
        assert_eq!(log.snapshot, Some((2, vec![9])));
        assert_eq!(log.segments, vec![segment(2, 4)]);
        assert_eq!(log.tail, vec![change(5), change(6)]);
        let log = store.log(repo, 3).unwrap();
        assert_eq!((log.snapshot, log.segments.len()), (None, 1));
        let log = store.log(repo, 5).unwrap();
        assert_eq!((log.segments.len(), log.tail), (0, vec![change(6)]));
        assert_eq!(store.feed(repo, 1, 1).unwrap()[0].record, Vec::<u8>::new());
        assert_eq!((store.long_logs(1).unwrap(), store.long_logs(2).unwrap()), (vec![repo], vec![]));
    }

    #[test]
    fn a_store_of_the_first_schema_opens_and_one_of_a_later_says_so() {
        let (dir, store) = store();
        let repo = store.add_name("a").unwrap();
        swap(&store, repo, None, b"r0", Some(&change(1)));
        drop(store);
        let file = dir.path().join("store.db");
        let connection = Connection::open(&file).unwrap();
        connection
            .execute_batch(
                "ALTER TABLE feed DROP COLUMN skip_ci; DROP TABLE newborns; DROP TABLE protected;
                 UPDATE meta SET value = '1' WHERE key = 'schema'",
            )
            .unwrap();
        let store = Sqlite::open(&file).unwrap();
        assert_eq!(store.feed(repo, 0, 10).unwrap(), vec![change(1)]);
        assert_eq!(store.meta("schema", &String::new).unwrap(), SCHEMA);
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'", []).unwrap();
        assert!(matches!(Sqlite::open(&file), Err(StoreError::Schema { found, .. }) if found == "99"));
    }

    #[test]
    fn a_feed_is_shortened_as_far_as_it_is_followed_and_folded() {
        let (_dir, store) = store();
        let repo = store.add_name("a").unwrap();
        swap(&store, repo, None, &[0], None);
        for v in 1..=6_u8 {
            swap(&store, repo, Some(&[v - 1]), &[v], Some(&change(v.into())));
        }
        let left = || store.feed(repo, 0, 10).unwrap().iter().map(|row| row.version).collect::<Vec<_>>();
        store.shorten_feed(repo, 6, 1).unwrap();
        assert_eq!(left(), [1, 2, 3, 4, 5, 6], "nothing is folded");
        store.compact(repo, &Compaction { snapshot: Some((4, vec![9])), segments: Vec::new(), through: 4 }).unwrap();
        store.shorten_feed(repo, 2, 1).unwrap();
        assert_eq!(left(), [3, 4, 5, 6], "what is not followed stays");
        store.shorten_feed(repo, 6, 3).unwrap();
        assert_eq!(left(), [4, 5, 6], "the newest three stay");
    }

    #[test]
    fn what_is_forgotten_leaves_its_row_and_frees_its_name() {
        let (_dir, store) = store();
        let repo = store.add_name("a").unwrap();
        swap(&store, repo, None, b"r0", Some(&change(1)));
        store.protect(repo, "refs/heads/main", Protection::On).unwrap();
        store.set_newborn(repo, Newborn::Yes).unwrap();
        let other = store.add_name("b").unwrap();
        assert!(!store.rename(other, "a").unwrap() && store.rename(other, "c").unwrap());
        assert_eq!((store.protected(repo).unwrap().len(), store.newborns().unwrap()), (1, vec![repo]));
        store.forget(repo).unwrap();
        assert_eq!((store.protected(repo).unwrap().len(), store.newborns().unwrap()), (0, vec![]));
        assert_eq!(store.names().unwrap(), [(other, "c".to_owned())]);
        assert_eq!((store.row(repo).unwrap(), store.feed(repo, 0, 10).unwrap()), (Some(b"r0".to_vec()), vec![]));
        assert!(![repo, other].contains(&store.add_name("a").unwrap()), "another repository");
    }

    #[test]
    fn a_note_stands_until_a_grant_clears_it_and_disks_are_numbered_per_life() {
        let (_dir, store) = store();
        let repo = store.add_name("a").unwrap();
        store.note(repo, 7).unwrap();
        assert_eq!(store.look(repo).unwrap().0.note, None, "there is no row to wait for");
        swap(&store, repo, None, &[0], None);
        store.note(repo, 7).unwrap();
        let commit = Swap { life: 1, repo, expect: Some(&[0]), next: &[1], feed: None, clears_note: false };
        assert_eq!(store.swap(&commit).unwrap(), (Said { life: 1, note: Some(7) }, Swapped::Moved));
        let grant = Swap { expect: Some(&[1]), next: &[2], clears_note: true, ..commit };
        assert_eq!(store.swap(&grant).unwrap().0.note, None);
        let (first, second) = (store.draw_life().unwrap(), store.draw_life().unwrap());
        assert_eq!((first, second), (Incarnation::drawn(Generation(1), 1), Incarnation::drawn(Generation(1), 2)));
        store.write(|tx| Ok(tx.execute("INSERT OR REPLACE INTO meta VALUES('life', '2')", [])?)).unwrap();
        assert_eq!(store.draw_life().unwrap(), Incarnation::drawn(Generation(2), 1));
    }

    #[test]
    fn names_keep_their_ids() {
        let (dir, store) = store();
        let a = store.add_name("a").unwrap();
        assert_ne!(store.add_name("b").unwrap(), a);
        assert_eq!(store.add_name("a").unwrap(), a);
        drop(store);
        let store = Sqlite::open(&dir.path().join("store.db")).unwrap();
        assert_eq!(store.name("a").unwrap(), Some(a));
        assert_eq!(store.name("c").unwrap(), None);
    }
}
