// Raw Postgres, the limit: the same batches, made beforehand, put into a table like a segment's by COPY, some of them
// in each transaction, on as many connections as there are partitions, at most two (a partition's batches must commit
// in order, which one connection gives). No network client, no broker, no offsets: what is left is what the database
// costs. Batches are as large as librdkafka made them for Millrace in the round before.
import { fileURLToPath } from 'node:url';
import { payloadFile } from '../clients/payloads.ts';
import { nameValue, runProgram } from '../clients/program.ts';
import { cpuSeconds, privateMb, residentMb } from '../processes.ts';
import type { Scenario, Work } from '../scenario.ts';
import { rates } from './broker.ts';
import { createDatabase, describePostgres, walPosition } from './database.ts';
import type { Millrace } from './millrace.ts';
import type { Sample, System } from './system.ts';

const program = fileURLToPath(new URL('./copy-client.ts', import.meta.url));
const million = 1e6;
const groupBytes = 4 * 2 ** 20;
const mostConnections = 2;

export interface Copied {
  readonly records: number;
  readonly seconds: number;
  readonly cpu_s: number;
}

export class Copy implements System {
  readonly name = 'copy';
  readonly description = 'COPY of ready-made batches into the same Postgres: the limit';
  readonly works: ReadonlySet<Work> = new Set(['produce'] as const);
  readonly #millrace: Millrace;
  readonly #batchBytes = new Map<string, number>();
  #url = '';

  constructor(millrace: Millrace) {
    this.#millrace = millrace;
  }

  async start(): Promise<void> {
    this.#url = await createDatabase(this.#millrace.databaseUrl!, 'bench_copy');
  }

  async stop(): Promise<void> {}

  processes(): number[] {
    return this.#millrace.postgresPids;
  }

  async prepare(): Promise<void> {}

  async clear(): Promise<void> {}

  async measure(scenario: Scenario): Promise<Sample> {
    const batchBytes = this.#millrace.batchBytes.get(scenario.name) ?? this.#batchBytes.get(scenario.name) ?? 1e6;
    this.#batchBytes.set(scenario.name, batchBytes);
    const wal = await walPosition(this.#url);
    const cpu = cpuSeconds(this.processes());
    const copied = await runProgram<Copied>(process.execPath, [
      '--import',
      'tsx',
      program,
      ...nameValue({
        url: this.#url,
        payloads: payloadFile(scenario.recordBytes),
        size: scenario.recordBytes,
        connections: Math.min(mostConnections, scenario.partitions),
        batchBytes,
        groupBytes,
        seconds: scenario.seconds,
      }),
    ]);
    const millions = copied.records / million;
    const postgresCpu = (cpuSeconds(this.processes()) - cpu) / millions;
    const sample: Sample = {
      ...rates(copied.records, copied.seconds, scenario),
      client_cpu_s_per_million: copied.cpu_s / millions,
      wal_bytes_per_byte: ((await walPosition(this.#url)) - wal) / (copied.records * scenario.recordBytes),
      batch_bytes: batchBytes,
    };
    if (this.processes().length > 0) {
      sample.cpu_s_per_million = postgresCpu;
      sample.postgres_cpu_s_per_million = postgresCpu;
      sample.postgres_rss_mb = residentMb(this.processes());
      sample.rss_mb = sample.postgres_rss_mb;
      sample.postgres_private_mb = privateMb(this.processes());
    }
    return sample;
  }

  async describe(): Promise<Record<string, string>> {
    return {
      connections: `one for each partition, at most ${mostConnections}`,
      'bytes in a commit': String(groupBytes),
      ...(await describePostgres(this.#url)),
    };
  }
}
