// The few questions about topics and offsets that those who copy into or out of a cluster have. Each is asked again
// until it is answered (Cluster.retrying), and rejects with KafkaError for what is refused.
import { ErrorCode } from '../protocol/errors.ts';
import { ListOffsets } from '../protocol/messages/02-list-offsets.ts';
import { CreateTopics } from '../protocol/messages/19-create-topics.ts';
import { InitProducerId } from '../protocol/messages/22-init-producer-id.ts';
import { DescribeConfigs } from '../protocol/messages/32-describe-configs.ts';
import { CreatePartitions } from '../protocol/messages/37-create-partitions.ts';
import type { Cluster, TopicLayout } from './cluster.ts';
import { KafkaError, UnreachableError } from './errors.ts';

export interface NewRemoteTopic {
  readonly name: string;
  /** -1: as many as the cluster makes by itself (KIP-464). */
  readonly partitionCount: number;
  readonly replicationFactor?: number;
  readonly config?: Readonly<Record<string, string>>;
}

export const earliest = -2n;
export const latest = -1n;

const createTimeoutMs = 30_000;
const topicResource = 2;
/** Nobody set it (DescribeConfigs, KIP-226). */
const defaultSource = 5;

/** The topic as it then is, also where somebody else was quicker. */
export async function createTopic(cluster: Cluster, topic: NewRemoteTopic): Promise<TopicLayout> {
  const { name, partitionCount, replicationFactor = -1, config = {} } = topic;
  const configs = Object.entries(config).map(([key, value]) => ({ name: key, value }));
  await cluster.retrying(async () => {
    const { topics } = await cluster.request(
      'controller',
      CreateTopics,
      {
        topics: [{ name, numPartitions: partitionCount, replicationFactor, assignments: [], configs }],
        timeoutMs: createTimeoutMs,
      },
      { least: 4, timeoutMs: createTimeoutMs + 10_000 },
    );
    const answer = topics.find(made => made.name === name);
    if (answer === undefined) throw new UnreachableError(`topic ${name} was passed over`);
    if (answer.errorCode !== ErrorCode.NONE && answer.errorCode !== ErrorCode.TOPIC_ALREADY_EXISTS) {
      throw new KafkaError(answer.errorCode, `topic ${name}`, answer.errorMessage);
    }
  });
  // Brokers hear of it one after the other.
  return cluster.retrying(async () => {
    const layout = await cluster.topic(name);
    if (layout === undefined) throw new KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, `topic ${name}`);
    return layout;
  });
}

/** Gives the topic more partitions, `count` in all. Resolves with the topic as it then is, also where it had them already. */
export async function createPartitions(cluster: Cluster, name: string, count: number): Promise<TopicLayout> {
  await cluster.retrying(async () => {
    const { results } = await cluster.request(
      'controller',
      CreatePartitions,
      { topics: [{ name, count, assignments: null }], timeoutMs: createTimeoutMs, validateOnly: false },
      { timeoutMs: createTimeoutMs + 10_000 },
    );
    const answer = results.find(result => result.name === name);
    if (answer === undefined) throw new UnreachableError(`topic ${name} was passed over`);
    // What it says to a count that there is already.
    if (answer.errorCode === ErrorCode.INVALID_PARTITIONS) {
      await cluster.refresh(true);
      if (((await cluster.topic(name))?.partitions.length ?? 0) >= count) return;
    }
    if (answer.errorCode !== ErrorCode.NONE)
      throw new KafkaError(answer.errorCode, `topic ${name}`, answer.errorMessage);
  });
  return cluster.retrying(async () => {
    await cluster.refresh(true);
    const layout = await cluster.topic(name);
    if (layout !== undefined && layout.partitions.length >= count) return layout;
    throw new UnreachableError(`topic ${name} does not show its ${count} partitions yet`);
  });
}

/** A topic's settings, defaults included; undefined where the client may not see them. */
export async function topicConfig(
  cluster: Cluster,
  topic: string,
  keys: readonly string[],
): Promise<Readonly<Record<string, string | null>> | undefined> {
  const configs = await describeTopic(cluster, topic, keys);
  return configs && Object.fromEntries(configs.map(({ name, value }) => [name, value]));
}

/** A topic's settings that somebody chose, for the topic or for all of them; none where the client may not see them. */
export async function chosenConfig(cluster: Cluster, topic: string): Promise<Readonly<Record<string, string>>> {
  const configs = (await describeTopic(cluster, topic, null)) ?? [];
  const chosen = configs.filter(({ configSource, value }) => configSource !== defaultSource && value !== null);
  return Object.fromEntries(chosen.map(({ name, value }) => [name, value!]));
}

async function describeTopic(cluster: Cluster, topic: string, configurationKeys: readonly string[] | null) {
  return cluster.retrying(async () => {
    const { results } = await cluster.request(
      'any',
      DescribeConfigs,
      { resources: [{ resourceType: topicResource, resourceName: topic, configurationKeys }] },
      { least: 1 },
    );
    const answer = results.find(result => result.resourceName === topic);
    if (answer === undefined) throw new UnreachableError(`the settings of topic ${topic} were passed over`);
    if (answer.errorCode === ErrorCode.TOPIC_AUTHORIZATION_FAILED) return undefined;
    if (answer.errorCode !== ErrorCode.NONE)
      throw new KafkaError(answer.errorCode, `topic ${topic}`, answer.errorMessage);
    return answer.configs;
  });
}

/** Of each partition asked for, the offset at `timestamp` (ms, `earliest` or `latest`); read_committed counts only what is stable. */
export async function listOffsets(
  cluster: Cluster,
  topic: string,
  partitions: readonly number[],
  timestamp: bigint,
  isolation: 'read_uncommitted' | 'read_committed' = 'read_uncommitted',
): Promise<Map<number, bigint>> {
  const found = new Map<number, bigint>();
  await cluster.topic(topic);
  await cluster.retrying(async () => {
    const byLeader = new Map<number, number[]>();
    for (const partition of partitions) {
      if (found.has(partition)) continue;
      const leader = cluster.leaderOf(topic, partition);
      byLeader.set(leader, [...(byLeader.get(leader) ?? []), partition]);
    }
    for (const [leader, asked] of byLeader) {
      const { topics } = await cluster.request(
        leader,
        ListOffsets,
        {
          replicaId: -1,
          isolationLevel: isolation === 'read_committed' ? 1 : 0,
          topics: [{ name: topic, partitions: asked.map(partitionIndex => ({ partitionIndex, timestamp })) }],
        },
        { least: 1, most: 7 },
      );
      for (const { partitionIndex, errorCode, offset } of topics[0]?.partitions ?? []) {
        if (errorCode !== ErrorCode.NONE) throw new KafkaError(errorCode, `partition ${partitionIndex} of ${topic}`);
        found.set(partitionIndex, offset);
      }
    }
    if (found.size < partitions.length) throw new UnreachableError(`offsets of topic ${topic} were passed over`);
  });
  return found;
}

/** A new id for an idempotent producer, whose epoch is 0. */
export async function newProducerId(cluster: Cluster): Promise<bigint> {
  return cluster.retrying(async () => {
    const body = { transactionalId: null, transactionTimeoutMs: 60_000 };
    const { errorCode, producerId } = await cluster.request('any', InitProducerId, body);
    if (errorCode !== ErrorCode.NONE) throw new KafkaError(errorCode, 'a producer id');
    return producerId;
  });
}
