// The pool that everything but the log's writers and readers goes through (those have sessions of their own,
// session.ts, because they need bytes that pg's text results would copy twice).
import pg from 'pg';
import { type ClientOptions, PostgresClient } from './client.ts';
import { settleSession } from './session-settings.ts';

export type Pool = pg.Pool;

// int8 as bigint: offsets are int64 on the wire, and a string would invite arithmetic on it.
const types: pg.CustomTypesConfig = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === pg.types.builtins.INT8 && format !== 'binary') return BigInt;
    return pg.types.getTypeParser(oid, format);
  },
} as pg.CustomTypesConfig;

export interface PoolOptions {
  readonly max: number;
  readonly applicationName: string;
  /** Called when an idle connection breaks (a restart of Postgres); the pool replaces it by itself. */
  readonly onError?: (error: Error) => void;
}

const backends = new WeakMap<pg.ClientBase, number>();

/** The backend that serves a pooled connection: what the login tells is the pooler's own id where one is between. */
export const backendOf = (client: pg.ClientBase): number | undefined => backends.get(client);

export function openPool(databaseUrl: string, options: PoolOptions): Pool {
  const config: pg.PoolConfig = {
    Client: class extends PostgresClient {
      constructor(given: ClientOptions = {}) {
        super(databaseUrl, given);
      }
    },
    max: options.max,
    application_name: options.applicationName,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    types,
    verify(client, done) {
      client.query<{ pid: number }>(settleSession).then(({ rows }) => {
        backends.set(client, rows[0]!.pid);
        done();
      }, done);
    },
  };
  const pool = new pg.Pool(config);
  pool.on('error', error => options.onError?.(error));
  // A connection in use that ends between two queries says so by an event of its own, which without a listener would
  // end the process. Its next query fails, and the pool replaces it.
  pool.on('connect', client => client.on('error', () => {}));
  return pool;
}

/** Runs `work` in a transaction on one connection; rolls back and rethrows when it throws. */
export async function inTransaction<T>(pool: Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((rollbackError: Error) => {
      broken = rollbackError;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}
