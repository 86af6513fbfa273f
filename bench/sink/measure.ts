// One measurement each: a topic drained, the pipeline at what it sustains, the pipeline's latency at a rate.
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { nameValue, runProgram } from '../clients/program.ts';
import { percentiles } from '../metrics.ts';
import { none, startCpu } from '../peers/cost.ts';
import type { Millrace } from '../peers/millrace.ts';
import type { Sample } from '../peers/system.ts';
import { type Processes, peakMb, resetPeak } from '../processes.ts';
import type { MillraceSink } from './millrace-sink.ts';
import type { SinkScenario, SinkSizes } from './scenarios.ts';
import { stored } from './stream.ts';
import { type SinkSystem, seed } from './system.ts';
import type { MetricsTable } from './table.ts';

const generator = fileURLToPath(new URL('./generator.ts', import.meta.url));
const million = 1e6;
/** The part of a topic that is in the table before the clock starts: connectors join their groups meanwhile. */
const warmupShare = 1 / 4;
/** Records in the topic that are not in the table, at most, where the generator produces what is taken. */
const ahead = 100_000;
const pollMs = 10;

interface Generated {
  readonly records: number;
  readonly cpu_s: number;
}

export class SinkBench {
  readonly #millrace: Millrace;
  readonly #table: MetricsTable;
  #pipelines = 0;

  constructor(millrace: Millrace, table: MetricsTable) {
    this.#millrace = millrace;
    this.#table = table;
  }

  async drain(system: SinkSystem, scenario: SinkScenario, records: number): Promise<Sample> {
    const table = this.#table;
    await table.empty(false);
    const failed = () => system.failed();
    try {
      await system.begin(scenario, records);
      const first = await table.reached(records * warmupShare, failed);
      const spent = this.#spending(system.sink, system.broker);
      const begun = performance.now();
      await table.reached(records, failed);
      const seconds = (performance.now() - begun) / 1000;
      const sample = { records_per_s: (records - first) / seconds, ...spent(records - first) };
      const [rows, expected] = [await table.rows(), distinctKeys(scenario, records)];
      if (rows !== expected) throw new Error(`${system.name} has made ${rows} rows of ${expected} keys`);
      return sample;
    } finally {
      await system.end();
    }
  }

  /** The generator produces what the sink takes. */
  async pipeline(sink: MillraceSink, scenario: SinkScenario, sizes: SinkSizes): Promise<Sample> {
    return this.#piped(sink, scenario, sizes, async () => {
      const [first, begun] = [await this.#table.progress(), performance.now()];
      const spent = this.#spending(sink.sink, none);
      await delay(sizes.seconds * 1000);
      const records = (await this.#table.progress()) - first;
      return { records_per_s: records / ((performance.now() - begun) / 1000), ...spent(records) };
    });
  }

  /** From when a marker was due until a query sees it, give or take the time between two looks. */
  async latency(sink: MillraceSink, scenario: SinkScenario, sizes: SinkSizes): Promise<Sample> {
    return this.#piped(sink, scenario, sizes, async () => {
      const begun = performance.now();
      const first = await this.#table.progress();
      const spent = this.#spending(sink.sink, none);
      const late: number[] = [];
      while (performance.now() - begun < sizes.seconds * 1000) {
        const markers = await this.#table.newMarkers();
        const now = performance.timeOrigin + performance.now();
        for (const { value } of markers) late.push(now - value);
        await delay(pollMs);
      }
      const records = (await this.#table.progress()) - first;
      const { p50, p99 } = percentiles(late);
      const seconds = (performance.now() - begun) / 1000;
      return { records_per_s: records / seconds, p50_ms: p50, p99_ms: p99, ...spent(records) };
    });
  }

  async #piped(
    sink: MillraceSink,
    { mode, repeats, schemas, rate }: SinkScenario,
    { seconds, warmupSeconds }: SinkSizes,
    measure: () => Promise<Sample>,
  ): Promise<Sample> {
    await this.#table.empty(true);
    const topic = `metrics-pipeline-${++this.#pipelines}`;
    const generating = runProgram<Generated>(process.execPath, [
      '--import',
      'tsx',
      generator,
      ...nameValue({
        bootstrap: this.#millrace.bootstrap,
        topic,
        rate,
        repeats,
        schemas,
        ahead,
        seconds: warmupSeconds + seconds + 1,
        sink: sink.statusUrl,
      }),
    ]);
    await sink.beginWith(topic, mode);
    try {
      await delay(warmupSeconds * 1000);
      const sample = await measure();
      const { records, cpu_s } = await generating;
      return { ...sample, client_cpu_s_per_million: (cpu_s / records) * million };
    } finally {
      await generating.catch(() => {});
      await sink.end();
    }
  }

  /** Of what writes, of the broker where it is another, and of Postgres; memory at the most, without Postgres. */
  #spending(sink: Processes, broker: Processes): (records: number) => Sample {
    const { postgres } = this.#millrace.payers;
    for (const processes of [sink, broker]) resetPeak(processes);
    const cost = startCpu([sink, broker], postgres);
    return records => ({ ...cost(records), peak_rss_mb: peakMb(sink) + peakMb(broker) });
  }
}

function distinctKeys({ repeats }: SinkScenario, records: number): number {
  if (repeats === 0) return records;
  const keys = new Set<string>();
  for (const { metric } of stored({ repeats, seed }, records)) {
    keys.add(`${metric.deviceId} ${metric.publishedAt} ${metric.metricName}`);
  }
  return keys.size;
}
