// The topic that growth.ts makes grow: one partition of 100-byte records, in batches of 64 KB, in segments small enough
// that there are many.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Admin, ConfigResourceTypes, IncrementalAlterConfigOperationTypes } from '@platformatic/kafka';
import { type Latencies, librdkafka, type Produced } from './clients/librdkafka.ts';
import { payloadFile } from './clients/payloads.ts';
import { nameValue, runProgram } from './clients/program.ts';
import type { Percentiles } from './metrics.ts';
import { query } from './peers/database.ts';
import type { Millrace } from './peers/millrace.ts';

const reader = fileURLToPath(new URL('./clients/random-reads.ts', import.meta.url));
export const recordBytes = 100;
const batchBytes = 65_536;
const segmentBytes = 32 * 2 ** 20;
/** What is appended at once, and has a rate. */
export const chunkRecords = 500_000;
const readsPerProbe = 300;
/** What stat counts in. */
const blockBytes = 512;
/** While nothing else is produced: commits, and with them updates, go on. */
const tricklePerSecond = 5000;

export class GrowingTopic {
  readonly name: string;
  readonly #millrace: Millrace;
  records = 0;
  /** Of each chunk: millions of records that were there after it, and its records a second. */
  readonly rates: [millions: number, recordsPerSecond: number][] = [];

  constructor(millrace: Millrace, name = `bench-growth-${process.pid}`) {
    this.#millrace = millrace;
    this.name = name;
  }

  async create(): Promise<void> {
    const configs = [{ name: 'segment.bytes', value: String(segmentBytes) }];
    await this.#administer(admin => admin.createTopics({ topics: [this.name], partitions: 1, replicas: 1, configs }));
  }

  async delete(): Promise<void> {
    await librdkafka('delete', { bootstrap: this.#millrace.bootstrap, topic: this.name });
  }

  /** Appends a chunk; its records a second. */
  async append(records = chunkRecords): Promise<number> {
    const produced = await librdkafka<Produced>('produce', { ...this.#producing, records });
    const rate = produced.records / produced.seconds;
    this.records += produced.records;
    this.rates.push([this.records / 1e6, rate]);
    return rate;
  }

  /** For so many seconds. */
  async trickle(seconds: number): Promise<Latencies> {
    const done = await librdkafka<Latencies>('latency', { ...this.#producing, rate: tricklePerSecond, seconds });
    this.records += done.records;
    return done;
  }

  /** The time of single reads at offsets `from` on, ms; `cold`: with nothing in the page cache. */
  async read(from: number, seed: number, { cold = false } = {}): Promise<Percentiles> {
    const { bootstrap, dataDir } = this.#millrace;
    const where = { topic: this.name, from, to: this.records, count: readsPerProbe, seed };
    const values = { bootstrap, ...where, cold: cold ? dataDir : undefined };
    return runProgram(process.execPath, ['--import', 'tsx', reader, ...nameValue(values)]);
  }

  async retain(bytes: number): Promise<void> {
    const config = { name: 'retention.bytes', value: String(Math.round(bytes)) };
    const set = { ...config, configOperation: IncrementalAlterConfigOperationTypes.SET };
    const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: this.name, configs: [set] };
    await this.#administer(admin => admin.incrementalAlterConfigs({ resources: [resource] }));
  }

  /** The segments that hold it, the oldest first. */
  async tables(): Promise<string[]> {
    const rows = await query<{ name: string }>(
      this.#millrace.databaseUrl!,
      `SELECT 'kafka.segment_' || s.segment_id AS name FROM kafka.segments s JOIN kafka.topics t USING (topic_id)
       WHERE t.name = '${this.name}' AND to_regclass('kafka.segment_' || s.segment_id) IS NOT NULL ORDER BY s.segment_id`,
    );
    return rows.map(({ name }) => name);
  }

  /** What all databases of the server take on disk, WAL not included: this topic, and little beside it. */
  diskBytes(): number {
    const base = join(this.#millrace.dataDir, 'postgres', 'base');
    const sizes = readdirSync(base, { recursive: true, encoding: 'utf8' }).map(
      file => statSync(join(base, file), { throwIfNoEntry: false })?.blocks ?? 0,
    );
    return sizes.reduce((sum, blocks) => sum + blocks * blockBytes, 0);
  }

  get #producing() {
    return {
      bootstrap: this.#millrace.bootstrap,
      topic: this.name,
      partitions: 1,
      payloads: payloadFile(recordBytes),
      size: recordBytes,
      'batch-bytes': batchBytes,
    };
  }

  async #administer(work: (admin: Admin) => Promise<unknown>): Promise<void> {
    const admin = new Admin({ clientId: 'millrace-bench', bootstrapBrokers: [this.#millrace.bootstrap] });
    try {
      await work(admin);
    } finally {
      await admin.close();
    }
  }
}
