-- Delivery: events whose time has not come. They are inserted with the offsets that tell of them, and go to their inbox in
-- one transaction, by which they are deleted here; whoever takes them remembers how far it has come, so that what is dead
-- behind is not looked at again.
CREATE TABLE kafka.inbox_waiting (
  inbox_id      int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  due_at        timestamptz NOT NULL,
  n             bigint GENERATED ALWAYS AS IDENTITY,
  key           uuid NOT NULL,
  topic_id      int NOT NULL,
  partition_id  int NOT NULL,
  record_offset bigint NOT NULL,
  record_time   bigint NOT NULL,
  expires_ms    bigint,
  priority      smallint NOT NULL,
  subscriber    text COLLATE "C" NOT NULL,
  event_id      text NOT NULL,
  event_type    text,
  data          text NOT NULL,
  PRIMARY KEY (inbox_id, due_at, n)
);

-- Moves what is due to a part of the inbox: at most so many, from `since` to `until`, in the order of their times. Returns
-- how many were taken, and how many of them were new. The other parameters are those of kafka.inbox_append.
CREATE FUNCTION kafka.inbox_release(
  broker int, broker_epoch int, inbox int, part int, newest_keys int, older_keys int[], next_seq bigint,
  since timestamptz, until timestamptz, at_most int
) RETURNS TABLE (taken int, fresh int) LANGUAGE plpgsql AS $$
DECLARE
  due record;
BEGIN
  PERFORM kafka.fence(broker, broker_epoch);
  WITH gone AS (
    DELETE FROM kafka.inbox_waiting w USING (
      SELECT d.due_at, d.n FROM kafka.inbox_waiting d
      WHERE d.inbox_id = inbox AND d.due_at >= since AND d.due_at <= until ORDER BY d.due_at, d.n LIMIT at_most) d
    WHERE w.inbox_id = inbox AND w.due_at = d.due_at AND w.n = d.n RETURNING w.*),
  sorted AS (SELECT * FROM gone ORDER BY due_at, n)
  SELECT count(*)::int AS rows, array_agg(key) AS keys, array_agg(topic_id) AS topics, array_agg(partition_id) AS partitions,
    array_agg(record_offset) AS offsets, array_agg(record_time) AS times, array_agg(expires_ms) AS expiries,
    array_agg(priority) AS priorities, array_agg(subscriber::text) AS subscribers, array_agg(event_id) AS event_ids,
    array_agg(event_type) AS event_types, array_agg(data) AS data, array_agg(NULL::text) AS dead
  INTO due FROM sorted;
  taken := due.rows;
  fresh := 0;
  IF taken > 0 THEN
    fresh := cardinality(kafka.inbox_append(broker, broker_epoch, inbox, part, newest_keys, older_keys, next_seq,
      due.keys, due.topics, due.partitions, due.offsets, due.times, due.expiries, due.priorities, due.subscribers,
      due.event_ids, due.event_types, due.data, due.dead, '', '{}', '{}', '{}', '{}'));
  END IF;
  RETURN NEXT;
END $$;
