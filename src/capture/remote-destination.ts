// A remote Kafka as a capture's destination (docs/decisions/0005). One producer id for the capture's life, whose sequence
// in each partition counts the capture's records. So the sequence is also a compare-and-swap on the partition's end:
//
//   open      the end is read back, from the offset last noted on: the last batch of ours tells position and sequence
//   append    goes in only behind exactly that batch, whoever else of us still has a request under way
//   crash     open again: what had arrived is there, with its position in its headers
//
// A request of a process that died may arrive late. Behind our first batch its sequence is old, and it is refused. Before
// it, ours is refused, and we look again; or, if both hold as many records, ours is taken for the repetition of it: so the
// first batch of a partition is read back and compared, and nothing follows until it is. For the same reason there is one
// batch under way in a partition at a time.
import type pg from 'pg';
import type { Logger } from 'pino';
import { createTopic, latest, listOffsets, newProducerId, topicConfig } from '../client/admin.ts';
import { Cluster, type ClusterOptions } from '../client/cluster.ts';
import { isSequenceRefusal, KafkaError } from '../client/errors.ts';
import { addSequence, Producer } from '../client/producer.ts';
import { batchAt, holdsTheSame, scanOwn } from '../client/tail.ts';
import { formatLsn, type Lsn, noLsn, parseLsn } from '../postgres/lsn.ts';
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import { RemoteProducers } from '../storage/remote-producers.ts';
import { TopicError } from '../storage/topics.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import type { Destination, Place, StoredPosition } from './destination.ts';
import type { Position } from './position.ts';
import { type RemotePosition, RemotePositions } from './remote-positions.ts';
import { CaptureError } from './source.ts';

export interface RemoteDestinationOptions {
  readonly captureId: number;
  /** Of the capture, for messages. */
  readonly name: string;
  readonly lane: WriteLane;
  readonly cluster: Omit<ClusterOptions, 'onTrouble'>;
  readonly createTopics: boolean;
  readonly replicationFactor: number;
  /** Everything before it is in the target. */
  readonly confirmed: Lsn;
  readonly logger: Logger;
}

export interface RemoteStatus {
  readonly bootstrap: string;
  readonly clusterId: string | undefined;
  /** Why nothing gets through at the moment. */
  readonly trouble: string | undefined;
}

interface RemotePartition {
  position: RemotePosition;
  /** Until the first batch has been seen to be ours: what waits behind it. */
  held: Held[] | undefined;
}

interface Held {
  readonly batch: Buffer;
  readonly last: Position;
  resolve(): void;
  reject(error: unknown): void;
}

interface RemotePlace extends Place {
  readonly partitions: readonly RemotePartition[];
}

/** Kafka's default of max.message.bytes, where the target does not tell. */
const usualMessageBytes = 1_048_588;
export class RemoteDestination implements Destination {
  readonly settleMs = 10_000;
  readonly #options: RemoteDestinationOptions;
  readonly #cluster: Cluster;
  readonly #places = new Map<string, RemotePlace>();
  readonly #opening = new Map<string, Promise<RemotePlace | undefined>>();
  readonly #dirty = new Map<RemotePartition, string>();
  #positions: RemotePositions | undefined;
  #producers: RemoteProducers | undefined;
  #noted = new Map<string, RemotePosition[]>();
  #producerIds: ReadonlySet<bigint> = new Set();
  #producerId = -1n;
  #producer: Producer | undefined;
  #refusals = 0;
  #trouble: Error | undefined;

  constructor(options: RemoteDestinationOptions) {
    this.#options = options;
    this.#cluster = new Cluster({ ...options.cluster, onTrouble: error => this.#troubled(error) });
  }

  status(): RemoteStatus {
    const { bootstrap } = this.#options.cluster;
    return {
      bootstrap: bootstrap.map(({ host, port }) => `${host}:${port}`).join(','),
      clusterId: this.#cluster.clusterId,
      trouble: this.#trouble?.message,
    };
  }

  async load(): Promise<void> {
    const { lane, captureId, logger } = this.#options;
    await this.#cluster.refresh();
    const clusterId = this.#cluster.clusterId!;
    const positions = new RemotePositions(lane, captureId, clusterId);
    this.#positions = positions;
    const producers = new RemoteProducers(
      lane,
      { table: 'kafka.capture_producers', column: 'capture_id', id: captureId },
      clusterId,
    );
    this.#producers = producers;
    const known = await producers.load(async () => {
      const producerId = await newProducerId(this.#cluster);
      logger.info({ clusterId, producerId: String(producerId) }, 'took a producer id in the target');
      return producerId;
    });
    const newest = known.at(-1)!;
    this.#producerId = newest.producerId;
    this.#refusals = newest.refusals;
    this.#producerIds = new Set(known.map(({ producerId }) => producerId));
    this.#noted = await positions.load();
    this.#producer = new Producer({
      cluster: this.#cluster,
      producerId: newest.producerId,
      epoch: 0,
      maxInFlight: 1,
      onTrouble: error => this.#troubled(error),
    });
  }

  known(name: string): Place | undefined {
    return this.#places.get(name);
  }

  async find(name: string): Promise<Place | undefined> {
    return this.#open(name, undefined);
  }

  async open(name: string, partitionCount: number, config: Readonly<Record<string, string>>): Promise<Place> {
    const place = await this.#open(name, { partitionCount, config });
    return place!;
  }

  async append(place: Place, partition: number, batch: Buffer, last: StoredPosition): Promise<void> {
    const at = (place as RemotePlace).partitions[partition]!;
    if (at.held === undefined) return this.#send(place.name, at, batch, last);
    const { held } = at;
    const waiting = new Promise<void>((resolve, reject) => held.push({ batch, last, resolve, reject }));
    if (held.length === 1) void this.#sendFirst(place.name, at, held);
    return waiting;
  }

  async note(client: pg.PoolClient): Promise<void> {
    const rows = Array.from(this.#dirty, ([{ position }, topic]) => ({ topic, position }));
    const noted = [...this.#dirty];
    this.#dirty.clear();
    try {
      await this.#positions?.note(client, rows);
    } catch (error) {
      for (const [at, topic] of noted) this.#dirty.set(at, topic);
      throw error;
    }
  }

  abandon(): void {
    this.#producer?.abandon();
    this.#cluster.close();
    for (const { partitions } of this.#places.values()) {
      for (const at of partitions) {
        for (const { reject } of at.held?.splice(0) ?? []) reject(new Error('the capture has ended'));
      }
    }
  }

  #troubled(error: Error | undefined): void {
    if (error && !this.#trouble)
      this.#options.logger.warn({ reason: error.message }, 'the target does not take records');
    if (!error && this.#trouble) this.#options.logger.info('the target takes records again');
    this.#trouble = error;
  }

  async #send(topic: string, at: RemotePartition, batch: Buffer, last: Position): Promise<void> {
    const baseOffset = await this.#producer!.append(topic, at.position.partition, batch);
    this.#acknowledged(topic, at, batch, last, baseOffset);
  }

  #acknowledged(topic: string, at: RemotePartition, batch: Buffer, last: Position, baseOffset: bigint): void {
    const count = header.recordCount(batch);
    at.position = {
      ...at.position,
      commitLsn: last.commitLsn,
      ordinal: last.ordinal,
      nextOffset: baseOffset + BigInt(count),
      producerId: this.#producerId,
      nextSequence: addSequence(header.baseSequence(batch), count),
    };
    this.#dirty.set(at, topic);
  }

  async #sendFirst(topic: string, at: RemotePartition, held: Held[]): Promise<void> {
    const [first] = held;
    const { batch, last, resolve } = first!;
    const { partition } = at.position;
    try {
      const baseOffset = await this.#producer!.append(topic, partition, batch);
      const there = await batchAt(this.#cluster, topic, partition, baseOffset);
      if (there === undefined || !(await holdsTheSame(there, batch))) {
        throw new Error(`partition ${partition} of ${topic} had a batch of ours under way; reading its end again`);
      }
      if (this.#refusals > 0) {
        this.#refusals = 0;
        await this.#producers!.refused(this.#producerId, false);
      }
      this.#acknowledged(topic, at, batch, last, baseOffset);
    } catch (error) {
      if (isSequenceRefusal(error)) {
        await this.#producers!.refused(this.#producerId, true).catch(() => {}); // it is counted the next time
      }
      for (const waiting of held.splice(0)) waiting.reject(error);
      return;
    }
    at.held = undefined;
    resolve();
    // In this turn, so that nothing comes between.
    for (const next of held.slice(1)) this.#send(topic, at, next.batch, next.last).then(next.resolve, next.reject);
  }

  /** Opened once, however many ask. `make` undefined: not made. */
  async #open(
    name: string,
    make: { readonly partitionCount: number; readonly config: Readonly<Record<string, string>> } | undefined,
  ): Promise<RemotePlace | undefined> {
    for (;;) {
      const known = this.#places.get(name);
      if (known) return known;
      const opening = this.#opening.get(name);
      if (opening === undefined) break;
      await opening;
      if (make === undefined) return this.#places.get(name);
    }
    const opening = this.#openNow(name, make).finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return opening;
  }

  async #openNow(
    name: string,
    make: { readonly partitionCount: number; readonly config: Readonly<Record<string, string>> } | undefined,
  ): Promise<RemotePlace | undefined> {
    const { createTopics, replicationFactor } = this.#options;
    const cluster = this.#cluster;
    try {
      let layout = await cluster.retrying(() => cluster.topic(name));
      if (layout === undefined && make === undefined) return undefined;
      if (layout === undefined && !createTopics) {
        throw new TopicError(
          ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
          'the target has no such topic, and createTopics is false',
        );
      }
      layout ??= await createTopic(cluster, { name, replicationFactor, ...make! });
      const config = await topicConfig(cluster, name, ['max.message.bytes']);
      // Ranges of snapshots that are asked about here (find) count with the partitions that there were.
      const { partitions, stored } = await this.#recover(name, layout.partitions.length, make !== undefined);
      const place: RemotePlace = {
        name,
        partitionCount: partitions.length,
        maxRecordBytes: Number(config?.['max.message.bytes'] ?? usualMessageBytes),
        stored,
        partitions,
      };
      this.#places.set(name, place);
      return place;
    } catch (error) {
      if (error instanceof KafkaError) throw new TopicError(error.code as ErrorCode, error.message);
      throw error;
    }
  }

  /** Where each partition stands, and stood when the capture began; noted before the first batch. */
  async #recover(
    topic: string,
    partitionCount: number,
    mayGrow: boolean,
  ): Promise<{ partitions: RemotePartition[]; stored: (StoredPosition | undefined)[] }> {
    const noted = this.#noted.get(topic) ?? [];
    if (noted.length > partitionCount) throw this.#lost(topic, noted[partitionCount]!, 0n);
    const all = Array.from({ length: partitionCount }, (_, partition) => partition);
    const ends = await listOffsets(this.#cluster, topic, all, latest);
    const found: RemotePosition[] = [];
    for (const position of noted) found.push(await this.#atEnd(topic, position, ends.get(position.partition)!));
    // Keys go where they went until everything that the slot may send again has been passed over: only then partitions
    // that have been added are used.
    const grows = mayGrow && found.every(position => position.commitLsn < this.#options.confirmed);
    const count = noted.length === 0 || grows ? partitionCount : noted.length;
    const positions = all.slice(0, count).map(
      (partition): RemotePosition => ({
        ...(found[partition] ?? {
          partition,
          commitLsn: noLsn,
          ordinal: -1,
          nextOffset: ends.get(partition)!,
          producerId: this.#producerId,
          nextSequence: 0,
        }),
        partitionCount: count,
      }),
    );
    if (noted.length < count) await this.#positions!.save(topic, positions);
    const partitions = positions.map((position): RemotePartition => {
      const { partition, producerId } = position;
      this.#producer!.begin(topic, partition, producerId === this.#producerId ? position.nextSequence : 0);
      const at = { position, held: noted[partition] && [] };
      if (found[partition] !== noted[partition]) this.#dirty.set(at, topic);
      return at;
    });
    return { partitions, stored: found.map(position => (position.commitLsn === noLsn ? undefined : position)) };
  }

  async #atEnd(topic: string, noted: RemotePosition, end: bigint): Promise<RemotePosition> {
    const { partition, nextOffset } = noted;
    if (end < nextOffset) throw this.#lost(topic, noted, end);
    const own = await scanOwn(this.#cluster, topic, partition, nextOffset, end, this.#producerIds);
    if (own.newest === undefined) return noted;
    const position = own.newestWithRecords && positionOf(await decodeBatch(own.newestWithRecords, decodedBytes));
    return {
      ...noted,
      ...position,
      nextOffset: header.lastOffset(own.newest) + 1n,
      producerId: header.producerId(own.newest),
      nextSequence: addSequence(header.baseSequence(own.newest), header.lastOffsetDelta(own.newest) + 1),
    };
  }

  #lost(topic: string, noted: RemotePosition, end: bigint): CaptureError {
    const { name } = this.#options;
    const { partition } = noted;
    return new CaptureError(
      `partition ${partition} of ${topic} ends at ${end} in the target, which had acknowledged what is before ${noted.nextOffset} (changes up to ${formatLsn(noted.commitLsn)}): the target has lost records, or the topic was made again`,
      `to go on without them, run: DELETE FROM kafka.capture_remote_positions WHERE topic = '${topic.replaceAll("'", "''")}' AND capture_id = (SELECT capture_id FROM kafka.captures WHERE name = '${name}'); then resume the capture`,
    );
  }
}

const decodedBytes = 256 * 2 ** 20;

/** Of the newest record that has one. */
function positionOf(records: readonly LogRecord[]): Position | undefined {
  for (const { headers } of records.toReversed()) {
    const value = (key: string) => headers.find(found => found.key === key)?.value?.toString('latin1');
    const [lsn, ordinal] = [value('commit_lsn'), value('ordinal')];
    if (lsn !== undefined && ordinal !== undefined) return { commitLsn: parseLsn(lsn), ordinal: Number(ordinal) };
  }
  return undefined;
}
