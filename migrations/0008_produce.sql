-- kafka.produce: a record from any SQL transaction. It is a transactional logical message, so it takes no lock, leaves
-- no row behind, is gone on ROLLBACK (or ROLLBACK TO SAVEPOINT), and comes out of the WAL in commit order. Anybody may
-- emit logical messages; what makes one a record is a digest with a key that only this function can read, over the
-- transaction's id as well, so that a message seen elsewhere is worth nothing.

-- HMAC-SHA-256 (RFC 2104): the key, padded, combined with the two constants.
CREATE TABLE kafka.produce_key (
  only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  inner_pad bytea NOT NULL,
  outer_pad bytea NOT NULL
);
REVOKE ALL ON kafka.produce_key FROM PUBLIC;

-- What the broker lets SQL do; written when it starts.
CREATE TABLE kafka.produce_settings (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  enabled           boolean NOT NULL DEFAULT false,
  auto_create       boolean NOT NULL DEFAULT false,
  max_message_bytes int NOT NULL DEFAULT 1048588
);
INSERT INTO kafka.produce_settings DEFAULT VALUES;

-- Headers as a record's: {"name": "text" or null}, or [["name", "text"], …] where names repeat.
CREATE FUNCTION kafka.encode_produce_headers(headers jsonb) RETURNS bytea
  LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
  header record;
  encoded bytea := '';
  count int := 0;
BEGIN
  FOR header IN
      SELECT h.key, h.value FROM jsonb_each_text(CASE WHEN jsonb_typeof(headers) = 'object' THEN headers ELSE '{}' END) h
      UNION ALL
      SELECT e.pair ->> 0, e.pair ->> 1
        FROM jsonb_array_elements(CASE WHEN jsonb_typeof(headers) = 'array' THEN headers ELSE '[]' END) AS e (pair) LOOP
    IF header.key IS NULL THEN
      RAISE EXCEPTION 'a header needs a name' USING ERRCODE = 'invalid_parameter_value',
        HINT = 'headers are an object, or an array of pairs [name, text]';
    END IF;
    encoded := encoded || int4send(octet_length(header.key)) || convert_to(header.key, 'UTF8')
      || CASE WHEN header.value IS NULL THEN int4send(-1)
         ELSE int4send(octet_length(convert_to(header.value, 'UTF8'))) || convert_to(header.value, 'UTF8') END;
    count := count + 1;
  END LOOP;
  RETURN int4send(count) || encoded;
END $$;

-- "partition" NULL: by the key, or any.
CREATE FUNCTION kafka.produce(topic text, value bytea, key bytea DEFAULT NULL, headers jsonb DEFAULT NULL, partition int DEFAULT NULL)
  RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  settings kafka.produce_settings;
  target record;
  secret kafka.produce_key;
  payload bytea;
  max_bytes int;
BEGIN
  SELECT * INTO settings FROM kafka.produce_settings;
  IF NOT settings.enabled THEN
    RAISE EXCEPTION 'producing from SQL is not enabled' USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Start Millrace with --sql-produce=on; it needs wal_level = logical.';
  END IF;
  IF topic IS NULL OR topic !~ '^[a-zA-Z0-9._-]{1,249}$' OR topic IN ('.', '..') THEN
    RAISE EXCEPTION '"%" cannot be a topic', topic USING ERRCODE = 'invalid_name',
      HINT = 'A topic''s name has up to 249 letters, digits, periods, underscores and hyphens.';
  END IF;
  SELECT t.partition_count, (t.config ->> 'max.message.bytes')::int AS max_bytes INTO target
    FROM kafka.topics t WHERE t.name = produce.topic;
  IF NOT FOUND THEN
    IF NOT settings.auto_create THEN
      RAISE EXCEPTION 'there is no topic "%"', topic USING ERRCODE = 'undefined_object';
    END IF;
    IF EXISTS (SELECT FROM kafka.topics t WHERE replace(t.name, '.', '_') = replace(produce.topic, '.', '_')) THEN
      RAISE EXCEPTION 'topic "%" collides with another: periods and underscores are not told apart', topic
        USING ERRCODE = 'invalid_name';
    END IF;
    IF partition IS NOT NULL THEN
      RAISE EXCEPTION 'there is no topic "%" yet, and so no partition % of it', topic, partition USING ERRCODE = 'undefined_object';
    END IF;
  ELSIF partition < 0 OR partition >= target.partition_count THEN
    RAISE EXCEPTION 'topic "%" has no partition %', topic, partition USING ERRCODE = 'undefined_object';
  END IF;
  payload := '\x01'::bytea || int4send(coalesce(partition, -1)) || int4send(octet_length(topic)) || convert_to(topic, 'UTF8')
    || CASE WHEN key IS NULL THEN int4send(-1) ELSE int4send(octet_length(key)) || key END
    || CASE WHEN value IS NULL THEN int4send(-1) ELSE int4send(octet_length(value)) || value END
    || CASE WHEN headers IS NULL THEN '\x00000000'::bytea ELSE kafka.encode_produce_headers(headers) END;
  max_bytes := coalesce(target.max_bytes, settings.max_message_bytes);
  IF octet_length(payload) + 128 > max_bytes THEN
    RAISE EXCEPTION 'the record has % bytes, and topic "%" takes batches of %', octet_length(payload), topic, max_bytes
      USING ERRCODE = 'program_limit_exceeded', HINT = 'Raise max.message.bytes of the topic.';
  END IF;
  SELECT * INTO STRICT secret FROM kafka.produce_key;
  PERFORM pg_logical_emit_message(true, 'millrace.produce',
    sha256(secret.outer_pad || sha256(secret.inner_pad || int8send(pg_current_xact_id()::text::int8 & 4294967295) || payload)) || payload);
END $$;

CREATE FUNCTION kafka.produce(topic text, value text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition int DEFAULT NULL)
  RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
  RETURN kafka.produce(topic, convert_to(value, 'UTF8'), convert_to(key, 'UTF8'), headers, partition);

CREATE FUNCTION kafka.produce(topic text, value jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition int DEFAULT NULL)
  RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
  RETURN kafka.produce(topic, convert_to(value::text, 'UTF8'), convert_to(key, 'UTF8'), headers, partition);

-- Who may write to topics is said by GRANT EXECUTE on these and USAGE on the schema.
REVOKE EXECUTE ON FUNCTION kafka.produce(text, bytea, bytea, jsonb, int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION kafka.produce(text, text, text, jsonb, int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION kafka.produce(text, jsonb, text, jsonb, int) FROM PUBLIC;
