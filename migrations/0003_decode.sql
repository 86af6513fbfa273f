-- Record batches (format v2, KIP-98) decoded in SQL: no extension, nothing but get_byte and substr.
-- 0004_read.sql builds the views on this. Everything here is a function of the bytes alone.

CREATE TYPE kafka.header AS (key text, value bytea);

-- Kafka's milliseconds as timestamptz. -1 is "no timestamp"; a client may write any int64, and what
-- timestamptz cannot hold becomes NULL rather than an error in everybody's query.
CREATE FUNCTION kafka.timestamp_of(ms bigint) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CASE WHEN ms <> -1 AND ms BETWEEN -210866803200000 AND 9224318015999000 THEN pg_catalog.to_timestamp(ms::float8 / 1000) END;

CREATE FUNCTION kafka.codec_name(codec int) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (ARRAY['none', 'gzip', 'snappy', 'lz4', 'zstd'])[codec + 1];

-- A zigzag varint of any width at pos; NULL when it has no end within ten bytes.
CREATE FUNCTION kafka.read_varint(b bytea, pos int, OUT value bigint, OUT next int)
  LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
  raw bigint := 0;
BEGIN
  FOR i IN 0 .. least(9, length(b) - pos - 1) LOOP
    raw := raw | ((get_byte(b, pos + i) & 127)::bigint << (7 * i));
    IF get_byte(b, pos + i) < 128 THEN
      value := ((raw >> 1) & 9223372036854775807) # -(raw & 1);
      next := pos + i + 1;
      RETURN;
    END IF;
  END LOOP;
END $$;

-- One record at pos, whatever the widths of its varints, every length checked: what decode_batches falls back
-- to when its fast path does not fit. next is NULL when the record is damaged.
CREATE FUNCTION kafka.read_record(b bytea, pos int, stop int, OUT timestamp_delta bigint, OUT offset_delta bigint,
                                  OUT key bytea, OUT value bytea, OUT raw_headers bytea, OUT next int)
  LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
  n bigint;
  q int;
  finish int;
BEGIN
  SELECT v.value, v.next INTO n, q FROM kafka.read_varint(b, pos) v;
  IF (n BETWEEN 6 AND stop - q) IS NOT TRUE THEN RETURN; END IF;
  finish := q + n;
  SELECT v.value, v.next INTO timestamp_delta, q FROM kafka.read_varint(b, q + 1) v;
  SELECT v.value, v.next INTO offset_delta, q FROM kafka.read_varint(b, q) v;
  IF (offset_delta BETWEEN 0 AND 2147483647) IS NOT TRUE THEN RETURN; END IF;
  SELECT v.value, v.next INTO n, q FROM kafka.read_varint(b, q) v;
  IF (n BETWEEN -1 AND finish - q) IS NOT TRUE THEN RETURN; END IF;
  IF n >= 0 THEN key := substr(b, q + 1, n::int); q := q + n; END IF;
  SELECT v.value, v.next INTO n, q FROM kafka.read_varint(b, q) v;
  IF (n BETWEEN -1 AND finish - q - 1) IS NOT TRUE THEN RETURN; END IF;
  IF n >= 0 THEN value := substr(b, q + 1, n::int); q := q + n; END IF;
  IF q + 1 < finish THEN raw_headers := substr(b, q + 1, finish - q); END IF;
  next := finish;
END $$;

-- A header's key is UTF-8 by the protocol, but nobody checks it. What text cannot hold (a zero byte, invalid
-- UTF-8, a character this database's encoding lacks) is shown escaped as in bytea_output = escape.
CREATE FUNCTION kafka.text_of(bytes bytea) RETURNS text
  LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog AS $$
BEGIN
  RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN data_exception OR untranslatable_character THEN
  RETURN encode(bytes, 'escape');
END $$;

-- kafka.decode_batches and kafka.decode_headers read varints, thousands in a row. A PL/pgSQL statement costs as much
-- as two or three calls of get_byte, so a varint is read by one expression, put in for @varint(position): raw << 3 |
-- width for widths 1 to 4, NULL for a wider one. Whatever is computed from a NULL is NULL, and so fails the test that
-- ends the work on a record or header. That takes 2.5 us for a record of 100 bytes, where an assignment and a test per
-- byte take 3.7 to 4.6 (bench/decode.ts). b is the argument detoasted once: get_byte on a toasted argument would fetch
-- it again for every byte. The zeros behind it let an expression read past a damaged end before the test finds out.
-- Neither sets search_path: that would add 1.5 us to a call, and a row of one record takes 7.
DO $do$
DECLARE
  int32 CONSTANT text := '(get_byte(b, pos + \1) << 24) + (get_byte(b, pos + \1 + 1) << 16) + (get_byte(b, pos + \1 + 2) << 8) + get_byte(b, pos + \1 + 3)';
  width CONSTANT text := $width$
        CASE WHEN get_byte(b, \1) < 128 THEN 1 WHEN get_byte(b, \1 + 1) < 128 THEN 2 WHEN get_byte(b, \1 + 2) < 128 THEN 3
          WHEN get_byte(b, \1 + 3) < 128 THEN 4 END$width$;
  varint CONSTANT text := $varint$
        CASE WHEN get_byte(b, \1) < 128 THEN (get_byte(b, \1) << 3) + 1
          WHEN get_byte(b, \1 + 1) < 128 THEN ((get_byte(b, \1) & 127) << 3) + (get_byte(b, \1 + 1) << 10) + 2
          WHEN get_byte(b, \1 + 2) < 128 THEN ((get_byte(b, \1) & 127) << 3) + ((get_byte(b, \1 + 1) & 127) << 10)
            + (get_byte(b, \1 + 2) << 17) + 3
          WHEN get_byte(b, \1 + 3) < 128 THEN ((get_byte(b, \1) & 127) << 3) + ((get_byte(b, \1 + 1) & 127) << 10)
            + ((get_byte(b, \1 + 2) & 127) << 17) + (get_byte(b, \1 + 3) << 24) + 4
        END$varint$;

  -- Every record of a row's batches with from_offset <= offset <= to_offset, in order. A control batch holds no
  -- records of a client's and is passed over. A compressed batch cannot be read by SQL: its records are there with
  -- codec > 0, their offsets, and their timestamp where the batch header tells it (all equal, or LogAppendTime). A
  -- damaged batch yields the records before the damage and a WARNING.
  decode_batches CONSTANT text := $create$
CREATE FUNCTION kafka.decode_batches(records bytea, from_offset bigint DEFAULT 0, to_offset bigint DEFAULT 9223372036854775807)
  RETURNS TABLE (partition_offset bigint, timestamp_ms bigint, key bytea, value bytea, raw_headers bytea, codec int)
  LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 10 AS $$
DECLARE
  sane CONSTANT bigint := 2305843009213693952;  -- two such can be added without overflow
  b bytea := records || '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea;
  total int := length(records);
  pos int := 0;        -- where the batch begins
  stop int;            -- and ends
  record_at int;       -- where the record begins
  finish int;          -- and ends
  q int;               -- the field
  n int;
  attributes int;
  base_offset bigint;
  last_delta int;
  base_timestamp bigint;
  max_timestamp bigint;
  common_timestamp bigint;
  record_count int;
  dense boolean;
  wide record;
BEGIN
  WHILE pos < total LOOP
    n := CASE WHEN total - pos >= 61 THEN @int32(8) ELSE 0 END;
    IF n BETWEEN 49 AND total - pos - 12 THEN
      base_offset := ('x' || encode(substr(b, pos + 1, 8), 'hex'))::bit(64)::bigint;
      attributes := get_byte(b, pos + 22);
      last_delta := @int32(23);
      record_count := @int32(57);
    END IF;
    IF n NOT BETWEEN 49 AND total - pos - 12 OR get_byte(b, pos + 16) <> 2 OR last_delta < 0
       OR record_count < 0 OR base_offset NOT BETWEEN 0 AND sane THEN
      RAISE WARNING 'byte % of a row of record batches does not begin a batch: nothing after it is read', pos;
      RETURN;
    END IF;
    stop := pos + 12 + n;
    EXIT WHEN base_offset > to_offset;
    IF base_offset + last_delta < from_offset OR attributes & 32 <> 0 THEN
      pos := stop;
      CONTINUE;
    END IF;
    codec := attributes & 7;
    base_timestamp := ('x' || encode(substr(b, pos + 28, 8), 'hex'))::bit(64)::bigint;
    common_timestamp := NULL;
    IF attributes & 15 <> 0 THEN
      max_timestamp := ('x' || encode(substr(b, pos + 36, 8), 'hex'))::bit(64)::bigint;
      IF attributes & 8 <> 0 OR codec <> 0 AND base_timestamp = max_timestamp THEN common_timestamp := max_timestamp; END IF;
    END IF;
    raw_headers := NULL;

    IF codec <> 0 THEN
      timestamp_ms := common_timestamp;
      key := NULL;
      value := NULL;
      FOR i IN greatest(from_offset - base_offset, 0) .. least(record_count - 1, last_delta, to_offset - base_offset) LOOP
        partition_offset := base_offset + i;
        RETURN NEXT;
      END LOOP;
      pos := stop;
      CONTINUE;
    END IF;

    IF base_timestamp NOT BETWEEN -sane AND sane THEN base_timestamp := NULL; END IF;
    dense := record_count - 1 = last_delta;
    record_at := pos + 61;
    FOR i IN 0 .. record_count - 1 LOOP
      q := record_at + 1 + @width(record_at);  -- past length and attributes
      n := @varint(q);  -- timestamp delta, the only one that may be negative
      timestamp_ms := coalesce(common_timestamp, base_timestamp + ((n >> 4) # -((n >> 3) & 1)));
      q := q + (n & 7);
      partition_offset := base_offset + CASE WHEN dense THEN i ELSE @varint(q) >> 4 END;
      q := q + @width(q);
      n := @varint(q);  -- length of the key; 9 is -1, null
      key := CASE n WHEN 9 THEN NULL ELSE substr(b, q + (n & 7) + 1, n >> 4) END;
      q := least(q + (n & 7) + (n >> 4), stop);
      n := @varint(q);  -- length of the value
      value := CASE n WHEN 9 THEN NULL ELSE substr(b, q + (n & 7) + 1, n >> 4) END;
      q := least(q + (n & 7) + (n >> 4), stop);
      IF get_byte(b, q) = 0 AND q < stop THEN  -- no headers
        record_at := q + 1;
        IF partition_offset BETWEEN from_offset AND to_offset THEN RETURN NEXT; END IF;
        CONTINUE;
      END IF;
      n := @varint(record_at);
      finish := record_at + (n & 7) + (n >> 4);
      IF q < finish AND finish <= stop THEN
        raw_headers := substr(b, q + 1, finish - q);
        record_at := finish;
      ELSE
        SELECT * INTO wide FROM kafka.read_record(b, record_at, stop);
        IF wide.next IS NULL THEN
          RAISE WARNING 'the record batch at offset % is damaged: its record % of % cannot be read', base_offset, i + 1, record_count;
          EXIT;
        END IF;
        timestamp_ms := coalesce(common_timestamp,
          CASE WHEN wide.timestamp_delta BETWEEN -sane AND sane THEN base_timestamp + wide.timestamp_delta END);
        partition_offset := base_offset + wide.offset_delta;
        key := wide.key;
        value := wide.value;
        raw_headers := wide.raw_headers;
        record_at := wide.next;
      END IF;
      IF partition_offset BETWEEN from_offset AND to_offset THEN RETURN NEXT; END IF;
      raw_headers := NULL;
    END LOOP;
    pos := stop;
  END LOOP;
END $$
$create$;

  -- A record's headers in order, duplicates and null values kept. STRICT: a record without headers costs no call.
  decode_headers CONSTANT text := $create$
CREATE FUNCTION kafka.decode_headers(raw_headers bytea) RETURNS kafka.header[]
  LANGUAGE plpgsql STABLE STRICT COST 10 AS $$
DECLARE
  b bytea := raw_headers || '\x00000000000000000000'::bytea;
  total int := length(raw_headers);
  headers kafka.header[] := '{}';
  key text;
  n int := @varint(0);
  header_count int := least(n >> 4, total);
  q int := n & 7;
BEGIN
  FOR i IN 1 .. coalesce(header_count, 0) LOOP
    n := @varint(q);
    q := q + (n & 7);
    EXIT WHEN (n & 8 = 0 AND n >> 4 <= total - q) IS NOT TRUE;
    key := encode(substr(b, q + 1, n >> 4), 'escape');
    IF length(key) <> n >> 4 THEN key := kafka.text_of(substr(b, q + 1, n >> 4)); END IF;  -- not ASCII
    q := q + (n >> 4);
    n := @varint(q);  -- 9 is -1, null
    q := q + (n & 7);
    EXIT WHEN (n >> 4 <= total - q) IS NOT TRUE;
    headers := headers || ROW (key, CASE n WHEN 9 THEN NULL ELSE substr(b, q + 1, n >> 4) END)::kafka.header;
    q := q + (n >> 4);
  END LOOP;
  RETURN headers;
END $$
$create$;
BEGIN
  EXECUTE regexp_replace(regexp_replace(regexp_replace(decode_batches,
    '@int32\((\d+)\)', int32, 'g'), '@width\((\w+)\)', width, 'g'), '@varint\((\w+)\)', varint, 'g');
  EXECUTE regexp_replace(decode_headers, '@varint\((\w+)\)', varint, 'g');
END $do$;
