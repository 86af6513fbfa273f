// The topic in the target: found, made with the source's partitions and configs, or given the partitions that it lacks.
import { createPartitions, createTopic } from '../client/admin.ts';
import type { Cluster, TopicLayout } from '../client/cluster.ts';
import type { RemoteTarget } from '../client/target.ts';
import { type ServerDefaults, topicConfigEntries } from '../storage/topic-config.ts';
import type { Topic } from '../storage/topics.ts';
import { TopicMissing } from './definition.ts';

const notCopied: readonly RegExp[] = [
  /^(leader|follower)\.replication\.throttled\./,
  /^(remote|local)\./,
  /^min\.insync\.replicas$/,
  /^unclean\.leader\.election\.enable$/,
];

export const isOfOneCluster = (config: string): boolean => notCopied.some(pattern => pattern.test(config));

/** The configs that somebody chose, for the topic or for all of them. */
export function configsOf(topic: Topic, defaults: ServerDefaults): Record<string, string> {
  const chosen = topicConfigEntries(topic.config, defaults).filter(({ source }) => source !== 'default');
  const copied = chosen.filter(({ spec }) => !isOfOneCluster(spec.name) && !/^message\.timestamp\./.test(spec.name));
  return Object.fromEntries(copied.map(({ spec, value }) => [spec.name, value]));
}

/** Throws TopicMissing where it may not be made, KafkaError where the target refuses. */
export async function targetTopic(
  cluster: Cluster,
  { createTopics, replicationFactor }: RemoteTarget,
  { name, topic, defaults }: { readonly name: string; readonly topic: Topic; readonly defaults: ServerDefaults },
): Promise<TopicLayout> {
  const { partitionCount } = topic;
  const known = await cluster.retrying(() => cluster.topic(name));
  if (known === undefined && !createTopics) {
    throw new TopicMissing(`the target has no topic ${name}, and createTopics is false`);
  }
  const config = configsOf(topic, defaults);
  const layout = known ?? (await createTopic(cluster, { name, partitionCount, replicationFactor, config }));
  if (layout.partitions.length >= partitionCount) return layout;
  if (!createTopics) {
    throw new TopicMissing(
      `topic ${name} has ${layout.partitions.length} partitions in the target and ${partitionCount} here, and createTopics is false`,
    );
  }
  return createPartitions(cluster, name, partitionCount);
}
