-- Records that became no event go to a dead letter topic: up to which row of their inbox, commits with the append. Their rows
-- hold them as data.
CREATE TABLE kafka.inbox_dead_sent (
  inbox_id int PRIMARY KEY,
  seq      bigint NOT NULL
) WITH (fillfactor = 50);

-- As it was, with an index of dead rows, which takes nothing where there are none.
CREATE OR REPLACE FUNCTION kafka.inbox_open_part(inbox int, first bigint) RETURNS int LANGUAGE plpgsql AS $$
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
  EXECUTE format('CREATE INDEX inbox_part_%s_dead ON kafka.inbox_part_%s (seq) WHERE dead IS NOT NULL', id, id);
  EXECUTE format('CREATE TABLE kafka.inbox_part_%s_receipts (
      seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), kind text COLLATE "C" NOT NULL,
      subscriber text COLLATE "C" NOT NULL)
    WITH (autovacuum_vacuum_insert_threshold = -1)', id);
  EXECUTE format('CREATE INDEX inbox_part_%s_receipt ON kafka.inbox_part_%s_receipts (subscriber, kind, seq)', id, id);
  RETURN id;
END $$;

DO $$
DECLARE
  id int;
BEGIN
  FOR id IN SELECT part_id FROM kafka.inbox_parts LOOP
    EXECUTE format('CREATE INDEX inbox_part_%s_dead ON kafka.inbox_part_%s (seq) WHERE dead IS NOT NULL', id, id);
  END LOOP;
END $$;
