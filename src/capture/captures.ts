// All captures of this Millrace: those of millrace.yaml, and the one that serves kafka.produce. They run while this broker
// leads; a part of the server that starts after the log and stops before it.
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { Capture, type CaptureContext, type CaptureState, type CaptureStatus } from './capture.ts';
import { type CaptureDefinition, readDefinition } from './definition.ts';
import { readProduceKey } from './produced-message.ts';

export interface CapturesOptions {
  readonly context: CaptureContext;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** What SQL may do, or undefined where kafka.produce is off. */
  readonly produce: SqlProduce | undefined;
}

export interface SqlProduce {
  readonly autoCreate: boolean;
  readonly maxMessageBytes: number;
}

/** The name of the capture that serves kafka.produce. */
export const sqlCapture = 'sql';

export class Captures implements Part {
  readonly name = 'captures';
  readonly #options: CapturesOptions;
  readonly #definitions: ReadonlyMap<string, CaptureDefinition>;
  readonly #captures = new Map<string, Capture>();
  #stopped = false;

  /** Throws an OperationalError for a definition that cannot be understood. */
  constructor(options: CapturesOptions) {
    this.#options = options;
    if (options.definitions[sqlCapture] !== undefined) {
      throw new OperationalError(`a capture cannot be called ${sqlCapture}`, {
        code: 'BAD_SETTING',
        hint: 'that is the one which serves kafka.produce; choose another name',
      });
    }
    this.#definitions = new Map(
      Object.entries(options.definitions).map(([name, value]) => [name, readDefinition(name, value)]),
    );
  }

  /** Begins them; that each reaches its source is not waited for. */
  async start(): Promise<void> {
    const { pool } = this.#options.context;
    const { rows } = await pool.query<{ name: string }>('SELECT name FROM kafka.captures WHERE paused');
    const paused = new Set(rows.map(row => row.name));
    for (const [name, definition] of this.#definitions) {
      const capture = new Capture(this.#options.context, { definition });
      this.#captures.set(name, capture);
      if (!paused.has(name)) capture.start();
    }
    await this.#startProduce();
  }

  /**
   * kafka.produce refuses until its slot is there, and when it is lost: what nobody reads would be lost. That it cannot be
   * served keeps nothing else from starting.
   */
  async #startProduce(): Promise<void> {
    const { context, produce } = this.#options;
    const { pool } = context;
    // Slots are the whole server's, and others of its databases may have a Millrace too.
    const { rows } = await pool.query<{ slot: string; held: string | null }>(
      `SELECT 'millrace_sql_' || oid AS slot,
              (SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
               FROM pg_replication_slots WHERE slot_name = 'millrace_sql_' || oid) AS held
       FROM pg_database WHERE datname = current_database()`,
    );
    const { slot, held } = rows[0]!;
    if (produce === undefined) {
      await pool.query('UPDATE kafka.produce_settings SET enabled = false WHERE enabled');
      if (held !== null) {
        context.logger.warn(
          {
            slot,
            held,
            hint: `run: SELECT pg_drop_replication_slot('${slot}'); DELETE FROM kafka.captures WHERE name = '${sqlCapture}'`,
          },
          'sql.produce is off, and its replication slot still holds back WAL',
        );
      }
      return;
    }
    const produceKey = await readProduceKey(pool);
    const nothing = { tables: ['none.none'], messages: false, slot, publication: 'millrace_sql' };
    const definition = { ...readDefinition(sqlCapture, nothing), tables: [] };
    const onState = (state: CaptureState, reason?: string, hint?: string): void => {
      if (state === 'failed') context.logger.warn({ reason, hint }, 'kafka.produce is off: SQL cannot make records');
      if (state === 'failed' || state === 'streaming') void this.#enableProduce(state === 'streaming', produce);
    };
    const capture = new Capture(context, { definition, produceKey, onState });
    this.#captures.set(sqlCapture, capture);
    capture.start();
  }

  #enableProduce(enabled: boolean, { autoCreate, maxMessageBytes }: SqlProduce): Promise<void> {
    const { pool, logger } = this.#options.context;
    const query = 'UPDATE kafka.produce_settings SET enabled = $1, auto_create = $2, max_message_bytes = $3';
    return pool.query(query, [enabled, autoCreate, maxMessageBytes]).then(
      () => {},
      // The capture has lost the same database, and says so again when it has it back.
      (error: Error) => logger.warn({ err: error, enabled }, 'kafka.produce was not told its state'),
    );
  }

  status(): CaptureStatus[] {
    return Array.from(this.#captures.values(), capture => capture.status());
  }

  /** Stops a capture until it is resumed, over restarts of Millrace. False where there is none of that name. */
  async pause(name: string): Promise<boolean> {
    const capture = this.#captures.get(name);
    if (capture === undefined || name === sqlCapture) return false;
    await this.#options.context.pool.query('UPDATE kafka.captures SET paused = true WHERE name = $1', [name]);
    await capture.stop();
    return true;
  }

  /** Has the tables that match be read again while the capture streams. Returns how many, or undefined. */
  async resnapshot(name: string, pattern: string): Promise<number | undefined> {
    return name === sqlCapture ? undefined : this.#captures.get(name)?.resnapshot(pattern);
  }

  /** Begins a capture that is paused or has failed. */
  async resume(name: string): Promise<boolean> {
    const definition = this.#definitions.get(name);
    if (this.#stopped) return false;
    if (name === sqlCapture && this.#captures.has(name)) {
      await this.#captures.get(name)!.stop();
      await this.#startProduce();
      return true;
    }
    if (definition === undefined) return false;
    await this.#captures.get(name)?.stop();
    await this.#options.context.pool.query('UPDATE kafka.captures SET paused = false WHERE name = $1', [name]);
    const capture = new Capture(this.#options.context, { definition });
    this.#captures.set(name, capture);
    capture.start();
    return true;
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#stopped = true;
    await Promise.all(Array.from(this.#captures.values(), capture => capture.stop(hurry)));
  }
}
