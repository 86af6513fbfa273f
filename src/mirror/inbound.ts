// A mirror into this log: topics of a remote Kafka are made here where they are missing, and their partitions are copied with
// the position in the same transaction (inbound-copy.ts). What topics there are is asked of the cluster now and then.
import { earliest, latest, listOffsets } from '../client/admin.ts';
import type { TopicLayout } from '../client/cluster.ts';
import { isRetriable } from '../client/errors.ts';
import { aborted } from '../runtime/aborted.ts';
import { Fetcher } from '../source/fetcher.ts';
import { KafkaPartition } from '../source/kafka-partition.ts';
import { idOf, TopicIds, uuidOf } from '../source/topic-ids.ts';
import { type InboundDefinition, MirrorStopped, TopicMissing, targetNameOf } from './definition.ts';
import { topicHere } from './here-topic.ts';
import { InboundCopy } from './inbound-copy.ts';
import { InboundGroups } from './inbound-groups.ts';
import { CopyPositions, type CopyToNote, type NotedCopy } from './positions.ts';
import { type MirrorContext, Session, type SessionOptions } from './session.ts';

export class InboundSession extends Session<InboundDefinition, InboundCopy> {
  readonly #sources: KafkaPartition[] = [];
  readonly #fetcher: Fetcher;
  readonly #topicIds: TopicIds;
  #fromLatest = false;
  #looking = false;

  constructor(context: MirrorContext, options: SessionOptions<InboundDefinition>) {
    super(context, options, options.definition.source);
    this.#topicIds = new TopicIds(this.lane);
    this.#fetcher = new Fetcher({
      cluster: this.cluster,
      partitions: this.#sources,
      budgetBytes: options.definition.bufferBytes,
      onTrouble: error => this.troubled(error),
    });
  }

  get heldBytes(): number {
    return this.#sources.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0);
  }

  protected async open(): Promise<void> {
    const { definition, mirrorId } = this.options;
    const { cluster, lane } = this;
    await cluster.retrying(() => cluster.refresh());
    const clusterId = cluster.clusterId!;
    this.positions = new CopyPositions(lane, mirrorId, clusterId);
    if (await this.positions.cameFromElsewhere()) {
      throw new MirrorStopped(
        `the source is cluster ${clusterId} now, and topics here were copied from another`,
        'make a mirror of another name for it; or delete this one, and make it again: it begins behind what is here',
      );
    }
    this.#fromLatest = definition.start === 'latest' && !(await this.positions.known());
    const { groups } = definition;
    const { members } = this.context;
    this.groups = new InboundGroups({ lane, cluster, mirrorId, clusterId, groups, members });
  }

  protected async adoptAll(): Promise<void> {
    const layouts = await this.cluster.retrying(() => this.#layouts());
    await Promise.all(layouts.map(layout => this.#adopt(layout)));
    this.#fromLatest = false;
  }

  protected watch(): () => void {
    const timer = setInterval(() => void this.#look(() => true), this.options.definition.source.metadataMs);
    return () => clearInterval(timer);
  }

  protected adoptAgain(topics: ReadonlySet<string>): void {
    if (topics.size > 0) void this.#look(name => topics.has(name));
  }

  /** What is with the log is awaited: it knows what has become of it. */
  protected async settle(): Promise<void> {
    await Promise.race([Promise.allSettled(this.runs), aborted(this.options.hurry)]);
  }

  protected abandon(): void {}

  async #look(wanted: (topic: string) => boolean): Promise<void> {
    if (this.#looking || this.positions === undefined) return;
    this.#looking = true;
    try {
      await this.cluster.refresh(true);
      for (const layout of await this.#layouts()) if (wanted(layout.name)) void this.#adopt(layout);
    } catch (error) {
      if (!isRetriable(error) && !this.ending.aborted) this.fail(error);
    } finally {
      this.#looking = false;
    }
  }

  async #layouts(): Promise<TopicLayout[]> {
    const { definition } = this.options;
    const names = await this.cluster.listTopics();
    return this.cluster.layouts(names.filter(name => targetNameOf(definition, name) !== undefined));
  }

  /** Begins to copy what is not copied yet of a topic. */
  #adopt(layout: TopicLayout): Promise<void> {
    const uuid = uuidOf(layout);
    return this.adopt(uuid, layout.name, () => this.#adoptNow(layout, uuid));
  }

  async #adoptNow(layout: TopicLayout, uuid: string): Promise<void> {
    const { log } = this.context;
    const { name, partitions } = layout;
    const all = partitions.map((_, partition) => partition);
    const missing = all.filter(partition => !this.copies.has(`${uuid} ${partition}`));
    if (missing.length === 0 || this.ending.aborted) return;
    const targetTopic = targetNameOf(this.options.definition, name)!;
    const other = [...this.copies.values()].find(
      ({ place: { source, topic } }) => topic.name === targetTopic && source.topic.uuid !== uuid && !source.deleted,
    );
    if (other !== undefined) {
      throw new TopicMissing(`topics ${other.place.source.topic.name} and ${name} would both be ${targetTopic} here`);
    }
    const [starts, ends] = await Promise.all([
      listOffsets(this.cluster, name, all, earliest),
      listOffsets(this.cluster, name, all, latest, 'read_committed'),
    ]);
    const [topicId] = await this.#topicIds.of(this.clusterId!, [{ uuid, name }]);
    const begins = all.map(partition => (this.#fromLatest ? ends : starts).get(partition)!);
    const { topic, noted } = await this.#open({ topicId: topicId!, name, targetTopic, begins, missing });
    const source = { id: topicId!, uuid, name, partitionCount: all.length };
    for (const partition of missing) {
      if (this.ending.aborted) return;
      const range = { start: starts.get(partition)!, end: ends.get(partition)! };
      const from = new KafkaPartition(source, idOf(layout), partition, range, () => this.#fetcher.poke());
      const place = { source: from, topic, target: log.partition(topic, partition)! };
      this.#sources.push(from);
      this.#begin(`${uuid} ${partition}`, new InboundCopy(this.#copyContext(), place, noted.get(partition)!));
    }
  }

  /** Finds or makes the topic here, and the positions in it. */
  async #open({ topicId, name, targetTopic, begins, missing }: ToOpen) {
    const { topics, log } = this.context;
    const positions = this.positions!;
    const before = await positions.open({ topicId, topic: name, targetTopic }, []);
    const [known] = before.values();
    if (known !== undefined && topics.byId(known.topicHere!) === undefined) {
      throw new TopicMissing(
        `topic ${targetTopic}, to which ${name} was copied, has been deleted here; to copy all of it again, run: DELETE FROM kafka.mirror_partitions WHERE topic_here = ${known.topicHere}`,
      );
    }
    const topic = await topicHere(
      this.cluster,
      { name: targetTopic, like: name, starts: begins },
      { ...this.context, logger: this.options.logger },
    );
    await this.refuseCircle({ here: topic.id, there: name, way: 'in' });
    const noted = await positions.open(
      { topicId, topic: name, targetTopic, topicHere: topic.id },
      missing.map(partition => {
        const { end } = log.partition(topic, partition)!;
        const nextOffset = begins[partition]!;
        // What is empty keeps the source's offsets; else it goes on behind what is there.
        return {
          partition,
          nextOffset,
          targetNextOffset: end === 0n ? nextOffset : end,
          producerId: -1n,
          nextSequence: 0,
        };
      }),
    );
    await positions.note([...noted.values()].flatMap(firstRange));
    return { topic, noted };
  }

  #copyContext() {
    const { throttle, deadLetters, ending: stopping, options } = this;
    const { hurry, logger, definition } = options;
    return { log: this.context.log, throttle, deadLetters, strict: definition.strict, stopping, hurry, logger };
  }

  #begin(key: string, copy: InboundCopy): void {
    const { source } = copy.place;
    const leave = (): void => {
      this.#sources.splice(this.#sources.indexOf(source), 1);
    };
    this.begin(copy, key, {
      topic: source.topic.name,
      ended: () => {
        if (!source.deleted) return false;
        leave();
        this.options.logger.info({ topic: source.topic.name }, 'a mirrored topic has been deleted; it stays here');
        return true;
      },
      failed: async () => {
        leave();
        return true;
      },
    });
  }
}

interface ToOpen {
  readonly topicId: number;
  readonly name: string;
  readonly targetTopic: string;
  readonly begins: readonly bigint[];
  readonly missing: readonly number[];
}

/** By it the copy's first batch knows how its offsets are moved. */
function firstRange({ copyId, position, counts, lastRange }: NotedCopy): CopyToNote[] {
  if (lastRange !== undefined) return [];
  const range = { sourceOffset: position.nextOffset, targetOffset: position.targetNextOffset, records: 0n };
  return [{ copyId, position, counts, behindSince: undefined, ranges: [range] }];
}
