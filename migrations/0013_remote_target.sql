-- Captures into a remote Kafka (src/capture/remote-destination.ts). Rows go with their capture.

-- The producer ids under which a capture has written to a cluster, noted before they are used: by them it knows its own
-- batches. The newest is in use. refusals: how often in a row a partition refused what follows its end.
CREATE TABLE kafka.capture_producers (
  capture_id  int NOT NULL REFERENCES kafka.captures ON DELETE CASCADE,
  cluster_id  text NOT NULL,
  producer_id bigint NOT NULL,
  refusals    int NOT NULL DEFAULT 0,
  made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (capture_id, cluster_id, producer_id)
);

-- What a partition had acknowledged when it was last noted, before the slot was told: the last change in it, and the
-- offset and sequence that follow. What was acknowledged since is read back from the partition itself, from next_offset
-- on. A row is there before the first batch.
CREATE TABLE kafka.capture_remote_positions (
  capture_id      int NOT NULL REFERENCES kafka.captures ON DELETE CASCADE,
  cluster_id      text NOT NULL,
  topic           text NOT NULL,
  partition_id    int NOT NULL,
  partition_count int NOT NULL,
  commit_lsn      pg_lsn NOT NULL DEFAULT '0/0',
  ordinal         bigint NOT NULL DEFAULT -1,
  next_offset     bigint NOT NULL,
  producer_id     bigint NOT NULL,
  next_sequence   int NOT NULL DEFAULT 0,
  PRIMARY KEY (capture_id, cluster_id, topic, partition_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
