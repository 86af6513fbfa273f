// A table of every type, captured into a topic and written by a sink into a twin of it: the two are equal, under inserts,
// updates of the key and of everything else, and deletes.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { Capture } from '../src/capture/capture.ts';
import { readDefinition } from '../src/capture/definition.ts';
import { settingsWith } from '../src/runtime/config.ts';
import { serverDefaults } from '../src/storage/server-defaults.ts';
import { effectiveConfig } from '../src/storage/topic-config.ts';
import { openSinkRig, type SinkRig } from './sink-rig.ts';

/** A type, and expressions for values of it; `n` counts rows. NULL comes by itself. */
const types: readonly (readonly [type: string, ...values: string[]])[] = [
  ['bool', 'true', 'false'],
  ['int2', '-32768', '32767'],
  ['int4', '-2147483648', 'n'],
  ['int8', '-9223372036854775808', '9223372036854775807', '9007199254740993 + n'],
  ['oid', '4294967295'],
  ['float4', `'NaN'`, `'-Infinity'`, '1e-37', '-0.0', 'random()'],
  ['float8', `'NaN'`, `'Infinity'`, '5e-324', '1.7976931348623157e308', 'random() * 1e100'],
  ['numeric', '0', '1e130', '-1e-50', `'NaN'`, '12345678901234567890.123456789', '-128', '255'],
  ['numeric(9,2)', '1234567.89', '-0.01', '(random() * 1000)::numeric(9,2)'],
  ['numeric(40,0)', '1234567890123456789012345678901234567890', '-99999999'],
  ['money', '-0.01', '92233720368547758.07'],
  ['bytea', `''`, `'\\x00ff10'`, 'sha256(int4send(n))'],
  ['text', `''`, `E'"quoted" \\\\ back\\n\\t\\u0001 żółw 🐢'`, `'{a,b}'`, `'123'`, 'n::text'],
  ['varchar(10)', `'ten letter'`],
  ['char(5)', `'a'`],
  ['"char"', `'x'`],
  ['name', `'Some Name'`],
  ['uuid', 'gen_random_uuid()'],
  ['inet', `'::1'`, `'10.0.0.0/8'`],
  ['cidr', `'10.0.0.0/8'`],
  ['macaddr', `'08:00:2b:01:02:03'`],
  ['macaddr8', `'08:00:2b:01:02:03:04:05'`],
  ['xml', `'<a b="c">d</a>'`],
  ['tsvector', `'''fat'':2 ''rat'':3A'`],
  ['tsquery', `'''fat'' & ''rat'''`],
  ['pg_lsn', `'16/B374D848'`],
  ['pg_snapshot', `'10:20:10,14,15'`],
  ['jsonpath', `'$."a"[*]'`],
  ['path', `'((0,0),(1,1))'`],
  ['polygon', `'((0,0),(1,1),(1,0))'`],
  ['circle', `'<(0,0),1>'`],
  ['box', `'(1,1),(0,0)'`],
  ['line', `'{1,2,3}'`],
  ['lseg', `'[(0,0),(1,1)]'`],
  ['point', `'(1.5,-2)'`],
  ['int4range', `'[1,10)'`, `'empty'`, `'(,5)'`],
  ['tstzrange', `'["2024-01-01 00:00:00+00",infinity)'`],
  ['int4multirange', `'{[1,2),[5,9)}'`],
  ['mood', `'sad'`, `'quite "happy"'`],
  ['pair', `ROW(1, 'a "b"')`],
  ['positive', 'n + 1'],
  ['json', `'{"b":1,"a":[1e400,12345678901234567890]}'`],
  ['jsonb', `'{"b": 1.50, "é": "\\u00e9"}'`, `'[]'`, `'12345678901234567890'`],
  ['bit(10)', `B'1010101011'`],
  ['bit(1)', `B'1'`],
  ['date', `'0044-03-15 BC'`, `'infinity'`, `'-infinity'`, `'2024-02-29'`, `'12024-01-01'`],
  ['time', `'00:00'`, `'24:00'`, `'12:34:56.789012'`],
  ['time(3)', `'12:34:56.789'`],
  ['timetz', `'12:34:56.789012+00'`],
  [
    'timestamp',
    `'0044-03-15 01:02:03.456789 BC'`,
    `'infinity'`,
    `'2024-02-29 12:34:56.789012'`,
    `'294276-12-31 23:59:59'`,
  ],
  ['timestamp(3)', `'2024-02-29 12:34:56.789'`, `'-infinity'`, `'1815-06-18 10:11:12.130'`],
  ['timestamptz', `'2024-02-29 12:34:56.789012+02'`, `'1969-12-31 23:59:59.999999+00'`, `'-infinity'`, 'now()'],
  ['int4[]', `'{}'`, `'{1,NULL,3}'`, `'{{1,2},{3,4}}'`],
  ['text[]', `ARRAY['a', 'b "c"', NULL, '{}', '\\', '']`],
  ['timestamptz[]', `'{"2024-02-29 12:34:56+00"}'`],
  ['uuid[]', 'ARRAY[gen_random_uuid()]'],
  ['mood[]', `ARRAY['sad'::mood]`],
  ['inet[]', `'{::1,10.0.0.1}'`],
  ['box[]', `'{(1,1),(0,0);(2,2),(1,1)}'`],
];
/** What Debezium's form does not tell: how many bits, months apart from days, that a numeric of any scale has zeros. */
const onlyPlain: readonly (readonly [string, ...string[]])[] = [
  ['numeric', '1000.000'],
  ['numeric[]', `'{1.10,-2}'`],
  ['varbit', `B''`, `B'1'`, `B'101010101'`],
  ['interval', `'1 year 2 mons -3 days 04:05:06.789'`],
  ['pair[]', `ARRAY[ROW(1, 'x,"y')::pair]`],
  ['jsonb[]', `ARRAY['[1,[2]]'::jsonb, '{"a": null}']`],
];

let rig: SinkRig;
let directory: string;
let version: number;
before(async () => {
  rig = await openSinkRig();
  [{ version }] = await rig.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`);
  directory = mkdtempSync(join(tmpdir(), 'millrace-twin-'));
  await rig.query(`CREATE TYPE mood AS ENUM ('sad', 'quite "happy"')`);
  await rig.query('CREATE TYPE pair AS (a int, b text)');
  await rig.query('CREATE DOMAIN positive AS int CHECK (VALUE > 0)');
  await rig.query('CREATE SCHEMA twin');
});
after(async () => {
  await rig.remove();
  rmSync(directory, { recursive: true, force: true });
});

for (const [format, schemas] of [
  ['plain', false],
  ['debezium', false],
  ['debezium', true],
] as const) {
  test(`a captured table and its twin are equal, in format ${format}${schemas ? ' with schemas' : ''}`, async () => {
    const columns = (format === 'plain' ? [...types, ...onlyPlain] : types).map(([type, ...values], i) => ({
      name: `c${i}`,
      type,
      values,
    }));
    const source = `all_${format}${schemas ? '_schemas' : ''}`;
    const body = columns.map(({ name, type }) => `${name} ${type}`).join(', ');
    const derived = 'twice int GENERATED ALWAYS AS (part * 2) STORED';
    for (const schema of ['public', 'twin']) {
      await rig.query(
        `CREATE TABLE ${schema}.${source} (id int, part int, ${body}, ${derived}, PRIMARY KEY (id, part))`,
      );
      // From 18 on that would take in the generated column, which a publication of ours does not have.
      if (version < 180_000) await rig.query(`ALTER TABLE ${schema}.${source} REPLICA IDENTITY FULL`);
    }
    const capture = startCapture(source, { format, schemas });
    const sink = await rig.start(source, {
      topics: [`${source}.public.*`],
      table: 'twin.{1}',
      format,
      batchRows: 500,
    });
    const randomRow = columns
      .map(({ values, type }, i) => {
        const cases = values.map((value, k) => `WHEN ${k} THEN (${value})::${type}`).join(' ');
        return `CASE (n * 7 + ${i} + (random() * 5)::int) % ${values.length + 1} ${cases} END`;
      })
      .join(', ');
    const names = columns.map(({ name }) => name).join(', ');
    await rig.query(
      `INSERT INTO ${source} (id, part, ${names}) SELECT n, n % 3, ${randomRow} FROM generate_series(1, 1200) n`,
    );
    await rig.query(`UPDATE ${source} SET (${names}) = (SELECT ${randomRow} FROM (SELECT id AS n) x) WHERE id % 5 = 0`);
    await rig.query(`UPDATE ${source} SET id = -id WHERE id % 7 = 0`);
    await rig.query(`DELETE FROM ${source} WHERE id % 11 = 0`);
    await rig.query(
      `INSERT INTO ${source} (id, part, ${names}) SELECT n, n % 3, ${randomRow} FROM generate_series(11, 200, 11) n`,
    );
    const checksum = async (schema: string) => {
      const rows = await rig.query<{ rows: number; sum: string }>(
        `SELECT count(*)::int AS rows, md5(string_agg(t::text, E'\\n' ORDER BY id, part)) AS sum FROM ${schema}.${source} t`,
      );
      return rows[0]!;
    };
    const wanted = await checksum('public');
    const deadline = Date.now() + 240_000;
    while ((await checksum('twin')).sum !== wanted.sum) {
      if (sink.status().state === 'failed' || Date.now() > deadline) break;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    const status = sink.status();
    assert.notEqual(status.state, 'failed', `${status.reason}`);
    assert.deepEqual(await differences(source, columns), []);
    assert.deepEqual(await checksum('twin'), wanted);
    await sink.stop();
    await capture.stop();
  });
}

/** The first of each column that is not as it was, so that a failure says what. */
async function differences(source: string, columns: readonly { name: string; type: string }[]): Promise<unknown[]> {
  const found: unknown[] = [];
  for (const { name, type } of columns) {
    const rows = await rig.query(
      `SELECT a.${name}::text AS source, b.${name}::text AS twin FROM public.${source} a FULL JOIN twin.${source} b USING (id, part)
       WHERE a.${name}::text IS DISTINCT FROM b.${name}::text LIMIT 1`,
    );
    if (rows[0]) found.push({ type, ...rows[0] });
  }
  return found;
}

function startCapture(name: string, settings: object): { stop(): Promise<void> } {
  const suffix = Math.random().toString(36).slice(2, 10);
  const slot = `${name}_${suffix}`;
  const defaults = serverDefaults(settingsWith({}));
  const capture = new Capture(
    {
      databaseUrl: rig.database.url,
      pool: rig.database.pool,
      log: rig.log,
      topics: rig.topics,
      settingsOf: topic => effectiveConfig(topic, defaults),
      term: () => ({ brokerId: 1, epoch: rig.log.epoch }),
      defaultPartitions: 3,
      spoolDirectory: directory,
      logger: pino({ level: process.env.MILLRACE_TEST_LOG ?? 'silent' }, pino.destination(2)),
    },
    {
      definition: readDefinition(name, { tables: [`public.${name}`], slot, publication: slot, ...settings }),
    },
  );
  capture.start();
  return {
    async stop() {
      await capture.stop();
      await rig.query('SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1', [
        slot,
      ]);
      await rig.query('SELECT pg_drop_replication_slot($1)', [slot]);
    },
  };
}
