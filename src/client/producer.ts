// An idempotent producer of whole batches: each partition's in order, acknowledged by all replicas (KIP-98). A batch is
// given its producer id, epoch and sequence here, once; sent again after a lost answer or a new leader it is the same
// bytes, so the partition has it once.
//
//   append ─▶ queue of the partition ─▶ in flight (up to maxInFlight) ─▶ acknowledged, in order
//                       ▲                        │ retriable: what is behind it is awaited, and all goes back
//                       └────────────────────────┘
//
// What goes again goes one by one, each acknowledged before the next: the partition may have it already, and remembers
// five batches only, so that others must not be appended behind it meanwhile.
//
// Whoever appends bounds what is queued (`queuedBytes`). A partition whose batch is refused takes no more: what follows
// would be a gap.
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import { assignProducer, lastOffsetDelta } from '../protocol/record-batch.ts';
import type { ReceivedResponse } from '../protocol/schema.ts';
import { backoff } from '../runtime/backoff.ts';
import type { Cluster } from './cluster.ts';
import { ClientClosedError, isRetriable, KafkaError, UnreachableError } from './errors.ts';

export interface ProducerOptions {
  readonly cluster: Cluster;
  readonly producerId: bigint;
  readonly epoch: number;
  /**
   * Batches of a partition under way at once; brokers remember five. A partition takes any sequence of a producer that it
   * does not know (KIP-360), so whoever allows more than one awaits the first: it might be there without what it follows.
   */
  readonly maxInFlight?: number;
  /** Of one request, over all its partitions; a larger batch goes alone. */
  readonly maxRequestBytes?: number;
  /** Told of what goes wrong and is tried again, and with undefined once everything goes well. */
  readonly onTrouble?: (error: Error | undefined) => void;
  /** So many batches of a partition go again. */
  readonly onRetry?: (topic: string, partition: number, batches: number) => void;
}

interface Entry {
  readonly batch: Buffer;
  resolve(baseOffset: bigint): void;
  reject(error: Error): void;
}

interface Lane {
  readonly topic: string;
  readonly partition: number;
  nextSequence: number;
  /** Not acknowledged, oldest first; the first `sent` of them are in flight. */
  readonly entries: Entry[];
  sent: number;
  inFlight: number;
  /** So many of the oldest entries go one by one. */
  alone: number;
  /** Of the oldest entry that failed and may be tried again. */
  failure: Error | undefined;
  /** Nothing is sent until the leaders have been looked up again. */
  waits: boolean;
  readonly wait: { next: (signal?: AbortSignal) => Promise<void> };
  broken: Error | undefined;
  /** Woken when `inFlight` falls to 0. */
  readonly idle: (() => void)[];
}

const ackTimeoutMs = 30_000;
const retryWaits = { firstMs: 20, maxMs: 3000 };
const defaultRequestBytes = 1_048_576;
/** Requests to one broker at once, with several batches a partition in flight or one. */
const requestsInFlight = 5;

export class Producer {
  readonly #options: Required<Omit<ProducerOptions, 'onTrouble' | 'onRetry'>>;
  readonly #onTrouble: (error: Error | undefined) => void;
  readonly #onRetry: ProducerOptions['onRetry'];
  readonly #lanes = new Map<string, Lane>();
  /** Lanes with something to send. */
  readonly #ready = new Set<Lane>();
  readonly #requests = new Map<number, number>();
  /** Lanes whose last try failed. */
  readonly #failing = new Set<Lane>();
  #queuedBytes = 0;
  #scheduled = false;

  constructor({ onTrouble = () => {}, onRetry, ...options }: ProducerOptions) {
    this.#options = { maxInFlight: requestsInFlight, maxRequestBytes: defaultRequestBytes, ...options };
    this.#onTrouble = onTrouble;
    this.#onRetry = onRetry;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /**
   * Where the sequence of a partition goes on: before its first batch, or once everything of it has been rejected after
   * one was refused. 0 where nothing is said. Throws while an answer is still awaited.
   */
  begin(topic: string, partition: number, nextSequence: number): void {
    const lane = this.#lane(topic, partition);
    if (lane.inFlight > 0 || lane.entries.length > 0)
      throw new Error(`partition ${partition} of ${topic} is written to`);
    lane.broken = undefined;
    lane.failure = undefined;
    lane.nextSequence = nextSequence;
  }

  /** Resolves when no answer about the partition is awaited any more. */
  async idle(topic: string, partition: number): Promise<void> {
    const lane = this.#lane(topic, partition);
    while (lane.inFlight > 0) await new Promise<void>(resolve => lane.idle.push(resolve));
  }

  /**
   * Takes the batch over: its header is written. Resolves with the offset of its first record when all replicas have it.
   * Rejects with KafkaError when it is refused, with ClientClosedError when the cluster is closed before an answer; until
   * then it is tried again.
   */
  append(topic: string, partition: number, batch: Buffer): Promise<bigint> {
    const lane = this.#lane(topic, partition);
    if (lane.broken) return Promise.reject(lane.broken);
    if (this.#options.cluster.isClosed) return Promise.reject(new ClientClosedError());
    assignProducer(batch, this.#options.producerId, this.#options.epoch, lane.nextSequence);
    lane.nextSequence = addSequence(lane.nextSequence, lastOffsetDelta(batch) + 1);
    this.#queuedBytes += batch.length;
    return new Promise((resolve, reject) => {
      lane.entries.push({ batch, resolve, reject });
      this.#wake(lane);
    });
  }

  /** Rejects everything that has not been acknowledged. */
  abandon(): void {
    for (const lane of this.#lanes.values()) this.#break(lane, new ClientClosedError());
  }

  #lane(topic: string, partition: number): Lane {
    const key = `${topic}/${partition}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = {
        topic,
        partition,
        nextSequence: 0,
        entries: [],
        sent: 0,
        inFlight: 0,
        alone: 0,
        failure: undefined,
        waits: false,
        wait: { next: backoff(retryWaits) },
        broken: undefined,
        idle: [],
      };
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #wake(lane: Lane): void {
    this.#ready.add(lane);
    if (this.#scheduled) return;
    this.#scheduled = true;
    // What is appended in the same turn shares requests.
    setImmediate(() => {
      this.#scheduled = false;
      this.#send();
    });
  }

  #canSend(lane: Lane): boolean {
    if (lane.waits || lane.failure !== undefined || lane.sent === lane.entries.length) return false;
    return lane.inFlight < (lane.alone > 0 ? 1 : this.#options.maxInFlight);
  }

  #send(): void {
    const { cluster, maxRequestBytes } = this.#options;
    for (;;) {
      const byLeader = new Map<number, { lane: Lane; entry: Entry }[]>();
      const bytes = new Map<number, number>();
      for (const lane of this.#ready) {
        if (!this.#canSend(lane)) {
          this.#ready.delete(lane);
          continue;
        }
        let leader: number;
        try {
          leader = cluster.leaderOf(lane.topic, lane.partition);
        } catch (error) {
          this.#ready.delete(lane);
          this.#retryLater(lane, error as Error);
          continue;
        }
        if ((this.#requests.get(leader) ?? 0) >= requestsInFlight) continue;
        const entry = lane.entries[lane.sent]!;
        const held = bytes.get(leader) ?? 0;
        if (held > 0 && held + entry.batch.length > maxRequestBytes) continue;
        bytes.set(leader, held + entry.batch.length);
        const parts = byLeader.get(leader) ?? [];
        byLeader.set(leader, parts);
        parts.push({ lane, entry });
      }
      if (byLeader.size === 0) return;
      for (const [leader, parts] of byLeader) void this.#request(leader, parts);
    }
  }

  async #request(leader: number, parts: readonly { lane: Lane; entry: Entry }[]): Promise<void> {
    const { cluster } = this.#options;
    this.#requests.set(leader, (this.#requests.get(leader) ?? 0) + 1);
    const topics = new Map<string, { index: number; records: Buffer }[]>();
    for (const { lane, entry } of parts) {
      lane.sent++;
      lane.inFlight++;
      const partitions = topics.get(lane.topic) ?? [];
      topics.set(lane.topic, partitions);
      partitions.push({ index: lane.partition, records: entry.batch });
    }
    let outcome: ReceivedResponse<typeof Produce> | Error;
    try {
      outcome = await cluster.request(
        leader,
        Produce,
        {
          acks: -1,
          timeoutMs: ackTimeoutMs,
          topicData: Array.from(topics, ([name, partitionData]) => ({ name, partitionData })),
        },
        { lane: 'produce', least: 3, most: 12, timeoutMs: ackTimeoutMs + 10_000 },
      );
    } catch (error) {
      outcome = error as Error;
    }
    this.#requests.set(leader, this.#requests.get(leader)! - 1);
    for (const { lane, entry } of parts) {
      lane.inFlight--;
      if (lane.inFlight === 0) for (const wake of lane.idle.splice(0)) wake();
      if (outcome instanceof Error) this.#failed(lane, entry, outcome);
      else this.#answered(lane, entry, outcome);
      if (lane.entries.length > 0) this.#wake(lane);
    }
    // A lane that found all requests to the broker taken.
    for (const lane of this.#ready) this.#wake(lane);
  }

  #answered(lane: Lane, entry: Entry, { responses }: ReceivedResponse<typeof Produce>): void {
    const answer = responses
      .find(({ name }) => name === lane.topic)
      ?.partitionResponses.find(({ index }) => index === lane.partition);
    const subject = `partition ${lane.partition} of ${lane.topic}`;
    if (answer === undefined) {
      this.#failed(lane, entry, new UnreachableError(`${subject} was passed over`));
    } else if (answer.errorCode !== ErrorCode.NONE) {
      this.#failed(lane, entry, new KafkaError(answer.errorCode, subject, answer.errorMessage));
    } else if (lane.broken === undefined) {
      // Requests are answered in order, but their order over connections is the leaders'.
      const at = lane.entries.indexOf(entry);
      lane.entries.splice(at, 1);
      lane.sent--;
      if (lane.alone > 0) lane.alone--;
      this.#queuedBytes -= entry.batch.length;
      if (this.#failing.delete(lane)) {
        lane.wait.next = backoff(retryWaits);
        if (this.#failing.size === 0) this.#onTrouble(undefined);
      }
      entry.resolve(answer.baseOffset);
      this.#settle(lane);
    }
  }

  #failed(lane: Lane, entry: Entry, error: Error): void {
    if (lane.broken) return;
    const isOldest = lane.entries[0] === entry;
    // What is behind a batch that failed is out of order for that alone.
    const follows =
      error instanceof KafkaError &&
      error.code === ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER &&
      (!isOldest || lane.failure !== undefined);
    if (!follows && !isRetriable(error)) {
      this.#break(lane, error);
      return;
    }
    // On a new connection it may have overtaken the one before it, which then succeeds.
    lane.failure ??= follows ? new UnreachableError(`${entry.batch.length} bytes came before what they follow`) : error;
    this.#settle(lane);
  }

  /** After a failure: once nothing of the partition is under way, everything goes again, in order. */
  #settle(lane: Lane): void {
    const { failure } = lane;
    if (failure === undefined || lane.inFlight > 0) return;
    lane.failure = undefined;
    lane.alone = Math.max(lane.alone, lane.sent);
    lane.sent = 0;
    this.#retryLater(lane, failure);
  }

  #retryLater(lane: Lane, error: Error): void {
    if (!isRetriable(error)) {
      this.#break(lane, error);
      return;
    }
    const { cluster } = this.#options;
    this.#failing.add(lane);
    this.#onRetry?.(lane.topic, lane.partition, lane.entries.length);
    this.#onTrouble(error);
    lane.waits = true;
    void (async () => {
      await lane.wait.next(cluster.closing);
      try {
        await cluster.refresh();
      } catch (refused) {
        if (!isRetriable(refused)) this.#break(lane, refused as Error);
        else this.#onTrouble(refused as Error);
      }
      lane.waits = false;
      if (lane.entries.length > 0) this.#wake(lane);
    })();
  }

  #break(lane: Lane, error: Error): void {
    lane.broken ??= error;
    this.#ready.delete(lane);
    this.#failing.delete(lane);
    lane.sent = 0;
    lane.alone = 0;
    for (const entry of lane.entries.splice(0)) {
      this.#queuedBytes -= entry.batch.length;
      entry.reject(error);
    }
  }
}

/** Sequences wrap from 2^31 - 1 to 0. */
export const addSequence = (sequence: number, count: number): number => (sequence + count) % 0x8000_0000;
