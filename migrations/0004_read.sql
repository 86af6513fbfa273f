-- The log as SQL reads it. A view cannot name the segments' tables, which come and go, and one view over all of
-- them would lock them all; so the views reach a topic's segments through functions that look them up and read
-- them by name. Conditions on topic and partition are applied before any of those functions runs, so a query
-- over one topic touches, and locks, that topic's segments only.
-- Everything is STABLE: a query sees one snapshot of the whole log. A segment dropped while a query runs lies
-- below its partitions' log starts; it is read as empty.

-- The partitions of a topic. (ROWS: a set-returning function is otherwise taken to return 1,000, and the planner
-- would have every query over kafka.messages compiled by JIT.)
CREATE FUNCTION kafka.partition_starts(topic_id int) RETURNS TABLE (partition_id int, log_start_offset bigint)
  LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog AS $$
BEGIN
  RETURN QUERY SELECT p.partition_id, p.log_start_offset FROM kafka.partitions p
    WHERE p.topic_id = partition_starts.topic_id ORDER BY p.partition_id;
END $$;

-- What a segment holds of a partition: counted when it was sealed, else found by two probes of its index. No row
-- when it holds nothing.
CREATE FUNCTION kafka.segment_extent(segment_id int, partition_id int, OUT base_offset bigint, OUT next_offset bigint)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
  SELECT p.base_offset, p.next_offset INTO base_offset, next_offset FROM kafka.segment_partitions p
    WHERE p.segment_id = segment_extent.segment_id AND p.partition_id = segment_extent.partition_id;
  IF FOUND OR EXISTS (SELECT FROM kafka.segments s WHERE s.segment_id = segment_extent.segment_id AND s.state <> 'open') THEN
    RETURN;
  END IF;
  EXECUTE format(
    'SELECT (SELECT base_offset FROM kafka.%1$I WHERE partition_id = $1 ORDER BY last_offset LIMIT 1),
            (SELECT last_offset + 1 FROM kafka.%1$I WHERE partition_id = $1 ORDER BY last_offset DESC LIMIT 1)',
    'segment_' || segment_id) INTO base_offset, next_offset USING partition_id;
EXCEPTION WHEN undefined_table THEN
  RETURN;
END $$;

-- A partition's log from start_offset on, in order, in pieces that are read one at a time: what a query has
-- read is held until the piece is done with, and a LIMIT stops it at a piece's end. At most 4,096 pieces of a
-- segment, of 4,096 offsets at least.
CREATE FUNCTION kafka.log_pieces(topic_id int, partition_id int, start_offset bigint)
  RETURNS TABLE (segment_id int, from_offset bigint, to_offset bigint)
  LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog AS $$
DECLARE
  extent record;
  step bigint;
BEGIN
  FOR segment_id IN SELECT s.segment_id FROM kafka.segments s
      WHERE s.topic_id = log_pieces.topic_id AND s.state <> 'dropping' ORDER BY s.segment_id LOOP
    SELECT * INTO extent FROM kafka.segment_extent(segment_id, partition_id);
    CONTINUE WHEN extent.next_offset IS NULL OR extent.next_offset <= start_offset;
    from_offset := greatest(extent.base_offset, start_offset);
    step := greatest(4096, (extent.next_offset - from_offset) / 4096 + 1);
    WHILE from_offset < extent.next_offset LOOP
      to_offset := least(from_offset + step, extent.next_offset) - 1;
      RETURN NEXT;
      from_offset := to_offset + 1;
    END LOOP;
  END LOOP;
END $$;

-- A segment's rows of a partition with from_offset <= last_offset <= to_offset, in order. records is not fetched
-- from TOAST here but where it is used.
CREATE FUNCTION kafka.segment_rows(segment_id int, partition_id int, from_offset bigint, to_offset bigint, max_rows int DEFAULT NULL)
  RETURNS TABLE (base_offset bigint, last_offset bigint, global_offset bigint, max_timestamp bigint, appended_at timestamptz, records bytea)
  LANGUAGE plpgsql STABLE ROWS 200 SET search_path = pg_catalog AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT base_offset, last_offset, global_offset, max_timestamp, appended_at, records FROM kafka.%I
     WHERE partition_id = $1 AND last_offset BETWEEN $2 AND $3 ORDER BY last_offset LIMIT $4', 'segment_' || segment_id)
    USING partition_id, from_offset, to_offset, max_rows;
EXCEPTION WHEN undefined_table THEN
  RETURN;
END $$;

CREATE VIEW kafka.messages AS
SELECT t.name AS topic, p.partition_id AS partition, m.partition_offset,
       r.global_offset + (m.partition_offset - r.base_offset) AS global_offset,
       kafka.timestamp_of(m.timestamp_ms) AS "timestamp", m.key, m.value,
       coalesce(kafka.decode_headers(m.raw_headers), '{}') AS headers, kafka.codec_name(m.codec) AS codec
FROM kafka.topics t
CROSS JOIN LATERAL kafka.partition_starts(t.topic_id) p
CROSS JOIN LATERAL kafka.log_pieces(t.topic_id, p.partition_id, p.log_start_offset) l
CROSS JOIN LATERAL kafka.segment_rows(l.segment_id, p.partition_id, l.from_offset, l.to_offset) r
CROSS JOIN LATERAL kafka.decode_batches(r.records, p.log_start_offset, r.last_offset) m;

-- Rows of the log as they are stored, without decoding: for operators. bytes and codec read a TOASTed value's
-- pointer and first chunk only.
CREATE VIEW kafka.record_batches AS
SELECT t.name AS topic, p.partition_id AS partition, r.base_offset, r.last_offset, octet_length(r.records) AS bytes,
       kafka.timestamp_of(r.max_timestamp) AS max_timestamp, r.appended_at,
       kafka.codec_name(CASE WHEN octet_length(r.records) > 22 THEN get_byte(substr(r.records, 23, 1), 0) & 7 END) AS codec,
       l.segment_id
FROM kafka.topics t
CROSS JOIN LATERAL kafka.partition_starts(t.topic_id) p
CROSS JOIN LATERAL kafka.log_pieces(t.topic_id, p.partition_id, p.log_start_offset) l
CROSS JOIN LATERAL kafka.segment_rows(l.segment_id, p.partition_id, l.from_offset, l.to_offset) r;

-- The first "limit" records from "offset" on. Probes (partition_id, last_offset) and reads a few rows at a time, the
-- more the longer it goes on.
CREATE FUNCTION kafka.fetch(topic text, partition int, "offset" bigint, "limit" int DEFAULT 100)
  RETURNS TABLE (partition_offset bigint, global_offset bigint, "timestamp" timestamptz, key bytea, value bytea,
                 headers kafka.header[], codec text)
  LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog AS $$
DECLARE
  log record;
  id int;
  batches record;
  next_offset bigint;
  rows_at_once int := 4;
  remaining int := "limit";
  emitted int;
BEGIN
  SELECT t.topic_id, p.log_start_offset INTO log FROM kafka.topics t JOIN kafka.partitions p USING (topic_id)
    WHERE t.name = topic AND p.partition_id = partition;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no partition % of a topic "%"', partition, topic USING ERRCODE = 'undefined_object';
  END IF;
  next_offset := greatest("offset", log.log_start_offset);
  FOR id IN SELECT s.segment_id FROM kafka.segments s
      LEFT JOIN kafka.segment_partitions p ON p.segment_id = s.segment_id AND p.partition_id = partition
      WHERE s.topic_id = log.topic_id AND (s.state = 'open' OR s.state = 'sealed' AND p.next_offset > greatest("offset", log.log_start_offset))
      ORDER BY s.segment_id LOOP
    LOOP
      FOR batches IN SELECT * FROM kafka.segment_rows(id, partition, next_offset, 9223372036854775807, rows_at_once) LOOP
        IF remaining <= 0 THEN RETURN; END IF;
        RETURN QUERY SELECT m.partition_offset, batches.global_offset + (m.partition_offset - batches.base_offset),
            kafka.timestamp_of(m.timestamp_ms), m.key, m.value, coalesce(kafka.decode_headers(m.raw_headers), '{}'), kafka.codec_name(m.codec)
          FROM kafka.decode_batches(batches.records, next_offset, batches.last_offset) m LIMIT remaining;
        GET DIAGNOSTICS emitted = ROW_COUNT;
        remaining := remaining - emitted;
        next_offset := batches.last_offset + 1;
      END LOOP;
      EXIT WHEN NOT FOUND;
      rows_at_once := least(rows_at_once * 2, 1024);
    END LOOP;
  END LOOP;
END $$;
