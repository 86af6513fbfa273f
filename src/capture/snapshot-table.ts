// The reading of one table: what it needs before its first chunk, then its pieces, each by the session that takes it. A
// piece is read chunk after chunk; where it has come to is stored when the chunk is in the log, and a crash goes on there.
import type { Logger } from 'pino';
import type { Throttle } from '../runtime/throttle.ts';
import type { ChangeWriter } from './change-writer.ts';
import type { CaptureDefinition } from './definition.ts';
import type { Outlet } from './outlet.ts';
import { treeOf } from './publication.ts';
import type { SnapshotBases } from './snapshot-base.ts';
import type { Job, Piece, Range, SnapshotJobs } from './snapshot-jobs.ts';
import type { Placed, Reading, SnapshotPlacement } from './snapshot-placement.ts';
import { byCtid } from './snapshot-plan.ts';
import { type Chunk, chunkRows, type SnapshotReader } from './snapshot-reader.ts';
import { quoted, type Source } from './source.ts';
import { Visibility } from './visibility.ts';

export interface TableReadingOptions {
  readonly definition: CaptureDefinition;
  readonly source: Source;
  readonly outlet: Outlet;
  readonly writer: ChangeWriter;
  readonly jobs: SnapshotJobs;
  readonly bases: SnapshotBases;
  readonly placement: SnapshotPlacement;
  readonly throttle: Throttle;
  readonly logger: Logger;
  readonly stopping: AbortSignal;
  /** Whether no piece of any table is left to be read but this one. */
  readonly isLast: (piece: Piece) => boolean;
}

const lockPollMs = 50;
/** When a chunk must be read again, with less there is less to change meanwhile. */
const retryRows = 100;

export class TableReading {
  readonly job: Job;
  readonly #options: TableReadingOptions;
  /** Records of the table have no key. */
  readonly #keyless: boolean;
  readonly #taken = new Set<Piece>();
  #reading: Reading | undefined;

  constructor(job: Job, keyless: boolean, options: TableReadingOptions) {
    this.job = job;
    this.#keyless = keyless;
    this.#options = options;
  }

  /** Before the first piece is taken. False: there is no such table any more. */
  async prepare(reader: SnapshotReader): Promise<boolean> {
    const { job } = this;
    const { definition, source, jobs, placement } = this.#options;
    const { rows } = await source.client.query<{ id: string | null }>('SELECT to_regclass($1)::oid::text AS id', [
      quoted(job),
    ]);
    const relationId = Number(rows[0]!.id ?? 0);
    if (relationId === 0) return false;
    if (relationId !== job.relationId) {
      job.relationId = relationId;
      job.pieces = [];
    }
    this.#reading = placement.open(job);
    await this.#writersEnded();
    if (this.#keyless) await this.#baseChosen();
    if (job.pieces.length > 0) return true;
    const planned = await reader.plan(job, definition.snapshotReaders);
    if (planned === undefined) return false;
    const { described, pieces } = planned;
    job.keyColumns = described.keyColumns.length > 0 ? described.keyColumns : byCtid;
    job.estimatedRows = described.estimatedRows;
    await jobs.cut(job, pieces);
    return true;
  }

  /** A piece for one session to read, if there is any that nobody has. */
  take(): Piece | undefined {
    const piece = this.job.pieces.find(other => !other.done && !this.#taken.has(other));
    if (piece) this.#taken.add(piece);
    return piece;
  }

  /** Reads a piece to its end, unless it is told to stop. */
  async read(piece: Piece, reader: SnapshotReader): Promise<void> {
    const { stopping, throttle, outlet, jobs } = this.#options;
    const { changed, floors } = this.#reading!;
    floors.set(reader, undefined);
    try {
      let maxRows = throttle.share(chunkRows);
      while (!piece.done && !stopping.aborted) {
        const range = piece.ranges[0] ?? { until: piece.until, in: [] };
        const chunk = await this.#chunk(piece, range, reader, maxRows);
        if (chunk) floors.set(reader, chunk.visibility);
        const placed = chunk ? await this.#placed(piece, range, chunk) : nothingLeft(range);
        const all = [...floors.values()];
        if (all.every(floor => floor !== undefined)) changed.forget(all);
        maxRows = placed ? throttle.share(chunkRows) : Math.min(maxRows, retryRows);
        if (placed === undefined) continue;
        // The mark's transaction ends behind its commit record.
        if (placed.at !== undefined) await outlet.reached(placed.at + 1n);
        if (outlet.failed) throw new Error('stopping');
        const bytes = Math.round(((chunk?.bytes ?? 0) * placed.rows) / Math.max(1, chunk?.rows.length ?? 0));
        advance(piece, range, placed);
        piece.rows += placed.rows;
        piece.bytes += bytes;
        await jobs.savePiece(this.job, piece);
        await this.#pause(throttle.spend(placed.rows, bytes));
      }
    } finally {
      floors.delete(reader);
    }
  }

  /** Once no session reads a piece of it any more. */
  async finish(): Promise<void> {
    const { job } = this;
    const { jobs, logger, stopping } = this.#options;
    if (this.#reading) this.#options.placement.close(this.#reading);
    if (stopping.aborted || job.pieces.some(piece => !piece.done)) return;
    job.rows = job.pieces.reduce((sum, { rows }) => sum + rows, 0);
    job.bytes = job.pieces.reduce((sum, { bytes }) => sum + bytes, 0);
    job.done = true;
    await jobs.save(job);
    job.pieces = [];
    logger.info({ table: `${job.schema}.${job.name}`, rows: job.rows, bytes: job.bytes }, 'read a table');
  }

  /** undefined: nothing is left of the piece. Throws where the table must be cut anew, and has that done. */
  async #chunk(piece: Piece, range: Range, reader: SnapshotReader, maxRows: number): Promise<Chunk | undefined> {
    const { job } = this;
    const { jobs, placement, logger } = this.#options;
    const { schema, name } = job;
    const base = job.base?.snapshot ?? null;
    const chunk = await reader.read({ table: job, piece, after: piece.after, until: range.until, base, maxRows });
    if (chunk === 'gone') return undefined; // what the stream has of it, it has
    if (chunk === 'rewritten') {
      await placement.caughtUp();
      // What is in the table now came after it was emptied, and is streamed.
      if (this.#reading!.truncated) return undefined;
      if (this.#keyless) {
        logger.warn({ table: `${schema}.${name}` }, 'a table without a key was written anew: its rows are read again');
        job.base = { snapshot: null, lsn: job.base?.lsn ?? 0n };
      }
      await jobs.cut(job, []);
      throw new Error(`the rows of ${schema}.${name} have other places now`);
    }
    if (chunk.relation.id !== job.relationId) throw new Error(`table ${schema}.${name} was made again`);
    if (chunk.keyColumns.join('\0') !== job.keyColumns.join('\0')) {
      await jobs.cut(job, []);
      throw new Error(`table ${schema}.${name} has another key now`);
    }
    return chunk;
  }

  /** undefined: it must be read again. */
  async #placed(piece: Piece, range: Range, chunk: Chunk): Promise<Placed | undefined> {
    const { writer, placement, isLast } = this.#options;
    const { until, exhausted } = chunk;
    if (chunk.rows.length === 0) return { at: undefined, rows: 0, until, exhausted };
    const captured = await writer.describe(chunk.relation);
    if (captured === undefined) return nothingLeft(range);
    const whole = isEnd(piece, range);
    return placement.place({
      ...{ reading: this.#reading!, piece, range, chunk, captured },
      isLast: () => whole && isLast(piece),
    });
  }

  /**
   * Waits for transactions that write to the table now. From here on the stream's changes are noted; one that has been
   * streamed before and yet is not seen still holds its locks, as does one that began before the table was published.
   */
  async #writersEnded(): Promise<void> {
    const { source, stopping } = this.#options;
    const { changed } = this.#reading!;
    const writers = `SELECT pg_current_snapshot()::text AS seen, array(
        SELECT DISTINCT l.virtualtransaction FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.relation IN ${treeOf('$1::oid')}
          AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) AS writers`;
    let before: Set<string> | undefined;
    while (!stopping.aborted) {
      const { rows } = await source.client.query<{ seen: string; writers: string[] }>(writers, [
        String(this.job.relationId),
      ]);
      const { seen, writers: now } = rows[0]!;
      before = new Set(before === undefined ? now : now.filter(writer => before!.has(writer)));
      if (before.size === 0) return;
      changed.forget([new Visibility(seen)]);
      await this.#pause(lockPollMs);
    }
  }

  async #baseChosen(): Promise<void> {
    const { bases, stopping } = this.#options;
    while (!stopping.aborted && this.job.base === null && !(await bases.choose(this.job))) {
      await this.#pause(lockPollMs);
    }
  }

  async #pause(ms: number): Promise<void> {
    const { stopping } = this.#options;
    if (ms <= 0 || stopping.aborted) return;
    await new Promise<void>(resolve => {
      const done = () => {
        clearTimeout(timer);
        stopping.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      stopping.addEventListener('abort', done);
    });
  }
}

const nothingLeft = ({ until }: Range): Placed => ({ at: undefined, rows: 0, until, exhausted: true });

const isEnd = (piece: Piece, range: Range): boolean => JSON.stringify(range.until) === JSON.stringify(piece.until);

/** Everything up to `until` is in the log. */
function advance(piece: Piece, range: Range, { until, exhausted }: Placed): void {
  const reading = piece.ranges.some(({ at }) => at !== undefined);
  // Those with a position in the stream are this chunk's; an empty chunk has none, and is all of a range or a step in it.
  piece.ranges = reading
    ? piece.ranges.filter(({ at }) => at === undefined)
    : exhausted
      ? piece.ranges.slice(1)
      : piece.ranges;
  piece.after = exhausted ? (range.until ?? piece.after) : until;
  piece.done = exhausted && isEnd(piece, range);
}
