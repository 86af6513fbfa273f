// Snapshots of a capture's tables, while it streams: what is there already, as records of op r.
//
//   reader    a chunk on a database snapshot S, then a mark into the WAL
//   stream    … changes … mark: the chunk goes into the topic here, but for rows whose keys a transaction that S does not
//             see has changed before the mark. What S sees is before the mark, so the chunk is not older than what came
//             before it, and not newer than what comes after
//
// So a fold of the topic is the table, whatever is written meanwhile, and no lock or slot is held for longer than a chunk.
// A chunk's rows get positions in the stream as changes do (outlet.ts), and where each partition stands tells after a
// crash which of its rows are in the log.
import type { Logger } from 'pino';
import type { Lsn } from '../postgres/lsn.ts';
import { type Message, type Relation, Tuple, valueKind } from '../postgres/pgoutput.ts';
import type { CapturedTable, ChangeWriter, SnapshotRecord } from './change-writer.ts';
import { ChangedKeys } from './changed-keys.ts';
import { type CaptureDefinition, isOutbox, topicOf } from './definition.ts';
import { JsonBuffer } from './json-buffer.ts';
import type { Outlet } from './outlet.ts';
import { partitionOf } from './partitioner.ts';
import { hasRow, type Job, type KeyValues, type Range, type SnapshotJobs, settle } from './snapshot-jobs.ts';
import { type Chunk, newMark, type Row, SnapshotReader, snapshotPrefix } from './snapshot-reader.ts';
import { quoted, type Source, type SourceTable } from './source.ts';
import type { ChangeHandler, Transaction } from './stream.ts';
import { Visibility } from './visibility.ts';

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
  /** The planner's, when the reading began; null before, and 0 for a table that was never analyzed. */
  readonly estimatedRows: number | null;
}

interface Reading {
  readonly job: Job;
  readonly changed: ChangedKeys;
  /** The chunk that waits for its mark. */
  pending: Pending | undefined;
}

interface Pending {
  readonly reading: Reading;
  readonly chunk: Chunk;
  readonly captured: CapturedTable;
  readonly range: Range;
  /** With the position of the mark; undefined: too much has changed, read it again. */
  readonly resolve: (at: Lsn | undefined) => void;
  readonly reject: (error: Error) => void;
}

const pauseAbove = 16 * 1024 * 1024;
const resumeBelow = 8 * 1024 * 1024;
const lockPollMs = 50;

export class Snapshots implements ChangeHandler {
  readonly #options: SnapshotsOptions;
  #jobs: Job[] = [];
  /** By relation id. */
  readonly #readings = new Map<number, Reading>();
  readonly #pending = new Map<string, Pending>();
  readonly #key = new JsonBuffer(256);
  readonly #stopping = new AbortController();
  readonly #begun = new Set<Job>();
  readonly #workers = new Set<Promise<void>>();

  constructor(options: SnapshotsOptions) {
    this.#options = options;
  }

  /** Before the stream begins: from then on the outlet's stored positions are no longer those of the crash. */
  async load(tables: readonly SourceTable[]): Promise<void> {
    const { definition, jobs, outlet } = this.#options;
    const captured = tables.filter(table => !isOutbox(definition, table.schema, table.name));
    if (definition.snapshot !== 'never') await jobs.begin(captured);
    const all = await jobs.load();
    this.#jobs = all.filter(
      job =>
        captured.some(table => table.schema === job.schema && table.name === job.name) &&
        (definition.snapshot !== 'never' || job.kind === 'incremental'),
    );
    for (const job of this.#jobs) {
      if (!job.ranges.some(range => range.at)) continue;
      const target = outlet.known(topicOf(definition, job.schema, job.name));
      job.ranges = job.ranges.map(range => settle(range, target));
      await jobs.save(job);
    }
  }

  get done(): boolean {
    return this.#jobs.every(job => job.done);
  }

  status(): SnapshotStatus[] {
    return this.#jobs.map(job => ({
      table: `${job.schema}.${job.name}`,
      state: job.done ? 'done' : this.#readings.get(job.relationId)?.job === job ? 'reading' : 'waiting',
      rows: job.rows,
      estimatedRows: job.estimatedRows,
    }));
  }

  /** Once the stream runs. */
  start(): void {
    const { definition, onDone } = this.#options;
    if (this.done) {
      onDone();
      return;
    }
    while (this.#workers.size < definition.snapshotReaders && this.#next() !== undefined) this.#begin(this.#next()!);
  }

  /** Reads tables again; those that are being read go on. Returns how many. */
  async again(tables: readonly { readonly schema: string; readonly name: string }[]): Promise<number> {
    const { jobs } = this.#options;
    const idle = tables.filter(
      ({ schema, name }) => !this.#jobs.some(job => job.schema === schema && job.name === name && !job.done),
    );
    for (const table of idle) await jobs.again(table);
    const loaded = await jobs.load();
    for (const { schema, name } of idle) {
      this.#jobs = this.#jobs.filter(job => job.schema !== schema || job.name !== name);
      this.#jobs.push(...loaded.filter(job => job.schema === schema && job.name === name));
    }
    if (idle.length > 0) this.start();
    return idle.length;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const { reject } of this.#pending.values()) reject(new Error('stopping'));
    this.#pending.clear();
    await Promise.all(this.#workers);
  }

  relation(relation: Relation): Promise<void> {
    return this.#options.writer.relation(relation);
  }

  begin(transaction: Transaction): void {
    this.#options.writer.begin(transaction);
  }

  change(message: Message, transaction: Transaction, ordinal: number, walStart: Lsn): void | Promise<void> {
    if (message.kind === 'message') {
      if (message.prefix === snapshotPrefix) {
        const content = message.content.toString('latin1');
        const pending = this.#pending.get(content);
        this.#pending.delete(content);
        return pending && this.#place(pending, transaction);
      }
    } else if (this.#readings.size > 0 && transaction.xid !== null) {
      this.#note(message, transaction.xid);
    }
    return this.#options.writer.change(message, transaction, ordinal, walStart);
  }

  #note(message: Message, xid: number): void {
    switch (message.kind) {
      case 'truncate':
        for (const id of message.relationIds) this.#readings.get(id)?.changed.addAll(xid);
        return;
      case 'insert':
      case 'update':
      case 'delete': {
        const reading = this.#readings.get(message.relationId);
        const table = this.#options.writer.relationOf(message.relationId)?.table;
        // Without a key nothing is folded: what is deleted is one less, whether before its row or after it.
        if (reading === undefined || table === undefined || table.keyless) return;
        if (reading.pending?.chunk.visibility.sees(xid)) return;
        if (message.kind !== 'insert' && message.before) reading.changed.add(xid, this.#keyOf(table, message.before));
        if (message.kind !== 'delete') reading.changed.add(xid, this.#keyOf(table, message.after));
        return;
      }
      default:
        return;
    }
  }

  #keyOf(table: CapturedTable['table'], row: Tuple): string {
    this.#key.reset();
    table.writeKey(this.#key, row);
    return this.#key.bytes.toString('latin1', 0, this.#key.at);
  }

  /** The stream has come to the mark of a chunk. It waits until the chunk has been given to the outlet. */
  async #place(pending: Pending, transaction: Transaction): Promise<void> {
    const { reading, chunk, captured, range, resolve, reject } = pending;
    const { writer, outlet, jobs } = this.#options;
    try {
      const { job } = reading;
      const changed = reading.changed.unseenBy(chunk.visibility);
      if (changed === 'all') {
        resolve(undefined);
        return;
      }
      const parts = this.#records(pending, transaction, changed);
      const { commitLsn } = transaction;
      if (chunk.keyColumns.length > 0) {
        const rest: Range[] = parts.map((part, ordinal) => ({
          until: part.until,
          in: range.in,
          at: { commitLsn, ordinal },
        }));
        // The last of them goes as far as what was asked for, if that is all.
        if (!chunk.exhausted && job.ranges.length > 0) rest.push(range);
        job.ranges = [...rest, ...job.ranges.slice(1)];
        await jobs.save(job);
      }
      for (const [ordinal, { records }] of parts.entries()) {
        if (this.#stopping.signal.aborted || outlet.failed) throw new Error('stopping');
        // Waited for between parts only: a part is in a partition whole or not at all.
        const letters = records.map(record => writer.addSnapshotRecord(captured.target, transaction, ordinal, record));
        await Promise.all(letters);
        outlet.flush();
        if (outlet.inFlightBytes >= pauseAbove) await outlet.room(resumeBelow);
      }
      resolve(commitLsn);
    } catch (error) {
      reject(error as Error);
      throw error;
    }
  }

  /** Cut so that no partition gets more of a part than a batch holds. */
  #records(
    { chunk, captured, range, reading }: Pending,
    transaction: Transaction,
    changed: ReadonlySet<string>,
  ): { until: KeyValues | null; records: SnapshotRecord[] }[] {
    const { writer } = this.#options;
    const { target } = captured;
    const { rows, exhausted } = chunk;
    const asked = reading.job.kind === 'incremental';
    const isLast = exhausted && range.until === null && this.#jobs.every(job => job.done || job === reading.job);
    const keyOf = (row: Row): KeyValues => chunk.keyIndexes.map(index => row[index]!);
    const parts: { until: KeyValues | null; records: SnapshotRecord[] }[] = [];
    let records: SnapshotRecord[] = [];
    let sizes = new Map<number, number>();
    const tuple = new Tuple();
    writer.beginSnapshot(transaction, asked ? 'incremental' : 'true');
    for (const [i, row] of rows.entries()) {
      fill(tuple, row);
      if (isLast && !asked && i === rows.length - 1) writer.beginSnapshot(transaction, 'last');
      const record = writer.snapshotRecord(captured, tuple, transaction, i);
      const { key } = record;
      if (key !== null && changed.has(key.toString('latin1'))) continue;
      if (hasRow(range, key)) continue;
      const partition = partitionOf(key, 0, key?.length ?? 0, target.partitions.length);
      const bytes = (key?.length ?? 0) + record.value.length + record.headers.length + recordOverheadBytes;
      const size = (sizes.get(partition) ?? 0) + bytes;
      if (size > target.batchBytes / 2 && records.length > 0) {
        parts.push({ until: chunk.keyIndexes.length > 0 ? keyOf(rows[i - 1]!) : null, records });
        records = [];
        sizes = new Map();
      }
      sizes.set(partition, (sizes.get(partition) ?? 0) + bytes);
      records.push(record);
    }
    const last = rows.at(-1);
    const until = exhausted ? range.until : chunk.keyIndexes.length > 0 && last ? keyOf(last) : null;
    parts.push({ until, records });
    return parts;
  }

  #next(): Job | undefined {
    return this.#jobs.find(job => !job.done && !this.#begun.has(job));
  }

  #begin(job: Job): void {
    this.#begun.add(job);
    const { onFailed, onDone, logger } = this.#options;
    const worker = this.#read(job).then(
      () => {
        this.#workers.delete(worker);
        this.#begun.delete(job);
        if (this.#stopping.signal.aborted) return;
        const next = this.#next();
        if (next) this.#begin(next);
        else if (this.done) {
          logger.info({ tables: this.#jobs.length }, 'the snapshot is complete');
          onDone();
        }
      },
      (error: Error) => {
        this.#workers.delete(worker);
        if (!this.#stopping.signal.aborted) onFailed(error);
      },
    );
    this.#workers.add(worker);
  }

  async #read(job: Job): Promise<void> {
    const { definition, sourceUrl, source, jobs, logger } = this.#options;
    const { rows } = await source.client.query<{ id: string | null }>('SELECT to_regclass($1)::oid::text AS id', [
      quoted(job),
    ]);
    const relationId = Number(rows[0]!.id ?? 0);
    if (relationId !== job.relationId || job.keyColumns.length === 0) restart(job, relationId);
    const reading: Reading = { job, changed: new ChangedKeys(), pending: undefined };
    this.#readings.set(relationId, reading);
    const reader = await SnapshotReader.open(sourceUrl, definition.publication, source.version);
    const onStop = () => void reader.end();
    this.#stopping.signal.addEventListener('abort', onStop);
    try {
      await this.#writersBefore(reading);
      const began = { at: Date.now(), rows: job.rows };
      while (!job.done && relationId !== 0) {
        if (this.#stopping.signal.aborted) return;
        const ended = await this.#chunk(reading, reader);
        if (ended) break;
        const rate = definition.snapshotRowsPerSecond;
        if (rate !== undefined) {
          await this.#pause(((job.rows - began.rows) / rate) * 1000 - (Date.now() - began.at));
        }
      }
      if (this.#stopping.signal.aborted) return;
      job.done = true;
      job.ranges = [];
      await jobs.save(job);
      logger.info({ table: `${job.schema}.${job.name}`, rows: job.rows }, 'read a table');
    } finally {
      this.#readings.delete(relationId);
      this.#stopping.signal.removeEventListener('abort', onStop);
      await reader.end();
    }
  }

  /** Reads a chunk, and waits until it is in the log. True at the table's end. */
  async #chunk(reading: Reading, reader: SnapshotReader): Promise<boolean> {
    const { job } = reading;
    const { jobs, writer, outlet } = this.#options;
    const range = job.ranges[0] ?? { until: null, in: [] };
    const chunk = await reader.read(job, job.after, range.until);
    if (chunk === undefined) return true; // dropped: what the stream has of it, it has
    if (chunk.relation.id !== job.relationId) throw new Error(`table ${job.schema}.${job.name} was made again`);
    if (chunk.keyColumns.join('\0') !== job.keyColumns.join('\0')) {
      const fresh = job.after === null && job.ranges.length === 0;
      if (!fresh) restart(job, job.relationId);
      job.keyColumns = chunk.keyColumns;
      if (!fresh) return false;
    }
    job.estimatedRows ??= chunk.estimatedRows;
    const captured = await writer.describe(chunk.relation);
    if (captured === undefined) return true;
    const at = await this.#marked({ reading, chunk, captured, range });
    reading.changed.forget(chunk.visibility);
    if (at === undefined) {
      // A table that is read in one transaction begins anew as well: it was truncated.
      await reader.abandon();
      return false;
    }
    // The mark's transaction ends behind its commit record.
    await outlet.reached(at + 1n);
    if (outlet.failed) throw new Error('stopping');
    job.rows += chunk.rows.length;
    const last = chunk.rows.at(-1);
    const whole = chunk.exhausted && range.until === null;
    if (chunk.keyColumns.length === 0) return whole;
    if (chunk.exhausted) job.after = range.until ?? job.after;
    else if (last) job.after = chunk.keyIndexes.map(index => last[index]!);
    // Those with a position in the stream are this chunk's.
    job.ranges = job.ranges.filter(({ at: position }) => position === undefined);
    if (whole) return true;
    await jobs.save(job);
    return false;
  }

  async #marked(waiting: Omit<Pending, 'resolve' | 'reject'>): Promise<Lsn | undefined> {
    const { source } = this.#options;
    const mark = newMark();
    const placed = new Promise<Lsn | undefined>((resolve, reject) => {
      const pending: Pending = { ...waiting, resolve, reject };
      this.#pending.set(mark, pending);
      waiting.reading.pending = pending;
    });
    placed.catch(() => {}); // awaited below, if the mark can be made
    try {
      if (this.#stopping.signal.aborted) throw new Error('stopping');
      await SnapshotReader.mark(source.client, mark);
      return await placed;
    } finally {
      this.#pending.delete(mark);
      waiting.reading.pending = undefined;
    }
  }

  /**
   * Waits for transactions that write to the table now. From here on the stream's changes are noted; one that has been
   * streamed before and yet is not seen still holds its locks, as does one that began before the table was published.
   */
  async #writersBefore(reading: Reading): Promise<void> {
    const { source } = this.#options;
    const writers = `SELECT pg_current_snapshot()::text AS seen, array(
        SELECT DISTINCT l.virtualtransaction FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (l.relation = $1::oid OR l.relation IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))
          AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) AS writers`;
    let before: Set<string> | undefined;
    while (!this.#stopping.signal.aborted) {
      const { rows } = await source.client.query<{ seen: string; writers: string[] }>(writers, [
        String(reading.job.relationId),
      ]);
      const { seen, writers: now } = rows[0]!;
      before = new Set(before === undefined ? now : now.filter(writer => before!.has(writer)));
      if (before.size === 0) return;
      reading.changed.forget(new Visibility(seen));
      await this.#pause(lockPollMs);
    }
  }

  async #pause(ms: number): Promise<void> {
    if (ms <= 0 || this.#stopping.signal.aborted) return;
    await new Promise<void>(resolve => {
      const done = () => {
        clearTimeout(timer);
        this.#stopping.signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#stopping.signal.addEventListener('abort', done);
    });
  }
}

const recordOverheadBytes = 64;

/** From its first row on: it is another table, or has another key, or none that tells how far it has been read. */
function restart(job: Job, relationId: number): void {
  job.relationId = relationId;
  job.keyColumns = [];
  job.after = null;
  job.ranges = [];
  job.rows = 0;
}

function fill(tuple: Tuple, row: Row): void {
  tuple.resize(row.length);
  let room = 0;
  for (const value of row) room += (value?.length ?? 0) * 3;
  if (tuple.bytes.length < room) tuple.bytes = Buffer.allocUnsafeSlow(room * 2);
  let at = 0;
  for (let i = 0; i < row.length; i++) {
    const value = row[i]!;
    tuple.starts[i] = at;
    if (value === null) {
      tuple.kinds[i] = valueKind.null;
    } else {
      tuple.kinds[i] = valueKind.text;
      at += tuple.bytes.write(value, at, 'utf8');
    }
    tuple.ends[i] = at;
  }
}
