// npm run bench -- growth [--records N] [--snapshot-minutes N]: whether Millrace stays as fast as one topic grows, and
// then while segments of it are dropped, while its tables are vacuumed, and while a transaction holds an old snapshot.
import { statfsSync } from 'node:fs';
import { dropSegments, type End, holdSnapshot, vacuum } from './disturbances.ts';
import { chunkRecords, GrowingTopic } from './growing-topic.ts';
import { type Metric, median, type Result, summarised } from './metrics.ts';
import type { Millrace } from './peers/millrace.ts';

/** Records after which it is measured, besides the last. */
const steps = [1e6, 1e7, 1e8];
/** Chunks whose median is a step's rate: those before it. */
const chunksOfRate = 4;
/** Of the log, with its indexes. */
const diskBytesPerRecord = 130;
/** WAL, and what else there is. */
const diskBytesBeside = 8e9;
/** What a phase, or a minute of it, appends at most. */
const recordsPerProbe = 2.5e6;
const minuteMs = 60_000;

/** Retention is looked at often enough for drops to fall into a phase. */
export const growthSettings = ['log.retention.check.interval.ms=500ms'];

export interface GrowthOptions {
  readonly records: number;
  readonly snapshotMinutes: number;
  readonly log: (line: string) => void;
}

export interface Growth {
  readonly results: Result[];
  /** Of each chunk: millions of records that were there after it, and its records a second. */
  readonly rates: GrowingTopic['rates'];
}

type Figures = Partial<Record<Metric, readonly number[]>>;

export async function measureGrowth(millrace: Millrace, options: GrowthOptions): Promise<Growth> {
  checkDisk(millrace, options.records + (options.snapshotMinutes + 4) * recordsPerProbe);
  const topic = new GrowingTopic(millrace);
  const growing = new Growing(millrace, topic, options.log);
  await topic.create();
  await growing.grow([...steps.filter(step => step < options.records), options.records]);
  await growing.atRest();
  await growing.during('vacuum', () => vacuum(millrace, topic));
  await growing.duringSnapshot(options.snapshotMinutes);
  await growing.during('drops', () => dropSegments(topic), 0.6);
  await topic.delete();
  return { results: growing.results, rates: topic.rates };
}

function checkDisk({ dataDir }: Millrace, records: number): void {
  const { bavail, bsize } = statfsSync(dataDir);
  const needed = records * diskBytesPerRecord + diskBytesBeside;
  if (bavail * bsize > needed) return;
  const gigabytes = (bytes: number): string => `${Math.round(bytes / 1e9)} GB`;
  throw new Error(`${records} records need ${gigabytes(needed)} of disk, ${gigabytes(bavail * bsize)} are free`);
}

class Growing {
  readonly results: Result[] = [];
  readonly #millrace: Millrace;
  readonly #topic: GrowingTopic;
  readonly #log: (line: string) => void;
  #seed = 0;
  /** What ratios are to. */
  #reference: Figures | undefined;

  constructor(millrace: Millrace, topic: GrowingTopic, log: (line: string) => void) {
    this.#millrace = millrace;
    this.#topic = topic;
    this.#log = log;
  }

  async grow(records: readonly number[]): Promise<void> {
    await this.#warmUp();
    for (const step of records) {
      while (this.#topic.records < step) await this.#topic.append(Math.min(chunkRecords, step - this.#topic.records));
      const rates = this.#topic.rates.slice(-chunksOfRate).map(([, rate]) => rate);
      await this.#millrace.makeCold();
      const reads = await this.#read();
      this.#note(`${step / 1e6}M`, { records_per_s: rates, ...reads });
      await this.#warmUp();
    }
  }

  async atRest(): Promise<void> {
    this.#reference = undefined;
    this.#note('at-rest', await this.#probe());
  }

  /** `from`: the share of the log that is not read, because it may be gone. */
  async during(name: string, begin: () => Promise<End>, from = 0): Promise<void> {
    const end = await begin();
    const figures = await this.#probe(from);
    this.#log(`  ${name}: ${await end()}`);
    this.#note(name, figures);
  }

  /** A probe at the beginning and at each minute's end; 5,000 records a second are written between. */
  async duringSnapshot(minutes: number): Promise<void> {
    const end = await holdSnapshot(this.#millrace);
    let nextMs = Date.now();
    for (let minute = 0; minute <= minutes; minute++) {
      const restSeconds = Math.floor((nextMs - Date.now()) / 1000);
      const trickled = restSeconds > 1 ? await this.#topic.trickle(restSeconds - 1) : undefined;
      nextMs += minuteMs;
      const figures = await this.#probe();
      this.#note(`snapshot-${minute}min`, { ...figures, ...(trickled && { ack_p99_ms: [trickled.ack.p99] }) });
    }
    this.#log(`  snapshot: ${await end()}`);
  }

  /** After a start everything is slow for a second: not on this topic, whose newest records would be cached. */
  async #warmUp(): Promise<void> {
    const other = new GrowingTopic(this.#millrace, `${this.#topic.name}-warm-up`);
    await other.create();
    await other.append();
    await other.delete();
  }

  /** Without the restart that would end what goes on: Postgres may have some of what is read, the page cache nothing. */
  async #probe(from = 0): Promise<Figures> {
    const reads = await this.#read(from);
    const rates: number[] = [];
    for (let chunk = 0; chunk < chunksOfRate; chunk++) rates.push(await this.#topic.append());
    return { records_per_s: rates, ...reads };
  }

  /** At offsets that were not read before; then at the same once more. */
  async #read(from = 0): Promise<Figures> {
    const seed = ++this.#seed;
    const first = Math.floor(this.#topic.records * from);
    const cold = await this.#topic.read(first, seed, { cold: true });
    const warm = await this.#topic.read(first, seed);
    return {
      fetch_cold_p50_ms: [cold.p50],
      fetch_cold_p99_ms: [cold.p99],
      fetch_p50_ms: [warm.p50],
      fetch_p99_ms: [warm.p99],
    };
  }

  #note(name: string, figures: Figures): void {
    this.#reference ??= figures;
    const ratio = (metric: Metric): number[] => [median(figures[metric]!) / median(this.#reference![metric]!)];
    const all: Figures = {
      ...figures,
      rate_ratio: ratio('records_per_s'),
      fetch_cold_p50_ratio: ratio('fetch_cold_p50_ms'),
      fetch_cold_p99_ratio: ratio('fetch_cold_p99_ms'),
    };
    const results = (Object.entries(all) as [Metric, readonly number[]][]).map(([metric, values]) =>
      summarised(`growth-${name}`, 'millrace', metric, values),
    );
    this.results.push(...results);
    this.#log(`  ${name.padEnd(14)} ${results.map(({ metric, median }) => `${metric} ${median}`).join('  ')}`);
  }
}
