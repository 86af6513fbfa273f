// All mirrors of this Millrace: those of millrace.yaml and those made over HTTP (kafka.pipelines). They run while this broker
// leads; a part of the server that starts after the log and stops before it. What is done to one mirror is done in turn.
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Defined, define, refusing } from '../storage/pipeline-definition.ts';
import { PipelineTurns } from '../storage/pipeline-turns.ts';
import { PipelineError, Pipelines } from '../storage/pipelines.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { type MirrorDefinition, readDefinition } from './definition.ts';
import { Mirror, type MirrorContext, type MirrorStatus } from './mirror.ts';

export interface MirrorsOptions {
  readonly context: MirrorContext;
  /** By name, as millrace.yaml has them. */
  readonly definitions: Readonly<Record<string, unknown>>;
  /** The millrace.yaml they are in. */
  readonly file: string | undefined;
  readonly references: ReferenceSources;
}

type Origin = 'file' | 'http';

interface Entry extends Defined<MirrorDefinition> {
  readonly name: string;
  readonly origin: Origin;
  readonly written: unknown;
  /** In kafka.mirrors. */
  mirrorId: number;
  /** The last there was. */
  mirror: Mirror | undefined;
  paused: boolean;
}

export interface ListedMirror extends MirrorStatus {
  readonly origin: Origin;
}

export interface DescribedMirror extends ListedMirror {
  /** As it was written: secrets are references. */
  readonly definition: unknown;
}

/** Records of a partition that are in the target one for one. */
export interface MappedRange {
  readonly topic: string;
  readonly partition: number;
  readonly targetTopic: string;
  readonly sourceOffset: bigint;
  readonly targetOffset: bigint;
  readonly records: bigint;
}

export interface MappedGroup {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly targetTopic: string;
  readonly sourceOffset: bigint;
  readonly targetOffset: bigint | null;
  readonly state: 'synced' | 'active' | 'moved';
}

export class Mirrors implements Part {
  readonly name = 'mirrors';
  readonly #options: MirrorsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #pipelines: Pipelines;
  readonly #lane: WriteLane;
  readonly #turns = new PipelineTurns();

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: MirrorsOptions) {
    this.#options = options;
    const { context, definitions } = options;
    this.#pipelines = new Pipelines('mirror', context.pool, context.term);
    this.#lane = new WriteLane(context.pool, context.term);
    for (const [name, written] of Object.entries(definitions)) {
      this.#add(name, 'file', written, this.#read(name, written, options.file));
    }
  }

  /** Begins them; that each reaches its target is not waited for. */
  async start(): Promise<void> {
    const { logger } = this.#options.context;
    for (const { name, definition: written } of await this.#pipelines.list()) {
      if (this.#entries.has(name)) {
        logger.warn({ mirror: name }, 'the mirror of the file hides one of the same name that was made over HTTP');
      } else {
        this.#define(this.#add(name, 'http', written, undefined));
      }
    }
    for (const entry of this.#entries.values()) {
      await this.#register(entry);
      if (!entry.paused) await this.#begin(entry);
    }
  }

  status(): ListedMirror[] {
    return Array.from(this.#entries.values(), entry => this.#statusOf(entry));
  }

  describe(name: string): DescribedMirror {
    const entry = this.#known(name);
    // What was not understood may have a password in it.
    return { ...this.#statusOf(entry), definition: entry.broken ? undefined : entry.written };
  }

  async create(name: string, written: unknown): Promise<DescribedMirror> {
    return this.#turns.take(name, async () => {
      if (this.#entries.has(name)) {
        const hint = 'delete it first, or choose another name';
        throw new PipelineError('exists', `there is a mirror ${name} already`, hint);
      }
      const entry = this.#add(
        name,
        'http',
        written,
        refusing(() => this.#read(name, written, undefined)),
      );
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

  /** Ends it for good, with what it knows of the target; topics and groups there stay. */
  async delete(name: string): Promise<Record<string, never>> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.origin === 'file') {
        const hint = 'take it out of there and restart Millrace';
        throw new PipelineError('file', `mirror ${name} is in ${this.#options.file}`, hint);
      }
      await entry.mirror?.stop();
      await this.#lane.transaction(client => client.query('DELETE FROM kafka.mirrors WHERE name = $1', [name]));
      await this.#pipelines.remove(name);
      this.#entries.delete(name);
      return {};
    });
  }

  /** Stops a mirror until it is resumed, over restarts of Millrace. */
  async pause(name: string): Promise<DescribedMirror> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      await this.#setPaused(entry, true);
      await entry.mirror?.stop();
      return this.describe(name);
    });
  }

  /** Begins a mirror that was paused or has failed; one that runs goes on. */
  async resume(name: string): Promise<DescribedMirror> {
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
  async restart(name: string): Promise<DescribedMirror> {
    return this.#turns.take(name, async () => {
      const entry = this.#known(name);
      if (entry.paused) throw new PipelineError('state', `mirror ${name} is paused`, 'resume it');
      await this.#begin(entry);
      return this.describe(name);
    });
  }

  /** Where its records are in the target, as kafka.mirror_offsets has it. */
  async offsets(name: string): Promise<MappedRange[]> {
    const { mirrorId, mirror } = this.#known(name);
    await mirror?.note();
    const { rows } = await this.#options.context.pool.query<MappedRange>(
      `SELECT p.topic, p.partition_id AS partition, p.target_topic AS "targetTopic", r.source_offset AS "sourceOffset",
              r.target_offset AS "targetOffset", r.records
       FROM kafka.mirror_partitions p JOIN kafka.topics t USING (topic_id) JOIN kafka.mirror_ranges r USING (copy_id)
       WHERE p.mirror_id = $1 AND ($2::text IS NULL OR p.cluster_id = $2) ORDER BY 1, 2, 4`,
      [mirrorId, this.#clusterOf(name) ?? null],
    );
    return rows;
  }

  /** What has become of committed offsets in the target. With `now`, they are written there first. */
  async groups(name: string, now: boolean): Promise<MappedGroup[]> {
    const { mirrorId, mirror } = this.#known(name);
    if (now) {
      if (mirror?.status().state !== 'running') {
        throw new PipelineError('state', `mirror ${name} does not run`, 'resume it, and ask again in a moment');
      }
      await mirror.syncGroups();
    }
    const { rows } = await this.#options.context.pool.query<MappedGroup>(
      `SELECT g.group_id AS group, p.topic, p.partition_id AS partition, p.target_topic AS "targetTopic",
              g.source_offset AS "sourceOffset", g.target_offset AS "targetOffset", g.state
       FROM kafka.mirror_partitions p JOIN kafka.mirror_groups g USING (copy_id)
       WHERE p.mirror_id = $1 AND ($2::text IS NULL OR p.cluster_id = $2) ORDER BY 1, 2, 3`,
      [mirrorId, this.#clusterOf(name) ?? null],
    );
    return rows;
  }

  async stop(hurry: AbortSignal): Promise<void> {
    this.#turns.close();
    const mirrors = Array.from(this.#entries.values(), ({ mirror }) => mirror?.stop(hurry));
    await Promise.all([...mirrors, this.#turns.done(hurry)]);
  }

  #clusterOf(name: string): string | undefined {
    return this.#known(name).mirror?.status().target.clusterId;
  }

  #add(name: string, origin: Origin, written: unknown, definition: MirrorDefinition | undefined): Entry {
    const none = { mirrorId: -1, mirror: undefined, paused: false, broken: undefined };
    const entry: Entry = { name, origin, written, definition, ...none };
    this.#entries.set(name, entry);
    return entry;
  }

  #read(name: string, written: unknown, file: string | undefined): MirrorDefinition {
    return readDefinition(name, written, { file, references: this.#options.references });
  }

  #define(entry: Entry): MirrorDefinition | undefined {
    const { context, file } = this.#options;
    const { name, origin, written } = entry;
    return define(
      entry,
      () => this.#read(name, written, origin === 'file' ? file : undefined),
      ({ message: reason, hint }) => context.logger.error({ mirror: name, reason, hint }, 'a mirror has failed'),
    );
  }

  async #register(entry: Entry): Promise<void> {
    const { rows } = await this.#lane.transaction(client =>
      client.query<{ id: number; paused: boolean }>(
        `INSERT INTO kafka.mirrors AS m (name) VALUES ($1)
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING mirror_id AS id, paused`,
        [entry.name],
      ),
    );
    entry.mirrorId = rows[0]!.id;
    entry.paused = rows[0]!.paused;
  }

  /** What ran before has ended when the new one begins. */
  async #begin(entry: Entry): Promise<void> {
    await entry.mirror?.stop();
    const definition = this.#define(entry);
    if (definition === undefined || this.#turns.closed) return;
    entry.mirror = new Mirror(this.#options.context, { definition, mirrorId: entry.mirrorId });
    entry.mirror.start();
  }

  async #setPaused(entry: Entry, paused: boolean): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('UPDATE kafka.mirrors SET paused = $2 WHERE name = $1', [entry.name, paused]),
    );
    entry.paused = paused;
  }

  #known(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new PipelineError('unknown', `there is no mirror ${name}`);
    return entry;
  }

  #statusOf({ name, origin, mirror, definition, paused, broken }: Entry): ListedMirror {
    const status = mirror?.status() ?? {
      ...nothing,
      name,
      target: { ...nothing.target, bootstrap: bootstrapOf(definition) },
    };
    if (broken !== undefined) return { ...status, origin, state: 'failed', reason: broken.message, hint: broken.hint };
    return { ...status, origin, ...(paused ? { state: 'paused', reason: undefined, hint: undefined } : {}) };
  }
}

const bootstrapOf = (definition: MirrorDefinition | undefined): string =>
  (definition?.target.bootstrap ?? []).map(({ host, port }) => `${host}:${port}`).join(',');

const nothing = {
  state: 'stopped',
  reason: undefined,
  hint: undefined,
  target: { bootstrap: '', clusterId: undefined, trouble: undefined },
  lag: 0n,
  lagMs: 0,
  heldBytes: 0,
  problems: [],
  groupsTrouble: undefined,
  partitions: [],
} as const;
