// The inboxes that this process fills: those of millrace.yaml and those made over HTTP (kafka.pipelines). One that is paused
// is not filled, and is served all the same. What is done to one inbox is done in turn.
import type { Logger } from 'pino';
import type { Pool } from '../postgres/pool.ts';
import { OperationalError } from '../runtime/errors.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Defined, define, refusing } from '../storage/pipeline-definition.ts';
import { PipelineTurns } from '../storage/pipeline-turns.ts';
import { PipelineError, Pipelines } from '../storage/pipelines.ts';
import type { Term } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { Appender } from './appender.ts';
import { type InboxDefinition, readDefinition } from './definition.ts';
import type { Inbox, InboxEvent } from './inbox.ts';
import { Ingest, type IngestContext, type IngestCounters, type IngestState, noCounters } from './ingest.ts';

export interface InboxesOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  readonly ingest: Omit<IngestContext, 'logger'> & { readonly term: () => Term };
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** The millrace.yaml they are in. */
  readonly file: string | undefined;
  /** Of the secrets of webhooks. */
  readonly references: ReferenceSources;
  /** An inbox is there to be served. */
  readonly onOpened: (inbox: Inbox, definition: InboxDefinition) => void;
  /** What has been committed, in order, up to number `end`. */
  readonly onAppended: (inbox: string, events: readonly InboxEvent[], end: bigint) => void;
  /** It is about to be dropped: nobody may read it any more. */
  readonly onDeleted: (inbox: string) => Promise<void>;
  /** Throws an OperationalError where inboxes must not be served. */
  readonly assertServable: () => void;
}

type Origin = 'file' | 'http';

interface Entry extends Defined<InboxDefinition> {
  readonly name: string;
  readonly origin: Origin;
  readonly written: unknown;
  /** Once it has been made. */
  appender: Appender | undefined;
  /** The last there was. */
  ingest: Ingest | undefined;
  paused: boolean;
}

export interface FilledInbox extends IngestCounters {
  readonly origin: Origin;
  readonly state: IngestState | 'paused' | 'failed';
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  /** Records that are not in the inbox yet. */
  readonly lag: bigint;
}

export class Inboxes {
  readonly #options: InboxesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #pipelines: Pipelines;
  readonly #lane: WriteLane;
  readonly #turns = new PipelineTurns();

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: InboxesOptions) {
    this.#options = options;
    const { pool, ingest, definitions, file, references, assertServable } = options;
    this.#pipelines = new Pipelines('inbox', pool, ingest.term);
    this.#lane = new WriteLane(pool, ingest.term);
    for (const [name, written] of Object.entries(definitions)) {
      const definition = readDefinition(name, written, file, references);
      const clash = this.#clash(definition);
      if (clash) throw clash;
      this.#add(name, 'file', written, definition);
    }
    if (this.#entries.size > 0) assertServable();
  }

  /** Makes those that are not there yet, and begins to fill them. */
  async start(): Promise<void> {
    const { logger, assertServable } = this.#options;
    const stored = await this.#pipelines.list();
    if (stored.length > 0) assertServable();
    for (const { name, definition: written } of stored) {
      if (this.#entries.has(name)) {
        logger.warn({ inbox: name }, 'the inbox of the file hides one of the same name that was made over HTTP');
      } else {
        this.#define(this.#add(name, 'http', written, undefined));
      }
    }
    for (const entry of this.#entries.values()) await this.#begin(entry);
  }

  names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** Undefined where this process does not fill it. */
  status(name: string): FilledInbox | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    const { origin, ingest, paused, broken } = entry;
    const status = { hint: undefined, ...(ingest?.status() ?? nothing), origin };
    if (broken !== undefined) return { ...status, state: 'failed', reason: broken.message, hint: broken.hint };
    return paused ? { ...status, state: 'paused', reason: undefined } : status;
  }

  /** As it was written; undefined where it was not understood. */
  definition(name: string): unknown {
    const entry = this.#known(name);
    return entry.broken ? undefined : entry.written;
  }

  async create(name: string, written: unknown): Promise<void> {
    await this.#turns.take(name, async () => {
      if (this.#entries.has(name)) {
        throw new PipelineError(
          'exists',
          `there is an inbox ${name} already`,
          'delete it first, or choose another name',
        );
      }
      refusing(() => this.#options.assertServable());
      const definition = refusing(() => readDefinition(name, written, undefined, this.#options.references));
      const clash = this.#clash(definition);
      if (clash) throw new PipelineError('exists', clash.message, clash.hint);
      const entry = this.#add(name, 'http', written, definition);
      try {
        await this.#pipelines.add(name, written);
      } catch (error) {
        this.#entries.delete(name);
        throw error;
      }
      await this.#begin(entry);
    });
  }

  /** Ends it for good, with all it holds and the offsets of its group. */
  async delete(name: string): Promise<void> {
    await this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.origin === 'file') {
        const hint = 'take it out of there and restart Millrace';
        throw new PipelineError('file', `inbox ${name} is in ${this.#options.file}`, hint);
      }
      await entry.ingest?.stop();
      await this.#options.onDeleted(name);
      await this.#lane.transaction(async client => {
        await client.query('SELECT kafka.inbox_drop($1)', [name]);
        await client.query('DELETE FROM kafka.consumer_offsets WHERE group_id = $1', [entry.definition?.group ?? '']);
      });
      await this.#pipelines.remove(name);
      this.#entries.delete(name);
    });
  }

  /** Fills it no more until it is resumed, over restarts of Millrace. */
  async pause(name: string): Promise<void> {
    await this.#turns.take(name, async () => {
      const entry = this.#known(name);
      await this.#setPaused(entry, true);
      await entry.ingest?.stop();
    });
  }

  /** Begins to fill one that was paused or could not be understood; one that is filled goes on. */
  async resume(name: string): Promise<void> {
    await this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (!entry.paused && entry.broken === undefined) return;
      await this.#setPaused(entry, false);
      await this.#begin(entry);
    });
  }

  async restart(name: string): Promise<void> {
    await this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.paused) throw new PipelineError('state', `inbox ${name} is paused`, 'resume it');
      await this.#begin(entry);
    });
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#turns.close();
    const ingests = Array.from(this.#entries.values(), ({ ingest }) => ingest?.stop());
    await Promise.all([...ingests, this.#turns.done(hurry)]);
  }

  #add(name: string, origin: Origin, written: unknown, definition: InboxDefinition | undefined): Entry {
    const entry: Entry = {
      name,
      origin,
      written,
      definition,
      appender: undefined,
      ingest: undefined,
      paused: false,
      broken: undefined,
    };
    this.#entries.set(name, entry);
    return entry;
  }

  /** Two inboxes of one group would move each other's offsets. */
  #clash({ name, group }: InboxDefinition): OperationalError | undefined {
    for (const other of this.#entries.values()) {
      if (other.name === name || other.definition?.group !== group) continue;
      return new OperationalError(`inboxes ${other.name} and ${name} have the same group ${group}`, {
        code: 'BAD_SETTING',
        hint: 'give each its own',
      });
    }
    return undefined;
  }

  #define(entry: Entry): InboxDefinition | undefined {
    const { logger, file, references } = this.#options;
    const { name, origin, written } = entry;
    return define(
      entry,
      () => readDefinition(name, written, origin === 'file' ? file : undefined, references),
      ({ message: reason, hint }) => logger.error({ inbox: name, reason, hint }, 'an inbox has failed'),
    );
  }

  /** What ran before has ended when the new one begins. */
  async #begin(entry: Entry): Promise<void> {
    await entry.ingest?.stop();
    const definition = this.#define(entry);
    if (definition === undefined || this.#turns.closed) return;
    const { pool, logger, ingest, onOpened, onAppended } = this.#options;
    if (entry.appender === undefined) {
      const { appender, paused } = await Appender.open(pool, definition, ingest.term);
      Object.assign(entry, { appender, paused });
      onOpened(appender.inbox, definition);
    }
    const { name, appender } = entry;
    if (entry.paused || appender === undefined) return;
    const { log, topics } = ingest;
    const filled = (events: readonly InboxEvent[], end: bigint): void => onAppended(name, events, end);
    const options = { log, topics, logger, definition, appender, onAppended: filled };
    entry.ingest = new Ingest(options, entry.ingest?.counters);
    entry.ingest.start();
  }

  async #setPaused(entry: Entry, paused: boolean): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('UPDATE kafka.inboxes SET paused = $2 WHERE name = $1', [entry.name, paused]),
    );
    entry.paused = paused;
  }

  #known(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new PipelineError('unknown', `there is no inbox ${name}`);
    return entry;
  }
}

const nothing = { state: 'stopped', reason: undefined, lag: 0n, ...noCounters() } as const;
