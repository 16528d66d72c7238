CREATE TABLE queue(kind INT, id BIGINT, attempt BIGINT, pipeline BIGINT NOT NULL, version BIGINT NOT NULL,
  open BOOLEAN NOT NULL, row TEXT NOT NULL, PRIMARY KEY(kind, id, attempt));
CREATE INDEX queue_open ON queue(kind, id) WHERE open;
CREATE INDEX queue_of ON queue(pipeline, id);
CREATE TABLE lives(life BIGINT PRIMARY KEY);
