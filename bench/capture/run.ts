// npm run bench -- capture: changes in Postgres into the log, by Millrace and by what its users would take instead, from
// the same tables of the same server, in one run. Rounds are interleaved, and none is thrown away: each measurement begins
// when its system is warm. Nothing of a system runs while another is measured. Millrace is the log of all of them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { type Measured, Samples, shown } from '../samples.ts';
import { DebeziumPipeline } from './debezium-pipeline.ts';
import { CaptureBench } from './measure.ts';
import { captureConfiguration, MillracePipeline, pauseAll, publications } from './millrace-pipeline.ts';
import type { Pipeline } from './pipeline.ts';
import { drainToNowhere, recvlogicalDescription, recvlogicalVersion } from './recvlogical.ts';
import type { CaptureScenario, CaptureSizes } from './scenarios.ts';
import { CaptureSource } from './source.ts';

export interface CaptureRun {
  readonly millrace: Millrace;
  readonly directory: string;
  readonly scenarios: readonly CaptureScenario[];
  readonly sizes: CaptureSizes;
  readonly peers: readonly string[];
  readonly rounds: number;
  readonly log: (line: string) => void;
}

export const capturePeers: readonly string[] = ['debezium', 'pg_recvlogical'];
const recvlogicalSlot = 'bench_recvlogical';

/** A configuration with the captures of the bench; Millrace is to be started with it. */
export function writeCaptureConfiguration(directory: string): string {
  const path = join(directory, 'capture.yaml');
  writeFileSync(path, JSON.stringify(captureConfiguration())); // which is YAML, too
  return path;
}

export async function measureCapture(run: CaptureRun): Promise<Measured> {
  const { millrace, scenarios } = run;
  const source = await CaptureSource.open(millrace.databaseUrl!);
  try {
    await pauseAll(millrace, source);
    await source.make(publications);
    return await new Measuring(run, source).all(scenarios);
  } finally {
    await source.end();
  }
}

class Measuring {
  readonly #run: CaptureRun;
  readonly #source: CaptureSource;
  readonly #bench: CaptureBench;
  readonly #pipelines: Pipeline[];
  readonly #absent: Record<string, string> = {};
  readonly #recvlogical: string | undefined;
  readonly #samples = new Samples();

  constructor(run: CaptureRun, source: CaptureSource) {
    const { millrace, directory, peers, log } = run;
    this.#run = run;
    this.#source = source;
    this.#bench = new CaptureBench(millrace, source);
    this.#pipelines = [
      new MillracePipeline(millrace, source, 'debezium'),
      new MillracePipeline(millrace, source, 'plain'),
    ];
    if (peers.includes('debezium')) {
      try {
        this.#pipelines.push(new DebeziumPipeline({ source, bootstrap: millrace.bootstrap, directory }));
      } catch (error) {
        this.#absent.debezium = (error as Error).message;
      }
    }
    this.#recvlogical = peers.includes('pg_recvlogical') ? recvlogicalVersion() : undefined;
    if (peers.includes('pg_recvlogical') && this.#recvlogical === undefined) {
      this.#absent.pg_recvlogical = 'no pg_recvlogical (of postgresql-client)';
    }
    for (const [name, why] of Object.entries(this.#absent)) log(`without ${name}: ${why}`);
  }

  async all(scenarios: readonly CaptureScenario[]): Promise<Measured> {
    const of = (work: CaptureScenario['work']) => scenarios.filter(scenario => scenario.work === work);
    for (const scenario of of('backlog')) await this.#rounds(scenario.name, () => this.#backlog(scenario));
    if (of('live').length > 0) await this.#rounds('live', () => this.#live(of('live')));
    // Once: it does not get quicker, and takes minutes.
    if (of('transaction').length > 0) await this.#restart([]);
    for (const scenario of of('transaction')) await this.#transaction(scenario);
    // Last: its walsender reads everything that is written.
    if (of('produce').length > 0) await this.#restart(['sql.produce=on']);
    for (const scenario of of('produce')) await this.#rounds(scenario.name, () => this.#produce(scenario));
    return this.#measured(scenarios);
  }

  async #rounds(name: string, round: () => Promise<void>): Promise<void> {
    const { rounds, log } = this.#run;
    log(name);
    for (let i = 1; i <= rounds; i++) {
      log(`  round ${i}`);
      await round();
    }
  }

  async #backlog(scenario: CaptureScenario): Promise<void> {
    const backlog = await this.#source.fill(scenario, this.#run.sizes.changes);
    for (const pipeline of this.#pipelines) {
      this.#keep(scenario, pipeline.name, await this.#bench.drain(pipeline, backlog));
    }
    if (this.#recvlogical !== undefined) {
      await this.#source.copySlot(recvlogicalSlot);
      await this.#source.settle();
      const seconds = await drainToNowhere(this.#source, recvlogicalSlot, backlog);
      await this.#source.dropSlot(recvlogicalSlot);
      this.#keep(scenario, 'pg_recvlogical', { changes_per_s: backlog.changes / seconds });
    }
  }

  async #live(scenarios: readonly CaptureScenario[]): Promise<void> {
    // What is late is the same in any format.
    for (const pipeline of this.#pipelines.filter(({ name }) => name !== 'millrace-plain')) {
      const samples = await this.#bench.live(pipeline, scenarios, this.#run.sizes);
      for (const [scenario, sample] of samples) this.#keep(scenario, pipeline.name, sample);
    }
  }

  /** What was measured before is in the memory of neither process. */
  async #restart(settings: readonly string[]): Promise<void> {
    const { millrace } = this.#run;
    await this.#source.across(async () => {
      await millrace.restartWith(settings);
      return millrace.databaseUrl!;
    });
  }

  async #produce(scenario: CaptureScenario): Promise<void> {
    this.#keep(scenario, 'millrace', await this.#bench.produce(scenario, this.#run.sizes));
  }

  async #transaction(scenario: CaptureScenario): Promise<void> {
    this.#run.log(scenario.name);
    const [millrace] = this.#pipelines;
    this.#keep(scenario, 'millrace', await this.#bench.transaction(millrace!, this.#run.sizes));
  }

  #keep(scenario: CaptureScenario, system: string, sample: Sample): void {
    this.#run.log(`    ${scenario.name} ${system.padEnd(15)} ${shown(sample)}`);
    this.#samples.add(scenario.name, system, sample);
  }

  async #measured(scenarios: readonly CaptureScenario[]): Promise<Measured> {
    const systems: Record<string, string> = {};
    const settings: Record<string, Record<string, string>> = {};
    const named = [
      ...this.#pipelines.map(({ name, description }) => [name, description] as const),
      ...(this.#recvlogical === undefined ? [] : [['pg_recvlogical', recvlogicalDescription] as const]),
    ];
    for (const [name, description] of named) systems[name] = description;
    const { changes, transactionRows, seconds, warmupSeconds } = this.#run.sizes;
    settings.millrace = {
      ...(await this.#run.millrace.describe()),
      backlog: `${changes} changes, 10,000 a transaction; the first third is not counted`,
      live: `${seconds} s each, after ${warmupSeconds} s of 5,000 changes/s`,
      transaction: `${transactionRows} rows`,
    };
    for (const pipeline of this.#pipelines.slice(1)) settings[pipeline.name] = await pipeline.describe();
    if (this.#recvlogical !== undefined) settings.pg_recvlogical = { version: this.#recvlogical, plugin: 'pgoutput' };
    const results = this.#samples.results(
      scenarios,
      named.map(([name]) => ({ name })),
    );
    return { results, systems, absent: this.#absent, settings };
  }
}
