// The database gone for a while, or its connections cut again and again, under load: nothing acknowledged is lost, and
// producers recover by their own retries. MILLRACE_OUTAGE_MS makes the outage longer.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { EmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { assertHolds, readContents, selectContents } from './audit.ts';
import { batchOf, createTopic, produce, readAll } from './kafka.ts';
import { Acknowledgements, kafkajsWriter, type Load, pipelinedWriter, TailReader, Tasks } from './load.ts';
import { newSeed, randomFrom } from './random.ts';
import { TestServer } from './server.ts';
import { WireClient } from './wire.ts';

const partitions = 3;

/** Runs `work` while clients write, then accounts for every record. */
async function underLoad(server: TestServer, work: (load: Load, tasks: Tasks) => Promise<void>): Promise<void> {
  const random = randomFrom(newSeed());
  const load: Load = { port: server.port, topic: 'load', partitions, random, acknowledged: new Acknowledgements() };
  const client = await WireClient.connect(server.port);
  await createTopic(client, load.topic, partitions);
  client.close();
  const tasks = new Tasks();
  try {
    const reader = tasks.add(new TailReader(load));
    for (let i = 0; i < partitions; i++) tasks.add(pipelinedWriter(load, i, [1, 1, 10]));
    tasks.add(kafkajsWriter(load, 'kafkajs', [1, 30]));
    await tasks.or(load.acknowledged.more(200));
    await work(load, tasks);
    await tasks.or(load.acknowledged.more(200));
    await tasks.stop();
    const contents = await readContents(server.port, load.topic, partitions);
    assertHolds(contents, load.acknowledged.all);
    reader.assertAgrees(contents);
    assert.equal(contents.flat().length, load.acknowledged.all.length);
    const sql = await server.sql();
    assert.deepEqual(await selectContents(sql, load.topic, partitions), contents);
    await sql.end();
  } finally {
    tasks.abandon();
  }
}

async function startPostgres(dataDir: string): Promise<EmbeddedPostgres> {
  const postgres = new EmbeddedPostgres({
    dataDir,
    logger: pino({ level: 'silent' }),
    onFailure: error => {
      throw error;
    },
  });
  await postgres.start();
  return postgres;
}

test('the database shut down at once and away for a while: clients wait, and nothing is lost', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-outage-'));
  let postgres = await startPostgres(directory);
  const server = await TestServer.start({ databaseUrl: postgres.tcpUrl });
  try {
    await underLoad(server, async (load, tasks) => {
      await postgres.stop(AbortSignal.abort());
      // Its absence has been noticed, and tried against in vain.
      for (let attempt = 0; attempt < 3; attempt++) await tasks.or(server.nextLog(/cannot lead yet/));
      const client = await WireClient.connect(load.port);
      const late = await produce(client, load.topic, 0, batchOf('late:0'), { timeoutMs: 100 });
      assert.equal(late.errorCode, ErrorCode.REQUEST_TIMED_OUT); // and assertHolds would find it in the log
      const before = load.acknowledged.all.length;
      await tasks.or(delay(Number(process.env.MILLRACE_OUTAGE_MS ?? 0)));
      assert.equal(load.acknowledged.all.length, before, 'nothing is acknowledged without a database');
      postgres = await startPostgres(directory);
      client.close();
    });
    assert.equal(await server.stop(), 0);
  } finally {
    await server.remove();
    await postgres.stop(AbortSignal.abort());
    rmSync(directory, { recursive: true, force: true });
  }
});

test('backends of the broker ended again and again, under load', async () => {
  const server = await TestServer.start();
  const sql = await server.sql();
  try {
    await underLoad(server, async (load, tasks) => {
      // The writers most: theirs are the commits whose answers are lost.
      const writer = `application_name = 'millrace writer'`;
      for (const which of [
        writer,
        writer,
        `application_name = 'millrace leader'`,
        writer,
        `application_name LIKE 'millrace%'`,
      ]) {
        for (let i = 0; i < 6; i++) {
          const { rowCount } = await sql.query(
            `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE ${which} ORDER BY random() LIMIT 1 + (random() * 2)::int`,
          );
          if (rowCount) await tasks.or(load.acknowledged.more(30));
        }
      }
    });
    const client = await WireClient.connect(server.port);
    assert.ok((await readAll(client, 'load', 0)).length > 0);
  } finally {
    await sql.end();
    await server.remove();
  }
});
