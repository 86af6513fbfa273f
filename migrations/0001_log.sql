-- The log's catalogue. A segment's own table, kafka.segment_<segment_id>, is made when its first batch is
-- about to be written (src/storage/segments.ts) and holds rows of
--   partition_id, base_offset, last_offset, global_offset, max_timestamp, appended_at, records
-- A row is a run of consecutive record batches of one partition that were committed together, as the
-- producer's own bytes (record batch format v2, KIP-98).

CREATE TABLE kafka.topics (
  topic_id        int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_uuid      uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
  name            text NOT NULL UNIQUE,
  partition_count int NOT NULL CHECK (partition_count > 0),
  config          jsonb NOT NULL DEFAULT '{}',  -- overrides only, names and values as Kafka writes them
  created_at      timestamptz NOT NULL DEFAULT now()
);

-- What must survive when every segment of a partition has been dropped.
CREATE TABLE kafka.partitions (
  topic_id          int NOT NULL REFERENCES kafka.topics ON DELETE CASCADE,
  partition_id      int NOT NULL,
  log_start_offset  bigint NOT NULL DEFAULT 0,
  next_offset_floor bigint NOT NULL DEFAULT 0,  -- the log's end is at least this
  PRIMARY KEY (topic_id, partition_id)
);

-- One row for each leader epoch in which a partition was written, with the first offset written in it (KIP-101).
CREATE TABLE kafka.leader_epochs (
  topic_id     int NOT NULL REFERENCES kafka.topics ON DELETE CASCADE,
  partition_id int NOT NULL,
  leader_epoch int NOT NULL,
  start_offset bigint NOT NULL,
  PRIMARY KEY (topic_id, partition_id, leader_epoch)
);

-- A segment holds all of a topic's batches of one interval. topic_id has no foreign key: when a topic is
-- deleted its segments stay listed, state 'dropping', until their tables are gone.
CREATE TABLE kafka.segments (
  segment_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id   int NOT NULL,
  state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'sealed', 'dropping')),
  opened_at  timestamptz NOT NULL DEFAULT now(),
  closes_at  timestamptz NOT NULL
);
CREATE INDEX segments_topic ON kafka.segments (topic_id, segment_id);

-- What a sealed segment holds of each partition; written once, when it is sealed.
CREATE TABLE kafka.segment_partitions (
  segment_id    int NOT NULL REFERENCES kafka.segments ON DELETE CASCADE,
  partition_id  int NOT NULL,
  base_offset   bigint NOT NULL,
  next_offset   bigint NOT NULL,
  max_timestamp bigint NOT NULL,
  bytes         bigint NOT NULL,
  PRIMARY KEY (segment_id, partition_id)
);

-- Brokers: epoch is the fencing token and the leader epoch of what the broker leads.
CREATE SEQUENCE kafka.broker_epochs AS int;
CREATE TABLE kafka.brokers (
  broker_id          int PRIMARY KEY,
  epoch              int NOT NULL,
  advertised         text NOT NULL,
  global_offset_next bigint NOT NULL DEFAULT 0,  -- floor; the rest is read back from the segments
  started_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE kafka.cluster (
  cluster_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Idempotent producers (KIP-98). Sequences are read back from the batches after the newest snapshot.
CREATE SEQUENCE kafka.producer_ids AS bigint MINVALUE 0 START 0;
CREATE TABLE kafka.producer_snapshots (
  topic_id     int NOT NULL REFERENCES kafka.topics ON DELETE CASCADE,
  partition_id int NOT NULL,
  next_offset  bigint NOT NULL,
  producers    jsonb NOT NULL,
  PRIMARY KEY (topic_id, partition_id)
);

-- Every transaction that appends calls this first. A broker that takes over holds the exclusive form of the
-- lock while it writes the new epoch (src/storage/leadership.ts), so it waits for appends in flight, and
-- every later append of the old epoch fails here. PL/pgSQL so that the SELECT has a snapshot taken after the lock.
CREATE FUNCTION kafka.fence(broker int, broker_epoch int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(5742861192);
  IF NOT EXISTS (SELECT FROM kafka.brokers b WHERE b.broker_id = broker AND b.epoch = broker_epoch) THEN
    RAISE EXCEPTION 'broker % has been fenced: epoch % is over', broker, broker_epoch USING ERRCODE = 'KF001';
  END IF;
END $$;

-- Makes the table a topic's next batches go to. NULL when the topic has been deleted in the meantime.
-- EXTERNAL and toast_tuple_target: batches are usually incompressible or compressed already, and rows up to a page
-- stay inline, which is a quarter faster than TOAST (docs/decisions/0001-storage-layout.md). Rows are only ever
-- inserted, and the table is frozen once when it is sealed, so insert-driven vacuums would be wasted.
CREATE FUNCTION kafka.create_segment(topic int, closes timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  id int;
BEGIN
  PERFORM FROM kafka.topics WHERE topic_id = topic FOR KEY SHARE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  INSERT INTO kafka.segments (topic_id, closes_at) VALUES (topic, closes) RETURNING segment_id INTO id;
  EXECUTE format('CREATE TABLE kafka.segment_%s (
      base_offset bigint NOT NULL, last_offset bigint NOT NULL, global_offset bigint NOT NULL,
      max_timestamp bigint NOT NULL, appended_at timestamptz NOT NULL DEFAULT now(),
      partition_id int NOT NULL, records bytea NOT NULL, PRIMARY KEY (partition_id, last_offset))
    WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_threshold = -1)', id);
  EXECUTE format('ALTER TABLE kafka.segment_%s ALTER records SET STORAGE EXTERNAL, ALTER records SET STATISTICS 0', id);
  RETURN id;
END $$;

-- Where the log of each partition of these topics ends: what a broker reads back when it takes the lead. The newest
-- row of a partition is one backward index probe in the newest segment that has any of it: looked for in the open
-- segments, known of the sealed ones. The floors answer where every segment is gone. Locks every segment it looks
-- into: ask for some hundred topics at a time (1,000 topics of 10 partitions and 30 segments: 0.75 s of CPU).
CREATE FUNCTION kafka.log_ends(topic_ids int[])
RETURNS TABLE (topic_id int, partition_id int, next_offset bigint, next_global_offset bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  topic record;
  segment int;
  missing int[];
BEGIN
  FOR topic IN SELECT p.topic_id AS id, array_agg(p.partition_id) AS partitions, array_agg(p.next_offset_floor) AS floors
      FROM kafka.partitions p WHERE p.topic_id = ANY (topic_ids) GROUP BY p.topic_id LOOP
    topic_id := topic.id;
    missing := topic.partitions;
    FOR segment IN
        SELECT s.segment_id FROM kafka.segments s WHERE s.topic_id = topic.id AND s.state = 'open'
        UNION
        SELECT max(p.segment_id) FROM kafka.segments s JOIN kafka.segment_partitions p USING (segment_id)
          WHERE s.topic_id = topic.id AND s.state = 'sealed' GROUP BY p.partition_id
        ORDER BY 1 DESC LOOP
      EXIT WHEN missing = '{}';
      FOR partition_id, next_offset, next_global_offset IN EXECUTE format(
          'SELECT p.id, greatest(r.last_offset + 1, p.floor), r.global_offset + r.last_offset - r.base_offset + 1
           FROM unnest($1, $2) AS p (id, floor) CROSS JOIN LATERAL (SELECT * FROM kafka.segment_%s
             WHERE partition_id = p.id ORDER BY last_offset DESC LIMIT 1) r
           WHERE p.id = ANY ($3)', segment) USING topic.partitions, topic.floors, missing LOOP
        missing := array_remove(missing, partition_id);
        RETURN NEXT;
      END LOOP;
    END LOOP;
    next_global_offset := 0;
    FOR partition_id, next_offset IN SELECT p.id, p.floor FROM unnest(topic.partitions, topic.floors) AS p (id, floor)
        WHERE p.id = ANY (missing) LOOP
      RETURN NEXT;
    END LOOP;
  END LOOP;
END $$;
