// Topics of a remote Kafka as a source, read committed. What topics there are is asked of the cluster now and then.
import { earliest, latest, listOffsets } from '../client/admin.ts';
import { Cluster, type TopicLayout } from '../client/cluster.ts';
import type { Remote } from '../client/definition.ts';
import { isRetriable } from '../client/errors.ts';
import { fetchOffsets } from '../client/groups.ts';
import { type CommittedOffset, commitOffsets } from '../client/offsets.ts';
import { Fetcher } from './fetcher.ts';
import { KafkaPartition } from './kafka-partition.ts';
import type { Source, SourcePartition } from './source.ts';
import { idOf, type TopicIds, uuidOf } from './topic-ids.ts';

export interface KafkaSourceOptions extends Remote {
  readonly clientId: string;
  /** How often it is asked which topics there are, ms. */
  readonly metadataMs: number;
  readonly topicIds: TopicIds;
  /** Told of what goes wrong and is tried again, and with undefined once it went well. */
  readonly onTrouble?: (error: Error | undefined) => void;
}

export class KafkaSource implements Source {
  readonly #options: KafkaSourceOptions;
  readonly #cluster: Cluster;
  #fetcher: Fetcher | undefined;
  #known: string | undefined;
  #watching: NodeJS.Timeout | undefined;
  #trouble: Error | undefined;

  constructor(options: KafkaSourceOptions) {
    this.#options = options;
    const { bootstrap, tls, sasl, clientId } = options;
    this.#cluster = new Cluster({ bootstrap, tls, sasl, clientId, onTrouble: error => this.#troubled(error) });
  }

  /** Asks for it until there is an answer. */
  async clusterId(): Promise<string> {
    if (this.#cluster.clusterId === undefined) await this.#cluster.retrying(() => this.#cluster.refresh());
    return this.#cluster.clusterId!;
  }

  /** What is tried again at present. */
  get trouble(): Error | undefined {
    return this.#trouble;
  }

  async partitions(wanted: (topic: string) => boolean): Promise<SourcePartition[]> {
    const layouts = await this.#cluster.retrying(() => this.#layouts(wanted));
    this.#known = describe(layouts);
    const topics = layouts.map(layout => ({
      name: layout.name,
      uuid: uuidOf(layout),
      partitionCount: layout.partitions.length,
    }));
    const ids = await this.#options.topicIds.of(await this.clusterId(), topics);
    const found: KafkaPartition[] = [];
    const poke = (): void => this.#fetcher?.poke();
    for (const [i, topic] of topics.entries()) {
      const all = Array.from({ length: topic.partitionCount }, (_, id) => id);
      const starts = await listOffsets(this.#cluster, topic.name, all, earliest);
      const ends = await listOffsets(this.#cluster, topic.name, all, latest, 'read_committed');
      for (const id of all) {
        const range = { start: starts.get(id)!, end: ends.get(id)! };
        found.push(new KafkaPartition({ ...topic, id: ids[i]! }, idOf(layouts[i]!), id, range, poke));
      }
    }
    const onTrouble = (error: Error | undefined): void => this.#troubled(error);
    this.#fetcher = new Fetcher({ cluster: this.#cluster, partitions: found, onTrouble });
    return found;
  }

  onChange(wanted: (topic: string) => boolean, changed: () => void): () => void {
    let looking = false;
    const look = async (): Promise<void> => {
      if (looking || this.#known === undefined) return;
      looking = true;
      try {
        await this.#cluster.refresh();
        const now = describe(await this.#layouts(wanted));
        if (now !== this.#known) changed();
      } catch (error) {
        if (!isRetriable(error) && !this.#cluster.isClosed) changed();
      } finally {
        looking = false;
      }
    };
    this.#watching = setInterval(() => void look(), this.#options.metadataMs);
    return () => clearInterval(this.#watching);
  }

  /** As a group's offsets, for Kafka's tools. Rejects with a ClientError. */
  commit(group: string, offsets: readonly CommittedOffset[]): Promise<void> {
    return commitOffsets(this.#cluster, group, offsets);
  }

  /** What the group has committed there. Rejects with a ClientError. */
  committed(group: string): Promise<CommittedOffset[]> {
    return fetchOffsets(this.#cluster, group);
  }

  close(): void {
    clearInterval(this.#watching);
    this.#cluster.close();
  }

  async #layouts(wanted: (topic: string) => boolean): Promise<TopicLayout[]> {
    const names = (await this.#cluster.listTopics()).filter(wanted).sort();
    return this.#cluster.layouts(names);
  }

  #troubled(error: Error | undefined): void {
    this.#trouble = error;
    this.#options.onTrouble?.(error);
  }
}

const describe = (layouts: readonly TopicLayout[]): string =>
  layouts.map(({ name, topicId, partitions }) => `${name} ${topicId} ${partitions.length}`).join('\n');
