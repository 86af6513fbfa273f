// All sinks of this Millrace. They run while this broker leads; a part of the server that starts after the log and stops
// before it.
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { readDefinition, type SinkDefinition } from './definition.ts';
import { Sink, type SinkContext, type SinkStatus } from './sink.ts';

export interface SinksOptions {
  readonly context: SinkContext;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** Where they are written, for messages. */
  readonly where: string;
}

/** Where a sink goes on after a reset; each partition's own end for latest. */
export type ResetTo = 'earliest' | 'latest';

/** Committed offsets of groups without members expire; a sink that is idle or paused keeps its own. */
const keepEveryMs = 3_600_000;

export class Sinks implements Part {
  readonly name = 'sinks';
  readonly #options: SinksOptions;
  readonly #definitions: ReadonlyMap<string, SinkDefinition>;
  readonly #ids = new Map<string, number>();
  readonly #sinks = new Map<string, Sink>();
  readonly #paused = new Set<string>();
  readonly #lane: WriteLane;
  #keeping: NodeJS.Timeout | undefined;
  /** Changes of one sink come one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #stopped = false;

  /** Throws an OperationalError for a definition that cannot be understood. */
  constructor(options: SinksOptions) {
    this.#options = options;
    const { context, definitions, where } = options;
    this.#lane = new WriteLane(context.pool, context.term);
    this.#definitions = new Map(
      Object.entries(definitions).map(([name, value]) => [name, readDefinition(name, value, where)]),
    );
    const groups = new Map<string, string>();
    for (const { name, group } of this.#definitions.values()) {
      const other = groups.get(group);
      if (other !== undefined) {
        throw new OperationalError(`sinks.${name}.group in ${where}: sink ${other} has group ${group} too`, {
          code: 'BAD_SETTING',
          hint: 'each sink needs a group of its own',
        });
      }
      groups.set(group, name);
    }
  }

  /** Begins them; that each reaches its table is not waited for. */
  async start(): Promise<void> {
    if (this.#definitions.size === 0) return;
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ name: string; id: number; paused: boolean }>(
        `INSERT INTO kafka.sinks AS s (name) SELECT unnest($1::text[])
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING name, sink_id AS id, paused`,
        [[...this.#definitions.keys()]],
      ),
    );
    for (const { name, id, paused } of rows) {
      this.#ids.set(name, id);
      if (paused) this.#paused.add(name);
      else this.#begin(name);
    }
    await this.#keep();
    this.#keeping = setInterval(() => void this.#keep(), keepEveryMs);
    this.#keeping.unref();
  }

  #begin(name: string): void {
    if (this.#stopped) return;
    const before = this.#sinks.get(name)?.counters;
    const sink = new Sink(
      this.#options.context,
      { definition: this.#definitions.get(name)!, sinkId: this.#ids.get(name)! },
      before,
    );
    this.#sinks.set(name, sink);
    sink.start();
  }

  async #keep(): Promise<void> {
    const groups = Array.from(this.#definitions.values(), ({ group }) => group);
    await this.#lane
      .transaction(client =>
        client.query('UPDATE kafka.consumer_offsets SET committed_at = now() WHERE group_id = ANY ($1)', [groups]),
      )
      .catch((error: Error) => this.#options.context.logger.warn({ err: error }, 'sinks’ offsets were not kept'));
  }

  status(): SinkStatus[] {
    return Array.from(this.#definitions.values(), definition => {
      const sink = this.#sinks.get(definition.name);
      const status = (sink ?? new Sink(this.#options.context, { definition, sinkId: -1 })).status();
      return this.#paused.has(definition.name) ? { ...status, state: 'paused' } : status;
    });
  }

  /** Stops a sink until it is resumed, over restarts too. False where there is none of the name. */
  pause(name: string): Promise<boolean> {
    return this.#change(name, async () => {
      await this.#setPaused(name, true);
      await this.#sinks.get(name)?.stop();
    });
  }

  /** Begins a sink that was paused or has failed; one that runs goes on. */
  resume(name: string): Promise<boolean> {
    return this.#change(name, async () => {
      await this.#setPaused(name, false);
      const state = this.#sinks.get(name)?.status().state;
      if (state !== undefined && state !== 'failed' && state !== 'stopped') return;
      this.#begin(name);
    });
  }

  restart(name: string): Promise<boolean> {
    return this.#change(name, async () => {
      await this.#sinks.get(name)?.stop();
      if (!this.#paused.has(name)) this.#begin(name);
    });
  }

  /** Moves the offsets of all its partitions. */
  reset(name: string, to: ResetTo): Promise<boolean> {
    return this.#change(name, async () => {
      await this.#sinks.get(name)?.stop();
      await this.#sinks.get(name)?.reset(to);
      if (!this.#paused.has(name)) this.#begin(name);
    });
  }

  async #setPaused(name: string, paused: boolean): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('UPDATE kafka.sinks SET paused = $2 WHERE name = $1', [name, paused]),
    );
    if (paused) this.#paused.add(name);
    else this.#paused.delete(name);
  }

  #change(name: string, work: () => Promise<void>): Promise<boolean> {
    const turn = this.#last.then(async () => {
      if (!this.#ids.has(name)) return false;
      await work();
      return true;
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  async stop(hurry?: AbortSignal): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#keeping);
    await Promise.all(Array.from(this.#sinks.values(), sink => sink.stop(hurry)));
  }
}
