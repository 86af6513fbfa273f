-- Mirrors into this log (src/mirror/inbound.ts). Their partitions' topic_id is that of kafka.remote_topics, below zero, and
-- topic_here is the topic of this log; target_topic is its name. Ranges commit with the batches they tell of, and reach over
-- offsets that hold no record in the source: those are empty here too. source_end: where the source ended when it was last
-- noted.
ALTER TABLE kafka.mirror_partitions ADD COLUMN topic_here int, ADD COLUMN source_end bigint;

-- Those whose topic there is; of a topic that was made again in the source the newest.
CREATE VIEW kafka.mirror_copies AS
SELECT p.* FROM kafka.mirror_partitions p
WHERE EXISTS (SELECT FROM kafka.topics t WHERE t.topic_id = coalesce(p.topic_here, p.topic_id))
  AND NOT EXISTS (SELECT FROM kafka.mirror_partitions n
                  WHERE n.mirror_id = p.mirror_id AND n.cluster_id = p.cluster_id AND n.topic_here IS NOT NULL
                    AND n.topic = p.topic AND n.partition_id = p.partition_id AND n.topic_id < p.topic_id);

CREATE OR REPLACE FUNCTION kafka.mirror_offset(mirror text, topic text, partition int, source_offset bigint) RETURNS bigint
  LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT kafka.mirror_translate(p.copy_id, $4) FROM kafka.mirror_copies p JOIN kafka.mirrors m USING (mirror_id)
  WHERE m.name = $1 AND p.topic = $2 AND p.partition_id = $3 ORDER BY p.noted_at DESC LIMIT 1
$$;

CREATE OR REPLACE VIEW kafka.mirror_status AS
SELECT m.name AS mirror, p.topic, p.partition_id AS partition, p.target_topic, p.cluster_id,
       CASE WHEN m.paused THEN 'paused' WHEN p.noted_at < now() - interval '10 s' AND e.end_offset > p.next_offset THEN 'stalled'
            WHEN e.end_offset > p.next_offset THEN 'behind' ELSE 'current' END AS state,
       p.next_offset, e.end_offset, greatest(e.end_offset - p.next_offset, 0) AS lag_records,
       CASE WHEN e.end_offset <= p.next_offset THEN 0
            ELSE greatest(0, extract(epoch FROM now() - coalesce(p.behind_since, p.noted_at)) * 1000)::bigint END AS lag_ms,
       p.target_next_offset, p.forwarded, p.skipped, p.failed, p.noted_at,
       CASE WHEN p.topic_here IS NULL THEN 'out' ELSE 'in' END AS direction
FROM kafka.mirrors m JOIN kafka.mirror_copies p USING (mirror_id)
CROSS JOIN LATERAL (SELECT CASE WHEN p.topic_here IS NULL THEN kafka.log_end(p.topic_id, p.partition_id)
                                ELSE coalesce(p.source_end, p.next_offset) END) AS e (end_offset);
