// What a capture consists of between one break and the next: stream, snapshots, membership, writer and outlet, which live
// and break together. The first reason ends them all; whoever made the run ends it, and may then begin another from stored
// positions.
//
//   load ─▶ start ─▶ … broken ─▶ (finish) ─▶ end        end from anywhere; finish: what has come is appended first
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Lsn } from '../postgres/lsn.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import { ChangeWriter } from './change-writer.ts';
import type { CaptureDefinition } from './definition.ts';
import type { Destination } from './destination.ts';
import { Membership } from './membership.ts';
import { Outlet } from './outlet.ts';
import { Partitions } from './partitions.ts';
import { ProduceWriter } from './produce-writer.ts';
import { SnapshotJobs } from './snapshot-jobs.ts';
import { Snapshots } from './snapshots.ts';
import type { Source, SourceTable } from './source.ts';
import { ChangeStream } from './stream.ts';

export interface CaptureRunOptions {
  readonly definition: CaptureDefinition;
  readonly captureId: number;
  readonly source: Source;
  readonly sourceUrl: string;
  /** Where the stream begins. */
  readonly from: Lsn;
  /** Those that are published. */
  readonly tables: readonly SourceTable[];
  readonly destination: Destination;
  /** For batches. */
  readonly memory: BufferPool;
  readonly lane: WriteLane;
  readonly logger: Logger;
  /** Made and emptied by the owner. */
  readonly spoolDirectory: string;
  /** Of topics that it makes; -1: the destination's own default. */
  readonly defaultPartitions: number;
  /** How often new tables are looked for. */
  readonly tablesEveryMs: number;
  /** Verifies kafka.produce, where this capture serves it. */
  readonly produceKey: Buffer | undefined;
  readonly saveProgress: (lsn: Lsn) => Promise<void>;
  readonly onDeadLetter: (topic: string, reason: string) => void;
}

/** What it has done since it began. */
export interface CaptureTotals {
  transactions: number;
  changes: number;
  records: number;
  bytes: number;
  spooledBytes: number;
}

/** Nothing is left to do, with snapshot: only. */
export class SnapshotDone extends Error {
  override name = 'SnapshotDone';
}

/** While those who wrote to a new table are waited for. */
const settlingMs = 500;

export class CaptureRun {
  readonly outlet: Outlet;
  readonly snapshots: Snapshots;
  readonly membership: Membership;
  /** Resolves with the first reason to end. */
  readonly broken: Promise<Error>;
  readonly #options: CaptureRunOptions;
  readonly #partitions: Partitions;
  readonly #over = new AbortController();
  #break: (error: Error) => void = () => {};
  #stream: ChangeStream | undefined;
  #looking: Promise<void> | undefined;

  constructor(options: CaptureRunOptions) {
    const { definition, captureId, source, sourceUrl, tables, destination, memory, lane, logger } = options;
    this.#options = options;
    this.broken = new Promise(resolve => {
      this.#break = resolve;
    });
    const onFailed = (error: Error) => this.fail(error);
    const outlet = new Outlet({ destination, memory, onFailed });
    const writer = writerOf(options, outlet);
    const jobs = new SnapshotJobs(lane, captureId);
    const onDone = () => {
      if (definition.snapshot === 'only') this.#break(new SnapshotDone());
    };
    const snapshots = new Snapshots({ definition, sourceUrl, source, outlet, writer, jobs, logger, onFailed, onDone });
    const partitions = new Partitions(source, lane, captureId);
    const { defaultPartitions } = options;
    this.outlet = outlet;
    this.snapshots = snapshots;
    this.#partitions = partitions;
    this.membership = new Membership(tables, {
      ...{ definition, source, outlet, snapshots, partitions, defaultPartitions, logger },
    });
  }

  /** undefined until it streams. */
  get stream(): ChangeStream | undefined {
    return this.#stream;
  }

  get totals(): CaptureTotals {
    const { records, bytes } = this.outlet;
    const { transactions = 0, changes = 0, spooledBytes = 0 } = this.#stream?.counters ?? {};
    return { transactions, changes, records, bytes, spooledBytes };
  }

  /** Reads how far everything is: the stream moves it on. */
  async load(): Promise<void> {
    const { tables } = this.#options;
    await this.outlet.load();
    await this.snapshots.load(tables);
    await this.#partitions.load();
    await this.#partitions.begin(tables);
  }

  async start(): Promise<void> {
    const { definition, source, sourceUrl, from, spoolDirectory, saveProgress } = this.#options;
    const stream = new ChangeStream({
      ...{ sourceUrl, source, from, outlet: this.outlet, spoolDirectory, saveProgress },
      slot: definition.slot,
      publication: definition.publication,
      handler: this.snapshots.handler,
      onEnd: error => this.#break(error),
    });
    this.#stream = stream;
    await stream.start();
    this.snapshots.start();
    this.#looking = this.#look();
  }

  fail(error: Error): void {
    this.#stream?.fail(error);
    this.#break(error);
  }

  /** Appends what has come, confirms it, and lets the slot go. */
  async finish(): Promise<void> {
    await this.snapshots.stop();
    await this.#stream?.stop();
  }

  /** Appends no more, and ends the source. Then stored positions tell what the destination has, and another may begin. */
  async end(): Promise<void> {
    this.#over.abort();
    const quiet = this.snapshots.stop();
    await this.#options.source.end(); // what waits for it, waits no more
    await Promise.all([quiet, this.#looking]);
    this.outlet.abandon();
    await this.outlet.quiet();
  }

  /** For new tables, now and then. */
  async #look(): Promise<void> {
    const { definition, tablesEveryMs } = this.#options;
    if (definition.tables.length === 0) return; // kafka.produce's
    const { signal } = this.#over;
    try {
      while (!signal.aborted) {
        await this.membership.look();
        const wait = this.membership.isSettling ? Math.min(settlingMs, tablesEveryMs) : tablesEveryMs;
        await delay(wait, undefined, { signal });
      }
    } catch (error) {
      if (!signal.aborted) this.fail(error as Error);
    }
  }
}

function writerOf(options: CaptureRunOptions, outlet: Outlet): ChangeWriter {
  const { definition, source, logger, produceKey, defaultPartitions, onDeadLetter } = options;
  const produce = produceKey && new ProduceWriter({ key: produceKey, outlet, defaultPartitions, logger });
  return new ChangeWriter({
    ...{ definition, source, outlet, defaultPartitions, onDeadLetter },
    ...(produce && {
      onMessage: (message, transaction, ordinal) => produce.message(message, transaction, ordinal),
    }),
  });
}
