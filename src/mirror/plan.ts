// What is ready for a cut-over, and what is not: `millrace plan NAME`, and what cut-over and roll-back refuse by.
import type { Pool } from '../postgres/pool.ts';
import { messageOf } from '../runtime/errors.ts';
import type { ServerDefaults } from '../storage/topic-config.ts';
import type { Topic, Topics } from '../storage/topics.ts';
import type { MirrorStatus, RemoteStatus } from './mirror.ts';
import type { TopicMode } from './modes.ts';
import type { CopyStatus } from './positions.ts';
import { type Pace, paceOf } from './rate.ts';
import { configsOf } from './target-topic.ts';

export interface Finding {
  /** blocks: cut-over refuses by it. note: to be known. */
  readonly level: 'blocks' | 'note';
  readonly topic: string | undefined;
  readonly message: string;
}

export interface TopicPlan extends Pace {
  readonly topic: string;
  readonly targetTopic: string;
  readonly primary: 'here' | 'target';
  readonly ready: boolean;
  readonly partitions: number;
  readonly lag: bigint;
  readonly lagMs: number;
  readonly offsets: 'identical' | 'translated';
  readonly refused: bigint;
  readonly skipped: bigint;
  readonly withheld: bigint;
}

export interface GroupPlan {
  readonly group: string;
  readonly topic: string;
  /** Partitions with a committed offset here, and those that the target has as they are here. */
  readonly partitions: number;
  readonly synced: number;
  readonly state: 'synced' | 'active' | 'moved' | 'waiting';
  readonly membersHere: number;
}

export interface Plan {
  readonly mirror: string;
  readonly ready: boolean;
  readonly findings: readonly Finding[];
  readonly topics: readonly TopicPlan[];
  readonly groups: readonly GroupPlan[];
}

export interface PlanSources {
  readonly mirrorId: number;
  readonly status: Omit<MirrorStatus, 'target'> & { readonly target: RemoteStatus };
  readonly pool: Pool;
  readonly topics: Topics;
  readonly defaults: ServerDefaults;
  modeOf(topic: string): TopicMode;
  /** Of a topic in the target; undefined where it may not be seen. */
  targetConfig(topic: string, keys: readonly string[]): Promise<Readonly<Record<string, string | null>> | undefined>;
  /** Other mirrors that copy a topic out of this log. */
  copiedBy(topic: string): readonly string[];
  /** Members of groups here. */
  members(groups: readonly string[]): Promise<ReadonlyMap<string, number>>;
}

/** A copy that is further behind does not catch up while producers are held, ms. */
const mostLagMs = 10_000;

/** `only`: one topic. Rejects where the database cannot be asked. */
export async function planOf(sources: PlanSources, only?: string): Promise<Plan> {
  const { status, topics: all } = sources;
  const findings: Finding[] = [];
  const blocks = (message: string, topic?: string) => findings.push({ level: 'blocks', topic, message });
  const note = (message: string, topic?: string) => findings.push({ level: 'note', topic, message });
  if (status.state !== 'running') blocks(`the mirror is ${status.state}${status.reason ? `: ${status.reason}` : ''}`);
  if (status.target.trouble) blocks(`nothing gets through to the target: ${status.target.trouble}`);
  if (status.groupsTrouble) note(`committed offsets are not written to the target: ${status.groupsTrouble}`);
  for (const { topic, reason } of status.problems) {
    if (only === undefined || only === topic) blocks(`it is not copied: ${reason}`, topic);
  }
  const byTopic = new Map<string, CopyStatus[]>();
  for (const copy of status.partitions) byTopic.set(copy.topic, [...(byTopic.get(copy.topic) ?? []), copy]);
  const identical = await identicalTopics(sources);
  const groups = await groupsOf(sources, only);
  const writers = await capturesInto(sources);
  const plans: TopicPlan[] = [];
  for (const [name, partitions] of byTopic) {
    const topic = all.get(name);
    if (topic === undefined || (only !== undefined && only !== name)) continue;
    const plan = topicPlan(topic, partitions, identical.has(name));
    const before = findings.length;
    if (partitions.length < topic.partitionCount) blocks('not all of its partitions are copied yet', name);
    if (plan.lagMs > mostLagMs) blocks(`it is ${plan.lag} records and ${plan.lagMs} ms behind`, name);
    else if (plan.lag > 0n) note(`it is ${plan.lag} records behind, which a cut-over waits for`, name);
    if (plan.primary === 'here') {
      const { share, reads } = sources.modeOf(name);
      if (share < 100) blocks(`${share} % of its keys are forwarded: the target lacks the others`, name);
      if (plan.withheld > 0n)
        blocks(`${plan.withheld} records were not of the share: replay it from its beginning`, name);
      for (const other of sources.copiedBy(name)) {
        blocks(`mirror ${other} copies it too: exclude it there, or pause or delete that mirror`, name);
      }
      for (const capture of writers.get(name) ?? []) {
        blocks(`capture ${capture} writes to it here: give the capture a target, or delete it`, name);
      }
      const readers = groups.filter(({ topic: of, membersHere }) => of === name && membersHere > 0);
      if (reads === 'redirect') for (const { group } of readers) blocks(`group ${group} has members here`, name);
    }
    if (plan.offsets === 'translated') note('offsets differ: kafka.mirror_offsets tells which is which', name);
    if (plan.refused > 0n) note(`${plan.refused} records were refused by the target: they are dead letters`, name);
    if (plan.skipped > 0n) note(`${plan.skipped} records were gone before they were copied`, name);
    for (const difference of await configDifferences(sources, topic, plan.targetTopic)) note(difference, name);
    plans.push({ ...plan, ready: !findings.slice(before).some(({ level }) => level === 'blocks') });
  }
  for (const { group, topic, state, partitions, synced } of groups) {
    if (state === 'waiting') note(`group ${group}: ${synced} of ${partitions} offsets are in the target`, topic);
    if (state === 'active' || state === 'moved') note(`group ${group} is ${state} in the target`, topic);
  }
  if (plans.length === 0) blocks(only === undefined ? 'nothing is copied yet' : `topic ${only} is not copied`);
  const ready = !findings.some(({ level }) => level === 'blocks');
  return { mirror: status.name, ready, findings, topics: plans, groups };
}

function topicPlan(topic: Topic, partitions: readonly CopyStatus[], identical: boolean): TopicPlan {
  const sum = (of: (status: CopyStatus) => bigint) => partitions.reduce((total, status) => total + of(status), 0n);
  const lag = sum(copy => copy.lag);
  return {
    topic: topic.name,
    targetTopic: partitions[0]!.targetTopic,
    primary: partitions[0]!.primary!,
    ready: true,
    partitions: partitions.length,
    lag,
    ...paceOf(
      lag,
      partitions.reduce((total, { recordsPerSecond = 0 }) => total + recordsPerSecond, 0),
    ),
    lagMs: Math.max(...partitions.map(({ lagMs }) => lagMs)),
    offsets: identical ? 'identical' : 'translated',
    refused: sum(({ failed }) => failed),
    skipped: sum(({ skipped }) => skipped),
    withheld: sum(({ withheld }) => withheld),
  };
}

/** Topics of which every record has the offset there that it has here. */
async function identicalTopics({ pool, mirrorId, status }: PlanSources): Promise<Set<string>> {
  const { rows } = await pool.query<{ topic: string }>(
    `SELECT p.topic FROM kafka.mirror_partitions p JOIN kafka.topics t USING (topic_id)
     LEFT JOIN kafka.mirror_ranges r USING (copy_id)
     WHERE p.mirror_id = $1 AND p.cluster_id = $2
     GROUP BY p.topic HAVING bool_and(coalesce(r.source_offset = r.target_offset, true))`,
    [mirrorId, status.target.clusterId],
  );
  return new Set(rows.map(({ topic }) => topic));
}

/** Captures that write to topics of this log, by topic: what they write commits with their position, here. */
async function capturesInto({ pool }: PlanSources): Promise<Map<string, string[]>> {
  const { rows } = await pool.query<{ topic: string; captures: string[] }>(
    `SELECT t.name AS topic, array_agg(DISTINCT c.name) AS captures
     FROM kafka.capture_positions p JOIN kafka.captures c USING (capture_id) JOIN kafka.topics t USING (topic_id)
     GROUP BY t.name`,
  );
  return new Map(rows.map(({ topic, captures }) => [topic, captures]));
}

async function groupsOf(sources: PlanSources, only: string | undefined): Promise<GroupPlan[]> {
  const { pool, mirrorId, status } = sources;
  const { rows } = await pool.query<Omit<GroupPlan, 'membersHere' | 'state'> & { states: string[] }>(
    `SELECT o.group_id AS group, p.topic, count(*)::int AS partitions,
            count(*) FILTER (WHERE g.target_offset = t.target_offset)::int AS synced,
            array_remove(array_agg(DISTINCT g.state), NULL) AS states
     FROM kafka.mirror_partitions p JOIN kafka.consumer_offsets o USING (topic_id, partition_id)
     CROSS JOIN LATERAL kafka.mirror_translate(p.copy_id, o.committed_offset) AS t (target_offset)
     LEFT JOIN kafka.mirror_groups g ON g.copy_id = p.copy_id AND g.group_id = o.group_id
     WHERE p.mirror_id = $1 AND p.cluster_id = $2 AND ($3::text IS NULL OR p.topic = $3) GROUP BY 1, 2 ORDER BY 1, 2`,
    [mirrorId, status.target.clusterId, only ?? null],
  );
  const members = await sources.members([...new Set(rows.map(({ group }) => group))]);
  return rows.map(({ states, ...row }) => ({
    ...row,
    state: stateOf(states, row.synced === row.partitions),
    membersHere: members.get(row.group) ?? 0,
  }));
}

function stateOf(states: readonly string[], synced: boolean): GroupPlan['state'] {
  if (states.includes('moved')) return 'moved';
  if (states.includes('active')) return 'active';
  return synced ? 'synced' : 'waiting';
}

async function configDifferences(sources: PlanSources, topic: Topic, targetTopic: string): Promise<string[]> {
  const here = configsOf(topic, sources.defaults);
  try {
    const there = await sources.targetConfig(targetTopic, Object.keys(here));
    if (there === undefined) return ['its configs in the target may not be seen'];
    return Object.entries(here)
      .filter(([key, value]) => there[key] !== value)
      .map(([key, value]) => `${key} is ${value} here and ${there[key] ?? 'unknown'} in the target`);
  } catch (error) {
    return [`its configs in the target are not known: ${messageOf(error)}`];
  }
}
