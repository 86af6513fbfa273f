// All mirrors of this Millrace: what PipelineSet does with those of a kind, and where records and groups are in their targets.
import { z } from 'zod';
import type { Pool } from '../postgres/pool.ts';
import { parseDefinition } from '../runtime/definition.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { refusing } from '../storage/pipeline-definition.ts';
import {
  type Described,
  type Listed,
  PipelineSet,
  type PipelineSetOptions,
  registerRow,
} from '../storage/pipeline-set.ts';
import { PipelineError } from '../storage/pipelines.ts';
import { type Primary, SwitchFailed } from './cutover.ts';
import { bootstrapOf, type MirrorDefinition, readDefinition } from './definition.ts';
import { Mirror, type MirrorStatus } from './mirror.ts';
import { type TopicSettings, topicSettingsSchema } from './modes.ts';
import { type Plan, planOf } from './plan.ts';
import { type Replayed, replay, replaySchema } from './replay.ts';
import type { MirrorContext } from './session.ts';

/** What is set for a topic over HTTP. */
export interface GivenMode {
  readonly topic: string;
  readonly settings: TopicSettings;
}

/** How long a mirror is waited for that has begun again, ms. */
const runsWithinMs = 5000;

const switchSchema = z.strictObject({
  topic: z.string().optional(),
  /** How long producers are held at the most. */
  timeoutMs: z.number().int().min(100).max(300_000).default(10_000),
});

export interface MirrorsOptions extends PipelineSetOptions {
  readonly context: MirrorContext;
  readonly references: ReferenceSources;
}

export type ListedMirror = Listed<MirrorStatus>;

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

export class Mirrors extends PipelineSet<MirrorDefinition, Mirror, MirrorStatus> implements Part {
  readonly name = 'mirrors';
  readonly #pool: Pool;
  readonly #context: MirrorContext;
  /** Names of mirrors that are in the middle of a cut-over or back. */
  readonly #switching = new Set<string>();

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: MirrorsOptions) {
    const { context, references } = options;
    super(options, {
      kind: 'mirror',
      table: 'kafka.mirrors',
      read: (name, written, where) => readDefinition(name, written, { file: where, references }),
      register: (lane, name) => registerRow(lane, 'kafka.mirrors', 'mirror_id', name),
      make: (definition, { id }) => new Mirror(context, { definition, mirrorId: id }),
      idle: (name, definition) => {
        const remote = definition && { bootstrap: bootstrapOf(definition), clusterId: undefined, trouble: undefined };
        return { ...nothing, name, target: definition?.target && remote, source: definition?.source && remote };
      },
      // What it knows of the target; topics and groups there stay.
      async forget(lane, name) {
        await lane.transaction(client => client.query('DELETE FROM kafka.mirrors WHERE name = $1', [name]));
      },
    });
    this.#pool = context.pool;
    this.#context = context;
  }

  /** Where its records are in the target, as kafka.mirror_offsets has it. */
  async offsets(name: string): Promise<MappedRange[]> {
    const { id, running: mirror } = this.known(name);
    await mirror?.note();
    const { rows } = await this.#pool.query<MappedRange>(
      `SELECT p.topic, p.partition_id AS partition, p.target_topic AS "targetTopic", r.source_offset AS "sourceOffset",
              r.target_offset AS "targetOffset", r.records
       FROM kafka.mirror_copies p JOIN kafka.mirror_ranges r USING (copy_id)
       WHERE p.mirror_id = $1 AND ($2::text IS NULL OR p.cluster_id = $2) ORDER BY 1, 2, 4`,
      [id, this.#clusterOf(name) ?? null],
    );
    return rows;
  }

  /** What has become of committed offsets in the target. With `now`, they are written there first. */
  async groups(name: string, now: boolean): Promise<MappedGroup[]> {
    const { id, running: mirror } = this.known(name);
    if (now) {
      if (mirror?.status().state !== 'running') {
        throw new PipelineError('state', `mirror ${name} does not run`, 'resume it, and ask again in a moment');
      }
      await mirror.syncGroups();
    }
    const { rows } = await this.#pool.query<MappedGroup>(
      `SELECT g.group_id AS group, p.topic, p.partition_id AS partition, p.target_topic AS "targetTopic",
              g.source_offset AS "sourceOffset", g.target_offset AS "targetOffset", g.state
       FROM kafka.mirror_partitions p JOIN kafka.mirror_groups g USING (copy_id)
       WHERE p.mirror_id = $1 AND ($2::text IS NULL OR p.cluster_id = $2) ORDER BY 1, 2, 3`,
      [id, this.#clusterOf(name) ?? null],
    );
    return rows;
  }

  /** What is ready for a cut-over, of one topic or of all. */
  async plan(name: string, topic?: string): Promise<Plan> {
    const { id, running: mirror } = this.known(name);
    const { pool, topics, defaults, members } = this.#context;
    const status = this.describe(name);
    const { target } = status;
    if (target === undefined) {
      const hint = 'cut-over is of mirrors with a target: of those that copy out of this log';
      throw new PipelineError('invalid', `mirror ${name} copies into this log`, hint);
    }
    const switching = mirror?.switching;
    return planOf(
      {
        mirrorId: id,
        status: { ...status, target },
        pool,
        topics,
        defaults,
        members,
        modeOf: of => switching!.modeOf(of),
        copiedBy: of => this.#copiersOf(of).filter(other => other !== name),
        targetConfig: async (of, keys) => switching?.targetConfig(of, keys),
      },
      topic,
    );
  }

  /** What is set for topics beside the definition. */
  async modes(name: string): Promise<GivenMode[]> {
    const { rows } = await this.#pool.query<GivenMode>(
      'SELECT topic, settings FROM kafka.mirror_modes WHERE mirror_id = $1 ORDER BY topic',
      [this.known(name).id],
    );
    return rows;
  }

  /** Sets it for one topic, or nothing any more; in force when it returns, and over restarts. Where copies are stays. */
  async setMode(name: string, topic: string, written: unknown): Promise<GivenMode[]> {
    const { id, running: mirror } = this.known(name);
    const place = { path: ['mirror', name, 'modes', topic], file: undefined };
    const settings = written === null ? {} : refusing(() => parseDefinition(topicSettingsSchema, written, place));
    if (settings.mode === 'off' && this.#context.topics.get(topic)?.primaryMirror === id) {
      throw new PipelineError('state', `the target is the primary of ${topic}`, 'roll back first');
    }
    await this.lane.transaction(async client => {
      await client.query('DELETE FROM kafka.mirror_modes WHERE mirror_id = $1 AND topic = $2', [id, topic]);
      if (written === null) return;
      await client.query('INSERT INTO kafka.mirror_modes (mirror_id, topic, settings) VALUES ($1, $2, $3)', [
        id,
        topic,
        JSON.stringify(settings),
      ]);
    });
    await mirror?.restart();
    await mirror?.running(runsWithinMs);
    return this.modes(name);
  }

  /** The target takes what is produced from now on (`to` target), or this log does again. */
  async switchPrimary(name: string, to: Primary, written: unknown): Promise<Plan> {
    const place = { path: ['mirror', name], file: undefined };
    const { topic, timeoutMs } = refusing(() => parseDefinition(switchSchema, written ?? {}, place));
    const plan = await this.plan(name, topic);
    const { id, running: mirror } = this.known(name);
    if (mirror?.switching === undefined || (to === 'target' && !plan.ready)) {
      throw new PipelineError('state', `mirror ${name} is not ready: ${reasonsOf(plan)}`, `see: millrace plan ${name}`);
    }
    const { topics } = this.#context;
    const primary = to === 'target' ? null : id;
    const affected = plan.topics
      .map(of => topics.get(of.topic)!)
      .filter(({ primaryMirror }) => primaryMirror === primary);
    if (this.#switching.has(name)) {
      throw new PipelineError('state', `the primary of topics of mirror ${name} is changing`, 'ask again in a moment');
    }
    this.#switching.add(name);
    try {
      await mirror.changePrimary(affected, to, timeoutMs);
    } catch (error) {
      if (!(error instanceof SwitchFailed)) throw error;
      const hint = 'producers go on as before; try again, or give more time with timeoutMs';
      throw new PipelineError('state', `not within ${timeoutMs} ms: ${error.message}`, hint);
    } finally {
      this.#switching.delete(name);
    }
    await mirror.running(runsWithinMs);
    this.#context.logger.info({ mirror: name, topics: affected.map(of => of.name), to }, 'topics have another primary');
    return this.plan(name, topic);
  }

  /** Copies again what has been copied (replay.ts). */
  async replay(name: string, written: unknown): Promise<Replayed[]> {
    const place = { path: ['mirror', name, 'replay'], file: undefined };
    const asked = refusing(() => parseDefinition(replaySchema, written, place));
    const { topics, log, offsetAt } = this.#context;
    const topic = topics.get(asked.topic);
    if (topic === undefined) throw new PipelineError('invalid', `there is no topic ${asked.topic}`);
    const { id: mirrorId } = this.known(name);
    const partitionOf = (partition: number) => log.partition(topic, partition)!;
    let replayed: Replayed[] = [];
    await this.whileStopped(name, async () => {
      replayed = await replay({ lane: this.lane, mirrorId, topic, partitionOf, offsetAt }, asked);
    });
    return replayed;
  }

  override async pause(name: string): Promise<Described<MirrorStatus>> {
    this.#refuseAsPrimary(name);
    return super.pause(name);
  }

  override async delete(name: string): Promise<Record<string, never>> {
    this.#refuseAsPrimary(name);
    return super.delete(name);
  }

  /** Nobody else takes what is produced to the topics whose primary is its target. */
  #refuseAsPrimary(name: string): void {
    const { id } = this.known(name);
    const topics = [...this.#context.topics.all()].filter(({ primaryMirror }) => primaryMirror === id);
    if (topics.length === 0) return;
    const names = topics.map(topic => topic.name).join(', ');
    throw new PipelineError(
      'state',
      `its target is the primary of ${names}`,
      `roll back first: millrace rollback ${name}`,
    );
  }

  /** Mirrors that copy a topic out of this log. */
  #copiersOf(topic: string): string[] {
    return this.status()
      .filter(({ state }) => state === 'starting' || state === 'running' || state === 'retrying')
      .filter(({ partitions }) => partitions.some(copy => copy.topic === topic && copy.primary === 'here'))
      .map(({ name }) => name);
  }

  #clusterOf(name: string): string | undefined {
    return this.known(name).running?.clusterId;
  }
}

const reasonsOf = ({ findings }: Plan): string =>
  findings
    .filter(({ level }) => level === 'blocks')
    .map(({ topic, message }) => (topic === undefined ? message : `${topic}: ${message}`))
    .join('; ') || 'it does not run';

const nothing = {
  state: 'stopped',
  reason: undefined,
  hint: undefined,
  lag: 0n,
  lagMs: 0,
  recordsPerSecond: 0,
  secondsToGo: undefined,
  heldBytes: 0,
  problems: [],
  groupsTrouble: undefined,
  partitions: [],
} as const;
