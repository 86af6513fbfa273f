// All sinks of this Millrace: those of millrace.yaml and those made over HTTP (kafka.pipelines). They run while this broker
// leads; a part of the server that starts after the log and stops before it. What is done to one sink is done in turn.
import { OperationalError } from '../runtime/errors.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Defined, define, refusing } from '../storage/pipeline-definition.ts';
import { PipelineTurns } from '../storage/pipeline-turns.ts';
import { PipelineError, Pipelines } from '../storage/pipelines.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { readDefinition, type SinkDefinition } from './definition.ts';
import { noCounters, Sink, type SinkContext, type SinkStatus } from './sink.ts';

export interface SinksOptions {
  readonly context: SinkContext;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** The millrace.yaml they are in. */
  readonly file: string | undefined;
  readonly references: ReferenceSources;
}

type Origin = 'file' | 'http';

interface Entry extends Defined<SinkDefinition> {
  readonly name: string;
  readonly origin: Origin;
  readonly written: unknown;
  /** In kafka.sinks. */
  sinkId: number;
  /** The last there was. */
  sink: Sink | undefined;
  paused: boolean;
}

export interface ListedSink extends SinkStatus {
  readonly origin: Origin;
}

export interface DescribedSink extends ListedSink {
  /** As it was written: secrets are references. */
  readonly definition: unknown;
}

/** Where a sink goes on after a reset. */
export type ResetTo = 'earliest' | 'latest';

/** Committed offsets of groups without members expire; a sink that is idle or paused keeps its own. */
const keepEveryMs = 3_600_000;

export class Sinks implements Part {
  readonly name = 'sinks';
  readonly #options: SinksOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #pipelines: Pipelines;
  readonly #lane: WriteLane;
  readonly #turns = new PipelineTurns();
  #keeping: NodeJS.Timeout | undefined;

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: SinksOptions) {
    this.#options = options;
    const { context, definitions } = options;
    this.#pipelines = new Pipelines('sink', context.pool, context.term);
    this.#lane = new WriteLane(context.pool, context.term);
    for (const [name, written] of Object.entries(definitions)) {
      const definition = this.#read(name, written, options.file);
      const clash = this.#clash(definition);
      if (clash) throw clash;
      this.#add(name, 'file', written, definition);
    }
  }

  /** Begins them; that each reaches its table is not waited for. */
  async start(): Promise<void> {
    const { logger } = this.#options.context;
    for (const { name, definition: written } of await this.#pipelines.list()) {
      if (this.#entries.has(name)) {
        logger.warn({ sink: name }, 'the sink of the file hides one of the same name that was made over HTTP');
      } else {
        this.#define(this.#add(name, 'http', written, undefined));
      }
    }
    for (const entry of this.#entries.values()) {
      await this.#register(entry);
      if (!entry.paused) await this.#begin(entry);
    }
    await this.#keep();
    this.#keeping = setInterval(() => void this.#keep(), keepEveryMs);
    this.#keeping.unref();
  }

  status(): ListedSink[] {
    return Array.from(this.#entries.values(), entry => this.#statusOf(entry));
  }

  describe(name: string): DescribedSink {
    const entry = this.#known(name);
    // What was not understood may have a password in it.
    return { ...this.#statusOf(entry), definition: entry.broken ? undefined : entry.written };
  }

  async create(name: string, written: unknown): Promise<DescribedSink> {
    return this.#turns.take(name, async () => {
      if (this.#entries.has(name)) {
        throw new PipelineError('exists', `there is a sink ${name} already`, 'delete it first, or choose another name');
      }
      const definition = refusing(() => this.#read(name, written, undefined));
      const clash = this.#clash(definition);
      if (clash) throw new PipelineError('exists', clash.message, clash.hint);
      const entry = this.#add(name, 'http', written, definition);
      try {
        await this.#pipelines.add(name, written);
      } catch (error) {
        this.#entries.delete(name);
        throw error;
      }
      await this.#register(entry);
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Ends it for good, with the offsets of its group in the log; tables stay. */
  async delete(name: string): Promise<Record<string, never>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.origin === 'file') {
        const hint = 'take it out of there and restart Millrace';
        throw new PipelineError('file', `sink ${name} is in ${this.#options.file}`, hint);
      }
      await entry.sink?.stop();
      await this.#lane.transaction(async client => {
        await client.query('DELETE FROM kafka.sinks WHERE name = $1', [name]);
        await client.query('DELETE FROM kafka.consumer_offsets WHERE group_id = $1', [entry.definition?.group ?? '']);
      });
      await this.#pipelines.remove(name);
      this.#entries.delete(name);
      return {};
    });
  }

  /** Stops a sink until it is resumed, over restarts of Millrace. */
  async pause(name: string): Promise<DescribedSink> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      await this.#setPaused(entry, true);
      await entry.sink?.stop();
      return this.describe(name);
    });
  }

  /** Begins a sink that was paused or has failed; one that runs goes on. */
  async resume(name: string): Promise<DescribedSink> {
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
  async restart(name: string): Promise<DescribedSink> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.paused) throw new PipelineError('state', `sink ${name} is paused`, 'resume it');
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Moves the offsets of all its partitions. */
  async reset(name: string, to: ResetTo): Promise<DescribedSink> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      const definition = this.#define(entry);
      if (definition === undefined) throw new PipelineError('state', entry.broken!.message, entry.broken!.hint);
      await entry.sink?.stop();
      try {
        await this.#sinkOf(entry, definition).reset(to);
      } finally {
        if (!entry.paused) await this.#begin(entry);
      }
      return this.describe(name);
    });
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#turns.close();
    clearInterval(this.#keeping);
    const sinks = Array.from(this.#entries.values(), ({ sink }) => sink?.stop(hurry));
    await Promise.all([...sinks, this.#turns.done(hurry)]);
  }

  #add(name: string, origin: Origin, written: unknown, definition: SinkDefinition | undefined): Entry {
    const entry: Entry = {
      name,
      origin,
      written,
      definition,
      sinkId: -1,
      sink: undefined,
      paused: false,
      broken: undefined,
    };
    this.#entries.set(name, entry);
    return entry;
  }

  #read(name: string, written: unknown, file: string | undefined): SinkDefinition {
    return readDefinition(name, written, { file, references: this.#options.references });
  }

  /** Two sinks of one group would move each other's offsets. */
  #clash({ name, group }: SinkDefinition): OperationalError | undefined {
    for (const other of this.#entries.values()) {
      if (other.name === name || other.definition?.group !== group) continue;
      return new OperationalError(`sinks ${other.name} and ${name} have the same group ${group}`, {
        code: 'BAD_SETTING',
        hint: 'give each its own',
      });
    }
    return undefined;
  }

  #define(entry: Entry): SinkDefinition | undefined {
    const { context, file } = this.#options;
    const { name, origin, written } = entry;
    return define(
      entry,
      () => this.#read(name, written, origin === 'file' ? file : undefined),
      ({ message: reason, hint }) => context.logger.error({ sink: name, reason, hint }, 'a sink has failed'),
    );
  }

  async #register(entry: Entry): Promise<void> {
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ id: number; paused: boolean }>(
        `INSERT INTO kafka.sinks AS s (name) VALUES ($1)
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING sink_id AS id, paused`,
        [entry.name],
      ),
    );
    entry.sinkId = rows[0]!.id;
    entry.paused = rows[0]!.paused;
  }

  /** What ran before has ended when the new one begins. */
  async #begin(entry: Entry): Promise<void> {
    await entry.sink?.stop();
    const definition = this.#define(entry);
    if (definition === undefined || this.#turns.closed) return;
    entry.sink = this.#sinkOf(entry, definition);
    entry.sink.start();
  }

  #sinkOf({ sinkId, sink }: Entry, definition: SinkDefinition): Sink {
    return new Sink(this.#options.context, { definition, sinkId }, sink?.counters);
  }

  async #keep(): Promise<void> {
    const groups = Array.from(this.#entries.values(), ({ definition }) => definition?.group ?? '');
    await this.#lane
      .transaction(client =>
        client.query('UPDATE kafka.consumer_offsets SET committed_at = now() WHERE group_id = ANY ($1)', [groups]),
      )
      .catch((error: Error) => this.#options.context.logger.warn({ err: error }, 'sinks’ offsets were not kept'));
  }

  async #setPaused(entry: Entry, paused: boolean): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('UPDATE kafka.sinks SET paused = $2 WHERE name = $1', [entry.name, paused]),
    );
    entry.paused = paused;
  }

  #known(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new PipelineError('unknown', `there is no sink ${name}`);
    return entry;
  }

  #statusOf({ name, origin, sink, definition, paused, broken }: Entry): ListedSink {
    const status = sink?.status() ?? { ...nothing, ...noCounters(), name, group: definition?.group ?? '' };
    if (broken !== undefined) return { ...status, origin, state: 'failed', reason: broken.message, hint: broken.hint };
    return { ...status, origin, ...(paused ? { state: 'paused', reason: undefined, hint: undefined } : {}) };
  }
}

const nothing = { state: 'stopped', reason: undefined, hint: undefined, lag: 0n, partitions: [] } as const;
