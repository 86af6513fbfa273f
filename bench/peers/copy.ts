// Raw Postgres, the limit: the same batches, made beforehand, put into a table like a segment's by COPY, some of them
// in each transaction, on as many connections as there are partitions, at most two (a partition's batches must commit
// in order, which one connection gives). No network client, no broker, no offsets: what is left is what the database
// costs. Batches are as large as librdkafka made them for Millrace in the round before.
import { fileURLToPath } from 'node:url';
import { payloadFile } from '../clients/payloads.ts';
import { nameValue, runProgram } from '../clients/program.ts';
import type { Scenario } from '../scenario.ts';
import { rates } from './broker.ts';
import { none, startCost } from './cost.ts';
import { createDatabase, describePostgres } from './database.ts';
import type { Millrace } from './millrace.ts';
import type { Sample, System } from './system.ts';

const program = fileURLToPath(new URL('./copy-client.ts', import.meta.url));
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

  can(scenario: Scenario): boolean {
    return (
      scenario.work === 'produce' &&
      scenario.client !== 'java' &&
      scenario.codec === 'none' &&
      scenario.batchRecords !== 1
    );
  }

  processes(): number[] {
    return this.#millrace.postgresPids;
  }

  async prepare(): Promise<void> {}

  async clear(): Promise<void> {}

  async measure(scenario: Scenario): Promise<Sample> {
    const batchBytes = this.#millrace.batchBytes.get(scenario.name) ?? this.#batchBytes.get(scenario.name) ?? 1e6;
    this.#batchBytes.set(scenario.name, batchBytes);
    const postgres = { roots: this.processes() };
    const cost = await startCost({ broker: none, postgres, databaseUrl: this.#url });
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
    return {
      ...rates(copied.records, copied.seconds, scenario),
      ...(await cost(copied.records, scenario, copied.cpu_s)),
      batch_bytes: batchBytes,
    };
  }

  async describe(): Promise<Record<string, string>> {
    return {
      connections: `one for each partition, at most ${mostConnections}`,
      'bytes in a commit': String(groupBytes),
      ...(await describePostgres(this.#url)),
    };
  }
}
