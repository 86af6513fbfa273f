// npm run bench -- growth [--records N]: whether producing and reading the oldest records stay as fast as one topic
// grows, and as a transaction somewhere in the database holds an old snapshot. A quarter of the records is produced
// while it does.
import pg from 'pg';
import { type Consumed, librdkafka, type Produced } from './clients/librdkafka.ts';
import { payloadFile } from './clients/payloads.ts';
import { type Metric, metrics, type Result } from './metrics.ts';
import type { Millrace } from './peers/millrace.ts';

const recordBytes = 100;
const steps = 4;
const partitions = 1;

export async function measureGrowth(
  millrace: Millrace,
  records: number,
  log: (line: string) => void,
): Promise<Result[]> {
  const topic = `bench-growth-${process.pid}`;
  const results: Result[] = [];
  await librdkafka('create', { bootstrap: millrace.bootstrap, topic, partitions });
  for (let step = 1; step <= steps; step++) {
    const holder = step === steps ? await holdSnapshot(millrace.databaseUrl!) : undefined;
    const produced = await librdkafka<Produced>('produce', {
      bootstrap: millrace.bootstrap,
      topic,
      payloads: payloadFile(recordBytes),
      size: recordBytes,
      records: Math.round(records / steps),
    });
    // Before the restart that makes it cold, which ends the transaction.
    const held = holder ? await readFirst(millrace, topic) : undefined;
    await holder?.end();
    await millrace.makeCold();
    const cold = await readFirst(millrace, topic);
    const scenario = `growth-${Math.round((records * step) / steps)}${holder ? '-snapshot' : ''}`;
    const figures: [Metric, number | undefined][] = [
      ['records_per_s', produced.records / produced.seconds],
      ['fetch_cold_ms', cold],
      ['fetch_ms', held],
    ];
    for (const [metric, value] of figures) {
      if (value !== undefined) results.push(once(scenario, metric, Number(value.toPrecision(5))));
    }
    log(`${scenario}: ${figures.map(([metric, value]) => `${metric} ${value?.toFixed(1) ?? '–'}`).join('  ')}`);
  }
  await librdkafka('delete', { bootstrap: millrace.bootstrap, topic });
  return results;
}

/** Milliseconds from the assignment of the partition until its oldest record is there. */
async function readFirst({ bootstrap }: Millrace, topic: string): Promise<number> {
  const { first_s } = await librdkafka<Consumed>('consume', { bootstrap, topic, partitions, records: 1, seconds: 60 });
  return first_s * 1000;
}

async function holdSnapshot(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'millrace-bench' });
  await client.connect();
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query('SELECT txid_current()');
  return client;
}

const once = (scenario: string, metric: Metric, value: number): Result => ({
  scenario,
  system: 'millrace',
  metric,
  unit: metrics[metric].unit,
  median: value,
  min: value,
  max: value,
});
