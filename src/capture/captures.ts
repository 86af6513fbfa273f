// All captures of this Millrace: those of millrace.yaml, and the one that serves kafka.produce. They run while this broker
// leads; a part of the server that starts after the log and stops before it.
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { Capture, type CaptureContext, type CaptureStatus } from './capture.ts';
import { type CaptureDefinition, readDefinition } from './definition.ts';
import { readProduceKey } from './produced-message.ts';

export interface CapturesOptions {
  readonly context: CaptureContext;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** What SQL may do, or undefined where kafka.produce is off. */
  readonly produce: { readonly autoCreate: boolean; readonly maxMessageBytes: number } | undefined;
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

  /** kafka.produce refuses until its slot is there: what nobody reads would be lost. */
  async #startProduce(): Promise<void> {
    const { context, produce } = this.#options;
    const { pool, logger } = context;
    if (produce === undefined) {
      await pool.query('UPDATE kafka.produce_settings SET enabled = false WHERE enabled');
      return;
    }
    const produceKey = await readProduceKey(pool);
    const { rows } = await pool.query<{ oid: string }>(
      'SELECT oid::text FROM pg_database WHERE datname = current_database()',
    );
    // Slots are the whole server's, and others of its databases may have a Millrace too.
    const slot = `millrace_sql_${rows[0]!.oid}`;
    const nothing = { tables: ['none.none'], messages: false, slot, publication: 'millrace_sql' };
    const definition = { ...readDefinition(sqlCapture, nothing), tables: [] };
    const capture = new Capture(context, { definition, produceKey });
    this.#captures.set(sqlCapture, capture);
    capture.start();
    void capture
      .reached('streaming')
      .then(() =>
        pool.query('UPDATE kafka.produce_settings SET enabled = true, auto_create = $1, max_message_bytes = $2', [
          produce.autoCreate,
          produce.maxMessageBytes,
        ]),
      )
      .catch((error: Error) => logger.error({ err: error }, 'kafka.produce cannot be served'));
  }

  get(name: string): Capture | undefined {
    return this.#captures.get(name);
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

  /** Begins a capture that is paused or has failed. */
  async resume(name: string): Promise<boolean> {
    const definition = this.#definitions.get(name);
    if (definition === undefined || this.#stopped) return false;
    await this.#captures.get(name)?.stop();
    await this.#options.context.pool.query('UPDATE kafka.captures SET paused = false WHERE name = $1', [name]);
    const capture = new Capture(this.#options.context, { definition });
    this.#captures.set(name, capture);
    capture.start();
    return true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(Array.from(this.#captures.values(), capture => capture.stop()));
  }
}
