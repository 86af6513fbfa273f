// Who may append. One broker leads a database's log; its term is an epoch.
//
//   term identity   kafka.brokers.epoch, drawn from a sequence: the fencing token, and the leader epoch (KIP-101) of
//                   every partition while the term lasts
//   alive           a session-level advisory lock on a connection of its own: Postgres drops it with the connection,
//                   so a restart after a crash need not wait for any clock
//   fenced          every append transaction takes the fence lock shared and checks the epoch (kafka.fence); a new
//                   term takes it exclusively while it writes its epoch, so it begins only when the appends of the
//                   old term have committed or gone, and none can follow
//
// The same step settles a COMMIT whose answer was lost: begin a new term, then read the log's end back.
import type pg from 'pg';
import { PostgresClient } from '../postgres/client.ts';
import { settleSession } from '../postgres/session-settings.ts';
import { OperationalError } from '../runtime/errors.ts';

const livenessLock = 5_742_861_191n;
/** Also in migrations/0001_log.sql, kafka.fence. */
const fenceLock = 5_742_861_192n;

export interface Term {
  readonly epoch: number;
  /** The floor of the global offset; what the segments hold may be beyond it. */
  readonly globalOffsetFloor: bigint;
  readonly connection: pg.Client;
}

export interface TermOptions {
  readonly databaseUrl: string;
  readonly brokerId: number;
  /** HOST:PORT as clients are told. */
  readonly advertised: string;
  /** How long another broker's lock is waited for, ms: a killed broker's backends need a moment to notice. */
  readonly patienceMs: number;
  /** Backends of this process's own earlier term: ended first, so that what they were committing is settled. */
  readonly formerBackends: readonly number[];
  /**
   * Of this process: the epoch of its last term, and those it has tried to begin since; kept up here. Where there are any
   * and the last term was none of them, another process has led meanwhile, or the database was set back, and what this one
   * holds in memory is no longer the log's.
   */
  readonly ownEpochs: Set<number>;
  /** Aborted: nobody wants the lead any more, and the lock is waited for no longer. */
  readonly signal: AbortSignal;
  /** Called once when the term's connection breaks. */
  readonly onLost: (error: Error) => void;
}

export async function beginTerm(options: TermOptions): Promise<Term> {
  const connection = new PostgresClient(options.databaseUrl, {
    application_name: 'millrace leader',
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
  });
  let begun = false;
  connection.on('error', error => {
    if (begun) options.onLost(error);
  });
  const giveUp = (): void => {
    connection.end().catch(() => {});
  };
  options.signal.throwIfAborted();
  await connection.connect();
  options.signal.addEventListener('abort', giveUp);
  try {
    options.signal.throwIfAborted();
    await connection.query(settleSession);
    // A machine that vanished without closing its connections keeps its lock until TCP gives up on it.
    await connection.query(
      `SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
              set_config('tcp_keepalives_count', '3', false)`,
    );
    if (options.formerBackends.length > 0) {
      await connection.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY($1) AND application_name LIKE 'millrace%'`,
        [options.formerBackends],
      );
    }
    await takeLivenessLock(connection, options.patienceMs);
    await connection.query('BEGIN');
    await connection.query('SELECT pg_advisory_xact_lock($1)', [fenceLock]);
    const { rows } = await connection.query<{ epoch: number; former: number | null; floor: string }>(
      `INSERT INTO kafka.brokers AS b (broker_id, epoch, advertised)
       VALUES ($1, nextval('kafka.broker_epochs'), $2)
       ON CONFLICT (broker_id) DO UPDATE
         SET epoch = excluded.epoch, advertised = excluded.advertised, started_at = now()
       RETURNING epoch, (SELECT max(epoch) FROM kafka.brokers) AS former,
         (SELECT coalesce(max(global_offset_next), 0) FROM kafka.brokers)::text AS floor`,
      [options.brokerId, options.advertised],
    );
    const row = rows[0]!;
    const { ownEpochs } = options;
    if (ownEpochs.size > 0 && !ownEpochs.has(row.former!)) throw ledByAnother();
    ownEpochs.add(row.epoch); // before COMMIT, whose answer may be lost
    // The fence knows a broker by its id: one with another id that led before is over too.
    await connection.query('UPDATE kafka.brokers SET epoch = $2 WHERE broker_id <> $1', [options.brokerId, row.epoch]);
    await connection.query('COMMIT');
    begun = true;
    ownEpochs.clear();
    ownEpochs.add(row.epoch);
    return { epoch: row.epoch, globalOffsetFloor: BigInt(row.floor), connection };
  } catch (error) {
    await connection.end().catch(() => {});
    throw error;
  } finally {
    options.signal.removeEventListener('abort', giveUp);
  }
}

const ledByAnother = (): OperationalError =>
  new OperationalError('another Millrace broker has led this database since this one did', {
    code: 'BROKER_RUNNING',
    retriable: false,
    hint: 'start this one again: it then reads the log’s ends anew',
  });

async function takeLivenessLock(connection: pg.Client, patienceMs: number): Promise<void> {
  try {
    await connection.query(`SELECT set_config('lock_timeout', $1, false)`, [`${patienceMs}ms`]);
    await connection.query('SELECT pg_advisory_lock($1)', [livenessLock]);
    await connection.query(`SELECT set_config('lock_timeout', '0', false)`);
  } catch (error) {
    if ((error as pg.DatabaseError).code !== '55P03') throw error;
    const { rows } = await connection.query<{ advertised: string; since: Date }>(
      'SELECT advertised, started_at AS since FROM kafka.brokers ORDER BY started_at DESC LIMIT 1',
    );
    const who = rows[0] ? ` (${rows[0].advertised}, since ${rows[0].since.toISOString()})` : '';
    throw new OperationalError(`another Millrace broker${who} is running on this database`, {
      code: 'BROKER_RUNNING',
      retriable: false,
      hint: 'stop it first, or give this one a database of its own with --database-url',
      cause: error,
    });
  }
}
