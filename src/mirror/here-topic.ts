// A topic of this log for one of a remote cluster: found, made with its partitions and configs, or given the partitions that
// it lacks.
import type { Logger } from 'pino';
import { chosenConfig } from '../client/admin.ts';
import type { Cluster } from '../client/cluster.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { overridesProblem, type ServerDefaults } from '../storage/topic-config.ts';
import { type Topic, TopicError, type Topics } from '../storage/topics.ts';
import { isOfOneCluster } from './target-topic.ts';

export interface TopicHere {
  readonly name: string;
  /** The cluster's topic. */
  readonly like: string;
  /** Where each partition is to begin, should the topic be made. */
  readonly starts: readonly bigint[];
}

export interface TopicsHere {
  readonly topics: Topics;
  readonly defaults: ServerDefaults;
  readonly logger: Logger;
}

/** Throws TopicError for a name that no topic can have here, KafkaError where the cluster does not tell. */
export async function topicHere(
  cluster: Cluster,
  { name, like, starts }: TopicHere,
  { topics, defaults, logger }: TopicsHere,
): Promise<Topic> {
  const topic = topics.get(name) ?? (await make());
  if (topic.partitionCount < starts.length) await topics.addPartitions(topic, starts.length);
  return topic;

  async function make(): Promise<Topic> {
    const config: Record<string, string> = {};
    for (const [key, value] of Object.entries(await chosenConfig(cluster, like))) {
      if (isOfOneCluster(key)) continue;
      const reason = overridesProblem({ ...config, [key]: value }, defaults);
      if (reason === undefined) config[key] = value;
      else logger.warn({ topic: name, config: key, reason }, 'a config of a mirrored topic is not taken');
    }
    try {
      return await topics.create({ name, partitionCount: starts.length, config, starts });
    } catch (error) {
      const made = topics.get(name);
      if (error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS && made) return made;
      throw error;
    }
  }
}
