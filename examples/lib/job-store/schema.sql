CREATE TABLE jobqueue_rows(
  kind SMALLINT NOT NULL,    -- 0 a job, 1 a pipeline, 2 a key, 3 a plan, 4 a pool, 5 a life of an engine
  id BIGINT NOT NULL,        -- the number of the job, pipeline, key, pool or life; a plan has its pipeline's
  attempt INT NOT NULL,      -- the job's attempt; 0 for other kinds
  pipeline BIGINT,           -- of a job, a pipeline or a plan
  version INT NOT NULL,      -- a row is changed only from the version that the engine expects
  open BOOLEAN NOT NULL,     -- a job that has not ended, a pipeline that is open
  owes BOOLEAN NOT NULL,     -- a pipeline that any engine may go on with
  holds BIGINT,              -- the key that a job holds
  life BIGINT,               -- the life of an engine that a leased job is charged to
  row BYTEA NOT NULL,        -- the whole row
  PRIMARY KEY(kind, id, attempt));
CREATE INDEX jobqueue_open ON jobqueue_rows(kind, id) WHERE open;
CREATE INDEX jobqueue_of ON jobqueue_rows(pipeline) WHERE pipeline IS NOT NULL;
CREATE INDEX jobqueue_owes ON jobqueue_rows(id) WHERE owes;
CREATE INDEX jobqueue_holds ON jobqueue_rows(holds) WHERE holds IS NOT NULL;
CREATE TABLE jobqueue_numbers(name TEXT PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE jobqueue_payloads(job BIGINT PRIMARY KEY, payload BYTEA NOT NULL);
CREATE TABLE jobqueue_schedules(
  id BIGINT PRIMARY KEY,
  version INT NOT NULL,
  cron TEXT NOT NULL,        -- minute hour day month weekday
  zone TEXT NOT NULL,        -- an IANA time zone
  missed SMALLINT NOT NULL,  -- 0 skip, 1 once, 2 all
  last_ms BIGINT NOT NULL,   -- the firing that was decided about last
  next_ms BIGINT,            -- the next one; NULL: never, or paused
  payload BYTEA NOT NULL);
CREATE INDEX jobqueue_due ON jobqueue_schedules(next_ms) WHERE next_ms IS NOT NULL;
