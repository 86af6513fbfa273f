-- Sinks: topics into tables. How far a sink has come is its consumer group's committed offsets.

CREATE TABLE kafka.sinks (
  sink_id    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE,
  paused     boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Records that are in the dead letter topic while the offset that passes over them has not committed yet: written in the
-- transaction that appends them there (src/storage/group.ts), deleted with the offset's. So each is there once. No foreign
-- key to topics: they come and go, and their ids are never used again.
CREATE TABLE kafka.sink_dead_letters (
  sink_id       int NOT NULL REFERENCES kafka.sinks ON DELETE CASCADE,
  topic_id      int NOT NULL,
  partition_id  int NOT NULL,
  record_offset bigint NOT NULL,
  PRIMARY KEY (sink_id, topic_id, partition_id, record_offset)
);
