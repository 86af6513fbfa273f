// The design that most people reach for, and that pg-queue-pubsub-benchmark measures: a row per message, a table per
// partition with a surrogate key and a unique offset, a counter row per partition that every write locks. Its own
// numbers are kept: 10 writers, up to 200 records in a statement, 200 in a read, 4 readers; but where stored records
// are read through, reads are larger and no progress is committed, as for the other systems' consumers. It runs on the
// same Postgres, in a database of its own, with the same settings and the same synchronous_commit. The program that
// drives it is rows-client.ts.
import { fileURLToPath } from 'node:url';
import { payloadFile } from '../clients/payloads.ts';
import { nameValue, runProgram } from '../clients/program.ts';
import type { Scenario, Work } from '../scenario.ts';
import { rates } from './broker.ts';
import { none, startCost } from './cost.ts';
import { createDatabase, describePostgres, query } from './database.ts';
import type { Millrace } from './millrace.ts';
import type { Sample, System } from './system.ts';

const program = fileURLToPath(new URL('./rows-client.ts', import.meta.url));
/** Rows are costly to store: this many of the bytes that brokers are given to read. The rate does not depend on it. */
const storedShare = 0.2;

export const rowsSettings = { writers: 10, writeBatch: 200, readBatch: 200, bulkReadBatch: 10_000, readers: 4 };

/** Of rows-client.ts. */
const modes: Partial<Record<Work, 'produce' | 'tail' | 'consume' | 'latency'>> = {
  produce: 'produce',
  'consume-tail': 'tail',
  'consume-warm': 'consume',
  'consume-cold': 'consume',
  latency: 'latency',
};

export interface RowsDone {
  readonly records: number;
  /** tail: by all groups together. */
  readonly consumed?: number;
  readonly seconds: number;
  readonly cpu_s: number;
  readonly ack?: Record<'p50' | 'p95' | 'p99' | 'p999', number>;
  readonly end_to_end?: Record<'p50' | 'p95' | 'p99' | 'p999', number>;
}

export class Rows implements System {
  readonly name = 'rows';
  readonly description = 'a row per message, a table and a counter row per partition, on the same Postgres';
  readonly #millrace: Millrace;
  #url = '';

  constructor(millrace: Millrace) {
    this.#millrace = millrace;
  }

  async start(): Promise<void> {
    this.#url = await createDatabase(this.#millrace.databaseUrl!, 'bench_rows');
  }

  async stop(): Promise<void> {}

  can(scenario: Scenario): boolean {
    return (
      modes[scenario.work] !== undefined &&
      (scenario.consumers === 1 || scenario.work === 'consume-tail') &&
      scenario.idleConsumers === 0 &&
      scenario.client !== 'java' &&
      scenario.codec === 'none' &&
      scenario.batchRecords !== 1
    );
  }

  /** Only Millrace can restart the Postgres that it started. */
  processes(work?: Work): number[] {
    return work === 'consume-cold' ? this.#millrace.processes() : this.#millrace.postgresPids;
  }

  async prepare(scenario: Scenario): Promise<void> {
    await this.#makeTables(scenario.partitions);
    if (scenario.work !== 'consume-warm' && scenario.work !== 'consume-cold') return;
    const records = Math.round((scenario.storedBytes * storedShare) / scenario.recordBytes);
    await this.#run('produce', scenario, { records });
  }

  async clear(): Promise<void> {
    await query(this.#url, 'DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  }

  async measure(scenario: Scenario): Promise<Sample> {
    const mode = modes[scenario.work]!;
    if (mode !== 'consume') await this.#makeTables(scenario.partitions);
    if (scenario.work === 'consume-cold') await this.#millrace.makeCold();
    const postgres = { roots: this.#millrace.postgresPids };
    const cost = await startCost({ broker: none, postgres, databaseUrl: mode === 'consume' ? undefined : this.#url });
    const done = await this.#run(mode, scenario, { seconds: scenario.seconds });
    const sample = await cost(done.records, scenario, done.cpu_s);
    if (mode !== 'latency') return { ...sample, ...rates(done.consumed ?? done.records, done.seconds, scenario) };
    for (const point of ['p50', 'p95', 'p99', 'p999'] as const) {
      sample[`${point}_ms`] = done.end_to_end![point];
      sample[`ack_${point}_ms`] = done.ack![point];
    }
    return sample;
  }

  async describe(): Promise<Record<string, string>> {
    const { writers, writeBatch, readBatch, bulkReadBatch, readers } = rowsSettings;
    return {
      writers: String(writers),
      'records in a write': `up to ${writeBatch}, or as many as the scenario has`,
      'records in a read': `${readBatch}; ${bulkReadBatch} where what is stored is read through`,
      readers: `${readers} in each group, at most one for each partition`,
      client: 'on Node, prepared statements, binary parameters and results',
      ...(await describePostgres(this.#url)),
    };
  }

  async #makeTables(partitions: number): Promise<void> {
    const tables = Array.from(
      { length: partitions },
      (_, i) => `DROP TABLE IF EXISTS partition_${i};
        CREATE TABLE partition_${i} (id bigserial PRIMARY KEY, record_offset bigint UNIQUE NOT NULL,
          payload bytea NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
        INSERT INTO counters VALUES (${i}, 0);`,
    );
    await query(
      this.#url,
      `DROP TABLE IF EXISTS counters, consumer_offsets;
       CREATE TABLE counters (partition_id int PRIMARY KEY, next_offset bigint NOT NULL);
       CREATE TABLE consumer_offsets (group_id text, partition_id int, next_offset bigint NOT NULL,
         PRIMARY KEY (group_id, partition_id));
       ${tables.join('\n')}`,
    );
  }

  #run(mode: string, scenario: Scenario, more: Record<string, number>): Promise<RowsDone> {
    const { partitions, recordBytes, rate, consumers: groups, batchRecords: writeBatch } = scenario;
    const values = { url: this.#url, payloads: payloadFile(recordBytes), size: recordBytes, partitions, rate, groups };
    return runProgram(process.execPath, [
      '--import',
      'tsx',
      program,
      mode,
      ...nameValue({ ...values, ...rowsSettings, ...(writeBatch && { writeBatch }), ...more }),
    ]);
  }
}
