// Snapshots of a capture's tables, while it streams: what is there already, as records of op r.
//
//   sessions (snapshotReaders)   each takes a piece of a table, reads a chunk of it, marks it in the WAL, waits until it is
//                                in the log, and so on; then the next piece (snapshot-table.ts, -reader.ts, -plan.ts)
//   stream                       … changes … mark: the chunk goes into the topic here (snapshot-placement.ts)
//
// So a fold of the topic is the table, whatever is written meanwhile, and no lock or slot is held for longer than a chunk.
// A chunk's rows get positions in the stream as changes do (outlet.ts), and where each partition stands tells after a
// crash which of its rows are in the log.
import type { Logger } from 'pino';
import { Throttle } from '../runtime/throttle.ts';
import type { ChangeWriter } from './change-writer.ts';
import { type CaptureDefinition, isOutbox, type TableName, topicOf } from './definition.ts';
import type { Outlet } from './outlet.ts';
import { SnapshotBases } from './snapshot-base.ts';
import type { Leaf } from './snapshot-description.ts';
import { type Job, type Piece, type SnapshotJobs, settle } from './snapshot-jobs.ts';
import { SnapshotPlacement } from './snapshot-placement.ts';
import { byCtid, cutLeaf } from './snapshot-plan.ts';
import { SnapshotReader } from './snapshot-reader.ts';
import { TableReading } from './snapshot-table.ts';
import type { Source, SourceTable } from './source.ts';
import type { ChangeHandler } from './stream.ts';

export interface SnapshotsOptions {
  readonly definition: CaptureDefinition;
  readonly sourceUrl: string;
  readonly source: Source;
  readonly outlet: Outlet;
  readonly writer: ChangeWriter;
  readonly jobs: SnapshotJobs;
  readonly logger: Logger;
  readonly onFailed: (error: Error) => void;
  /** All that there is to read has been read. */
  readonly onDone: () => void;
}

export interface SnapshotStatus {
  readonly table: string;
  readonly state: 'waiting' | 'reading' | 'done';
  readonly rows: number;
  /** Of their values as text. */
  readonly bytes: number;
  /** The planner's, when the reading began; null before, and 0 for a table that was never analyzed. */
  readonly estimatedRows: number | null;
  /** What it was cut into, and how many of them have been read to their end; 0 before and after. */
  readonly pieces: number;
  readonly piecesDone: number;
}

interface Open {
  readonly table: TableReading;
  readonly ready: Promise<void>;
  isReady: boolean;
  sessions: number;
}

export class Snapshots {
  readonly #options: SnapshotsOptions;
  readonly #placement: SnapshotPlacement;
  readonly #bases: SnapshotBases;
  readonly #throttle: Throttle;
  readonly #stopping = new AbortController();
  readonly #sessions = new Set<Promise<void>>();
  /** Tables that are being read. */
  readonly #open = new Map<Job, Open>();
  /** Pieces whose last row is in the stream. */
  readonly #ending = new WeakSet<Piece>();
  #jobs: Job[] = [];
  readonly #keyless = new Set<string>();
  /** Tables that are about to be taken in, by their oids. */
  readonly #expected = new Map<number, Job>();

  constructor(options: SnapshotsOptions) {
    this.#options = options;
    const { definition, source, outlet, writer, jobs } = options;
    this.#bases = new SnapshotBases(source, jobs);
    this.#placement = new SnapshotPlacement({ source, outlet, writer, jobs, bases: this.#bases });
    this.#throttle = new Throttle({
      rowsPerSecond: definition.snapshotRowsPerSecond,
      bytesPerSecond: definition.snapshotBytesPerSecond,
    });
  }

  /** What the stream calls. */
  get handler(): ChangeHandler {
    return this.#placement;
  }

  /** Before the stream begins: from then on the outlet's stored positions are no longer those of the crash. */
  async load(tables: readonly SourceTable[]): Promise<void> {
    const { definition, jobs, outlet } = this.#options;
    const captured = tables.filter(table => !isOutbox(definition, table.schema, table.name));
    for (const table of captured) this.#noteKey(table);
    if (definition.snapshot !== 'never') await jobs.begin(captured);
    const all = await jobs.load();
    this.#jobs = all.filter(
      job =>
        captured.some(table => table.schema === job.schema && table.name === job.name) &&
        (definition.snapshot !== 'never' || job.kind === 'incremental'),
    );
    for (const job of this.#jobs) {
      if (job.kind === 'initial' && this.#keyless.has(nameOf(job))) this.#bases.guard(job);
      for (const piece of job.pieces) {
        if (!piece.ranges.some(range => range.at)) continue;
        const target = await outlet.find(topicOf(definition, job.schema, job.name));
        piece.ranges = piece.ranges.map(range => settle(range, target));
        await jobs.savePiece(job, piece);
      }
    }
  }

  get done(): boolean {
    return this.#expected.size === 0 && this.#jobs.every(job => job.done);
  }

  status(): SnapshotStatus[] {
    const expected = [...this.#expected.values()];
    const others = this.#jobs.filter(job => !expected.some(next => nameOf(next) === nameOf(job)));
    return [...others, ...expected].map(job => ({
      table: nameOf(job),
      state: job.done ? 'done' : this.#open.has(job) ? 'reading' : 'waiting',
      rows: job.done ? job.rows : job.pieces.reduce((sum, { rows }) => sum + rows, 0),
      bytes: job.done ? job.bytes : job.pieces.reduce((sum, { bytes }) => sum + bytes, 0),
      estimatedRows: job.estimatedRows,
      pieces: job.pieces.length,
      piecesDone: job.pieces.filter(({ done }) => done).length,
    }));
  }

  /** Once the stream runs. */
  start(): void {
    if (this.done) {
      this.#options.onDone();
      return;
    }
    while (this.#sessions.size < this.#options.definition.snapshotReaders) this.#begin();
  }

  /** Reads tables again; those that are being read go on. Returns how many. */
  async again(tables: readonly TableName[]): Promise<number> {
    const { jobs } = this.#options;
    const idle = tables.filter(
      ({ schema, name }) => !this.#jobs.some(job => job.schema === schema && job.name === name && !job.done),
    );
    for (const table of idle) await jobs.again(table, 'incremental');
    const loaded = await jobs.load();
    for (const { schema, name } of idle) {
      this.#jobs = this.#jobs.filter(job => job.schema !== schema || job.name !== name);
      this.#jobs.push(...loaded.filter(job => job.schema === schema && job.name === name));
    }
    if (idle.length > 0) this.start();
    return idle.length;
  }

  /** Reads a partition of a table that has been read. False: not yet, the table is being read. */
  async readPartition(table: SourceTable, leaf: Leaf): Promise<boolean> {
    const { definition, jobs } = this.#options;
    const isTable = ({ schema, name }: TableName) => schema === table.schema && name === table.name;
    if (this.#expected.has(table.oid) || !this.#jobs.some(job => isTable(job) && job.done)) return false;
    await jobs.again(table, 'incremental');
    const job = (await jobs.load()).find(isTable)!;
    job.relationId = table.oid;
    job.keyColumns = byCtid;
    await jobs.cut(job, cutLeaf(leaf, definition.snapshotReaders));
    this.#jobs = [...this.#jobs.filter(other => !isTable(other)), job];
    if (!this.#stopping.signal.aborted) this.start();
    return true;
  }

  /** Before a table is published, so that none of its rows comes twice; its reading begins with `takeIn`. */
  async expect(table: SourceTable): Promise<void> {
    const { definition, jobs } = this.#options;
    const { oid, schema, name } = table;
    if (definition.snapshot === 'never' || isOutbox(definition, schema, name) || this.#expected.has(oid)) return;
    await jobs.again(table, 'initial');
    const job = (await jobs.load()).find(other => other.schema === schema && other.name === name)!;
    this.#expected.set(oid, job);
    if (this.#noteKey(table)) this.#bases.guard(job, oid);
  }

  /** A table that was expected is not published. */
  forget({ oid }: SourceTable): void {
    const job = this.#expected.get(oid);
    if (job) this.#bases.forget(job);
    this.#expected.delete(oid);
  }

  /** Reads those of the tables that have never been read; one of the same name may have been. */
  async takeIn(tables: readonly SourceTable[]): Promise<void> {
    const { definition } = this.#options;
    if (definition.snapshot === 'never') return;
    const unread = tables.filter(
      ({ oid, schema, name }) =>
        !isOutbox(definition, schema, name) &&
        !this.#jobs.some(job => job.schema === schema && job.name === name && (!job.done || job.relationId === oid)),
    );
    for (const table of unread) {
      await this.expect(table);
      const { oid, schema, name } = table;
      this.#jobs = this.#jobs.filter(job => job.schema !== schema || job.name !== name);
      this.#jobs.push(this.#expected.get(oid)!);
      this.#expected.delete(oid);
    }
    if (unread.length > 0 && !this.#stopping.signal.aborted) this.start();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#placement.stop();
    await Promise.all(this.#sessions);
  }

  /** Whether its records have no key. */
  #noteKey(table: SourceTable): boolean {
    const isKeyless = table.key.length === 0 && !this.#options.definition.keys[nameOf(table)];
    if (isKeyless) this.#keyless.add(nameOf(table));
    else this.#keyless.delete(nameOf(table));
    return isKeyless;
  }

  #begin(): void {
    const { onFailed, onDone, logger } = this.#options;
    const session = this.#session().then(
      () => {
        this.#sessions.delete(session);
        if (this.#stopping.signal.aborted || this.#sessions.size > 0) return;
        // What was asked for while the last of them was ending.
        if (!this.done) this.start();
        else {
          logger.info({ tables: this.#jobs.length }, 'the snapshot is complete');
          onDone();
        }
      },
      (error: Error) => {
        this.#sessions.delete(session);
        if (!this.#stopping.signal.aborted) onFailed(error);
      },
    );
    this.#sessions.add(session);
  }

  /** Reads piece after piece, until there is none that nobody has. */
  async #session(): Promise<void> {
    const { sourceUrl, definition, source } = this.#options;
    const reader = await SnapshotReader.open(sourceUrl, definition.publication, source.version);
    const { signal } = this.#stopping;
    const onStop = () => void reader.end();
    signal.addEventListener('abort', onStop);
    try {
      while (!signal.aborted) {
        const taken = this.#take();
        if (taken !== undefined) {
          await this.#readPiece(taken.open, taken.piece, reader);
          continue;
        }
        const job = this.#jobs.find(other => !other.done && !this.#open.has(other));
        if (job !== undefined) {
          await this.#openTable(job, reader);
          continue;
        }
        const opening = [...this.#open.values()].find(({ isReady }) => !isReady);
        if (opening === undefined) return;
        await opening.ready;
      }
    } finally {
      signal.removeEventListener('abort', onStop);
      await reader.end();
    }
  }

  #take(): { open: Open; piece: Piece } | undefined {
    for (const open of this.#open.values()) {
      const piece = open.isReady ? open.table.take() : undefined;
      if (piece) return { open, piece };
    }
    return undefined;
  }

  async #openTable(job: Job, reader: SnapshotReader): Promise<void> {
    const table = new TableReading(job, this.#keyless.has(nameOf(job)), {
      ...this.#options,
      ...{ bases: this.#bases, placement: this.#placement, throttle: this.#throttle },
      stopping: this.#stopping.signal,
      isLast: piece => this.#isLast(piece),
    });
    const ready = table.prepare(reader).then(async exists => {
      if (!exists) job.pieces = [];
      open.isReady = true;
      if (job.pieces.every(({ done }) => done)) await this.#closeTable(open);
    });
    const open: Open = { table, ready, isReady: false, sessions: 0 };
    this.#open.set(job, open);
    await ready;
  }

  async #readPiece(open: Open, piece: Piece, reader: SnapshotReader): Promise<void> {
    open.sessions++;
    await open.table.read(piece, reader);
    open.sessions--;
    if (open.sessions === 0 && open.table.job.pieces.every(({ done }) => done)) await this.#closeTable(open);
  }

  async #closeTable(open: Open): Promise<void> {
    await open.table.finish();
    this.#open.delete(open.table.job);
  }

  /** Told of the last row of a piece: whether no piece has one to come. */
  #isLast(piece: Piece): boolean {
    this.#ending.add(piece);
    const hasEnded = (other: Piece) => other.done || this.#ending.has(other);
    return this.#jobs.every(job => job.done || (job.pieces.length > 0 && job.pieces.every(hasEnded)));
  }
}

const nameOf = ({ schema, name }: TableName): string => `${schema}.${name}`;
