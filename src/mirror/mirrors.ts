// All mirrors of this Millrace: what PipelineSet does with those of a kind, and where records and groups are in their targets.
import type { Pool } from '../postgres/pool.ts';
import type { Part } from '../runtime/lifecycle.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Listed, PipelineSet, type PipelineSetOptions, registerRow } from '../storage/pipeline-set.ts';
import { PipelineError } from '../storage/pipelines.ts';
import { type MirrorDefinition, readDefinition } from './definition.ts';
import { Mirror, type MirrorContext, type MirrorStatus } from './mirror.ts';

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

  /** Throws an OperationalError for a definition of the file that cannot be understood. */
  constructor(options: MirrorsOptions) {
    const { context, references } = options;
    super(options, {
      kind: 'mirror',
      table: 'kafka.mirrors',
      read: (name, written, file) => readDefinition(name, written, { file, references }),
      register: (lane, name) => registerRow(lane, 'kafka.mirrors', 'mirror_id', name),
      make: (definition, { id }) => new Mirror(context, { definition, mirrorId: id }),
      idle: (name, definition) => ({
        ...nothing,
        name,
        target: { ...nothing.target, bootstrap: bootstrapOf(definition) },
      }),
      // What it knows of the target; topics and groups there stay.
      async forget(lane, name) {
        await lane.transaction(client => client.query('DELETE FROM kafka.mirrors WHERE name = $1', [name]));
      },
    });
    this.#pool = context.pool;
  }

  /** Where its records are in the target, as kafka.mirror_offsets has it. */
  async offsets(name: string): Promise<MappedRange[]> {
    const { id, running: mirror } = this.known(name);
    await mirror?.note();
    const { rows } = await this.#pool.query<MappedRange>(
      `SELECT p.topic, p.partition_id AS partition, p.target_topic AS "targetTopic", r.source_offset AS "sourceOffset",
              r.target_offset AS "targetOffset", r.records
       FROM kafka.mirror_partitions p JOIN kafka.topics t USING (topic_id) JOIN kafka.mirror_ranges r USING (copy_id)
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

  #clusterOf(name: string): string | undefined {
    return this.known(name).running?.status().target.clusterId;
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
