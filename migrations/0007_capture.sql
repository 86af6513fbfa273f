-- Change capture: what is captured, and how far it has come.

-- One row for each capture. confirmed_lsn: everything before it is in the log; written before the slot is told, so a
-- slot that is ahead of it has been moved by somebody else, and changes are missing.
CREATE TABLE kafka.captures (
  capture_id    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text NOT NULL UNIQUE,
  slot_name     text NOT NULL,
  confirmed_lsn pg_lsn NOT NULL DEFAULT '0/0',
  paused        boolean NOT NULL DEFAULT false,
  created_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The last change of a capture that is in a partition: commits with its record (src/storage/group.ts). A change
-- is known by its transaction's commit LSN and its place in it. partition_count is the topic's at that time: it tells
-- which partition a key went to. No foreign key: topics come and go, and their ids are never used again.
CREATE TABLE kafka.capture_positions (
  capture_id      int NOT NULL REFERENCES kafka.captures ON DELETE CASCADE,
  topic_id        int NOT NULL,
  partition_id    int NOT NULL,
  partition_count int NOT NULL,
  commit_lsn      pg_lsn NOT NULL,
  ordinal         bigint NOT NULL,
  PRIMARY KEY (capture_id, topic_id, partition_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
