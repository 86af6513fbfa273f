// Numbers for topics of remote clusters, beside those of kafka.topics: below zero, and never given again.
import { createHash } from 'node:crypto';
import type { TopicLayout } from '../client/cluster.ts';
import type { WriteLane } from '../storage/write-lane.ts';

export interface NamedTopic {
  readonly uuid: string;
  readonly name: string;
}

/** The cluster's; undefined from brokers before 2.8 (KIP-516). */
export const idOf = ({ topicId }: TopicLayout): string | undefined => (/^[0-]+$/.test(topicId) ? undefined : topicId);

/** Where topics have no ids, a topic is its name. */
export function uuidOf(layout: TopicLayout): string {
  const hex = () => createHash('sha256').update(layout.name).digest('hex').slice(0, 32);
  return idOf(layout) ?? hex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

export class TopicIds {
  readonly #lane: WriteLane;

  constructor(lane: WriteLane) {
    this.#lane = lane;
  }

  /** In the order of `topics`. */
  async of(clusterId: string, topics: readonly NamedTopic[]): Promise<number[]> {
    const values = [clusterId, topics.map(({ uuid }) => uuid), topics.map(({ name }) => name)];
    const { rows } = await this.#lane.transaction(async client => {
      await client.query(
        `INSERT INTO kafka.remote_topics (cluster_id, topic_uuid, name)
         SELECT $1, uuid, name FROM unnest($2::uuid[], $3::text[]) AS g (uuid, name) ORDER BY uuid
         ON CONFLICT DO NOTHING`,
        values,
      );
      return client.query<{ id: number }>(
        `SELECT remote_topic_id AS id FROM unnest($2::uuid[]) WITH ORDINALITY AS g (topic_uuid, n)
         JOIN kafka.remote_topics USING (topic_uuid) WHERE cluster_id = $1 ORDER BY n`,
        values.slice(0, 2),
      );
    });
    return rows.map(({ id }) => id);
  }
}
