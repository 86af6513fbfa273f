-- Snapshots of captured tables: how far each has come, so that it resumes where it was.

-- kind: initial when the capture began, or incremental when asked for later. key_columns: the primary key that the table
-- is read by; empty where there is none. after_key: every row up to this key is in the log. ranges: what is being written
-- after it, in order (src/capture/snapshot-jobs.ts). Only Millrace writes here.
CREATE TABLE kafka.capture_snapshots (
  capture_id     int NOT NULL REFERENCES kafka.captures ON DELETE CASCADE,
  schema_name    text NOT NULL,
  table_name     text NOT NULL,
  kind           text NOT NULL CHECK (kind IN ('initial', 'incremental')),
  done           boolean NOT NULL DEFAULT false,
  relation_id    oid NOT NULL DEFAULT 0,
  key_columns    text[] NOT NULL DEFAULT '{}',
  after_key      jsonb,
  ranges         jsonb NOT NULL DEFAULT '[]',
  row_count      bigint NOT NULL DEFAULT 0,
  estimated_rows bigint,
  started_at     timestamptz NOT NULL DEFAULT now(),
  finished_at    timestamptz,
  PRIMARY KEY (capture_id, schema_name, table_name)
) WITH (fillfactor = 50);
