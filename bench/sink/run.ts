// npm run bench -- sink: topics into the metrics table of one Postgres, by Millrace, by Kafka Connect and by raw COPY, in one
// run. Rounds are interleaved, the first of a drain is thrown away. While one system is measured the processes of the
// others are stopped; the Postgres is Millrace's embedded one for all.
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { whileStopped } from '../processes.ts';
import { type Measured, Samples, shown } from '../samples.ts';
import { CopySink } from './copy-sink.ts';
import { ConnectCluster, JdbcSink, type JdbcVariant } from './jdbc-sink.ts';
import { SinkBench } from './measure.ts';
import { MillraceSink } from './millrace-sink.ts';
import type { SinkScenario, SinkSizes } from './scenarios.ts';
import type { SinkSystem } from './system.ts';
import { MetricsTable } from './table.ts';

export interface SinkRun {
  readonly millrace: Millrace;
  readonly directory: string;
  readonly scenarios: readonly SinkScenario[];
  readonly sizes: SinkSizes;
  readonly peers: readonly string[];
  /** Of the sink: tasks and the like. */
  readonly sinkSettings: Readonly<Record<string, number>>;
  /** The one that is thrown away included. */
  readonly rounds: number;
  readonly log: (line: string) => void;
}

const jdbcVariants: Readonly<Record<string, JdbcVariant>> = {
  jdbc: { unnest: false, tasks: 6 },
  'jdbc-2': { unnest: false, tasks: 2 },
  'jdbc-unnest': { unnest: true, tasks: 6 },
};
export const sinkPeers: readonly string[] = [...Object.keys(jdbcVariants), 'copy'];

export async function measureSinks(run: SinkRun): Promise<Measured> {
  const table = await MetricsTable.open(run.millrace.databaseUrl!);
  const measuring = new Measuring(run, table);
  try {
    await measuring.start();
    return await measuring.all();
  } finally {
    await measuring.stop();
    await table.end();
  }
}

class Measuring {
  readonly #run: SinkRun;
  readonly #bench: SinkBench;
  readonly #table: MetricsTable;
  readonly #millrace: MillraceSink;
  readonly #systems: SinkSystem[];
  readonly #absent: Record<string, string> = {};
  readonly #samples = new Samples();
  #connect: ConnectCluster | undefined;

  constructor(run: SinkRun, table: MetricsTable) {
    this.#run = run;
    this.#table = table;
    this.#bench = new SinkBench(run.millrace, table);
    this.#millrace = new MillraceSink(run.millrace, run.sinkSettings);
    this.#systems = [this.#millrace];
  }

  async start(): Promise<void> {
    const { peers, directory, scenarios, log } = this.#run;
    if (!scenarios.some(({ work }) => work === 'drain')) return;
    const context = { table: this.#table, directory };
    if (peers.includes('copy')) this.#systems.push(new CopySink(context));
    const variants = peers.flatMap(peer => (jdbcVariants[peer] ? [{ name: peer, ...jdbcVariants[peer] }] : []));
    if (variants.length === 0) return;
    this.#connect = new ConnectCluster(context);
    try {
      await this.#connect.start();
      for (const variant of variants) this.#systems.push(new JdbcSink(this.#connect, context, variant));
    } catch (error) {
      this.#absent.jdbc = (error as Error).message;
      log(`without jdbc: ${this.#absent.jdbc}`);
    }
  }

  async stop(): Promise<void> {
    await this.#connect?.stop();
  }

  async all(): Promise<Measured> {
    const { scenarios, rounds, log, sizes } = this.#run;
    for (const scenario of scenarios) {
      log(scenario.name);
      if (scenario.work === 'drain') {
        const systems = scenario.remote ? [this.#millrace] : this.#systems;
        for (const system of systems) await this.#alone(system, () => system.prepare(scenario, sizes.records));
        for (let round = 0; round < rounds; round++) {
          for (const system of [...systems]) await this.#drain(system, scenario, round > 0);
        }
      } else {
        const measure = scenario.work === 'pipeline' ? 'pipeline' : 'latency';
        await this.#alone(this.#millrace, async () => {
          this.#keep(scenario, 'millrace', await this.#bench[measure](this.#millrace, scenario, sizes), true);
        });
      }
    }
    return this.#measured();
  }

  /** A peer that cannot take this table is left out from then on. */
  async #drain(system: SinkSystem, scenario: SinkScenario, kept: boolean): Promise<void> {
    const { records } = this.#run.sizes;
    try {
      const sample = await this.#alone(system, () => this.#bench.drain(system, scenario, records));
      this.#keep(scenario, system.name, sample, kept);
    } catch (error) {
      if (system === this.#millrace) throw error;
      const why = /ERROR: .*/.exec((error as Error).message)?.[0] ?? (error as Error).message.split('\n')[0]!;
      this.#absent[system.name] = why;
      this.#run.log(`  without ${system.name}: ${why}`);
      this.#systems.splice(this.#systems.indexOf(system), 1);
    }
  }

  #alone<T>(system: SinkSystem, work: () => Promise<T>): Promise<T> {
    const own = system.pids();
    const others = this.#systems.flatMap(other => other.pids()).filter(pid => !own.includes(pid));
    return whileStopped(others, work);
  }

  #keep(scenario: SinkScenario, system: string, sample: Sample, kept: boolean): void {
    this.#run.log(`  ${kept ? '' : 'warm-up '}${system.padEnd(15)} ${shown(sample)}`);
    if (kept) this.#samples.add(scenario.name, system, sample);
  }

  async #measured(): Promise<Measured> {
    const { scenarios, sizes } = this.#run;
    const settings: Record<string, Record<string, string>> = {};
    for (const system of this.#systems) settings[system.name] = await system.describe();
    const { records, seconds, warmupSeconds } = sizes;
    Object.assign(settings.millrace!, {
      drained: `${records} records, six partitions; the first quarter is not counted`,
      pipeline: `${seconds} s after ${warmupSeconds} s`,
    });
    return {
      results: this.#samples.results(scenarios, this.#systems),
      systems: Object.fromEntries(this.#systems.map(({ name, description }) => [name, description])),
      absent: this.#absent,
      settings,
    };
  }
}
