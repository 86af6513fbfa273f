// One connection to the target database, and the transaction that takes a batch there: the rows of all its runs, then the
// offsets, then COMMIT. Rows, offsets and the promise of both are one.
import { PostgresError, Session } from '../postgres/session.ts';
import type { Batch, Run } from './batch.ts';
import type { Mapping } from './mapping.ts';
import type { Move, Progress } from './progress.ts';
import { applyRows, copyInto, createStage, keepUnique } from './statements.ts';

export interface TableWriterOptions {
  readonly databaseUrl: string;
  readonly progress: Progress;
  readonly onLost: (error: Error) => void;
}

// The rows are in the log until their offsets are committed: what a crash takes back is written again. So nothing waits for
// the disk here, and rows and offsets are lost or kept together.
const settings = `SET synchronous_commit = off; SET work_mem = '32MB'; SET client_min_messages = error`;

/** Temporary tables kept. */
const maxStages = 100;

export class TableWriter {
  readonly #session: Session;
  readonly #progress: Progress;
  readonly #stages = new Map<Mapping, string>();
  #nextStage = 0;

  private constructor(session: Session, progress: Progress) {
    this.#session = session;
    this.#progress = progress;
  }

  static async open({ databaseUrl, progress, onLost }: TableWriterOptions): Promise<TableWriter> {
    const session = await Session.open(databaseUrl, { applicationName: 'millrace sink', onLost });
    await session.execute(settings);
    return new TableWriter(session, progress);
  }

  /** Resolves after COMMIT. Throws PostgresError, OffsetsMoved, or ConnectionLostError: then it may have committed. */
  async write(batch: Batch): Promise<void> {
    const moves = movesOf(batch);
    const { sql, copies } = await this.#encode(batch);
    const session = this.#session;
    try {
      // One round trip: what follows a statement that fails, fails too.
      const rows = session.execute(['BEGIN', ...sql].join('; '), copies);
      const offsets = this.#progress.move(session, moves);
      const [written, advanced] = await Promise.allSettled([rows, offsets]);
      if (written.status === 'rejected') throw written.reason;
      if (advanced.status === 'rejected') throw advanced.reason;
      await session.execute('COMMIT');
    } catch (error) {
      if (!session.lost) await session.execute('ROLLBACK');
      throw error;
    }
    await this.#progress.moved(moves);
    if (this.#stages.size > maxStages) await this.#dropStages();
  }

  /** Of mappings that are likely to be over; the others make theirs again. */
  async #dropStages(): Promise<void> {
    await this.#session.execute(`DROP TABLE IF EXISTS ${[...this.#stages.values()].join(', ')}`);
    this.#stages.clear();
  }

  async #encode(batch: Batch) {
    const sql = batch.hopes.map(keepUnique);
    const copies: ReturnType<Run['copy']['finish']>[] = [];
    for (const step of batch.steps) {
      if ('truncate' in step) {
        sql.push(`TRUNCATE ${step.truncate.table.sql}`);
      } else if (step.to > step.from) {
        const stage = step.direct ? '' : await this.#stageOf(step.mapping);
        sql.push(copyInto(step, stage), ...applyRows(step, stage, step));
        copies.push(step.copy.finish());
      }
    }
    return { sql, copies };
  }

  /** The temporary table of a mapping; a mapping is made anew when its table has changed. */
  async #stageOf(mapping: Mapping): Promise<string> {
    const known = this.#stages.get(mapping);
    if (known !== undefined) return known;
    const stage = `pg_temp.millrace_stage_${this.#nextStage++}`;
    await this.#session.execute(createStage(stage, mapping));
    this.#stages.set(mapping, stage);
    return stage;
  }

  async end(): Promise<void> {
    await this.#session.end();
  }

  destroy(): void {
    this.#session.destroy();
  }
}

export function movesOf(batch: Batch): Move[] {
  return Array.from(batch.offsets, ([{ inlet, partition }, { expected, next }]) => ({
    topic: inlet.topic,
    partition,
    expected,
    next,
  }));
}

/** What Postgres says of a record that does not fit: data, a constraint, what a trigger or a view's check refuses. */
export function isDataError(error: unknown): error is PostgresError {
  return error instanceof PostgresError && /^(22|23|44|P0001|54)/.test(error.code);
}

/** The table is not as it was when it was read. */
export function isSchemaError(error: unknown): boolean {
  return error instanceof PostgresError && /^(42P01|42703|42804|42846|42P10|428C9|0A000|26000)$/.test(error.code);
}

/** After these the same may succeed: deadlocks, serialization. */
export function isTransient(error: unknown): boolean {
  return error instanceof PostgresError && /^40/.test(error.code);
}
