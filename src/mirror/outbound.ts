// A mirror out of this log: topics of it are made in the target where they are missing, and their partitions copied there by one
// idempotent producer (copy.ts). Where each is, the target's own end says (docs/decisions/0006).
import { setTimeout as delay } from 'node:timers/promises';
import { latest, listOffsets, newProducerId, topicConfig } from '../client/admin.ts';
import { isSequenceRefusal } from '../client/errors.ts';
import { Producer } from '../client/producer.ts';
import { aborted } from '../runtime/aborted.ts';
import { RemoteProducers } from '../storage/remote-producers.ts';
import type { Topic } from '../storage/topics.ts';
import { Budget } from './budget.ts';
import { type CopyContext, PartitionCopy } from './copy.ts';
import { notCopied, type Primary, type Switching } from './cutover.ts';
import { type OutboundDefinition, TopicMissing, targetNameOf } from './definition.ts';
import type { PartitionFollow } from './follow.ts';
import type { Gates } from './gates.ts';
import { GroupSync } from './group-sync.ts';
import { Modes } from './modes.ts';
import { CopyPositions } from './positions.ts';
import { Primaries } from './primaries.ts';
import { type MirrorContext, Session, type SessionOptions } from './session.ts';
import { slots } from './slots.ts';
import { SyncGate } from './sync.ts';
import { targetTopic } from './target-topic.ts';

/** Answers still awaited when it is to stop, ms. What is not known then is read back the next time. */
const settleMs = 3000;
const readsAtOnce = 4;

export class OutboundSession extends Session<OutboundDefinition, PartitionCopy | PartitionFollow> {
  readonly #budget: Budget;
  #producers: RemoteProducers | undefined;
  #producer: Producer | undefined;
  #producerId = -1n;
  #refusals = 0;
  #fromLatest = false;
  #copyContext: CopyContext | undefined;
  readonly #gates: Gates;
  #modes: Modes | undefined;
  #primaries: Primaries | undefined;

  constructor(context: MirrorContext, options: SessionOptions<OutboundDefinition>, gates: Gates) {
    super(context, options, options.definition.target);
    this.#gates = gates;
    this.#budget = new Budget(options.definition.bufferBytes);
  }

  get heldBytes(): number {
    return this.#budget.held;
  }

  protected watch(): () => void {
    return this.context.topics.onChange(({ kind, topic }) => {
      if (kind !== 'deleted') void this.#adopt(topic);
    });
  }

  protected async adoptAll(): Promise<void> {
    await Promise.all([...this.context.topics.all()].map(topic => this.#adopt(topic)));
    this.#fromLatest = false;
  }

  protected adoptAgain(topics: ReadonlySet<string>): void {
    for (const topic of this.context.topics.all()) if (topics.has(topic.name)) void this.#adopt(topic);
  }

  protected abandon(): void {
    this.#producer?.abandon();
    this.#primaries?.close();
  }

  /** What a cut-over needs; `restart` ends this session, and another begins. */
  switching(restart: () => Promise<void>, stopping: AbortSignal): Switching {
    return {
      stopping,
      topics: this.context.topics,
      gates: this.#gates,
      mirrorId: this.options.mirrorId,
      lane: this.lane,
      restart,
      modeOf: topic => this.#modes!.of(topic),
      targetConfig: (topic, keys) => topicConfig(this.cluster, topic, keys),
      behind: (topic, to) => this.#behind(topic, to),
      note: () => this.note(),
    };
  }

  async #behind(topic: Topic, to: Primary): Promise<string | undefined> {
    if (this.ending.aborted) return 'the mirror has broken off';
    const copies = [...this.copies.values()].filter(({ place }) => place.topic === topic.name);
    if (copies.length < topic.partitionCount) return `topic ${topic.name} is not mirrored as a whole at the moment`;
    if (to === 'here') return this.#primaries!.notFollowed(topic);
    return notCopied(copies.filter(copy => copy instanceof PartitionCopy));
  }

  protected async open(): Promise<void> {
    const { definition, mirrorId, logger } = this.options;
    const { log, pool } = this.context;
    const { cluster, lane, ending: stopping } = this;
    await cluster.retrying(() => cluster.refresh());
    const clusterId = cluster.clusterId!;
    const of = { table: 'kafka.mirror_producers', column: 'mirror_id', id: mirrorId } as const;
    this.#producers = new RemoteProducers(this.lane, of, clusterId);
    const known = await this.#producers.load(async () => {
      const producerId = await newProducerId(cluster);
      logger.info({ clusterId, producerId: String(producerId) }, 'took a producer id in the target');
      return producerId;
    });
    const newest = known.at(-1)!;
    this.#producerId = newest.producerId;
    this.#refusals = newest.refusals;
    this.positions = new CopyPositions(this.lane, mirrorId, clusterId);
    this.#fromLatest = definition.start === 'latest' && !(await this.positions.known());
    this.#modes = await Modes.load(pool, mirrorId, definition);
    const { bootstrap, tls, sasl } = definition.target;
    const clientId = `millrace-mirror-${definition.name}`;
    const target = { bootstrap, tls, sasl, clientId, onTrouble: (error: Error | undefined) => this.troubled(error) };
    const gates = this.#gates;
    this.#primaries = new Primaries({ log, pool, gates, lane, mirrorId, clusterId, target, stopping, logger });
    const producer = new Producer({
      cluster,
      producerId: newest.producerId,
      epoch: 0,
      onTrouble: error => this.troubled(error),
      onRetry: (topic, partition, batches) => {
        for (const copy of this.copies.values()) {
          const { place } = copy;
          if (place.targetTopic === topic && place.partition === partition) copy.retried += batches;
        }
      },
    });
    this.#producer = producer;
    this.groups = new GroupSync({ lane: this.lane, cluster, mirrorId, clusterId, groups: definition.groups });
    this.#copyContext = {
      log,
      cluster,
      producer,
      budget: this.#budget,
      throttle: this.throttle,
      deadLetters: this.deadLetters,
      strict: definition.strict,
      reading: slots(readsAtOnce),
      note: copies => this.positions!.note(copies),
      onSequence: refused => this.#onSequence(refused),
      stopping: this.ending,
      logger,
    };
  }

  async #onSequence(refused: boolean): Promise<void> {
    if (!refused && this.#refusals === 0) return;
    this.#refusals = refused ? this.#refusals + 1 : 0;
    await this.#producers!.refused(this.#producerId, refused);
  }

  /** Begins to copy what is not copied yet of a topic, if it is to be. */
  #adopt(topic: Topic): Promise<void> {
    const name = targetNameOf(this.options.definition, topic.name);
    if (name === undefined || this.#copyContext === undefined) return Promise.resolve();
    if (topic.primaryMirror === null && this.#modes!.of(topic.name).mode === 'off') return Promise.resolve();
    return this.adopt(topic.id, topic.name, () => this.#adoptNow(topic, name));
  }

  async #adoptNow(topic: Topic, name: string): Promise<void> {
    const { definition } = this.options;
    const { log, defaults } = this.context;
    const missing = Array.from({ length: topic.partitionCount }, (_, partition) => partition).filter(
      partition => !this.copies.has(`${topic.id} ${partition}`),
    );
    if (missing.length === 0 || this.ending.aborted) return;
    const other = [...this.copies.values()].find(
      ({ place }) => place.targetTopic === name && place.topic !== topic.name,
    );
    if (other)
      throw new TopicMissing(`topics ${other.place.topic} and ${topic.name} would both be ${name} in the target`);
    this.#refuseBeside(topic);
    await this.refuseCircle({ here: topic.id, there: name, way: 'out' });
    await targetTopic(this.cluster, definition.target, { name, topic, defaults });
    const ends = await listOffsets(this.cluster, name, missing, latest);
    const mode = this.#modes!.of(topic.name);
    const noted = await this.positions!.open(
      { topicId: topic.id, topic: topic.name, targetTopic: name },
      missing.map(partition => {
        const { logStartOffset, highWatermark } = log.partition(topic, partition)!;
        return {
          partition,
          nextOffset: this.#fromLatest ? highWatermark : logStartOffset,
          targetNextOffset: ends.get(partition)!,
          producerId: this.#producerId,
          nextSequence: 0,
          share: mode.share,
        };
      }),
    );
    if (topic.primaryMirror !== null) {
      const begun = new Map(missing.map(partition => [partition, noted.get(partition)!]));
      const follows = await this.#primaries!.adopt(topic, name, begun, mode);
      for (const follow of follows) this.#begin(`${topic.id} ${follow.place.partition}`, follow);
      return;
    }
    for (const partition of missing) {
      const source = log.partition(topic, partition)!;
      const place = { topic: topic.name, targetTopic: name, partition, source, share: mode.share };
      const copy = new PartitionCopy(this.#copyContext!, place, noted.get(partition)!);
      await copy.recover(ends.get(partition)!);
      copy.adopt(this.#producerId);
      const changes = copy.toNote();
      if (changes) await this.positions!.note([changes]);
      if (this.ending.aborted) return;
      this.#gates.of(topic, partition).open(mode.sync ? new SyncGate(mode.sync, copy) : undefined);
      this.#begin(`${topic.id} ${partition}`, copy);
    }
  }

  /** Throws where another mirror is there already, and there can be one alone. */
  #refuseBeside(topic: Topic): void {
    const { primaryMirror } = topic;
    if (primaryMirror !== null && primaryMirror !== this.options.mirrorId) {
      throw new TopicMissing(
        'another mirror’s target is its primary, and what is copied back from there is not copied out',
      );
    }
    const other = this.#modes!.of(topic.name).sync && this.#gates.inTheWay(topic);
    if (other) throw new TopicMissing(`producers wait for mirror ${other} already (sync), and can wait for one`);
  }

  #begin(key: string, copy: PartitionCopy | PartitionFollow): void {
    this.begin(copy, key, {
      topic: copy.place.topic,
      ended: () => {
        const { source, topic } = copy.place;
        if (source.deleted)
          this.options.logger.info({ topic }, 'a mirrored topic has been deleted; it stays in the target');
        return source.deleted;
      },
      failed: async error => {
        if (isSequenceRefusal(error)) await this.#onSequence(true).catch(() => {}); // it is counted the next time
        return false; // where the target is, is found out by all of them
      },
    });
  }

  /** What is on its way is awaited for a moment; what is not known then is read back from the target. */
  protected async settle(): Promise<void> {
    const { hurry } = this.options;
    const timer = new AbortController();
    const over = delay(settleMs, undefined, { signal: timer.signal, ref: false }).catch(() => {});
    const settled = Promise.allSettled(this.runs).then(() =>
      Promise.allSettled(Array.from(this.copies.values(), copy => copy.settle())),
    );
    await Promise.race([settled, over, aborted(hurry)]);
    timer.abort();
  }
}
