-- Records go to an inbox by COPY: first their keys are admitted, then those that are new get their numbers and their rows, in one
-- transaction. What kafka.inbox_append did in one statement cost Postgres twice as much for a row.

-- Adds keys, each once, that are in none of the key tables. Returns the places, from 1, of those that are in one already; with
-- all_new, which takes half the time, it raises KF003 instead. Called behind the fence (0001_log.sql).
CREATE FUNCTION kafka.inbox_admit(newest_keys int, older_keys int[], keys uuid[], all_new boolean)
RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
  known text := '';
  fresh uuid[];
  id int;
  added int;
BEGIN
  IF cardinality(keys) = 0 THEN RETURN '{}'; END IF;
  FOREACH id IN ARRAY older_keys LOOP
    known := known || format(' AND NOT EXISTS (SELECT FROM kafka.inbox_keys_%s k WHERE k.key = given.key)', id);
  END LOOP;
  -- In the order of the index, whose pages are then each looked for once.
  IF all_new THEN
    BEGIN
      EXECUTE format('INSERT INTO kafka.inbox_keys_%s (key) SELECT key FROM unnest($1) AS given (key) WHERE true %s ORDER BY key',
        newest_keys, known) USING keys;
      GET DIAGNOSTICS added = ROW_COUNT;
    EXCEPTION WHEN unique_violation THEN
      added := 0;
    END;
    IF added < cardinality(keys) THEN RAISE EXCEPTION 'some keys are known' USING ERRCODE = 'KF003'; END IF;
    RETURN '{}';
  END IF;
  EXECUTE format('
    WITH fresh AS (
      INSERT INTO kafka.inbox_keys_%s (key) SELECT key FROM unnest($1) AS given (key) WHERE true %s ORDER BY key
      ON CONFLICT DO NOTHING RETURNING key)
    SELECT CASE WHEN count(*) < cardinality($1) THEN coalesce(array_agg(key), ''{}'') END FROM fresh', newest_keys, known)
  INTO fresh USING keys;
  IF fresh IS NULL THEN RETURN '{}'; END IF;
  RETURN ARRAY(
    SELECT place::int FROM unnest(keys) WITH ORDINALITY AS given (key, place)
    WHERE NOT EXISTS (SELECT FROM unnest(fresh) AS f (key) WHERE f.key = given.key) ORDER BY place);
END $$;

-- As it was, but for events that wait twice under one key: they are one.
CREATE OR REPLACE FUNCTION kafka.inbox_release(
  broker int, broker_epoch int, inbox int, part int, newest_keys int, older_keys int[], next_seq bigint,
  since timestamptz, until timestamptz, at_most int
) RETURNS TABLE (taken int, fresh int) LANGUAGE plpgsql AS $$
DECLARE
  due kafka.inbox_waiting[];
  known int[];
BEGIN
  PERFORM kafka.fence(broker, broker_epoch);
  WITH gone AS (
    DELETE FROM kafka.inbox_waiting w USING (
      SELECT d.due_at, d.n FROM kafka.inbox_waiting d
      WHERE d.inbox_id = inbox AND d.due_at >= since AND d.due_at <= until ORDER BY d.due_at, d.n LIMIT at_most) d
    WHERE w.inbox_id = inbox AND w.due_at = d.due_at AND w.n = d.n RETURNING w.*),
  firsts AS (SELECT DISTINCT ON (key) gone::kafka.inbox_waiting AS waiting, due_at, n FROM gone ORDER BY key, due_at, n)
  SELECT (SELECT count(*) FROM gone), array_agg(waiting ORDER BY due_at, n) INTO taken, due FROM firsts;
  fresh := 0;
  IF taken > 0 THEN
    known := kafka.inbox_admit(newest_keys, older_keys, ARRAY(SELECT d.key FROM unnest(due) d), false);
    EXECUTE format('
      INSERT INTO kafka.inbox_part_%s (seq, record_offset, record_time, expires_at, topic_id, partition_id, priority,
        subscriber, event_id, event_type, data)
      SELECT $1 + row_number() OVER (ORDER BY place) - 1, record_offset, record_time, to_timestamp(expires_ms / 1000.0),
        topic_id, partition_id, priority, subscriber, event_id, event_type, data
      FROM unnest($2) WITH ORDINALITY AS due (inbox_id, due_at, n, key, topic_id, partition_id, record_offset, record_time,
        expires_ms, priority, subscriber, event_id, event_type, data, place)
      WHERE place <> ALL ($3)', part) USING next_seq, due, known;
    GET DIAGNOSTICS fresh = ROW_COUNT;
  END IF;
  -- Once for a transaction: a notification takes a lock that all committers share.
  IF fresh > 0 THEN PERFORM pg_notify('millrace_inbox', concat_ws(' ', inbox, part, next_seq + fresh - 1)); END IF;
  RETURN NEXT;
END $$;

DROP FUNCTION kafka.inbox_append;
