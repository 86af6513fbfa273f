-- Webhooks: what src/deliver/webhooks/ keeps. Events stay where the inbox has them, and nothing is written to their rows: an
-- inbox is cut into lanes by subscriber, each worked off by one process at a time, and how far it has come is a row beside
-- the parts (kafka.inbox_part_<id>_receipts, kind `webhook`), only ever inserted. What could not be delivered yet, and it
-- alone, has rows here that change.

-- channel: who reads the inbox. webhook: its settings, where there are any; webhook_from: the last event before them.
ALTER TABLE kafka.inboxes
  ADD COLUMN channel text NOT NULL DEFAULT 'sse' CHECK (channel IN ('sse', 'webhook', 'both')),
  ADD COLUMN webhook jsonb,
  ADD COLUMN webhook_from bigint NOT NULL DEFAULT 0;

-- subscriber NULL: for all that have none of their own. enabled: false since its receiver answered 410, or by hand. of_file:
-- it is the URL of millrace.yaml.
CREATE TABLE kafka.webhook_endpoints (
  endpoint_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  inbox_id    int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  subscriber  text COLLATE "C",
  url         text NOT NULL CHECK (url ~* '^https?://'),
  secrets     text[] NOT NULL DEFAULT '{}',
  enabled     boolean NOT NULL DEFAULT true,
  reason      text,
  of_file     boolean NOT NULL DEFAULT false,
  changed_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (inbox_id, subscriber)
);
CREATE UNIQUE INDEX webhook_endpoints_common ON kafka.webhook_endpoints (inbox_id) WHERE subscriber IS NULL;

-- lease_epoch is the fencing token: it rises with each new owner.
CREATE TABLE kafka.webhook_lanes (
  inbox_id    int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  lane        smallint NOT NULL,
  owner       uuid,
  lease_epoch bigint NOT NULL DEFAULT 0,
  expires_at  timestamptz,
  PRIMARY KEY (inbox_id, lane)
) WITH (fillfactor = 50);

CREATE TABLE kafka.webhook_workers (
  inbox_id   int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  worker     uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (inbox_id, worker)
) WITH (fillfactor = 50);

-- Events behind their lane's position that are to be tried again.
CREATE TABLE kafka.webhook_retries (
  inbox_id int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  lane     smallint NOT NULL,
  seq      bigint NOT NULL,
  attempts smallint NOT NULL,
  next_at  timestamptz NOT NULL,
  reason   text,
  PRIMARY KEY (inbox_id, lane, seq)
);

-- Subscribers that their lane passes over: theirs is worked off from seq on by itself, until it has caught up.
CREATE TABLE kafka.webhook_holds (
  inbox_id   int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  lane       smallint NOT NULL,
  class      smallint NOT NULL,
  subscriber text COLLATE "C" NOT NULL,
  seq        bigint NOT NULL,
  attempts   smallint NOT NULL,
  next_at    timestamptz NOT NULL,
  PRIMARY KEY (inbox_id, lane, class, subscriber)
) WITH (fillfactor = 70);

-- Given up. dead_sent: those that are in the dead letter topic too; it commits with the record.
CREATE TABLE kafka.webhook_dead (
  dead_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  inbox_id    int NOT NULL REFERENCES kafka.inboxes ON DELETE CASCADE,
  lane        smallint NOT NULL,
  seq         bigint NOT NULL,
  attempts    smallint NOT NULL,
  code        text NOT NULL,
  reason      text NOT NULL,
  endpoint_id bigint,
  died_at     timestamptz NOT NULL DEFAULT now(),
  UNIQUE (inbox_id, seq)
);
CREATE TABLE kafka.webhook_dead_sent (dead_id bigint PRIMARY KEY);

CREATE FUNCTION kafka.webhook_lane(subscriber text) RETURNS smallint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
  $$ SELECT (pg_catalog.hashtextextended(subscriber, 0) & 15)::smallint $$;

-- 0 LOW, 1 MEDIUM, 2 HIGH.
CREATE FUNCTION kafka.webhook_class(priority smallint) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$ SELECT CASE WHEN priority >= 7 THEN 2 WHEN priority >= 4 THEN 1 ELSE 0 END::smallint $$;

-- Called for each part of an inbox with webhooks, in the transaction that opens it or once for those that were there.
CREATE FUNCTION kafka.webhook_index(part int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE INDEX IF NOT EXISTS inbox_part_%s_webhook ON kafka.inbox_part_%s
    (kafka.webhook_lane(subscriber), kafka.webhook_class(priority), seq)', part, part);
END $$;

-- Renews what a worker has, gives back what it has drained, and takes its share of what is free or has expired. Returns what
-- it has now; fresh: it had not. The rest of what it thought to have belongs to others.
CREATE FUNCTION kafka.webhook_lease(
  inbox int, me uuid, lease_ms int, held smallint[], epochs bigint[], drained smallint[]
) RETURNS TABLE (lane smallint, epoch bigint, fresh boolean, share int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  until timestamptz := clock_timestamp() + lease_ms * interval '1 millisecond';
  kept int;
  joined boolean;
BEGIN
  INSERT INTO kafka.webhook_workers AS w (inbox_id, worker, expires_at) VALUES (inbox, me, until)
    ON CONFLICT (inbox_id, worker) DO UPDATE SET expires_at = until RETURNING w.xmax = 0 INTO joined;
  -- The others give some of theirs.
  IF joined THEN PERFORM pg_notify('millrace_inbox', 'webhooks'); END IF;
  DELETE FROM kafka.webhook_workers w WHERE w.inbox_id = inbox AND w.expires_at < clock_timestamp() - interval '1 hour';
  SELECT ceil(16.0 / count(*)) INTO share FROM kafka.webhook_workers w
    WHERE w.inbox_id = inbox AND w.expires_at > clock_timestamp();
  IF cardinality(drained) > 0 THEN
    UPDATE kafka.webhook_lanes l SET owner = NULL, expires_at = NULL
      WHERE l.inbox_id = inbox AND l.owner = me AND l.lane = ANY (drained);
    PERFORM pg_notify('millrace_inbox', 'webhooks');
  END IF;
  RETURN QUERY UPDATE kafka.webhook_lanes l SET expires_at = until
    FROM unnest(held, epochs) AS given (lane, epoch)
    WHERE l.inbox_id = inbox AND l.owner = me AND l.lane = given.lane AND l.lease_epoch = given.epoch
    RETURNING l.lane, l.lease_epoch, false, share;
  GET DIAGNOSTICS kept = ROW_COUNT;
  RETURN QUERY UPDATE kafka.webhook_lanes l
    SET owner = me, lease_epoch = l.lease_epoch + 1, expires_at = until
    FROM (SELECT f.lane FROM kafka.webhook_lanes f
          WHERE f.inbox_id = inbox AND f.lane <> ALL (drained)
            AND (f.owner IS NULL OR f.expires_at < clock_timestamp() OR (f.owner = me AND f.lane <> ALL (held)))
          ORDER BY f.lane LIMIT greatest(share - kept, 0) FOR UPDATE SKIP LOCKED) free
    WHERE l.inbox_id = inbox AND l.lane = free.lane
    RETURNING l.lane, l.lease_epoch, true, share;
END $$;

CREATE FUNCTION kafka.webhook_release(inbox int, me uuid) RETURNS void LANGUAGE sql AS $$
  UPDATE kafka.webhook_lanes SET owner = NULL, expires_at = NULL WHERE inbox_id = inbox AND owner = me;
  DELETE FROM kafka.webhook_workers WHERE inbox_id = inbox AND worker = me;
  SELECT pg_notify('millrace_inbox', 'webhooks');
$$;

-- Notes what has become of events: all of a lane, or nothing of it where its epoch is another's by now. Returns the lanes
-- that were still held. Locks their rows in the order of their numbers, so a new owner waits for what the last had begun.
CREATE FUNCTION kafka.webhook_settle(inbox int, part int, lanes smallint[], epochs bigint[], changes jsonb)
RETURNS smallint[] LANGUAGE plpgsql AS $$
DECLARE
  held smallint[];
BEGIN
  SELECT coalesce(array_agg(locked.lane), '{}') INTO held FROM (
    SELECT l.lane FROM kafka.webhook_lanes l
    JOIN unnest(lanes, epochs) AS given (lane, epoch) ON l.lane = given.lane AND l.lease_epoch = given.epoch
    WHERE l.inbox_id = inbox ORDER BY l.lane FOR SHARE OF l) locked;
  IF changes ? 'positions' THEN
    EXECUTE format('INSERT INTO kafka.inbox_part_%s_receipts (seq, kind, subscriber)
      SELECT p.seq, ''webhook'', p.lane || ''/'' || p.class
      FROM jsonb_to_recordset($1) AS p (lane smallint, class smallint, seq bigint) WHERE p.lane = ANY ($2)', part)
    USING changes -> 'positions', held;
  END IF;
  IF changes ? 'retried' THEN
    DELETE FROM kafka.webhook_retries r USING jsonb_to_recordset(changes -> 'retried') AS d (lane smallint, seq bigint)
      WHERE r.inbox_id = inbox AND r.lane = d.lane AND r.seq = d.seq AND d.lane = ANY (held);
  END IF;
  IF changes ? 'retries' THEN
    INSERT INTO kafka.webhook_retries AS r (inbox_id, lane, seq, attempts, next_at, reason)
      SELECT inbox, d.lane, d.seq, d.attempts, clock_timestamp() + d.wait * interval '1 millisecond', d.reason
      FROM jsonb_to_recordset(changes -> 'retries')
        AS d (lane smallint, seq bigint, attempts smallint, wait float8, reason text)
      WHERE d.lane = ANY (held)
      ON CONFLICT (inbox_id, lane, seq)
        DO UPDATE SET attempts = excluded.attempts, next_at = excluded.next_at, reason = excluded.reason;
  END IF;
  IF changes ? 'released' THEN
    DELETE FROM kafka.webhook_holds h
      USING jsonb_to_recordset(changes -> 'released') AS d (lane smallint, class smallint, subscriber text)
      WHERE h.inbox_id = inbox AND h.lane = d.lane AND h.class = d.class AND h.subscriber = d.subscriber
        AND d.lane = ANY (held);
  END IF;
  IF changes ? 'holds' THEN
    INSERT INTO kafka.webhook_holds AS h (inbox_id, lane, class, subscriber, seq, attempts, next_at)
      SELECT inbox, d.lane, d.class, d.subscriber, d.seq, d.attempts, clock_timestamp() + d.wait * interval '1 millisecond'
      FROM jsonb_to_recordset(changes -> 'holds')
        AS d (lane smallint, class smallint, subscriber text, seq bigint, attempts smallint, wait float8)
      WHERE d.lane = ANY (held)
      ON CONFLICT (inbox_id, lane, class, subscriber)
        DO UPDATE SET seq = excluded.seq, attempts = excluded.attempts, next_at = excluded.next_at;
  END IF;
  IF changes ? 'dead' THEN
    INSERT INTO kafka.webhook_dead (inbox_id, lane, seq, attempts, code, reason, endpoint_id)
      SELECT inbox, d.lane, d.seq, d.attempts, d.code, d.reason, d.endpoint
      FROM jsonb_to_recordset(changes -> 'dead')
        AS d (lane smallint, seq bigint, attempts smallint, code text, reason text, endpoint bigint)
      WHERE d.lane = ANY (held)
      ON CONFLICT (inbox_id, seq) DO NOTHING;
    PERFORM pg_notify('millrace_inbox', 'webhooks');
  END IF;
  RETURN held;
END $$;

CREATE FUNCTION kafka.webhook_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('millrace_inbox', 'webhooks');
  RETURN NULL;
END $$;
CREATE TRIGGER webhook_changed AFTER INSERT OR UPDATE OR DELETE ON kafka.webhook_endpoints
  FOR EACH STATEMENT EXECUTE FUNCTION kafka.webhook_changed();

-- For people and their programs ------------------------------------------------------------------------------------------

-- Where a subscriber's events go; NULL: those of all that have none of their own. Also enables it again.
CREATE FUNCTION kafka.webhook_endpoint(inbox text, subscriber text, url text, secrets text[] DEFAULT '{}')
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  id int := (SELECT i.inbox_id FROM kafka.inboxes i WHERE i.name = inbox);
  made bigint;
BEGIN
  IF id IS NULL THEN RAISE EXCEPTION 'there is no inbox %', inbox USING ERRCODE = 'undefined_object'; END IF;
  UPDATE kafka.webhook_endpoints e
    SET url = $3, secrets = $4, enabled = true, reason = NULL, of_file = false, changed_at = now()
    WHERE e.inbox_id = id AND e.subscriber IS NOT DISTINCT FROM $2 RETURNING endpoint_id INTO made;
  IF made IS NULL THEN
    INSERT INTO kafka.webhook_endpoints (inbox_id, subscriber, url, secrets) VALUES (id, $2, $3, $4)
      RETURNING endpoint_id INTO made;
  END IF;
  RETURN made;
END $$;

CREATE VIEW kafka.webhook_dead_letters AS
  SELECT i.name AS inbox, d.seq, i.inbox_id || '-' || d.seq AS id, d.attempts, d.code, d.reason, d.died_at,
         EXISTS (SELECT FROM kafka.webhook_dead_sent s WHERE s.dead_id = d.dead_id) AS in_topic
  FROM kafka.webhook_dead d JOIN kafka.inboxes i USING (inbox_id);

-- Tries dead letters again, as if for the first time: those with the numbers given, or all. Returns how many.
CREATE FUNCTION kafka.webhook_redrive(inbox text, seqs bigint[] DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  moved bigint;
BEGIN
  WITH gone AS (
    DELETE FROM kafka.webhook_dead d USING kafka.inboxes i
    WHERE i.name = inbox AND d.inbox_id = i.inbox_id AND (seqs IS NULL OR d.seq = ANY (seqs))
    RETURNING d.dead_id, d.inbox_id, d.lane, d.seq),
  unsent AS (DELETE FROM kafka.webhook_dead_sent s USING gone WHERE s.dead_id = gone.dead_id)
  INSERT INTO kafka.webhook_retries (inbox_id, lane, seq, attempts, next_at, reason)
    SELECT gone.inbox_id, gone.lane, gone.seq, 0, now(), 'redriven' FROM gone ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS moved = ROW_COUNT;
  PERFORM pg_notify('millrace_inbox', 'webhooks');
  RETURN moved;
END $$;
