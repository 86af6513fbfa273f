-- What the log and its groups hold, for operators. Like the views of 0004, these reach segments through functions,
-- so that a condition on topic keeps a query to that topic.

-- Where one partition's log ends; kafka.log_ends (0001) answers for many at once.
CREATE FUNCTION kafka.log_end(topic_id int, partition_id int) RETURNS bigint
  LANGUAGE plpgsql STABLE COST 1000 SET search_path = pg_catalog AS $$
DECLARE
  segment record;
  newest bigint;
  next_offset bigint := 0;
BEGIN
  FOR segment IN SELECT s.segment_id, s.state, p.next_offset FROM kafka.segments s
      LEFT JOIN kafka.segment_partitions p ON p.segment_id = s.segment_id AND p.partition_id = log_end.partition_id
      WHERE s.topic_id = log_end.topic_id AND (s.state = 'open' OR s.state = 'sealed' AND p.next_offset IS NOT NULL)
      ORDER BY s.segment_id DESC LOOP
    newest := segment.next_offset;
    IF segment.state = 'open' THEN
      BEGIN
        EXECUTE format('SELECT last_offset + 1 FROM kafka.%I WHERE partition_id = $1 ORDER BY last_offset DESC LIMIT 1',
          'segment_' || segment.segment_id) INTO newest USING partition_id;
      EXCEPTION WHEN undefined_table THEN
        newest := NULL;
      END;
    END IF;
    IF newest IS NOT NULL THEN
      next_offset := newest;
      EXIT;
    END IF;
  END LOOP;
  RETURN greatest(next_offset, (SELECT p.next_offset_floor FROM kafka.partitions p
    WHERE p.topic_id = log_end.topic_id AND p.partition_id = log_end.partition_id));
END $$;

-- Bytes of record batches. Counted in sealed segments; every row's length is added up in open ones.
CREATE FUNCTION kafka.partition_bytes(topic_id int, partition_id int) RETURNS bigint
  LANGUAGE plpgsql STABLE COST 10000 SET search_path = pg_catalog AS $$
DECLARE
  segment record;
  counted bigint;
  total bigint := 0;
BEGIN
  FOR segment IN SELECT s.segment_id, s.state, p.bytes FROM kafka.segments s
      LEFT JOIN kafka.segment_partitions p ON p.segment_id = s.segment_id AND p.partition_id = partition_bytes.partition_id
      WHERE s.topic_id = partition_bytes.topic_id AND s.state <> 'dropping' LOOP
    counted := segment.bytes;
    IF segment.state = 'open' THEN
      BEGIN
        EXECUTE format('SELECT sum(octet_length(records)) FROM kafka.%I WHERE partition_id = $1', 'segment_' || segment.segment_id)
          INTO counted USING partition_id;
      EXCEPTION WHEN undefined_table THEN
        counted := 0;
      END;
    END IF;
    total := total + coalesce(counted, 0);
  END LOOP;
  RETURN total;
END $$;

-- Records with log_start_offset <= offset < high_watermark are there to be read. records counts offsets: control
-- records, and those that compaction has removed, are in it. bytes is slow where an open segment is large, and is
-- worked out only for a query that asks for it.
CREATE VIEW kafka.partition_offsets AS
SELECT t.name AS topic, p.partition_id AS partition, p.log_start_offset, e.high_watermark,
       e.high_watermark - p.log_start_offset AS records, kafka.partition_bytes(t.topic_id, p.partition_id) AS bytes
FROM kafka.topics t
JOIN kafka.partitions p USING (topic_id)
CROSS JOIN LATERAL kafka.log_end(p.topic_id, p.partition_id) AS e (high_watermark);

-- What each group has still to read. committed_offset is the next record it will read.
CREATE VIEW kafka.consumer_lag AS
SELECT o.group_id AS "group", t.name AS topic, o.partition_id AS partition, o.committed_offset, e.end_offset,
       e.end_offset - o.committed_offset AS lag, o.committed_at
FROM kafka.consumer_offsets o
JOIN kafka.topics t USING (topic_id)
CROSS JOIN LATERAL kafka.log_end(o.topic_id, o.partition_id) AS e (end_offset);

-- Bytes on disk, TOAST and indexes included. to_regclass: a segment may be dropped while this runs.
CREATE VIEW kafka.topic_sizes AS
SELECT t.name AS topic, t.partition_count AS partitions, count(s.segment_id) AS segments,
       coalesce(sum(pg_total_relation_size(to_regclass('kafka.segment_' || s.segment_id))), 0)::bigint AS bytes,
       min(s.opened_at) AS oldest_segment_opened_at
FROM kafka.topics t
LEFT JOIN kafka.segments s ON s.topic_id = t.topic_id AND s.state <> 'dropping'
GROUP BY t.topic_id;
