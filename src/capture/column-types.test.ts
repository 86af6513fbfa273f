// Conversion of every built-in type, held against what Postgres itself makes of the same values in SQL.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type pg from 'pg';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { PgOutputDecoder, type RelationColumn, type Tuple } from '../postgres/pgoutput.ts';
import { JsonBuffer } from './json-buffer.ts';
import { Source, setPrinting } from './source.ts';
import { converterFor, type ValueStyle } from './values.ts';

const plain: ValueStyle = { style: 'plain', decimals: 'string', binary: 'base64' };
const hex: ValueStyle = { ...plain, binary: 'hex' };
const doubles: ValueStyle = { ...plain, decimals: 'double' };
const debezium: ValueStyle = { style: 'debezium', decimals: 'precise', binary: 'base64-url-safe' };

/** A type, values of it as SQL expressions (`n` counts random rows), and what becomes of `v` in a style, in SQL. */
interface Column {
  readonly type: string;
  readonly values: readonly string[];
  readonly random?: string;
  readonly plain: string;
  readonly hex?: string;
  readonly doubles?: string;
  readonly debezium?: string;
}

/** Not v::text: a cast may say something else than what is printed (inet, char). */
const quoted = `CASE WHEN v IS NOT NULL THEN to_json(format('%s', v))::text END`;
const asIso = `replace(replace(to_json(v)::text, '+00:00 BC', '+00 BC'), '+00:00', 'Z')`;
const number = `CASE WHEN v::text ~ '[0-9]$' THEN v::text ELSE ${quoted} END`;
const micros = (of: string) => `(extract(epoch FROM ${of}) * 1000000)::numeric(40, 0)::text`;
const text = (type: string, ...values: string[]): Column => ({
  type,
  values: values.map(value => `'${value.replaceAll("'", "''")}'`),
  plain: quoted,
  debezium: quoted,
});

const columns: readonly Column[] = [
  { type: 'bool', values: ['true', 'false'], plain: 'v::text', debezium: 'v::text' },
  { type: 'int2', values: ['-32768', '32767', '0'], plain: 'v::text', debezium: 'v::text' },
  { type: 'int4', values: ['-2147483648', '2147483647'], plain: 'v::text', debezium: 'v::text' },
  {
    type: 'int8',
    values: ['-9223372036854775808', '9223372036854775807', '9007199254740993'],
    random: '((random() - 0.5) * 1.8e19)::int8',
    plain: 'v::text',
    debezium: 'v::text',
  },
  { type: 'oid', values: ['4294967295'], plain: 'v::text', debezium: 'v::text' },
  {
    type: 'float4',
    values: [`'NaN'`, `'Infinity'`, `'-Infinity'`, '1e-37', '-0.0', '3.4028235e38'],
    random: '((random() - 0.5) * 10 ^ (random() * 60 - 30))::float4',
    plain: number,
    debezium: number,
  },
  {
    type: 'float8',
    values: [`'NaN'`, `'Infinity'`, `'-Infinity'`, '5e-324', '1.7976931348623157e308', '0.1'],
    random: '(random() - 0.5) * 10 ^ (random() * 500 - 250)',
    plain: number,
    debezium: number,
  },
  {
    type: 'numeric',
    values: [
      '0',
      '-0.00100',
      '1e130',
      '-1e-50',
      `'NaN'`,
      `'Infinity'`,
      '12345678901234567890.123456789',
      '-128',
      '255',
    ],
    random: '((random() - 0.5) * 10 ^ (random() * 60 - 30)::int)::numeric(100, 40)',
    plain: quoted,
    doubles: `CASE WHEN v::text ~ '[0-9]$' THEN NULL ELSE ${quoted} END`,
  },
  { type: 'numeric(9,2)', values: ['1234567.89', '-0.01', '0'], random: '(random() - 0.5) * 10000000', plain: quoted },
  { type: 'money', values: ['-0.01', '92233720368547758.07', '1234.56'], plain: 'to_json(v::numeric::text)::text' },
  {
    type: 'bytea',
    values: [`''`, `'\\x00ff10'`],
    random: `sha256(int4send(n))`,
    plain: `to_json(replace(encode(v, 'base64'), E'\\n', ''))::text`,
    hex: `to_json(encode(v, 'hex'))::text`,
    debezium: `to_json(translate(replace(encode(v, 'base64'), E'\\n', ''), '+/', '-_'))::text`,
  },
  text('text', '', 'NULL', '"quoted" \\ back\n\t\r\b\f', '\u0001\u001f\u007f', 'żółw 🐢 \u2028', '{a,b}'),
  text('varchar(10)', 'ten letters'.slice(0, 10)),
  text('char(5)', 'a'),
  text('"char"', 'x'),
  text('name', 'Some Name'),
  text('uuid', '3f333df6-90a4-4fda-8dd3-9485d27cee36'),
  text('inet', '::1', '10.0.0.0/8'),
  text('cidr', '10.0.0.0/8'),
  text('macaddr', '08:00:2b:01:02:03'),
  text('macaddr8', '08:00:2b:01:02:03:04:05'),
  text('xml', '<a b="c">d</a>'),
  text('tsvector', `'fat':2 'rat':3A`),
  text('tsquery', `'fat' & 'rat'`),
  text('pg_lsn', '16/B374D848'),
  text('path', '((0,0),(1,1))'),
  text('polygon', '((0,0),(1,1),(1,0))'),
  text('circle', '<(0,0),1>'),
  text('box', '(1,1),(0,0)'),
  text('line', '{1,2,3}'),
  text('lseg', '[(0,0),(1,1)]'),
  text('int4range', '[1,10)', 'empty', '(,5)'),
  text('numrange', '(1.5,2.5]'),
  text('tstzrange', '["2024-01-01 00:00:00+00",infinity)'),
  text('int4multirange', '{[1,2),[5,9)}'),
  text('mood', 'sad', 'quite "happy"'),
  { ...text('pair', '(1,"a b")'), debezium: quoted },
  { type: 'positive', values: ['1', '2147483647'], plain: 'v::int4::text', debezium: 'v::int4::text' },
  { type: 'point', values: [`'(1.5,-2)'`], plain: quoted },
  { type: 'json', values: [`'{"b": 1,  "a":1e400, "a":[]}'`], plain: 'v::text', debezium: quoted },
  { type: 'jsonb', values: [`'{"b": 1.50, "é": "\\u00e9"}'`, `'null'`], plain: 'v::text', debezium: quoted },
  { type: 'bit(10)', values: [`B'1010101011'`], plain: quoted },
  { type: 'varbit', values: [`B''`, `B'1'`, `B'101010101'`], plain: quoted },
  {
    type: 'date',
    values: [`'0044-03-15 BC'`, `'infinity'`, `'-infinity'`, `'2024-02-29'`, `'9999-12-31'`, `'12024-01-01'`],
    random: `'2000-01-01'::date + ((random() - 0.5) * 1000000)::int`,
    plain: quoted,
    debezium: `CASE v WHEN 'infinity' THEN '-2147472692' WHEN '-infinity' THEN '-2147472691' ELSE (v - '1970-01-01')::text END`,
  },
  {
    type: 'time',
    values: [`'00:00'`, `'24:00'`, `'12:34:56.789012'`],
    random: `'00:00'::time + random() * interval '1 day'`,
    plain: quoted,
    debezium: micros('v'),
  },
  {
    type: 'time(3)',
    values: [`'12:34:56.789'`],
    plain: quoted,
    debezium: '(extract(epoch FROM v) * 1000)::int8::text',
  },
  {
    type: 'timetz',
    values: [`'12:34:56.789012+02'`, `'00:00-03:30'`, `'24:00+00'`, `'23:59:59+05:53:28'`],
    random: `('00:00'::time + random() * interval '1 day') AT TIME ZONE make_interval(mins => (random() * 600 - 300)::int)`,
    plain: quoted,
  },
  {
    type: 'timestamp',
    values: [
      `'4713-01-01 00:00:00.000001 BC'`,
      `'infinity'`,
      `'-infinity'`,
      `'290000-12-31 23:59:59.999999'`,
      `'1969-12-31 23:59:59.999999'`,
    ],
    random: `'2000-01-01'::timestamp + (random() - 0.5) * interval '8000 years'`,
    plain: `replace(to_json(v)::text, '+00:00', '')`,
    debezium: `CASE v WHEN 'infinity' THEN '9223372036825200000' WHEN '-infinity' THEN '-9223372036832400000' ELSE ${micros('v')} END`,
  },
  {
    type: 'timestamp(3)',
    values: [`'2024-02-29 12:34:56.789'`, `'1969-12-31 23:59:59.999'`],
    plain: 'to_json(v)::text',
    debezium: '(extract(epoch FROM v) * 1000)::int8::text',
  },
  {
    type: 'timestamptz',
    values: [
      `'0044-03-15 10:00+00 BC'`,
      `'infinity'`,
      `'-infinity'`,
      `'2024-02-29 12:34:56.789012+02'`,
      `'12024-01-01 00:00+00'`,
    ],
    random: `'2000-01-01'::timestamptz + (random() - 0.5) * interval '8000 years'`,
    plain: asIso,
  },
  {
    type: 'interval',
    values: [`'1 year 2 mons -3 days 04:05:06.789'`, `'-1 days -02:03:04.5'`, `'0'`, `'178000000 years'`],
    random: `make_interval(months => (random() * 100 - 50)::int, days => (random() * 100 - 50)::int, secs => random() * 1e5 - 5e4)`,
    plain: quoted,
    debezium: `((extract(year FROM v) * 12 + extract(month FROM v)) * 2629800000000 + extract(day FROM v) * 86400000000
      + extract(hour FROM v) * 3600000000 + extract(minute FROM v) * 60000000 + extract(second FROM v) * 1000000)::numeric(40, 0)::text`,
  },
];

let database: TestDatabase;
let source: Source;
let sql: pg.PoolClient;

before(async () => {
  database = await createDatabase();
  await database.pool.query(`
    CREATE TYPE mood AS ENUM ('sad', 'quite "happy"');
    CREATE TYPE pair AS (one int, other text);
    CREATE DOMAIN positive AS int4 CHECK (value > 0)`);
  source = await Source.open(database.url, () => {});
  sql = await database.pool.connect();
  await sql.query(setPrinting);
  await sql.query(`SELECT setseed(0.42)`);
});

after(async () => {
  sql?.release();
  await source?.end();
  await database?.drop();
});

interface Written {
  readonly column: RelationColumn;
  /** Calls with each row's value; null values are not handed on. */
  each(row: (id: number, bytes: Buffer, start: number, end: number) => void): void;
}

/** Writes to a table of one column, and hands on what its WAL holds. */
async function written(type: string, insert: string): Promise<Written> {
  await sql.query(`DROP TABLE IF EXISTS t; CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v ${type});
    DROP PUBLICATION IF EXISTS p; CREATE PUBLICATION p FOR TABLE t`);
  const slot = `types_${Math.random().toString(36).slice(2)}`;
  await sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  try {
    await sql.query(insert);
    const { rows } = await sql.query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'p')`,
      [slot],
    );
    const decoder = new PgOutputDecoder();
    const relation = rows.map(({ data }) => decoder.read(data)).find(message => message.kind === 'relation')!;
    await source.loadTypes(relation.columns.map(column => column.typeOid));
    return {
      column: relation.columns[1]!,
      each: row => {
        for (const { data } of rows) {
          const message = decoder.read(data);
          if (message.kind !== 'insert') continue;
          const tuple: Tuple = message.after;
          if (!tuple.isNull(1)) row(Number(tuple.text(0)), tuple.bytes, tuple.starts[1]!, tuple.ends[1]!);
        }
      },
    };
  } finally {
    await sql.query('SELECT pg_drop_replication_slot($1)', [slot]);
  }
}

/** The JSON of each row's value, by id. */
function convert({ column, each }: Written, style: ValueStyle): Map<number, string> {
  const converter = converterFor(column.typeOid, column.typeModifier, style, source.type);
  const converted = new Map<number, string>();
  each((id, bytes, start, end) => {
    const out = new JsonBuffer(8);
    converter(out, bytes, start, end);
    converted.set(id, out.copy().toString());
  });
  return converted;
}

const insertOf = ({ type, values, random }: Column): string =>
  `INSERT INTO t (v) SELECT v FROM (VALUES ${values.map(value => `((${value})::${type})`).join(', ')}) AS t (v)
   ${random ? `UNION ALL SELECT (${random})::${type} FROM generate_series(1, 300) n` : ''}`;

test('every built-in type is what Postgres says it is, in every style', async () => {
  const styles = { plain, hex, doubles, debezium };
  for (const column of columns) {
    const values = await written(column.type, insertOf(column));
    for (const [name, style] of Object.entries(styles)) {
      const oracle = column[name as keyof typeof styles];
      const converted = convert(values, style);
      assert.ok(converted.size > 0);
      for (const json of converted.values()) JSON.parse(json); // whatever it is, it is JSON
      if (oracle === undefined) continue;
      const { rows } = await sql.query<{ id: number; expected: string | null; text: string }>(
        `SELECT id, ${oracle} AS expected, v::text AS text FROM t`,
      );
      for (const { id, expected, text: from } of rows) {
        if (expected !== null) assert.equal(converted.get(id), expected, `${column.type} ${from} in style ${name}`);
      }
    }
  }
});

test('numbers for Kafka Connect hold every digit', async () => {
  const cases: readonly [string, number | undefined][] = [
    ['numeric', undefined],
    ['numeric(9,2)', 2],
    ['money', 2],
  ];
  for (const [type, scale] of cases) {
    const values = await written(type, insertOf(columns.find(column => column.type === type)!));
    const { rows } = await sql.query<{ id: number; text: string }>('SELECT id, v::numeric::text AS text FROM t');
    const converted = convert(values, debezium);
    for (const { id, text: decimal } of rows) {
      const json = JSON.parse(converted.get(id)!) as string | { scale: number; value: string };
      if (!/\d$/.test(decimal)) {
        assert.equal(json, decimal);
        continue;
      }
      const [base64, digits] = typeof json === 'string' ? [json, scale!] : [json.value, json.scale];
      const bytes = Buffer.from(base64, 'base64');
      const unscaled = BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`));
      const [whole, fraction = ''] = decimal.split('.');
      const padded = fraction.padEnd(digits, '0');
      assert.equal(unscaled, BigInt(whole! + padded.slice(0, digits)), decimal);
      assert.match(padded.slice(digits), /^0*$/, `${decimal} has lost digits`);
    }
  }
});

test('times with zones are the same moments', async () => {
  const timetz = convert(await written('timetz', insertOf(columns.find(({ type }) => type === 'timetz')!)), debezium);
  const times = await sql.query<{ id: number; utc: string }>(
    `SELECT id, rtrim(rtrim(to_char('2000-01-01'::date + ((v AT TIME ZONE 'UTC')::time), 'HH24:MI:SS.US'), '0'), '.') || 'Z' AS utc FROM t`,
  );
  for (const { id, utc } of times.rows) assert.equal(JSON.parse(timetz.get(id)!), utc);
  const column = columns.find(({ type }) => type === 'timestamptz')!;
  const timestamps = convert(await written('timestamptz', insertOf(column)), debezium);
  const moments = await sql.query<{ id: number; ms: string | null }>(
    `SELECT id, CASE WHEN isfinite(v) THEN floor(extract(epoch FROM v) * 1000)::text END AS ms FROM t WHERE extract(year FROM v) > 0`,
  );
  for (const { id, ms } of moments.rows) {
    if (ms === null) continue;
    const json = JSON.parse(timestamps.get(id)!) as string;
    // ECMAScript writes years beyond 9999 with six digits.
    const iso = json.replace(/^\+(\d{5})-/, '+0$1-');
    assert.equal(String(new Date(iso).getTime()), ms, json);
  }
});

test('arrays of any type and shape hold what unnest tells of them', async () => {
  for (const column of columns) {
    const { type, values, plain: oracle } = column;
    if (type === 'pair') continue; // unnest makes columns of it
    const items = values.map(value => `(${value})::${type}`);
    const row = `ARRAY[${[...items, 'NULL'].join(', ')}]`;
    const insert = `INSERT INTO t (v) VALUES (${row}), (ARRAY[]::${type}[]), (ARRAY[${row}, ${row}]),
      (array_fill(${items[0]}, ARRAY[2, 1, 2], ARRAY[0, -3, 7])), (NULL)`;
    const converted = convert(await written(`${type}[]`, insert), plain);
    const { rows } = await sql.query<{ id: number; flat: string[]; lengths: number[] }>(
      `SELECT id, ARRAY(SELECT coalesce(${oracle}, 'null') FROM unnest(t.v) WITH ORDINALITY AS u (v, n) ORDER BY n) AS flat,
              ARRAY(SELECT array_length(t.v, d) FROM generate_series(1, array_ndims(t.v)) d) AS lengths
       FROM t WHERE v IS NOT NULL ORDER BY id`,
    );
    assert.equal(rows.length, 4);
    for (const { id, flat, lengths } of rows) {
      assert.equal(converted.get(id), nested(flat, lengths), `${type}[]`);
    }
  }
});

/** The JSON of an array of these elements, in the shape that its dimensions' lengths give. */
function nested(flat: readonly string[], lengths: readonly number[]): string {
  if (lengths.length === 0) return '[]';
  let level = [...flat];
  for (const length of lengths.toReversed()) {
    level = Array.from(
      { length: level.length / length },
      (_, i) => `[${level.slice(i * length, (i + 1) * length).join(',')}]`,
    );
  }
  return level[0]!;
}
