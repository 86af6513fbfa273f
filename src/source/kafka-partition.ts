// A partition of a remote Kafka, with what has been fetched of it and not been read yet. Whoever reads says by the offset
// what is to be fetched next. Read committed: batches of aborted transactions are marked, by the list that comes with each
// answer (KIP-98).
import type { Fetched } from '../client/fetch.ts';
import { ErrorCode } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import { readRecords } from '../protocol/records.ts';
import type { Batches, SourcePartition, SourceTopic } from './source.ts';

interface Answer {
  readonly batches: readonly Buffer[];
  readonly bytes: number;
  /** What follows its last batch. */
  readonly end: bigint;
  readonly aborted: ReadonlySet<bigint>;
}

const abortMarker = 0;

export class KafkaPartition implements SourcePartition {
  readonly topic: SourceTopic;
  /** The cluster's; undefined where it gives topics none. */
  readonly topicId: string | undefined;
  readonly partition: number;
  readonly waiters = new Set<() => void>();
  logStartOffset: bigint;
  highWatermark: bigint;
  deleted = false;
  /** The next offset to fetch; undefined until somebody reads. */
  next: bigint | undefined;
  queuedBytes = 0;
  #queue: Answer[] = [];
  #failure: Error | undefined;
  #outOfRange = false;
  /** Something is to be fetched, or has been read. */
  readonly #poke: () => void;

  constructor(
    topic: SourceTopic,
    topicId: string | undefined,
    partition: number,
    range: { readonly start: bigint; readonly end: bigint },
    poke: () => void,
  ) {
    this.topic = topic;
    this.topicId = topicId;
    this.partition = partition;
    this.logStartOffset = range.start;
    this.highWatermark = range.end;
    this.#poke = poke;
  }

  /** Whether it is to be fetched. */
  get isWanted(): boolean {
    return this.next !== undefined && !this.deleted && !this.#outOfRange && this.#failure === undefined;
  }

  isReadyAt(offset: bigint): boolean {
    this.#drop(offset);
    return this.#queue.length > 0 || this.deleted || this.#outOfRange || this.next !== offset || !!this.#failure;
  }

  /** Rejects with what fetching failed with. Nothing where it has not come yet. */
  async read(offset: bigint): Promise<Batches> {
    this.#drop(offset);
    const [answer] = this.#queue;
    if (answer) {
      const { batches, bytes, aborted } = answer;
      return { error: ErrorCode.NONE, chunks: batches, bytes, aborted, release: () => {} };
    }
    if (this.#failure) throw this.#failure;
    if (this.next !== offset) {
      this.next = offset;
      this.#outOfRange = false;
      this.#poke();
    }
    const error = this.#outOfRange ? ErrorCode.OFFSET_OUT_OF_RANGE : ErrorCode.NONE;
    return { error, chunks: [], bytes: 0, release: () => {} };
  }

  /** What a fetch from `asked` has brought. `batches`: of `fetched`, checked. */
  take(asked: bigint, fetched: Fetched, batches: readonly Buffer[]): void {
    const { lastStableOffset, highWatermark, logStartOffset } = fetched;
    this.highWatermark = lastStableOffset >= 0n ? lastStableOffset : highWatermark;
    if (logStartOffset >= 0n) this.logStartOffset = logStartOffset;
    const last = batches.at(-1);
    // Somebody has gone elsewhere meanwhile, or there is nothing yet.
    if (this.next !== asked || last === undefined || header.lastOffset(last) < asked) return;
    const end = header.lastOffset(last) + 1n;
    const bytes = batches.reduce((sum, batch) => sum + batch.length, 0);
    this.#queue.push({ batches, bytes, end, aborted: abortedBatches(batches, fetched.aborted) });
    this.queuedBytes += bytes;
    this.next = end;
    this.wake();
  }

  /** The offset that is to be fetched is not there. */
  miss(start: bigint, end: bigint): void {
    this.logStartOffset = start;
    this.highWatermark = end;
    this.#outOfRange = true;
    this.wake();
  }

  fail(error: Error): void {
    this.#failure = error;
    this.wake();
  }

  wake(): void {
    for (const waiter of [...this.waiters]) waiter();
  }

  /** What lies before `offset` has been read. */
  #drop(offset: bigint): void {
    while (this.#queue.length > 0 && this.#queue[0]!.end <= offset) {
      this.queuedBytes -= this.#queue.shift()!.bytes;
      this.#poke();
    }
  }
}

/** Base offsets of those that belong to aborted transactions. */
export function abortedBatches(batches: readonly Buffer[], aborted: Fetched['aborted']): Set<bigint> {
  const found = new Set<bigint>();
  if (aborted.length === 0) return found;
  const begun = [...aborted].sort((a, b) => Number(a.firstOffset - b.firstOffset));
  const aborting = new Set<bigint>();
  for (const batch of batches) {
    while (begun.length > 0 && begun[0]!.firstOffset <= header.lastOffset(batch)) {
      aborting.add(begun.shift()!.producerId);
    }
    if (!header.isTransactional(batch)) continue;
    const producerId = header.producerId(batch);
    if (!header.isControl(batch)) {
      if (aborting.has(producerId)) found.add(header.baseOffset(batch));
    } else if (isAbort(batch)) {
      aborting.delete(producerId);
    }
  }
  return found;
}

function isAbort(batch: Buffer): boolean {
  const [record] = readRecords(batch, batch.subarray(header.headerBytes, header.batchBytes(batch)));
  // A version, then the type.
  return record?.key?.readInt16BE(2) === abortMarker;
}
