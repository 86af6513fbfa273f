// Incremental fetch sessions (KIP-227): a consumer names its partitions once, then only what changes, and is answered
// only with partitions that have something to say. Kept in memory up to a number of slots; a full cache evicts the
// session unused for longest once it has been idle for two minutes, as Kafka does, else gives no session.
import { randomInt } from 'node:crypto';
import { ErrorCode } from '../protocol/errors.ts';

export interface FetchPartition {
  readonly topicName: string;
  readonly topicId: string;
  readonly partition: number;
  readonly currentLeaderEpoch: number;
  readonly fetchOffset: bigint;
  readonly lastFetchedEpoch: number;
  readonly maxBytes: number;
}

interface CachedPartition {
  request: FetchPartition;
  /** What the client was last told; an unchanged partition without records is left out. */
  highWatermark: bigint;
  logStartOffset: bigint;
  failed: boolean;
}

export interface PartitionState {
  readonly highWatermark: bigint;
  readonly logStartOffset: bigint;
  readonly errorCode: number;
  readonly bytes: number;
}

const evictableAfterMs = 120_000;
/** Of all sessions together: some 300 bytes each. */
const maxPartitions = 200_000;

const partitionKey = (p: { topicName: string; topicId: string; partition: number }): string =>
  `${p.topicName}\0${p.topicId}\0${p.partition}`;

class Session {
  readonly id: number;
  epoch = 1;
  usedAt = Date.now();
  /** Insertion order is the order of answers: a partition that was answered with records goes to the end. */
  readonly partitions = new Map<string, CachedPartition>();

  constructor(id: number) {
    this.id = id;
  }

  update(
    changed: readonly FetchPartition[],
    forgotten: readonly { topicName: string; topicId: string; partition: number }[],
  ): void {
    for (const gone of forgotten) this.partitions.delete(partitionKey(gone));
    for (const request of changed) {
      const known = this.partitions.get(partitionKey(request));
      if (known) known.request = request;
      else
        this.partitions.set(partitionKey(request), { request, highWatermark: -1n, logStartOffset: -1n, failed: false });
    }
  }
}

/** The partitions to serve, and what to do with the answers. */
export interface FetchContext {
  readonly sessionId: number;
  readonly partitions: readonly FetchPartition[];
  /** Whether the client must be told of this partition. */
  include(partition: FetchPartition, state: PartitionState): boolean;
}

export class FetchSessions {
  readonly #slots: number;
  readonly #sessions = new Map<number, Session>();
  #partitions = 0;

  constructor(slots: number) {
    this.#slots = slots;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** The request's context, or the error that makes the client begin a new session. */
  begin(
    sessionId: number,
    sessionEpoch: number,
    partitions: readonly FetchPartition[],
    forgotten: readonly { topicName: string; topicId: string; partition: number }[],
  ): FetchContext | { readonly errorCode: number } {
    if (sessionEpoch === -1) {
      this.#drop(sessionId);
      return { sessionId: 0, partitions, include: () => true };
    }
    if (sessionEpoch === 0) {
      this.#drop(sessionId);
      const session = this.#partitions + partitions.length <= maxPartitions ? this.#create() : undefined;
      if (session) this.#update(session, partitions, []);
      const include = session ? includeFirst(session) : () => true;
      return { sessionId: session?.id ?? 0, partitions, include };
    }
    const session = this.#sessions.get(sessionId);
    if (!session) return { errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND };
    if (session.epoch !== sessionEpoch) return { errorCode: ErrorCode.INVALID_FETCH_SESSION_EPOCH };
    session.epoch = sessionEpoch === 0x7fff_ffff ? 1 : sessionEpoch + 1;
    session.usedAt = Date.now();
    this.#sessions.delete(session.id);
    this.#sessions.set(session.id, session); // in order of use
    this.#update(session, partitions, forgotten);
    if (this.#partitions > maxPartitions) {
      this.#drop(session.id);
      return { errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND };
    }
    return {
      sessionId: session.id,
      partitions: Array.from(session.partitions.values(), cached => cached.request),
      include: includeChanged(session),
    };
  }

  #update(session: Session, ...change: Parameters<Session['update']>): void {
    this.#partitions -= session.partitions.size;
    session.update(...change);
    this.#partitions += session.partitions.size;
  }

  #drop(sessionId: number): void {
    this.#partitions -= this.#sessions.get(sessionId)?.partitions.size ?? 0;
    this.#sessions.delete(sessionId);
  }

  #create(): Session | undefined {
    if (this.#sessions.size >= this.#slots) {
      const [oldest] = this.#sessions.values();
      if (!oldest || Date.now() - oldest.usedAt < evictableAfterMs) return undefined;
      this.#drop(oldest.id);
    }
    let id = randomInt(1, 0x7fff_ffff);
    while (this.#sessions.has(id)) id = randomInt(1, 0x7fff_ffff);
    const session = new Session(id);
    this.#sessions.set(id, session);
    return session;
  }
}

/** The first answer of a session names every partition. */
function includeFirst(session: Session): FetchContext['include'] {
  const changed = includeChanged(session);
  return (partition, state) => {
    changed(partition, state);
    return true;
  };
}

function includeChanged(session: Session): FetchContext['include'] {
  return (partition, state) => {
    const key = partitionKey(partition);
    const cached = session.partitions.get(key);
    if (!cached) return true;
    const failed = state.errorCode !== ErrorCode.NONE;
    const changed =
      state.bytes > 0 ||
      failed ||
      cached.failed ||
      cached.highWatermark !== state.highWatermark ||
      cached.logStartOffset !== state.logStartOffset;
    cached.highWatermark = state.highWatermark;
    cached.logStartOffset = state.logStartOffset;
    cached.failed = failed;
    if (state.bytes > 0) {
      session.partitions.delete(key);
      session.partitions.set(key, cached);
    }
    return changed;
  };
}
