// The metrics that all systems get, the same each time: jobs of the reference's sizes, each of a few devices that are new,
// and of a share of them an earlier key with another value. Between them markers, by which is seen how far a table has come
// without counting it.

import { type Metric, messageOf, metricCodes } from '../../examples/metrics/metric.ts';
import { buildBatch } from '../../src/protocol/records.ts';

export const partitions = 6;
/** Of a partition, in a batch: what the reference's producer sends at once. */
export const batchRecords = 250;
/** Keys that may come again. */
const remembered = 100_000;
const dayMs = 86_400_000;
/** No real device; metric_name is the partition, published_at its ordinal in it. */
export const markerDevice = '00000000-0000-4000-8000-000000000000';
const noon = Date.UTC(2026, 10, 21, 12);
const codes = Object.values(metricCodes);
const words = 'alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar'.split(
  ' ',
);

export interface Placed {
  readonly partition: number;
  readonly metric: Metric;
}

export interface StreamShape {
  readonly repeats: number;
  readonly seed: number;
  /** Records of a partition from one marker to the next. */
  readonly markerEvery: number;
}

export class MetricStream {
  readonly #repeats: number;
  readonly #markerEvery: number;
  readonly #known: Placed[] = [];
  readonly #ordinals: number[] = new Array(partitions).fill(0);
  #state: number;
  #devices: string[] = [];
  #jobSize = 0;
  #inJob = 0;
  #waiting: Placed | undefined;
  /** Keys that have not been before, markers included. */
  distinct = 0;

  constructor({ repeats, seed, markerEvery }: StreamShape) {
    this.#repeats = repeats;
    this.#state = seed;
    this.#markerEvery = markerEvery;
  }

  /** `due`: the time, in ms, that a marker carries as its value. */
  next(due = 0): Placed {
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = undefined;
      return waiting;
    }
    const placed = this.#metric();
    const ordinal = ++this.#ordinals[placed.partition]!;
    if (ordinal % this.#markerEvery === 0) {
      this.#waiting = placed;
      return this.marker(placed.partition, due);
    }
    return placed;
  }

  /** One more of a partition. */
  marker(partition: number, due = 0): Placed {
    this.distinct++;
    const metric = {
      deviceId: markerDevice,
      metricName: partition,
      publishedAt: ++this.#ordinals[partition]!,
      value: due,
      tags: ['marker'],
    };
    return { partition, metric };
  }

  #metric(): Placed {
    const fresh = this.#fresh();
    if (this.#repeats === 0) {
      this.distinct++;
      return fresh;
    }
    const known = this.#known;
    if (known.length > 0 && this.#random() < this.#repeats) {
      const earlier = known[Math.floor(this.#random() * known.length)]!;
      const { deviceId, metricName, publishedAt } = earlier.metric;
      return { partition: earlier.partition, metric: { ...fresh.metric, deviceId, metricName, publishedAt } };
    }
    this.distinct++;
    if (known.length < remembered) known.push(fresh);
    else known[Math.floor(this.#random() * remembered)] = fresh;
    return fresh;
  }

  #fresh(): Placed {
    if (this.#inJob === this.#jobSize) this.#beginJob();
    // Every key once: the job's times differ. They come in no order, as the stride is prime and larger than any job.
    const slot = (this.#inJob * 7919) % this.#jobSize;
    const tags = Array.from({ length: 3 + this.#below(5) }, () => words[this.#below(words.length)]!);
    const metric = {
      deviceId: this.#devices[this.#inJob++ % this.#devices.length]!,
      metricName: codes[this.#below(codes.length)]!,
      publishedAt: noon - Math.floor(((slot + this.#random()) / this.#jobSize) * dayMs),
      value: this.#random() * 100,
      tags,
    };
    return { partition: this.#below(partitions), metric };
  }

  #beginJob(): void {
    this.#inJob = 0;
    this.#jobSize = 2500 + this.#below(5001);
    this.#devices = Array.from({ length: 3 + this.#below(8) }, () => {
      const hex = Array.from({ length: 8 }, () => this.#below(65_536).toString(16).padStart(4, '0')).join('');
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
    });
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  /** mulberry32. */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }
}

/** Exactly so many, the last of each partition a marker. */
export function* stored(shape: Omit<StreamShape, 'markerEvery'>, records: number): Generator<Placed> {
  const stream = new MetricStream({ ...shape, markerEvery: 1000 });
  for (let i = partitions; i < records; i++) yield stream.next();
  for (let partition = 0; partition < partitions; partition++) yield stream.marker(partition);
}

/** Collects messages into record batches of one partition each. */
export class Batching {
  readonly #schemas: boolean;
  readonly #open: { timestamp: bigint; key: Buffer; value: Buffer }[][] = Array.from({ length: partitions }, () => []);

  constructor(schemas: boolean) {
    this.#schemas = schemas;
  }

  /** The batch that is full with it. */
  add({ partition, metric }: Placed, now: number): Buffer | undefined {
    const { key, value } = messageOf(metric, this.#schemas);
    const open = this.#open[partition]!;
    open.push({ timestamp: BigInt(now), key: Buffer.from(key), value: Buffer.from(value) });
    return open.length >= batchRecords ? this.take(partition) : undefined;
  }

  /** What there is of a partition. */
  take(partition: number): Buffer | undefined {
    const records = this.#open[partition]!.splice(0);
    return records.length > 0 ? buildBatch({ records }) : undefined;
  }
}
