-- Snapshots in pieces: several sessions read one table, each a range of its key or of its pages.

-- after_key: every row of the piece up to this position is in the log. A position is the values of the key that the table
-- is read by, or a ctid. until_key: where the piece ends, NULL for the table's end. ranges: what is being written behind
-- after_key, in order (src/capture/snapshot-jobs.ts). leaf_id, filenode: the partition or table whose ctids these are.
CREATE TABLE kafka.capture_snapshot_pieces (
  capture_id  int NOT NULL,
  schema_name text NOT NULL,
  table_name  text NOT NULL,
  piece       int NOT NULL,
  leaf_id     oid NOT NULL DEFAULT 0,
  filenode    oid NOT NULL DEFAULT 0,
  after_key   jsonb,
  until_key   jsonb,
  ranges      jsonb NOT NULL DEFAULT '[]',
  row_count   bigint NOT NULL DEFAULT 0,
  byte_count  bigint NOT NULL DEFAULT 0,
  done        boolean NOT NULL DEFAULT false,
  PRIMARY KEY (capture_id, schema_name, table_name, piece),
  FOREIGN KEY (capture_id, schema_name, table_name) REFERENCES kafka.capture_snapshots ON DELETE CASCADE
) WITH (fillfactor = 50);

-- A table that was being read by its key is one piece, and goes on where it was.
INSERT INTO kafka.capture_snapshot_pieces (capture_id, schema_name, table_name, piece, after_key, ranges, row_count)
SELECT capture_id, schema_name, table_name, 0, after_key, ranges, row_count
FROM kafka.capture_snapshots WHERE NOT done AND key_columns <> '{}';

-- base: for a table without a key, the database snapshot where the stream takes over from the reading, and its LSN.
ALTER TABLE kafka.capture_snapshots
  DROP COLUMN after_key,
  DROP COLUMN ranges,
  ADD COLUMN byte_count bigint NOT NULL DEFAULT 0,
  ADD COLUMN base jsonb;
