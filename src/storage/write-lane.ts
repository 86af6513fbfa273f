// One statement or transaction at a time, in the order asked for: what gives committed offsets and groups their order
// without locks of our own. A write whose answer was lost may still be running in its backend, and could then
// overwrite what a later write stored; so that backend is ended before the next write begins.
import pg from 'pg';
import { backendOf, type Pool } from '../postgres/pool.ts';
import type { Term } from './topics.ts';

/** The database did not do what was asked; the cause has been logged. */
export class StorageError extends Error {
  override name = 'StorageError';
  /** Whether asking again may work: not when the values themselves cannot be stored. */
  readonly retriable: boolean;

  constructor(message: string, cause?: Error) {
    super(message, { cause });
    this.retriable = cause === undefined || !cannotBeStored(cause);
  }
}

const endBackend = `SELECT pg_terminate_backend(pid, 5000) AS gone FROM pg_stat_activity
  WHERE pid = $1 AND application_name LIKE 'millrace%'`;

export class WriteLane {
  readonly #pool: Pool;
  readonly #term: (() => Term) | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #lostBackend: number | undefined;

  /** With `term`, a process whose term is over can no longer write. */
  constructor(pool: Pool, term?: () => Term) {
    this.#pool = pool;
    this.#term = term;
  }

  get term(): Term | undefined {
    return this.#term?.();
  }

  /** `work` runs one statement on `client`, and leaves no transaction open. */
  run<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => this.#run(work));
    this.#last = turn.catch(() => {});
    return turn;
  }

  transaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    return this.run(async client => {
      const { term } = this;
      try {
        await client.query(term ? `BEGIN; SELECT kafka.fence(${term.brokerId}, ${term.epoch})` : 'BEGIN');
        const result = await work(client);
        await client.query('COMMIT');
        return result;
      } catch (error) {
        if (sqlState(error) !== undefined) await client.query('ROLLBACK');
        throw error;
      }
    });
  }

  /** Resolves when everything asked for so far has ended. */
  async idle(): Promise<void> {
    await this.#last;
  }

  async #run<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      if (this.#lostBackend !== undefined) await this.#settle(client, this.#lostBackend);
      return await work(client);
    } catch (error) {
      if (sqlState(error) === undefined) {
        broken = error as Error;
        this.#lostBackend ??= backendOf(client);
      }
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async #settle(client: pg.PoolClient, backend: number): Promise<void> {
    const { rows } = await client.query<{ gone: boolean }>(endBackend, [backend]);
    if (rows[0]?.gone === false) {
      throw new Error(`backend ${backend}, which may still be writing, does not end`);
    }
    this.#lostBackend = undefined;
  }
}

/** The SQLSTATE of an error that Postgres reported; undefined for every other, after which the outcome is open. */
export function sqlState(error: unknown): string | undefined {
  // Class 57P: the server is ending the connection, perhaps in the middle of answering a COMMIT.
  return error instanceof pg.DatabaseError && error.code?.startsWith('57P') === false ? error.code : undefined;
}

/** A SQLSTATE after which the same may succeed: transaction rollback, resources, object state, operator, system error. */
export function mayPass(state: string): boolean {
  return /^(08|25|40|53|55|57|58)/.test(state);
}

/** A value that Postgres refuses (classes 22 and 54), such as a character that the database's encoding lacks. */
export function cannotBeStored(error: unknown): boolean {
  return /^(22|54)/.test(sqlState(error) ?? '');
}
