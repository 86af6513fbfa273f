// All pipelines of one kind: those of millrace.yaml and those made over HTTP (kafka.pipelines). They run while this broker
// leads; a part of the server that starts after the log and stops before it. What is done to one of them is done in turn.
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import type { GivenDefinitions } from '../runtime/definition.ts';
import { OperationalError } from '../runtime/errors.ts';
import { type Defined, define, refusing } from './pipeline-definition.ts';
import { PipelineTurns } from './pipeline-turns.ts';
import { PipelineError, type PipelineKind, Pipelines } from './pipelines.ts';
import type { Term } from './topics.ts';
import { WriteLane } from './write-lane.ts';

export interface PipelineSetOptions {
  readonly context: { readonly pool: Pool; readonly term: () => Term; readonly logger: Logger };
  /** What was given at the start. */
  readonly definitions: GivenDefinitions;
}

/** One that is at work. */
export interface Running<S> {
  start(): void;
  stop(hurry?: AbortSignal): Promise<void>;
  status(): S;
}

export interface PipelineState {
  readonly state: string;
  readonly reason: string | undefined;
  readonly hint: string | undefined;
}

/** What is particular to a kind. D: what it is told to do, R: at work, S: what it does, T: what is known of its row. */
export interface PipelineFeature<D, R, S, T extends Registered> {
  readonly kind: Exclude<PipelineKind, 'capture'>;
  /** Their rows, with columns name and paused. */
  readonly table: string;
  /** Throws an OperationalError for what cannot be understood, or must not be here. */
  read(name: string, written: unknown, where: string | undefined): D;
  /** What two of them must not have both. */
  shared?(one: D, other: D): string | undefined;
  /** Makes its row where there is none. Undefined where that takes a definition, and there is none. */
  register(lane: WriteLane, name: string, definition: D | undefined): Promise<T | undefined>;
  /** `before`: the last there was. */
  make(definition: D, registered: T, before: R | undefined): R;
  /** Of one that has not begun. */
  idle(name: string, definition: D | undefined): S;
  /** What it has kept, after it has ended for good. */
  forget(lane: WriteLane, name: string, definition: D | undefined): Promise<void>;
}

export interface Registered {
  readonly id: number;
  readonly paused: boolean;
}

/** file: given at the start, by the file or a flag. */
export type Origin = 'file' | 'http';
export type Listed<S> = S & { readonly origin: Origin };
/** definition: as it was written; secrets are references. */
export type Described<S> = Listed<S> & { readonly definition: unknown };

interface Entry<D, R, T> extends Defined<D> {
  readonly name: string;
  /** The file or flag that gave it; undefined for one made over HTTP. */
  readonly where: string | undefined;
  readonly written: unknown;
  registered: T | undefined;
  paused: boolean;
  /** The last there was. */
  running: R | undefined;
}

const nouns: Readonly<Record<PipelineKind, string>> = {
  capture: 'a capture',
  sink: 'a sink',
  inbox: 'an inbox',
  mirror: 'a mirror',
};

export class PipelineSet<D, R extends Running<S>, S extends PipelineState, T extends Registered = Registered> {
  protected readonly lane: WriteLane;
  readonly #options: PipelineSetOptions;
  readonly #feature: PipelineFeature<D, R, S, T>;
  readonly #entries = new Map<string, Entry<D, R, T>>();
  readonly #pipelines: Pipelines;
  readonly #turns = new PipelineTurns();

  /** Throws an OperationalError for a definition of the start that cannot be understood. */
  constructor(options: PipelineSetOptions, feature: PipelineFeature<D, R, S, T>) {
    this.#options = options;
    this.#feature = feature;
    const { context, definitions } = options;
    this.lane = new WriteLane(context.pool, context.term);
    this.#pipelines = new Pipelines(feature.kind, context.pool, context.term);
    for (const [name, { written, where }] of Object.entries(definitions)) {
      const definition = feature.read(name, written, where);
      const clash = this.#clash(name, definition);
      if (clash) throw clash;
      this.#add(name, where, written, definition);
    }
  }

  /** Begins them; that each reaches what it works with is not waited for. */
  async start(): Promise<void> {
    const { logger } = this.#options.context;
    const { kind } = this.#feature;
    for (const { name, definition: written } of await this.#pipelines.list()) {
      if (this.#entries.has(name)) {
        logger.warn({ [kind]: name }, `the ${kind} of the file hides one of the same name that was made over HTTP`);
      } else {
        this.#define(this.#add(name, undefined, written, undefined));
      }
    }
    for (const entry of this.#entries.values()) await this.#begin(entry);
  }

  status(): Listed<S>[] {
    return Array.from(this.#entries.values(), entry => this.#statusOf(entry));
  }

  describe(name: string): Described<S> {
    const entry = this.#known(name);
    // What was not understood may have a password in it.
    return { ...this.#statusOf(entry), definition: entry.broken ? undefined : entry.written };
  }

  async create(name: string, written: unknown): Promise<Described<S>> {
    return this.#turns.take(name, async () => {
      const { kind } = this.#feature;
      if (this.#entries.has(name)) {
        const hint = 'delete it first, or choose another name';
        throw new PipelineError('exists', `there is ${nouns[kind]} ${name} already`, hint);
      }
      const definition = refusing(() => this.#feature.read(name, written, undefined));
      const clash = this.#clash(name, definition);
      if (clash) throw new PipelineError('exists', clash.message, clash.hint);
      const entry = this.#add(name, undefined, written, definition);
      try {
        await this.#pipelines.add(name, written);
      } catch (error) {
        this.#entries.delete(name);
        throw error;
      }
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Ends it for good, with what it has kept. */
  async delete(name: string): Promise<Record<string, never>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.where !== undefined) {
        const hint = 'take it out of there and restart Millrace';
        throw new PipelineError('file', `${this.#feature.kind} ${name} is in ${entry.where}`, hint);
      }
      await entry.running?.stop();
      await this.#feature.forget(this.lane, name, entry.definition);
      await this.#pipelines.remove(name);
      this.#entries.delete(name);
      return {};
    });
  }

  /** Stops it until it is resumed, over restarts of Millrace. */
  async pause(name: string): Promise<Described<S>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      await this.#setPaused(entry, true);
      await entry.running?.stop();
      return this.describe(name);
    });
  }

  /** Begins one that was paused or has failed; one that runs goes on. */
  async resume(name: string): Promise<Described<S>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      const wasPaused = entry.paused;
      await this.#setPaused(entry, false);
      const { state } = this.#statusOf(entry);
      if (wasPaused || state === 'failed' || state === 'stopped') await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Stops it and begins it again, with its secrets looked up anew. */
  async restart(name: string): Promise<Described<S>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.paused) throw new PipelineError('state', `${this.#feature.kind} ${name} is paused`, 'resume it');
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#turns.close();
    const all = Array.from(this.#entries.values(), ({ running }) => running?.stop(hurry));
    await Promise.all([...all, this.#turns.done(hurry)]);
  }

  /** What they are told to do, where that is understood. */
  protected definitions(): D[] {
    return Array.from(this.#entries.values()).flatMap(({ definition }) => definition ?? []);
  }

  /** Throws a PipelineError where there is none of the name. */
  protected known(name: string): { readonly id: number; readonly running: R | undefined } {
    const { registered, running } = this.#known(name);
    return { id: registered?.id ?? -1, running };
  }

  /** Runs `work` while it is stopped, with what is made of its definition, and begins it again. */
  protected async whileStopped(name: string, work: (made: R) => Promise<void>): Promise<Described<S>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      const definition = this.#define(entry);
      if (definition === undefined) throw new PipelineError('state', entry.broken!.message, entry.broken!.hint);
      await entry.running?.stop();
      try {
        await work(this.#feature.make(definition, entry.registered!, entry.running));
      } finally {
        await this.#begin(entry);
      }
      return this.describe(name);
    });
  }

  #add(name: string, where: string | undefined, written: unknown, definition: D | undefined): Entry<D, R, T> {
    const none = { registered: undefined, paused: false, running: undefined, broken: undefined };
    const entry: Entry<D, R, T> = { name, where, written, definition, ...none };
    this.#entries.set(name, entry);
    return entry;
  }

  #clash(name: string, definition: D): OperationalError | undefined {
    for (const other of this.#entries.values()) {
      if (other.name === name || other.definition === undefined) continue;
      const shared = this.#feature.shared?.(other.definition, definition);
      if (shared === undefined) continue;
      const which = this.#feature.kind === 'inbox' ? 'inboxes' : `${this.#feature.kind}s`;
      return new OperationalError(`${which} ${other.name} and ${name} have the same ${shared}`, {
        code: 'BAD_SETTING',
        hint: 'give each its own',
      });
    }
    return undefined;
  }

  #define(entry: Entry<D, R, T>): D | undefined {
    const { context } = this.#options;
    const { kind } = this.#feature;
    const { name, where, written } = entry;
    return define(
      entry,
      () => this.#feature.read(name, written, where),
      ({ message: reason, hint }) => context.logger.error({ [kind]: name, reason, hint }, `${nouns[kind]} has failed`),
    );
  }

  /** What ran before has ended when the new one begins. One that is paused is registered, and does not begin. */
  async #begin(entry: Entry<D, R, T>): Promise<void> {
    await entry.running?.stop();
    const definition = this.#define(entry);
    if (entry.registered === undefined) {
      entry.registered = await this.#feature.register(this.lane, entry.name, definition);
      entry.paused = entry.registered?.paused ?? false;
    }
    if (definition === undefined || entry.registered === undefined || entry.paused || this.#turns.closed) return;
    entry.running = this.#feature.make(definition, entry.registered, entry.running);
    entry.running.start();
  }

  async #setPaused(entry: Entry<D, R, T>, paused: boolean): Promise<void> {
    await this.lane.transaction(client =>
      client.query(`UPDATE ${this.#feature.table} SET paused = $2 WHERE name = $1`, [entry.name, paused]),
    );
    entry.paused = paused;
  }

  #known(name: string): Entry<D, R, T> {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new PipelineError('unknown', `there is no ${this.#feature.kind} ${name}`);
    return entry;
  }

  #statusOf({ name, where, running, definition, paused, broken }: Entry<D, R, T>): Listed<S> {
    const status = running?.status() ?? this.#feature.idle(name, definition);
    const origin = where === undefined ? 'http' : 'file';
    if (broken !== undefined) return { ...status, origin, state: 'failed', reason: broken.message, hint: broken.hint };
    return { ...status, origin, ...(paused ? { state: 'paused', reason: undefined, hint: undefined } : {}) };
  }
}

/** Makes a row of the name, with a number and whether it is paused. */
export async function registerRow(lane: WriteLane, table: string, idColumn: string, name: string): Promise<Registered> {
  const { rows } = await lane.transaction(client =>
    client.query<Registered>(
      `INSERT INTO ${table} (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name
       RETURNING ${idColumn} AS id, paused`,
      [name],
    ),
  );
  return rows[0]!;
}
