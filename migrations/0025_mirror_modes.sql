-- Mirrors, topic by topic: what is set while they run, and who takes what is produced (src/mirror/, docs/moving.md).

-- As given over HTTP; before what the mirror's definition says. settings: mode, share, sync, reads.
CREATE TABLE kafka.mirror_modes (
  mirror_id  int NOT NULL REFERENCES kafka.mirrors ON DELETE CASCADE,
  topic      text NOT NULL,
  settings   jsonb NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (mirror_id, topic)
);

-- External primary: the mirror to whose target producers' batches are passed on; NULL: they are appended here. While it is
-- set, kafka.mirror_partitions says what of the target has been copied back: everything before target_next_offset is here,
-- before next_offset.
ALTER TABLE kafka.topics ADD COLUMN primary_mirror int REFERENCES kafka.mirrors;

-- Producers whose batches have been passed on since a topic was last cut over, and the id that the target has given for
-- each: noted before it is used.
CREATE TABLE kafka.mirror_clients (
  mirror_id          int NOT NULL REFERENCES kafka.mirrors ON DELETE CASCADE,
  cluster_id         text NOT NULL,
  topic_id           int NOT NULL REFERENCES kafka.topics ON DELETE CASCADE,
  producer_id        bigint NOT NULL,
  target_producer_id bigint NOT NULL,
  made_at            timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (mirror_id, cluster_id, topic_id, producer_id)
);

-- share: by which next_sequence is counted from next_offset on; withheld: records that were not of the share.
-- records_per_second: over the minute before it was noted.
ALTER TABLE kafka.mirror_partitions
  ADD COLUMN share int NOT NULL DEFAULT 100,
  ADD COLUMN withheld bigint NOT NULL DEFAULT 0,
  ADD COLUMN records_per_second float8 NOT NULL DEFAULT 0;

-- With the columns above.
CREATE OR REPLACE VIEW kafka.mirror_copies AS
SELECT p.* FROM kafka.mirror_partitions p
WHERE EXISTS (SELECT FROM kafka.topics t WHERE t.topic_id = coalesce(p.topic_here, p.topic_id))
  AND NOT EXISTS (SELECT FROM kafka.mirror_partitions n
                  WHERE n.mirror_id = p.mirror_id AND n.cluster_id = p.cluster_id AND n.topic_here IS NOT NULL
                    AND n.topic = p.topic AND n.partition_id = p.partition_id AND n.topic_id < p.topic_id);

-- primary_side: who takes what is produced; NULL for what is copied into this log. records_per_second: over the last minute;
-- seconds_to_go: until nothing is left at that rate.
CREATE OR REPLACE VIEW kafka.mirror_status AS
SELECT m.name AS mirror, p.topic, p.partition_id AS partition, p.target_topic, p.cluster_id,
       CASE WHEN m.paused THEN 'paused' WHEN p.noted_at < now() - interval '10 s' AND e.end_offset > p.next_offset THEN 'stalled'
            WHEN e.end_offset > p.next_offset THEN 'behind' ELSE 'current' END AS state,
       p.next_offset, e.end_offset, greatest(e.end_offset - p.next_offset, 0) AS lag_records,
       CASE WHEN e.end_offset <= p.next_offset THEN 0
            ELSE greatest(0, extract(epoch FROM now() - coalesce(p.behind_since, p.noted_at)) * 1000)::bigint END AS lag_ms,
       p.target_next_offset, p.forwarded, p.skipped, p.failed, p.noted_at,
       CASE WHEN p.topic_here IS NULL THEN 'out' ELSE 'in' END AS direction,
       CASE WHEN p.topic_here IS NULL
            THEN CASE WHEN h.primary_mirror = m.mirror_id THEN 'target' ELSE 'here' END END AS primary_side,
       p.withheld, round(p.records_per_second) AS records_per_second,
       CASE WHEN e.end_offset > p.next_offset AND p.records_per_second > 0 AND p.noted_at > now() - interval '10 s'
            THEN ceil((e.end_offset - p.next_offset) / p.records_per_second) END AS seconds_to_go
FROM kafka.mirrors m JOIN kafka.mirror_copies p USING (mirror_id)
LEFT JOIN kafka.topics h ON h.topic_id = p.topic_id
CROSS JOIN LATERAL (SELECT CASE WHEN p.topic_here IS NULL THEN kafka.log_end(p.topic_id, p.partition_id)
                                ELSE coalesce(p.source_end, p.next_offset) END) AS e (end_offset);
