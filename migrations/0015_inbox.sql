-- Delivery: inboxes, made of topics by src/deliver/. Rows are only ever inserted, and whole tables are dropped, so that an
-- old snapshot that keeps dead rows from being removed finds none here.

-- acknowledge: what moves a subscriber on, written to a connection or acknowledged by the client. Only Millrace writes here.
CREATE TABLE kafka.inboxes (
  inbox_id    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name        text NOT NULL UNIQUE,
  acknowledge text NOT NULL DEFAULT 'written' CHECK (acknowledge IN ('written', 'client')),
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- A part holds what arrived in an interval of time, from first_seq on; of each inbox the newest is written to. Its tables
-- are kafka.inbox_part_<id> and kafka.inbox_part_<id>_receipts.
CREATE TABLE kafka.inbox_parts (
  part_id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  inbox_id  int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  first_seq bigint NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (inbox_id, first_seq)
);

-- The keys that have been seen, in tables kafka.inbox_keys_<id> that take turns: no unique index spans parts.
CREATE TABLE kafka.inbox_key_tables (
  keys_id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  inbox_id  int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  opened_at timestamptz NOT NULL DEFAULT now()
);

-- dead: why the record became no event; subscriber and data are then NULL. COLLATE "C": compared, never sorted for people.
CREATE FUNCTION kafka.inbox_open_part(inbox int, first bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  id int;
BEGIN
  INSERT INTO kafka.inbox_parts (inbox_id, first_seq) VALUES (inbox, first) RETURNING part_id INTO id;
  EXECUTE format('CREATE TABLE kafka.inbox_part_%s (
      seq bigint PRIMARY KEY, record_offset bigint NOT NULL, record_time bigint NOT NULL,
      appended_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz,
      topic_id int NOT NULL, partition_id int NOT NULL, priority smallint NOT NULL,
      subscriber text COLLATE "C", event_id text, event_type text, data text, dead text)
    WITH (autovacuum_vacuum_insert_threshold = -1)', id);
  EXECUTE format('CREATE INDEX inbox_part_%s_subscriber ON kafka.inbox_part_%s (subscriber, seq)', id, id);
  EXECUTE format('CREATE TABLE kafka.inbox_part_%s_receipts (
      seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), kind text COLLATE "C" NOT NULL,
      subscriber text COLLATE "C" NOT NULL)
    WITH (autovacuum_vacuum_insert_threshold = -1)', id);
  EXECUTE format('CREATE INDEX inbox_part_%s_receipt ON kafka.inbox_part_%s_receipts (subscriber, kind, seq)', id, id);
  RETURN id;
END $$;

CREATE FUNCTION kafka.inbox_open_keys(inbox int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  id int;
BEGIN
  INSERT INTO kafka.inbox_key_tables (inbox_id) VALUES (inbox) RETURNING keys_id INTO id;
  EXECUTE format('CREATE TABLE kafka.inbox_keys_%s (key uuid PRIMARY KEY)
    WITH (autovacuum_vacuum_insert_threshold = -1)', id);
  RETURN id;
END $$;

-- Appends records to a part: those whose key is in none of the key tables, numbered from next_seq on. Returns which of
-- them, by their places from 1. In the same transaction the group's offsets move on, where they are given; KF002 when
-- they are no longer where this writer left them. One statement and one round trip; fence: see 0001_log.sql.
CREATE FUNCTION kafka.inbox_append(
  broker int, broker_epoch int, inbox int, part int, newest_keys int, older_keys int[], next_seq bigint,
  keys uuid[], topic_ids int[], partition_ids int[], record_offsets bigint[], record_times bigint[], expiries bigint[],
  priorities smallint[], subscribers text[], event_ids text[], event_types text[], data text[], dead text[],
  offsets_group text, offset_topics int[], offset_partitions int[], offsets_expected bigint[], offsets_next bigint[]
) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
  fresh int[];
  known text := '';
  id int;
  moved int;
BEGIN
  PERFORM kafka.fence(broker, broker_epoch);
  IF cardinality(offset_topics) > 0 THEN
    -- The metadata says which rows of the inbox these offsets tell of; rows beyond that number tell of themselves.
    UPDATE kafka.consumer_offsets o
    SET committed_offset = given.next, leader_epoch = -1, committed_at = now(),
        metadata = convert_to('seq ' || next_seq - 1, 'UTF8')
    FROM unnest(offset_topics, offset_partitions, offsets_expected, offsets_next)
      AS given (topic_id, partition_id, expected, next)
    WHERE o.group_id = offsets_group AND o.topic_id = given.topic_id AND o.partition_id = given.partition_id
      AND o.committed_offset = given.expected;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(offset_topics) THEN
      RAISE EXCEPTION 'the offsets of group % have been moved by somebody else', offsets_group USING ERRCODE = 'KF002';
    END IF;
  END IF;
  IF cardinality(keys) = 0 THEN RETURN '{}'; END IF;
  FOREACH id IN ARRAY older_keys LOOP
    known := known || format(' AND NOT EXISTS (SELECT FROM kafka.inbox_keys_%s k WHERE k.key = given.key)', id);
  END LOOP;
  EXECUTE format('
    WITH given AS MATERIALIZED (
      SELECT * FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) WITH ORDINALITY AS given
        (key, topic_id, partition_id, record_offset, record_time, expires, priority, subscriber, event_id, event_type,
         data, dead, place)),
    fresh AS (
      INSERT INTO kafka.inbox_keys_%s (key) SELECT key FROM given WHERE true %s ON CONFLICT DO NOTHING RETURNING key),
    numbered AS MATERIALIZED (
      SELECT $1 + row_number() OVER (ORDER BY place) - 1 AS seq, given.* FROM given JOIN fresh USING (key)),
    written AS (
      INSERT INTO kafka.inbox_part_%s (seq, record_offset, record_time, expires_at, topic_id, partition_id, priority,
        subscriber, event_id, event_type, data, dead)
      SELECT seq, record_offset, record_time, to_timestamp(expires / 1000.0), topic_id, partition_id, priority,
        subscriber, event_id, event_type, data, dead
      FROM numbered ORDER BY seq)
    SELECT coalesce(array_agg(place::int ORDER BY place), ''{}'') FROM numbered', newest_keys, known, part)
  INTO fresh
  USING next_seq, keys, topic_ids, partition_ids, record_offsets, record_times, expiries, priorities, subscribers,
    event_ids, event_types, data, dead;
  -- Once for a transaction: a notification takes a lock that all committers share.
  IF cardinality(fresh) > 0 THEN
    PERFORM pg_notify('millrace_inbox', concat_ws(' ', inbox, part, next_seq + cardinality(fresh) - 1));
  END IF;
  RETURN fresh;
END $$;

-- What an inbox holds, for people. Events of an offline subscriber are there until they are read, expire or their part goes.
CREATE FUNCTION kafka.inbox_events(inbox text)
RETURNS TABLE (seq bigint, subscriber text, event_id text, event_type text, priority smallint, topic text, partition int,
  partition_offset bigint, appended_at timestamptz, expires_at timestamptz, data text, dead text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  part int;
BEGIN
  FOR part IN SELECT p.part_id FROM kafka.inbox_parts p JOIN kafka.inboxes i USING (inbox_id)
              WHERE i.name = inbox ORDER BY p.first_seq LOOP
    RETURN QUERY EXECUTE format('SELECT e.seq, e.subscriber::text, e.event_id, e.event_type, e.priority, t.name,
      e.partition_id, e.record_offset, e.appended_at, e.expires_at, e.data, e.dead
      FROM kafka.inbox_part_%s e LEFT JOIN kafka.topics t USING (topic_id) ORDER BY e.seq', part);
  END LOOP;
END $$;

-- Removes an inbox that Millrace no longer fills, and everything in it.
CREATE FUNCTION kafka.inbox_drop(inbox text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  id int := (SELECT i.inbox_id FROM kafka.inboxes i WHERE i.name = inbox);
  part int;
BEGIN
  IF id IS NULL THEN RAISE EXCEPTION 'there is no inbox %', inbox USING ERRCODE = 'undefined_object'; END IF;
  FOR part IN SELECT p.part_id FROM kafka.inbox_parts p WHERE p.inbox_id = id LOOP
    EXECUTE format('DROP TABLE kafka.inbox_part_%s, kafka.inbox_part_%s_receipts', part, part);
  END LOOP;
  FOR part IN SELECT k.keys_id FROM kafka.inbox_key_tables k WHERE k.inbox_id = id LOOP
    EXECUTE format('DROP TABLE kafka.inbox_keys_%s', part);
  END LOOP;
  DELETE FROM kafka.consumer_offsets WHERE group_id = 'deliver-' || inbox;
  DELETE FROM kafka.inboxes WHERE inbox_id = id;
END $$;
