//! The statements that both databases take as they stand. `SQLite` counts parameters as it meets them, so each statement
//! names them in their order.

/// The schema, in the order in which it grew: number n brings a database from version n - 1 to version n.
pub(crate) const MIGRATIONS: [&str; 1] = [include_str!("../schema.sql")];

/// The newest version of the schema.
#[allow(clippy::cast_possible_wrap, reason = "a handful")]
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

pub(crate) const MAKE_VERSION: &str = "CREATE TABLE IF NOT EXISTS jobqueue_schema(version BIGINT PRIMARY KEY)";
pub(crate) const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM jobqueue_schema";
pub(crate) const SET_VERSION: &str = "INSERT INTO jobqueue_schema(version) VALUES($1)";

/// Draws numbers that nobody has drawn before, and none twice: the last of them.
pub(crate) const DRAW: &str = "INSERT INTO jobqueue_numbers(name, value) VALUES($1, $2)
 ON CONFLICT(name) DO UPDATE SET value = jobqueue_numbers.value + $2 RETURNING value";
pub(crate) const LIFE: &str = "life";
pub(crate) const IDS: &str = "id";

/// The latest attempt of a job.
pub(crate) const JOB: &str = "SELECT kind, id, row FROM jobqueue_rows
 WHERE kind = 0 AND id = $1 ORDER BY attempt DESC LIMIT 1";
/// A pipeline's row and plan, and the latest attempt of each of its jobs.
pub(crate) const PIPELINE: &str = "SELECT kind, id, row FROM jobqueue_rows AS r WHERE pipeline = $1 AND NOT EXISTS
 (SELECT 1 FROM jobqueue_rows AS n WHERE n.kind = r.kind AND n.id = r.id AND n.attempt > r.attempt)";
/// The open pipelines of a range, so many, with their plans and the jobs that have not ended.
pub(crate) const OPEN: &str = "SELECT r.kind, r.id, r.row FROM
 (SELECT id FROM jobqueue_rows WHERE kind = 1 AND open AND id >= $1 AND id <= $2 ORDER BY id LIMIT $3) AS p
 JOIN jobqueue_rows AS r ON r.pipeline = p.id WHERE r.open OR r.kind = 3";
/// The same of pipelines that owe something.
pub(crate) const OWING: &str = "SELECT r.kind, r.id, r.row FROM
 (SELECT id FROM jobqueue_rows WHERE owes ORDER BY id < 0, id LIMIT $1) AS p
 JOIN jobqueue_rows AS r ON r.pipeline = p.id WHERE r.open OR r.kind = 3";
/// What a new life of an engine begins with.
pub(crate) const ALL_OPEN: &str = "SELECT kind, id, row FROM jobqueue_rows WHERE open
 UNION ALL SELECT r.kind, r.id, r.row FROM jobqueue_rows AS p
 JOIN jobqueue_rows AS r ON r.kind = 3 AND r.id = p.id AND r.attempt = 0 WHERE p.kind = 1 AND p.open";
/// The jobs that hold a key.
pub(crate) const HOLDERS: &str = "SELECT kind, id, row FROM jobqueue_rows WHERE holds = $1";
/// The leased jobs that are charged to a life. It is asked only when an engine has died.
pub(crate) const CHARGED: &str = "SELECT kind, id, row FROM jobqueue_rows WHERE kind = 0 AND open AND life = $1";
/// Every attempt of the first so many jobs in a range.
pub(crate) const JOBS: &str = "SELECT kind, id, row FROM jobqueue_rows WHERE kind = 0 AND id >= $1
 AND id <= (SELECT MAX(j.id) FROM (SELECT DISTINCT id FROM jobqueue_rows
   WHERE kind = 0 AND id >= $1 AND id <= $2 ORDER BY id LIMIT $3) AS j)
 ORDER BY id, attempt";
pub(crate) const PAYLOAD: &str = "SELECT payload FROM jobqueue_payloads WHERE job = $1";

pub(crate) const PUT_SCHEDULE: &str = "INSERT INTO
 jobqueue_schedules(id, version, cron, zone, missed, last_ms, next_ms, payload) VALUES($1, 1, $2, $3, $4, $5, $6, $7)";
pub(crate) const MOVE_SCHEDULE: &str = "UPDATE jobqueue_schedules
 SET version = version + 1, last_ms = $1, next_ms = $2 WHERE id = $3 AND version = $4";
pub(crate) const END_SCHEDULE: &str = "DELETE FROM jobqueue_schedules WHERE id = $1";
pub(crate) const SCHEDULES: &str = "SELECT id, version, cron, zone, missed, last_ms, next_ms, payload
 FROM jobqueue_schedules ORDER BY id";
pub(crate) const DUE: &str = "SELECT id, version, cron, zone, missed, last_ms, next_ms, payload
 FROM jobqueue_schedules WHERE next_ms <= $1 ORDER BY next_ms LIMIT $2";
