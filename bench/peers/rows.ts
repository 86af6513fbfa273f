// The design that most people reach for, and that pg-queue-pubsub-benchmark measures: a row per message, a table per
// partition with a surrogate key and a unique offset, a counter row per partition that every write locks. Its own
// numbers are kept: 10 writers, up to 200 records in a statement, 200 in a read, 4 readers. It runs on the same
// Postgres, in a database of its own, with the same settings and the same synchronous_commit. The program that drives
// it is rows-client.ts.
import { fileURLToPath } from 'node:url';
import { payloadFile } from '../clients/payloads.ts';
import { nameValue, runProgram } from '../clients/program.ts';
import { cpuSeconds, privateMb, residentMb } from '../processes.ts';
import type { Scenario, Work } from '../scenario.ts';
import { rates } from './broker.ts';
import { createDatabase, describePostgres, query, walPosition } from './database.ts';
import type { Millrace } from './millrace.ts';
import type { Sample, System } from './system.ts';

const program = fileURLToPath(new URL('./rows-client.ts', import.meta.url));
const million = 1e6;
/** Rows are costly to store: this many of the bytes that brokers are given to read. The rate does not depend on it. */
const storedShare = 0.2;

export const rowsSettings = { writers: 10, writeBatch: 200, readBatch: 200, readers: 4 };

export interface RowsDone {
  readonly records: number;
  readonly seconds: number;
  readonly cpu_s: number;
  readonly ack?: Record<'p50' | 'p95' | 'p99' | 'p999', number>;
  readonly end_to_end?: Record<'p50' | 'p95' | 'p99' | 'p999', number>;
}

export class Rows implements System {
  readonly name = 'rows';
  readonly description = 'a row per message, a table and a counter row per partition, on the same Postgres';
  readonly works: ReadonlySet<Work> = new Set(['produce', 'consume-warm', 'consume-cold', 'latency'] as const);
  readonly #millrace: Millrace;
  #url = '';

  constructor(millrace: Millrace) {
    this.#millrace = millrace;
  }

  async start(): Promise<void> {
    this.#url = await createDatabase(this.#millrace.databaseUrl!, 'bench_rows');
  }

  async stop(): Promise<void> {}

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
    if (scenario.work === 'produce' || scenario.work === 'latency') await this.#makeTables(scenario.partitions);
    if (scenario.work === 'consume-cold') await this.#millrace.makeCold();
    const wal = await walPosition(this.#url);
    const cpu = cpuSeconds(this.processes());
    const mode = scenario.work === 'produce' || scenario.work === 'latency' ? scenario.work : 'consume';
    const done = await this.#run(mode, scenario, { seconds: scenario.seconds });
    const millions = done.records / million;
    const postgresCpu = (cpuSeconds(this.processes()) - cpu) / millions;
    const sample: Sample = { client_cpu_s_per_million: done.cpu_s / millions };
    if (this.processes().length > 0) {
      sample.cpu_s_per_million = postgresCpu;
      sample.postgres_cpu_s_per_million = postgresCpu;
      sample.postgres_rss_mb = residentMb(this.processes());
      sample.rss_mb = sample.postgres_rss_mb;
      sample.postgres_private_mb = privateMb(this.processes());
    }
    if (mode !== 'consume') {
      sample.wal_bytes_per_byte = ((await walPosition(this.#url)) - wal) / (done.records * scenario.recordBytes);
    }
    if (mode !== 'latency') return { ...sample, ...rates(done.records, done.seconds, scenario) };
    for (const point of ['p50', 'p95', 'p99', 'p999'] as const) {
      sample[`${point}_ms`] = done.end_to_end![point];
      sample[`ack_${point}_ms`] = done.ack![point];
    }
    return sample;
  }

  async describe(): Promise<Record<string, string>> {
    const { writers, writeBatch, readBatch, readers } = rowsSettings;
    return {
      writers: String(writers),
      'records in a write': `up to ${writeBatch}`,
      'records in a read': `up to ${readBatch}`,
      readers: `${readers}, at most one for each partition`,
      client: 'pg on Node, prepared statements, binary parameters',
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
    const { partitions, recordBytes, rate } = scenario;
    const values = { url: this.#url, payloads: payloadFile(recordBytes), size: recordBytes, partitions, rate };
    return runProgram(process.execPath, [
      '--import',
      'tsx',
      program,
      mode,
      ...nameValue({ ...values, ...rowsSettings, ...more }),
    ]);
  }
}
