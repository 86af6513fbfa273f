-- Inboxes that are made and paused over HTTP (kafka.pipelines has their definitions).
ALTER TABLE kafka.inboxes ADD COLUMN paused boolean NOT NULL DEFAULT false;

-- Processes that serve an inbox hear that it is gone. Otherwise as it was.
CREATE OR REPLACE FUNCTION kafka.inbox_drop(inbox text) RETURNS void LANGUAGE plpgsql AS $$
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
  PERFORM pg_notify('millrace_inbox', id || ' dropped');
END $$;
