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
import { columnsOf, createTypes, randomValues } from './twin-types.ts';

let rig: SinkRig;
let directory: string;
let version: number;
before(async () => {
  rig = await openSinkRig();
  [{ version }] = await rig.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`);
  directory = mkdtempSync(join(tmpdir(), 'millrace-twin-'));
  await rig.query(createTypes);
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
    const columns = columnsOf(format);
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
    const randomRow = randomValues(columns);
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
