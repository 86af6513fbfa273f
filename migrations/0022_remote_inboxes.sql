-- Inboxes that read topics of a remote Kafka. How far they have read cannot be offsets of a group of this log, which are of
-- its own topics; it moves in the transaction of the rows, and told_seq says which of them it tells of, as the metadata of
-- those offsets does.
CREATE TABLE kafka.inbox_positions (
  inbox_id     int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  group_id     text NOT NULL,
  topic_id     int NOT NULL REFERENCES kafka.remote_topics,
  partition_id int NOT NULL,
  next_offset  bigint NOT NULL,
  told_seq     bigint NOT NULL,
  PRIMARY KEY (inbox_id, group_id, topic_id, partition_id)
) WITH (fillfactor = 50);

-- What a topic's number stands for, be it of this log or of a remote cluster.
CREATE VIEW kafka.topic_names AS
  SELECT topic_id, name FROM kafka.topics UNION ALL SELECT remote_topic_id, name FROM kafka.remote_topics;

-- As it was, with the names of remote topics.
CREATE OR REPLACE FUNCTION kafka.inbox_events(inbox text)
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
      FROM kafka.inbox_part_%s e LEFT JOIN kafka.topic_names t USING (topic_id) ORDER BY e.seq', part);
  END LOOP;
END $$;
