//! What a node must not forget: who it is, and per repository its gate and the record it voted for, in one transaction.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use tenon_quorum::{Boot, Disk, FenceGate, Incarnation, RepoId};

use crate::wire::{Begin, ParcelId};

/// The node's own database. A call returns once what it says is on disk.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    connection: Arc<Mutex<Connection>>,
    /// None yet, for an empty disk.
    incarnation: Option<Incarnation>,
    disk: Disk,
}

/// A gate as it stands on disk, and what it voted for.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) gate: FenceGate,
    pub(crate) vote: Option<KeptVote>,
}

/// What a gate voted for: the frame of a record, and the parcel that holds its objects.
#[derive(Debug)]
pub(crate) struct KeptVote {
    pub(crate) record: Vec<u8>,
    pub(crate) parcel: Option<ParcelId>,
}

/// Why the database did not do its work. The transaction did not happen, or (on a failing disk) its end is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    #[error("node.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("node.db holds a gate that cannot be read: {0}")]
    Gate(#[from] serde_json::Error),
    #[error("node.db: the task that used it ended")]
    Task,
}

impl Db {
    /// Opens the database. A node goes on to [`Db::begin`] until it is ready.
    pub(crate) fn open(file: &Path) -> Result<Db, DbError> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS node (
               id INTEGER PRIMARY KEY CHECK (id = 1), incarnation INTEGER NOT NULL, disk TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS gates (repo INTEGER PRIMARY KEY, gate TEXT NOT NULL, record BLOB) STRICT;",
        )?;
        // Folders of forge 0.1 have no parcels: their votes' objects are in the repositories.
        let has_parcels: i64 = connection.query_row(
            "SELECT count(*) FROM pragma_table_info('gates') WHERE name = 'parcel'",
            [],
            |row| row.get(0),
        )?;
        if has_parcels == 0 {
            connection.execute_batch("ALTER TABLE gates ADD COLUMN parcel TEXT")?;
        }
        // Nor do they know of starts.
        let has_disk: i64 =
            connection.query_row("SELECT count(*) FROM pragma_table_info('node') WHERE name = 'disk'", [], |row| {
                row.get(0)
            })?;
        if has_disk == 0 {
            connection.execute_batch("ALTER TABLE node ADD COLUMN disk TEXT NOT NULL DEFAULT 'null'")?;
        }
        let known: Option<(i64, String)> = connection
            .query_row("SELECT incarnation, disk FROM node", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (incarnation, disk) = match known {
            Some((life, disk)) => (
                Some(Incarnation(u64::from_ne_bytes(life.to_ne_bytes()))),
                serde_json::from_str::<Option<Disk>>(&disk)?.unwrap_or_default(),
            ),
            None => (None, Disk::default()),
        };
        Ok(Db { connection: Arc::new(Mutex::new(connection)), incarnation, disk })
    }

    /// The life of this disk, and its last start, as the router is asked to go on from them.
    pub(crate) fn known(&self) -> (Option<Incarnation>, Boot) {
        (self.incarnation, self.disk.boot)
    }

    /// Does the next step of a start; whether the node is ready.
    pub(crate) fn begin(&mut self, step: Begin) -> Result<bool, DbError> {
        match step {
            Begin::Ready => return Ok(true),
            Begin::Life(life) => self.incarnation = Some(life),
            Begin::Boot { boot, rewound } => self.disk = self.disk.started(boot, rewound),
        }
        let disk = serde_json::to_string(&self.disk)?;
        let life = i64::from_ne_bytes(self.incarnation().0.to_ne_bytes());
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .execute("INSERT OR REPLACE INTO node (id, incarnation, disk) VALUES (1, ?1, ?2)", params![life, disk])?;
        Ok(false)
    }

    /// The life of this disk.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation.unwrap_or_default()
    }

    /// The starts of this disk.
    pub(crate) fn disk(&self) -> Disk {
        self.disk
    }

    /// What is kept of a repository.
    pub(crate) async fn load(&self, repo: RepoId) -> Result<Option<Kept>, DbError> {
        self.with(move |connection| {
            let found: Option<(String, Option<Vec<u8>>, Option<String>)> = connection
                .query_row("SELECT gate, record, parcel FROM gates WHERE repo = ?1", params![key(repo)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            let Some((gate, record, parcel)) = found else { return Ok(None) };
            let parcel = parcel.and_then(|parcel| ParcelId::try_from(parcel).ok());
            let vote = record.map(|record| KeptVote { record, parcel });
            Ok(Some(Kept { gate: serde_json::from_str(&gate)?, vote }))
        })
        .await
    }

    /// Keeps a gate and what it voted for (nothing, if it has no open vote) in one transaction.
    pub(crate) async fn keep(&self, repo: RepoId, gate: &FenceGate, vote: Option<KeptVote>) -> Result<(), DbError> {
        let gate = serde_json::to_string(gate)?;
        let (record, parcel) = vote.map_or((None, None), |vote| (Some(vote.record), vote.parcel.map(String::from)));
        self.with(move |connection| {
            connection.execute(
                "INSERT INTO gates (repo, gate, record, parcel) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (repo) DO UPDATE
                 SET gate = excluded.gate, record = excluded.record, parcel = excluded.parcel",
                params![key(repo), gate, record, parcel],
            )?;
            Ok(())
        })
        .await
    }

    /// How many repositories the node has a gate for.
    pub(crate) async fn count(&self) -> Result<usize, DbError> {
        self.with(|connection| {
            let count: i64 = connection.query_row("SELECT count(*) FROM gates", [], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or_default())
        })
        .await
    }

    /// The repositories that the node has a gate for.
    pub(crate) async fn repositories(&self) -> Result<Vec<RepoId>, DbError> {
        self.with(|connection| {
            let mut query = connection.prepare_cached("SELECT repo FROM gates ORDER BY repo")?;
            let ids = query.query_map([], |row| row.get::<_, i64>(0))?;
            Ok(ids.map(|id| id.map(|id| RepoId(u64::from_ne_bytes(id.to_ne_bytes())))).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|_| DbError::Task)?
    }
}

/// The database's integers are signed; every id maps to one of its own.
fn key(repo: RepoId) -> i64 {
    i64::from_ne_bytes(repo.0.to_ne_bytes())
}
