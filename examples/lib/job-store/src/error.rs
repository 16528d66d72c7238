//! What can go wrong in a store.

/// Why a store could not do what it was asked.
///
/// After an error of a write nobody knows whether the write was made: tell `handle_unknown`. After an error of a read
/// nothing was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `SQLite` failed.
    #[cfg(feature = "sqlite")]
    #[error("SQLite failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// `PostgreSQL` failed, or cannot be reached.
    #[cfg(feature = "postgres")]
    #[error("PostgreSQL failed: {why}", why = whole(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The database did not answer in time.
    #[error("the database did not answer within {0} ms")]
    Silent(u64),
    /// The tables were made by a newer version of this crate.
    #[error("the tables are of schema {found}, and this program knows schemas up to {known}: use a newer program")]
    NewerSchema {
        /// The schema's number in the database.
        found: i64,
        /// The newest schema that this crate can read.
        known: i64,
    },
    /// A row cannot be encoded or decoded.
    #[error("the row (kind {kind}, id {id}) is damaged: {why}")]
    Damaged {
        /// The row's kind, as the schema numbers it.
        kind: i16,
        /// The row's id.
        id: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A schedule's line or zone is none.
    #[error("the schedule cannot be used: {0}")]
    Schedule(String),
    /// The thread's runtime cannot be made.
    #[error("no runtime for the connection: {0}")]
    Runtime(#[from] std::io::Error),
}

/// The error with what the server said, which the client's own message leaves out.
#[cfg(feature = "postgres")]
fn whole(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
