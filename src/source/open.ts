// The source of a definition: the remote Kafka that it names, or this log.
import type { Pool } from '../postgres/pool.ts';
import type { Log } from '../storage/log.ts';
import type { Term, Topics } from '../storage/topics.ts';
import { WriteLane } from '../storage/write-lane.ts';
import type { RemoteSource } from './definition.ts';
import { KafkaSource } from './kafka-source.ts';
import { LogSource } from './log-source.ts';
import type { Source } from './source.ts';
import { TopicIds } from './topic-ids.ts';

export interface SourceContext {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly term: () => Term;
}

export function openSource(
  { pool, log, topics, term }: SourceContext,
  remote: RemoteSource | undefined,
  clientId: string,
): Source {
  if (remote === undefined) return new LogSource(log, topics);
  return new KafkaSource({ ...remote, clientId, topicIds: new TopicIds(new WriteLane(pool, term)) });
}
