-- Mirrors: topics of this log copied to a remote Kafka (src/mirror/, docs/moving.md). Rows go with their mirror.

CREATE TABLE kafka.mirrors (
  mirror_id  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE,
  paused     boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- As kafka.capture_producers.
CREATE TABLE kafka.mirror_producers (
  mirror_id   int NOT NULL REFERENCES kafka.mirrors ON DELETE CASCADE,
  cluster_id  text NOT NULL,
  producer_id bigint NOT NULL,
  refusals    int NOT NULL DEFAULT 0,
  made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (mirror_id, cluster_id, producer_id)
);

-- One partition on its way: what the target had acknowledged when it was last noted. Everything before next_offset is
-- there, or was skipped (gone before it was read) or refused. What was acknowledged since is read back from the target,
-- from target_next_offset on; next_sequence is the producer's for next_offset. A row is there before the first batch. No
-- foreign key to topics: they come and go, and their ids are never used again. behind_since: of the oldest record that was
-- not there yet; NULL where all were.
CREATE TABLE kafka.mirror_partitions (
  copy_id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mirror_id          int NOT NULL REFERENCES kafka.mirrors ON DELETE CASCADE,
  cluster_id         text NOT NULL,
  topic_id           int NOT NULL,
  topic              text NOT NULL,
  partition_id       int NOT NULL,
  target_topic       text NOT NULL,
  next_offset        bigint NOT NULL,
  target_next_offset bigint NOT NULL,
  producer_id        bigint NOT NULL,
  next_sequence      int NOT NULL DEFAULT 0,
  forwarded          bigint NOT NULL DEFAULT 0,
  skipped            bigint NOT NULL DEFAULT 0,
  failed             bigint NOT NULL DEFAULT 0,
  behind_since       timestamptz,
  noted_at           timestamptz NOT NULL DEFAULT now(),
  UNIQUE (mirror_id, cluster_id, topic_id, partition_id, target_topic)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

-- Where records are in the target: those from source_offset on are there from target_offset on, one for one. A new range
-- begins where that ends: after what was skipped, refused, or written to the target by somebody else.
CREATE TABLE kafka.mirror_ranges (
  copy_id       int NOT NULL REFERENCES kafka.mirror_partitions ON DELETE CASCADE,
  source_offset bigint NOT NULL,
  target_offset bigint NOT NULL,
  records       bigint NOT NULL,
  PRIMARY KEY (copy_id, source_offset)
) WITH (fillfactor = 50);

-- Records that the target has refused: written in the transaction that appends them to the dead letter topic. error_code is
-- Kafka's.
CREATE TABLE kafka.mirror_refused (
  copy_id       int NOT NULL REFERENCES kafka.mirror_partitions ON DELETE CASCADE,
  record_offset bigint NOT NULL,
  error_code    int NOT NULL,
  PRIMARY KEY (copy_id, record_offset)
);

-- Committed offsets of groups, as they were last written to the target. intended_offset is noted before it is written, so
-- that after a crash it is not taken for somebody else's. state: synced; active: the group has members in the target; moved:
-- it has committed there itself, and is left alone.
CREATE TABLE kafka.mirror_groups (
  copy_id         int NOT NULL REFERENCES kafka.mirror_partitions ON DELETE CASCADE,
  group_id        text NOT NULL,
  source_offset   bigint NOT NULL,
  target_offset   bigint,
  intended_offset bigint NOT NULL,
  state           text NOT NULL,
  synced_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (copy_id, group_id)
) WITH (fillfactor = 50);

-- Where the record at source_offset is in the target, as a group would commit it: of a record that is not there, the next
-- one that is. NULL while the copy has not come so far.
CREATE FUNCTION kafka.mirror_translate(copy_id int, source_offset bigint) RETURNS bigint
  LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT CASE
    WHEN $2 > p.next_offset THEN NULL
    WHEN $2 = p.next_offset THEN p.target_next_offset
    ELSE coalesce(
      (SELECT r.target_offset + ($2 - r.source_offset)
       FROM (SELECT * FROM kafka.mirror_ranges r WHERE r.copy_id = $1 AND r.source_offset <= $2
             ORDER BY r.source_offset DESC LIMIT 1) r
       WHERE $2 < r.source_offset + r.records),
      (SELECT r.target_offset FROM kafka.mirror_ranges r WHERE r.copy_id = $1 AND r.source_offset > $2
       ORDER BY r.source_offset LIMIT 1),
      p.target_next_offset) END
  FROM kafka.mirror_partitions p WHERE p.copy_id = $1
$$;

-- The same by names, for people: SELECT kafka.mirror_offset('to-kafka', 'orders', 0, 1234).
CREATE FUNCTION kafka.mirror_offset(mirror text, topic text, partition int, source_offset bigint) RETURNS bigint
  LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT kafka.mirror_translate(p.copy_id, $4) FROM kafka.mirror_partitions p
  JOIN kafka.mirrors m USING (mirror_id) JOIN kafka.topics t USING (topic_id)
  WHERE m.name = $1 AND t.name = $2 AND p.partition_id = $3 ORDER BY p.noted_at DESC LIMIT 1
$$;

CREATE VIEW kafka.mirror_offsets AS
SELECT m.name AS mirror, p.topic, p.partition_id AS partition, p.target_topic, r.source_offset, r.target_offset, r.records
FROM kafka.mirrors m JOIN kafka.mirror_partitions p USING (mirror_id) JOIN kafka.mirror_ranges r USING (copy_id);

-- As last noted, half a second ago at the most while a mirror runs; the log's ends as they are. lag_ms: how old the oldest
-- record is that is not in the target, 0 where there is none.
CREATE VIEW kafka.mirror_status AS
SELECT m.name AS mirror, t.name AS topic, p.partition_id AS partition, p.target_topic, p.cluster_id,
       CASE WHEN m.paused THEN 'paused' WHEN p.noted_at < now() - interval '10 s' AND e.end_offset > p.next_offset THEN 'stalled'
            WHEN e.end_offset > p.next_offset THEN 'behind' ELSE 'current' END AS state,
       p.next_offset, e.end_offset, greatest(e.end_offset - p.next_offset, 0) AS lag_records,
       CASE WHEN e.end_offset <= p.next_offset THEN 0
            ELSE greatest(0, extract(epoch FROM now() - coalesce(p.behind_since, p.noted_at)) * 1000)::bigint END AS lag_ms,
       p.target_next_offset, p.forwarded, p.skipped, p.failed, p.noted_at
FROM kafka.mirrors m JOIN kafka.mirror_partitions p USING (mirror_id) JOIN kafka.topics t USING (topic_id)
CROSS JOIN LATERAL kafka.log_end(p.topic_id, p.partition_id) AS e (end_offset);
