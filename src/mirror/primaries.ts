// Topics of a mirror whose primary is the target, while a session lasts: what is copied back of each (follow.ts), and what
// passes producers' batches on (external.ts). Both on connections of their own: their long polls hold up no copy.
import type { Logger } from 'pino';
import { earliest, latest, listOffsets } from '../client/admin.ts';
import { Cluster, type ClusterOptions } from '../client/cluster.ts';
import type { Pool } from '../postgres/pool.ts';
import { Fetcher } from '../source/fetcher.ts';
import { KafkaPartition } from '../source/kafka-partition.ts';
import type { Log } from '../storage/log.ts';
import type { Topic } from '../storage/topics.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import { ClientIds } from './client-ids.ts';
import { ExternalGate } from './external.ts';
import { PartitionFollow } from './follow.ts';
import type { Gates } from './gates.ts';
import type { TopicMode } from './modes.ts';
import type { NotedCopy } from './positions.ts';

export interface PrimariesOptions {
  readonly log: Log;
  readonly pool: Pool;
  readonly gates: Gates;
  readonly lane: WriteLane;
  readonly mirrorId: number;
  readonly clusterId: string;
  /** How the target is reached. */
  readonly target: ClusterOptions;
  readonly stopping: AbortSignal;
  readonly logger: Logger;
}

/** A request without an answer is taken for lost after so long, ms. */
const arrivesWithinMs = 5000;

interface Primary {
  readonly topic: Topic;
  readonly partition: number;
  readonly follow: PartitionFollow;
}

export class Primaries {
  readonly #options: PrimariesOptions;
  readonly #cluster: Cluster;
  readonly #fetched: KafkaPartition[] = [];
  readonly #fetcher: Fetcher;
  readonly #primaries: Primary[] = [];
  /** By topic id. */
  readonly #ids = new Map<number, Promise<ClientIds>>();

  constructor(options: PrimariesOptions) {
    this.#options = options;
    this.#cluster = new Cluster(options.target);
    const onTrouble = options.target.onTrouble ?? (() => {});
    this.#fetcher = new Fetcher({ cluster: this.#cluster, partitions: this.#fetched, onTrouble });
  }

  /** Partitions that are to be followed from where `noted` says. Producers are let through when each has caught up. */
  async adopt(
    topic: Topic,
    targetTopic: string,
    noted: ReadonlyMap<number, NotedCopy>,
    { reads }: TopicMode,
  ): Promise<PartitionFollow[]> {
    const { log, gates, stopping } = this.#options;
    const loading =
      this.#ids.get(topic.id) ?? ClientIds.load({ ...this.#options, cluster: this.#cluster, topicId: topic.id });
    this.#ids.set(topic.id, loading);
    loading.catch(() => this.#ids.delete(topic.id));
    const ids = await loading;
    const layout = (await this.#cluster.retrying(() => this.#cluster.topic(targetTopic)))!;
    const partitions = [...noted.keys()];
    const starts = await listOffsets(this.#cluster, targetTopic, partitions, earliest);
    const ends = await listOffsets(this.#cluster, targetTopic, partitions, latest, 'read_committed');
    return partitions.map(partition => {
      const source = log.partition(topic, partition)!;
      const there = new KafkaPartition(
        { id: topic.id, uuid: layout.topicId, name: targetTopic, partitionCount: layout.partitions.length },
        layout.topicId,
        partition,
        { start: starts.get(partition)!, end: ends.get(partition)! },
        () => this.#fetcher.poke(),
      );
      this.#fetched.push(there);
      gates.of(topic, partition).close();
      source.refusesReads = reads === 'redirect';
      const place = { topic: topic.name, targetTopic, partition, source, share: 100 };
      const follow = new PartitionFollow({ log, ids, stopping }, topic, place, noted.get(partition)!, there);
      const primary: Primary = { topic, partition, follow };
      this.#primaries.push(primary);
      follow.whenAt(ends.get(partition)!, () => this.#letThrough(primary, ids));
      return follow;
    });
  }

  /** Why this log does not have all that the target has; while nothing is passed on. */
  async notFollowed(topic: Topic): Promise<string | undefined> {
    const primaries = this.#primaries.filter(primary => primary.topic === topic);
    if (Date.now() - this.#options.gates.doubtfulAt < arrivesWithinMs) {
      return `topic ${topic.name}: a request to the target had no answer, and may still arrive there`;
    }
    const { targetTopic } = primaries[0]!.follow.place;
    const ends = await listOffsets(
      this.#cluster,
      targetTopic,
      primaries.map(({ partition }) => partition),
      latest,
    );
    const late = primaries.find(({ partition, follow }) => follow.copied < ends.get(partition)!);
    if (late === undefined) return undefined;
    const { partition, follow } = late;
    return `partition ${partition} of ${topic.name} has what is before ${follow.copied} in the target, which ends at ${ends.get(partition)}`;
  }

  /** Producers wait from now on, but for those of a topic that is written to here again. */
  close(): void {
    const { gates } = this.#options;
    for (const { topic, partition, follow } of this.#primaries) {
      if (topic.primaryMirror !== null) gates.of(topic, partition).close();
      follow.place.source.refusesReads = false;
    }
    this.#cluster.close();
  }

  #letThrough(primary: Primary, ids: ClientIds): void {
    const { log, gates, pool, stopping, logger } = this.#options;
    const { topic, partition, follow } = primary;
    if (stopping.aborted || topic.primaryMirror === null) return;
    const { source, targetTopic } = follow.place;
    const translate = async (offset: bigint): Promise<bigint> => {
      const { rows } = await pool.query<{ at: bigint | null }>('SELECT kafka.mirror_translate($1, $2) AS at', [
        follow.copyId,
        offset,
      ]);
      const { at } = rows[0]!;
      if (at === null) throw new Error(`where ${offset} is in the target has not committed yet`);
      return at;
    };
    const external = new ExternalGate({
      cluster: this.#cluster,
      ids,
      source,
      openSource: () => log.open(source),
      targetTopic,
      partition,
      translate,
      onTaken: records => {
        follow.passedOn += records;
      },
      onDoubt: () => {
        gates.doubtfulAt = Date.now();
      },
      logger,
    });
    gates.of(topic, partition).open(external);
  }
}
