-- Committed offsets: the truth that OffsetFetch answers from. A committed offset is the next to read.
CREATE TABLE kafka.consumer_offsets (
  group_id         text NOT NULL,
  topic_id         int NOT NULL REFERENCES kafka.topics ON DELETE CASCADE,
  partition_id     int NOT NULL,
  committed_offset bigint NOT NULL,
  leader_epoch     int NOT NULL DEFAULT -1,
  metadata         bytea NOT NULL DEFAULT '',  -- UTF-8; bytea because some clients end it with a NUL, which text cannot hold
  committed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (group_id, topic_id, partition_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

-- A classic group as of its last completed rebalance, so that its members go on over a restart of the broker.
CREATE TABLE kafka.consumer_groups (
  group_id      text PRIMARY KEY,
  protocol_type text NOT NULL,
  generation    int NOT NULL,
  protocol      text,
  leader        text,
  members       jsonb NOT NULL,
  updated_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
