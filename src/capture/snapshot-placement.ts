// Where the rows of snapshots come into the stream. A chunk is read on a database snapshot S, then a mark is put into the
// WAL, and where the stream meets the mark the chunk's rows go into the topic.
//
// Why a fold of the topic is the table, whatever is written meanwhile:
//   (1) What S sees had committed before S was taken, so before the mark: the stream has had it.
//   (2) Of a row that a transaction which S does not see has changed before the mark, the chunk's version is left out.
//       So a version that is placed is the newest at the mark: it is not older than what came before it in the topic,
//       and by (1) not newer than what comes after it.
//   (3) A row's newest version that the stream has not brought was written before the capture began. Every S sees it, and
//       nobody has changed it, so (2) leaves it in; and it lies where it lay: in the order of a key, because its key is a
//       part of it; by ctid, because a version keeps its place until the table is written anew (the filenode tells).
//       Pieces cover all places from the first to the last there may ever be. So one chunk has it.
// An UPDATE that moves a row to pages which have been read already, VACUUM that frees the old place and a new row in it are
// all changes that the stream brings. HOT pruning moves no version that anybody sees. What is added behind the last page
// after the capture began is streamed as well; the last piece is open at its end all the same.
//
// (3) needs the row whole in the stream. An UPDATE does not log an unchanged value that is stored out of line, unless the
// replica identity is FULL. Where (2) would leave out the only record with that value, the chunk is cut before the row, and
// the rest is read again on an S that sees the change. Without a key of any kind there is no such identity but FULL.
import type { Lsn } from '../postgres/lsn.ts';
import { type Message, type Relation, Tuple, valueKind } from '../postgres/pgoutput.ts';
import type { CapturedTable, ChangeWriter, SnapshotRecord } from './change-writer.ts';
import { ChangedKeys } from './changed-keys.ts';
import type { Outlet } from './outlet.ts';
import { partitionOf } from './partitioner.ts';
import { RowIdentity } from './row-identity.ts';
import type { SnapshotBases } from './snapshot-base.ts';
import { hasRow, type Job, type Piece, type Place, type Range, type SnapshotJobs } from './snapshot-jobs.ts';
import { type Chunk, newMark, type Row, SnapshotReader, snapshotPrefix } from './snapshot-reader.ts';
import type { Source } from './source.ts';
import type { ChangeHandler, Transaction } from './stream.ts';
import type { Visibility } from './visibility.ts';

/** A table while it is being read. */
export interface Reading {
  readonly job: Job;
  readonly changed: ChangedKeys;
  /** What each of its sessions' next chunks sees at least; undefined before the first. */
  readonly floors: Map<object, Visibility | undefined>;
  /** The stream has brought a TRUNCATE of it since the reading began. */
  truncated: boolean;
}

/** A chunk on its way into the stream. */
export interface Placing {
  readonly reading: Reading;
  readonly piece: Piece;
  /** What was asked for of the piece. */
  readonly range: Range;
  readonly chunk: Chunk;
  readonly captured: CapturedTable;
  /** No other chunk of the capture's snapshot comes after it. */
  readonly isLast: () => boolean;
}

/** What of a chunk has been given to the outlet. */
export interface Placed {
  /** The commit LSN of its mark; undefined where there was nothing to give. */
  readonly at: Lsn | undefined;
  readonly rows: number;
  readonly until: Place | null;
  readonly exhausted: boolean;
}

interface Mark {
  /** The stream has come to it, and waits. */
  readonly reached: (transaction: Transaction) => Promise<void>;
  readonly reject: (error: Error) => void;
}

interface Part {
  /** The place of its first row in the chunk. */
  readonly ordinal: number;
  readonly until: Place | null;
  readonly records: SnapshotRecord[];
}

export interface PlacementOptions {
  readonly source: Source;
  readonly outlet: Outlet;
  readonly writer: ChangeWriter;
  readonly jobs: SnapshotJobs;
  readonly bases: SnapshotBases;
}

const pauseAbove = 16 * 1024 * 1024;
const resumeBelow = 8 * 1024 * 1024;
const recordOverheadBytes = 64;

export class SnapshotPlacement implements ChangeHandler {
  readonly #options: PlacementOptions;
  /** By relation id. */
  readonly #readings = new Map<number, Reading>();
  readonly #identities = new Map<number, RowIdentity>();
  /** By what their marks say. */
  readonly #marks = new Map<string, Mark>();
  #stopped = false;

  constructor(options: PlacementOptions) {
    this.#options = options;
  }

  /** From here on what the stream changes of the table is noted. */
  open(job: Job): Reading {
    const reading: Reading = { job, changed: new ChangedKeys(), floors: new Map(), truncated: false };
    this.#readings.set(job.relationId, reading);
    return reading;
  }

  close({ job }: Reading): void {
    this.#readings.delete(job.relationId);
  }

  stop(): void {
    this.#stopped = true;
    for (const { reject } of this.#marks.values()) reject(new Error('stopping'));
    this.#marks.clear();
  }

  /** Marks the chunk, and waits until the stream has come there. undefined: it is to be read again. */
  place(placing: Placing): Promise<Placed | undefined> {
    return this.#marked(transaction => this.#place(placing, transaction));
  }

  /** Resolves when the stream has brought everything that had committed before. */
  caughtUp(): Promise<void> {
    return this.#marked(async () => {});
  }

  async #marked<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    const mark = newMark();
    const done = new Promise<T>((resolve, reject) => {
      const reached = async (transaction: Transaction): Promise<void> => {
        try {
          resolve(await work(transaction));
        } catch (error) {
          reject(error as Error);
          throw error;
        }
      };
      this.#marks.set(mark, { reached, reject });
    });
    done.catch(() => {}); // awaited below, if the mark can be made
    try {
      if (this.#stopped) throw new Error('stopping');
      await SnapshotReader.mark(this.#options.source.client, mark);
      return await done;
    } finally {
      this.#marks.delete(mark);
    }
  }

  async relation(relation: Relation): Promise<void> {
    const { writer, bases } = this.#options;
    await writer.relation(relation);
    bases.relation(relation);
    const table = writer.relationOf(relation.id)?.table;
    if (table === undefined) this.#identities.delete(relation.id);
    else this.#identities.set(relation.id, new RowIdentity(relation, table));
  }

  begin(transaction: Transaction): void {
    this.#options.writer.begin(transaction);
  }

  commit(transaction: Transaction, changes: number, endLsn: Lsn): void {
    this.#options.writer.commit(transaction, changes, endLsn);
  }

  change(message: Message, transaction: Transaction, ordinal: number, walStart: Lsn): void | Promise<void> {
    const { writer, bases } = this.#options;
    if (message.kind === 'message') {
      if (message.prefix === snapshotPrefix) {
        const content = message.content.toString('latin1');
        const mark = this.#marks.get(content);
        this.#marks.delete(content);
        return mark?.reached(transaction);
      }
      return writer.change(message, transaction, ordinal, walStart);
    }
    if (transaction.xid !== null && this.#readings.size > 0) this.#note(message, transaction.xid);
    const passed = bases.waiting === 0 || bases.passes(message, transaction);
    if (passed === true) return writer.change(message, transaction, ordinal, walStart);
    if (passed === false) return undefined;
    return passed.then(passes => (passes ? writer.change(message, transaction, ordinal, walStart) : undefined));
  }

  #note(message: Message, xid: number): void {
    if (message.kind === 'truncate') {
      for (const id of message.relationIds) {
        const reading = this.#readings.get(id);
        if (reading === undefined) continue;
        reading.changed.addAll(xid);
        reading.truncated = true;
      }
      return;
    }
    if (message.kind !== 'insert' && message.kind !== 'update' && message.kind !== 'delete') return;
    const reading = this.#readings.get(message.relationId);
    const identity = this.#identities.get(message.relationId);
    if (reading === undefined || identity === undefined) return;
    // Before any session has read a chunk there is no floor, and everything is noted.
    if (reading.floors.size > 0 && [...reading.floors.values()].every(floor => floor?.sees(xid))) return;
    const note = (row: Tuple, whole: boolean): void => {
      const key = identity.of(row);
      if (key !== undefined) reading.changed.add(xid, key, whole);
    };
    const { keyless } = identity;
    // Of rows that may be equal, one that is changed does not tell which: all of them are read again.
    if (message.kind !== 'insert' && message.before) note(message.before, !keyless);
    if (message.kind === 'delete' || keyless) return;
    const { after } = message;
    note(after, message.kind === 'insert' || isWhole(after) || (message.before !== undefined && !message.beforeIsKey));
  }

  async #place(placing: Placing, transaction: Transaction): Promise<Placed | undefined> {
    const { reading, piece, captured, range } = placing;
    const { writer, outlet, jobs } = this.#options;
    const { commitLsn } = transaction;
    const cut = this.#cut(placing, transaction);
    if (cut === undefined) return undefined;
    const { parts, rows, exhausted } = cut;
    const ranges: Range[] = parts.map(({ ordinal, until }) => ({ until, in: range.in, at: { commitLsn, ordinal } }));
    // The last of them goes as far as what was asked for, if that is all.
    if (!exhausted && piece.ranges.length > 0) ranges.push(range);
    piece.ranges = [...ranges, ...piece.ranges.slice(1)];
    await jobs.savePiece(reading.job, piece);
    for (const { ordinal, records } of parts) {
      if (this.#stopped || outlet.failed) throw new Error('stopping');
      // Waited for between parts only: a part is in a partition whole or not at all.
      const letters = records.map(record => writer.addSnapshotRecord(captured.target, transaction, ordinal, record));
      await Promise.all(letters);
      outlet.flush();
      if (outlet.inFlightBytes >= pauseAbove) await outlet.room(resumeBelow);
    }
    return { at: commitLsn, rows, until: exhausted ? range.until : parts.at(-1)!.until, exhausted };
  }

  /**
   * The records of a chunk, in parts of which no partition gets more than a batch holds, each at the ordinal of its first
   * row; as far as the row that must be read again. undefined: all of it.
   */
  #cut(
    { chunk, captured, range, reading, isLast }: Placing,
    transaction: Transaction,
  ): { parts: Part[]; rows: number; exhausted: boolean } | undefined {
    const { writer } = this.#options;
    const { target, table } = captured;
    const { rows, exhausted, placeOf } = chunk;
    const changed = reading.changed.unseenBy(chunk.visibility);
    if (changed === 'all') return undefined;
    const identity = new RowIdentity(chunk.relation, table);
    const asked = reading.job.kind === 'incremental';
    const parts: Part[] = [];
    let ordinal = 0;
    let records: SnapshotRecord[] = [];
    let sizes = new Map<number, number>();
    const tuple = new Tuple();
    writer.beginSnapshot(transaction, asked ? 'incremental' : 'true');
    for (const [i, row] of rows.entries()) {
      fill(tuple, row);
      const whole = changed.size === 0 ? undefined : changed.get(identity.of(tuple) ?? '');
      if (whole === false) {
        if (i === 0) return undefined;
        parts.push({ ordinal, until: placeOf(i - 1), records });
        return { parts, rows: i, exhausted: false };
      }
      if (whole === true) continue;
      if (exhausted && i === rows.length - 1 && !asked && isLast()) writer.beginSnapshot(transaction, 'last');
      const record = writer.snapshotRecord(captured, tuple, transaction, i);
      const { key } = record;
      if (hasRow(range, key)) continue;
      const partition = partitionOf(key, 0, key?.length ?? 0, target.partitions.length);
      const bytes = (key?.length ?? 0) + record.value.length + record.headers.length + recordOverheadBytes;
      const size = (sizes.get(partition) ?? 0) + bytes;
      if (size > target.batchBytes / 2 && records.length > 0) {
        parts.push({ ordinal, until: placeOf(i - 1), records });
        ordinal = i;
        records = [];
        sizes = new Map();
      }
      sizes.set(partition, (sizes.get(partition) ?? 0) + bytes);
      records.push(record);
    }
    parts.push({ ordinal, until: exhausted ? range.until : chunk.until, records });
    return { parts, rows: rows.length, exhausted };
  }
}

function isWhole(row: Tuple): boolean {
  for (let column = 0; column < row.length; column++) if (row.isUnchanged(column)) return false;
  return true;
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
