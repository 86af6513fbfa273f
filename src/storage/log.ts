// The log: partitions of record batches in Postgres, led by this broker. Appends go through group commit
// (group-commit.ts), reads through the tail cache or behind it (stored-log.ts). Acknowledged and visible means
// committed. What happens when Postgres or the lead is lost is here too: #beginTerm.
import type { ClientBase } from 'pg';
import type { Logger } from 'pino';
import { inTransaction, type Pool } from '../postgres/pool.ts';
import { Session } from '../postgres/session.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { backoff } from '../runtime/backoff.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import { StoppedWhileStarting } from '../runtime/lifecycle.ts';
import {
  type Append,
  type AppendOptions,
  type AppendResult,
  answered,
  type PendingAppend,
  refused,
  snapshotStatement,
} from './group.ts';
import { Writer, type WriterContext } from './group-commit.ts';
import { beginTerm, type Term } from './leadership.ts';
import { PartitionLog } from './partition-log.ts';
import { type SegmentRules, Segments } from './segments.ts';
import { type ReadResult, StoredLog } from './stored-log.ts';
import { cutRun, TailCache } from './tail-cache.ts';
import type { Topic, Topics } from './topics.ts';

export interface LogOptions {
  readonly databaseUrl: string;
  readonly pool: Pool;
  readonly topics: Topics;
  readonly segmentRules: SegmentRules;
  readonly brokerId: number;
  /** HOST:PORT as clients are told. */
  readonly advertised: string;
  readonly writers: number;
  readonly readers: number;
  readonly tailCacheBytes: number;
  readonly memory: BufferPool;
  /** Whether acks=1 waits for the WAL's flush as acks=all does. */
  readonly synchronousAcksOne: boolean;
  readonly logger: Logger;
  /** Another broker leads this database now; nothing more can be appended. */
  readonly onDeposed: (error: Error) => void;
}

export interface LogCounters {
  batches: number;
  bytes: number;
  commits: number;
  tailReads: number;
  storedReads: number;
}

const nothing = (): void => {};
const empty = (error: number): ReadResult => ({ error, chunks: [], bytes: 0, release: nothing });

/** Looks for an offset that ought to be there, before it is an error. */
const maxLooks = 10;

/** How long a killed broker's connections may take to go, ms. */
const patienceMs = 10_000;

export class Log {
  readonly #options: LogOptions;
  readonly #partitions = new Map<number, (PartitionLog | undefined)[]>();
  readonly #writer: Writer;
  #writerSessions: readonly Session[] = [];
  readonly segments: Segments;
  readonly tailCache: TailCache;
  readonly stored: StoredLog;
  readonly counters: LogCounters = { batches: 0, bytes: 0, commits: 0, tailReads: 0, storedReads: 0 };
  #term: Term | undefined;
  #nextGlobalOffset = 0n;
  #beginning: Promise<void> | undefined;
  /** The ends were read back at start; partitions in memory are ahead of that from then on. */
  #loaded = false;
  readonly #ownEpochs = new Set<number>();
  readonly #stop = new AbortController();
  #unflushed = new Set<PartitionLog>();
  #flushing = false;

  constructor(options: LogOptions) {
    this.#options = options;
    this.segments = new Segments(options.pool, options.segmentRules, client => this.#fence(client));
    this.tailCache = new TailCache(options.tailCacheBytes, options.memory);
    this.stored = new StoredLog({ ...options, segments: this.segments });
    const context: WriterContext = {
      segments: this.segments,
      tailCache: this.tailCache,
      brokerId: options.brokerId,
      memory: options.memory,
      epoch: () => this.epoch,
      takeGlobalOffsets: count => {
        const first = this.#nextGlobalOffset;
        this.#nextGlobalOffset += count;
        return first;
      },
      loadProducers: partition => this.#loadProducers(partition),
      onLost: () => this.#lost('a writer lost its connection'),
      onFenced: () => this.#lost('this broker has been fenced'),
      onFailed: (error, topics) => options.logger.error({ err: error, topics }, 'Postgres refused an append'),
      onCommitted: (batches, bytes) => {
        this.counters.batches += batches;
        this.counters.bytes += bytes;
        this.counters.commits++;
      },
      onUnflushed: partitions => {
        for (const partition of partitions) this.#unflushed.add(partition);
        void this.#flush();
      },
    };
    this.#writer = new Writer(context);
    options.topics.onChange(change => {
      if (change.kind === 'deleted') this.#forget(change.topic);
      if (change.kind === 'created' && change.starts) this.#begin(change.topic, change.starts);
    });
  }

  /** Fencing token of this broker's term, and the leader epoch of every partition. */
  get epoch(): number {
    return this.#term?.epoch ?? -1;
  }

  /** Where batches that are appended may have their memory from, and give it back to once they have been. */
  get memory(): BufferPool {
    return this.#options.memory;
  }

  get #stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  get leading(): boolean {
    return this.#term !== undefined && this.#beginning === undefined;
  }

  /** Takes the lead and reads the ends of all partitions back. Throws when another broker has it. */
  async start(): Promise<void> {
    this.#beginning = this.#beginTerm([]).finally(() => {
      this.#beginning = undefined;
    });
    await this.#beginning.catch((error: unknown) => {
      if (!this.#stopping) throw error;
    });
    if (this.#stopping) throw new StoppedWhileStarting(); // what has begun, stop() ends
  }

  /** Takes no more, waits for what is in flight, notes producer state, gives the lead back. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#beginning?.catch(() => {}); // start() has thrown it
    if (!this.leading) this.#writer.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER);
    await this.#writer.drained();
    if (this.leading) await this.#saveState();
    await Promise.all(this.#writerSessions.map(session => session.end()));
    await this.stored.end();
    await this.#term?.connection.end().catch(() => {});
    this.#term = undefined;
  }

  /** The partition's state; undefined where the topic has no such partition. */
  partition(topic: Topic, partition: number): PartitionLog | undefined {
    if (partition < 0 || partition >= topic.partitionCount) return undefined;
    let partitions = this.#partitions.get(topic.id);
    if (!partitions) {
      if (this.#options.topics.byId(topic.id) === undefined) return undefined;
      partitions = [];
      this.#partitions.set(topic.id, partitions);
    }
    partitions[partition] ??= new PartitionLog(topic.id, partition, 0n, 0n);
    return partitions[partition];
  }

  /**
   * Queues a validated batch. `acks` is the producer's: 0, 1 or -1. The result comes after COMMIT; a `carried` row is then
   * committed too. Once an append of a `chain` has failed, all that come after it fail. What stands before the partition
   * (AppendGate) has it first; a topic whose primary is elsewhere takes nothing without.
   */
  append(
    topic: Topic,
    partition: PartitionLog,
    batch: Buffer,
    acks: number,
    appendTime: boolean,
    options: AppendOptions = {},
  ): PendingAppend {
    // Looked at when it is to be appended: what is held meanwhile may belong elsewhere then.
    const toLog = (): PendingAppend =>
      topic.primaryMirror === null
        ? this.appendHere(topic, partition, batch, acks, appendTime, options)
        : answered(refused(ErrorCode.NOT_LEADER_OR_FOLLOWER), options.chain);
    const { gate } = partition;
    return gate === undefined ? toLog() : gate.append(batch, acks, options.carried !== undefined, toLog);
  }

  /** As `append`, past what stands before the partition. */
  appendHere(
    topic: Topic,
    partition: PartitionLog,
    batch: Buffer,
    acks: number,
    appendTime: boolean,
    options: AppendOptions = {},
  ): PendingAppend {
    const { chain } = options;
    let answer!: (result: AppendResult) => void;
    const result = new Promise<AppendResult>(resolve => {
      answer = resolve;
    });
    let settled = false;
    let onSettled: (() => void) | undefined;
    partition.appendBegun();
    const resolve = (outcome: AppendResult) => {
      settled = true;
      partition.appendEnded();
      if (chain && outcome.error !== ErrorCode.NONE) chain.broken = true;
      answer(outcome);
      onSettled?.();
    };
    const synchronous = acks === -1 || this.#options.synchronousAcksOne;
    const append: Append = {
      ...options,
      topic,
      partition,
      batch,
      synchronous,
      appendTime,
      cancelled: false,
      resolve,
    };
    if (this.#stopping) resolve(refused(ErrorCode.NOT_LEADER_OR_FOLLOWER));
    else this.#writer.append(append);
    return {
      result,
      expire: error => {
        this.#writer.cancel(append);
        answer(refused(error));
        return settled
          ? Promise.resolve()
          : new Promise(done => {
              onSettled = done;
            });
      },
    };
  }

  /**
   * Batches from the one that holds `offset` on, of `maxBytes` in all, below the high watermark. Where `atLeastOne`,
   * the first batch comes even if it is larger (KIP-74). What needs no look at Postgres is answered at once: a
   * consumer at the tail reads twice for each record, before it waits and after.
   */
  read(
    partition: PartitionLog,
    offset: bigint,
    maxBytes: number,
    atLeastOne: boolean,
  ): ReadResult | Promise<ReadResult> {
    return (
      this.#readMemory(partition, offset, maxBytes, atLeastOne) ??
      this.#readAnywhere(partition, offset, maxBytes, atLeastOne)
    );
  }

  /** Undefined where Postgres must be asked. */
  #readMemory(partition: PartitionLog, offset: bigint, maxBytes: number, atLeastOne: boolean): ReadResult | undefined {
    if (offset < partition.logStartOffset || offset > partition.highWatermark)
      return empty(ErrorCode.OFFSET_OUT_OF_RANGE);
    if (offset === partition.highWatermark || (maxBytes <= 0 && !atLeastOne)) return empty(ErrorCode.NONE);
    const { start } = partition.tail;
    if (start === undefined || offset < start) return undefined;
    this.counters.tailReads++;
    const { chunks, bytes, release } = partition.tail.read(offset, partition.highWatermark, maxBytes, atLeastOne);
    return { error: ErrorCode.NONE, chunks, bytes, release };
  }

  async #readAnywhere(
    partition: PartitionLog,
    offset: bigint,
    maxBytes: number,
    atLeastOne: boolean,
  ): Promise<ReadResult> {
    for (let looks = 0; looks < maxLooks; looks++) {
      const inMemory = this.#readMemory(partition, offset, maxBytes, atLeastOne);
      if (inMemory) return inMemory;
      this.counters.storedReads++;
      const result = await this.stored.read(partition, offset, maxBytes, atLeastOne);
      if (result) return result;
      // Nothing found below the high watermark: the topic was deleted, retention moved the log's start, or a segment was
      // sealed between two looks. Then the next look finds it.
      if (!partition.deleted && offset >= partition.logStartOffset) await this.stored.rereadStart(partition);
      if (partition.deleted) return empty(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
    }
    throw new Error(
      `offset ${offset} lies below the high watermark ${partition.highWatermark}, but no segment holds it`,
    );
  }

  /** Resolves when it is known which producers wrote to the partition, and how far each has come. */
  open(partition: PartitionLog): Promise<void> {
    return partition.open(() => this.#loadProducers(partition));
  }

  /** DeleteRecords: what lies before `offset` is gone for readers now, and with its segment later. */
  async trim(partition: PartitionLog, offset: bigint): Promise<void> {
    await inTransaction(this.#options.pool, async client => {
      await this.#fence(client);
      await client.query(
        `UPDATE kafka.partitions SET log_start_offset = greatest(log_start_offset, $3)
         WHERE topic_id = $1 AND partition_id = $2`,
        [partition.topicId, partition.partition, offset],
      );
    });
    partition.moveStart(offset);
  }

  /** Throws in a transaction that comes after this broker's term. */
  #fence(client: ClientBase): Promise<unknown> {
    return client.query('SELECT kafka.fence($1, $2)', [this.#options.brokerId, this.epoch]);
  }

  /** An id that no producer has had (KIP-98). */
  async newProducerId(): Promise<bigint> {
    const { rows } = await this.#options.pool.query<{ id: bigint }>(`SELECT nextval('kafka.producer_ids') AS id`);
    return rows[0]!.id;
  }

  /**
   * The newest epoch up to `epoch` in which the partition was written, or else `epoch` itself, and where its records end
   * (KIP-101); -1 for an epoch still to come. Also before anything was written: a consumer that is told -1 takes its
   * position for lost, and may reset it to the log's end.
   */
  async epochEnd(partition: PartitionLog, epoch: number): Promise<{ epoch: number; offset: bigint }> {
    if (epoch < 0 || epoch > this.epoch) return { epoch: -1, offset: -1n };
    if (epoch === this.epoch) return { epoch, offset: partition.highWatermark };
    const { rows } = await this.#options.pool.query<{ known: number | null; next: bigint | null }>(
      `SELECT max(leader_epoch) FILTER (WHERE leader_epoch <= $3) AS known,
              min(start_offset) FILTER (WHERE leader_epoch > $3) AS next
       FROM kafka.leader_epochs WHERE topic_id = $1 AND partition_id = $2`,
      [partition.topicId, partition.partition, epoch],
    );
    const { known, next } = rows[0]!;
    return { epoch: known ?? epoch, offset: next ?? partition.highWatermark };
  }

  /** Global offsets below this are given: what retention stores as the floor when it drops segments. */
  get nextGlobalOffset(): bigint {
    return this.#nextGlobalOffset;
  }

  *openedPartitions(): Iterable<PartitionLog> {
    for (const partitions of this.#partitions.values()) for (const p of partitions) if (p?.opened) yield p;
  }

  #begin(topic: Topic, starts: readonly bigint[]): void {
    this.#partitions.set(
      topic.id,
      starts.map((start, id) => new PartitionLog(topic.id, id, start, start)),
    );
  }

  #forget(topic: Topic): void {
    for (const partition of this.#partitions.get(topic.id) ?? []) {
      if (!partition) continue;
      partition.deleted = true;
      partition.tail.clear();
      partition.wake();
    }
    this.#partitions.delete(topic.id);
    this.segments.forget(topic.id);
  }

  async #loadProducers(partition: PartitionLog): Promise<void> {
    const { rows } = await this.#options.pool.query<{ next_offset: bigint; producers: [] }>(
      'SELECT next_offset, producers FROM kafka.producer_snapshots WHERE topic_id = $1 AND partition_id = $2',
      [partition.topicId, partition.partition],
    );
    const now = Date.now();
    let offset = partition.logStartOffset;
    const snapshot = rows[0];
    if (snapshot) {
      partition.producers.restore(snapshot.producers);
      if (snapshot.next_offset > offset) offset = snapshot.next_offset;
    }
    while (offset < partition.committedEnd) {
      const stored = await this.stored.rows(partition, offset, 8 * 1024 * 1024);
      if (!stored) {
        // Nothing more; or the segment has been dropped meanwhile, and the log begins after it.
        await this.stored.rereadStart(partition);
        if (partition.logStartOffset <= offset) break;
        offset = partition.logStartOffset;
        continue;
      }
      for (const { records, lastOffset } of stored.rows) {
        for (const batch of cutRun(records, offset)) partition.producers.replay(batch, now);
        partition.bytesSinceSnapshot += records.length;
        offset = lastOffset + 1n;
      }
      stored.release();
    }
  }

  /** At a clean stop: producer snapshots, so that the next start need not read batches, and the global floor. */
  async #saveState(): Promise<void> {
    const session = this.#writerSessions[0];
    if (!session || session.lost) return;
    const statements = [
      'BEGIN',
      `SELECT kafka.fence(${this.#options.brokerId}, ${this.epoch})`,
      ...[...this.openedPartitions()].filter(partition => partition.bytesSinceSnapshot > 0).map(snapshotStatement),
      `UPDATE kafka.brokers SET global_offset_next = ${this.#nextGlobalOffset} WHERE broker_id = ${this.#options.brokerId}`,
      'COMMIT',
    ];
    await session.execute(statements.join('; ')).catch((error: Error) => {
      this.#options.logger.warn({ err: error }, 'producer state was not saved; the next start reads it from the log');
    });
  }

  #lost(reason: string): void {
    if (this.#beginning || this.#stopping) return;
    const logger = this.#options.logger;
    logger.warn({ reason, epoch: this.epoch }, 'lost the lead or a connection; beginning a new term');
    const former = this.#writerSessions.map(session => session.processId);
    this.#beginning = this.#regain(former).finally(() => {
      this.#beginning = undefined;
    });
  }

  /** Begins terms until one holds, or another broker is found to lead. */
  async #regain(formerBackends: number[]): Promise<void> {
    const wait = backoff({ firstMs: 50, maxMs: 2000 });
    for (;;) {
      if (this.#stopping) return;
      try {
        await this.#beginTerm(formerBackends);
        this.#options.logger.info({ epoch: this.epoch }, 'leading again');
        return;
      } catch (error) {
        if ((error as { code?: string }).code === 'BROKER_RUNNING') {
          this.#writer.settle(false);
          this.#writer.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER);
          this.#options.onDeposed(error as Error);
          return;
        }
        this.#options.logger.warn({ err: error }, 'cannot lead yet; trying again');
        await wait();
      }
    }
  }

  async #beginTerm(formerBackends: readonly number[]): Promise<void> {
    const { databaseUrl, brokerId, advertised, topics } = this.#options;
    const landed = this.#writer.suspend();
    for (const session of this.#writerSessions) session.destroy();
    await landed;
    const before = this.#term;
    this.#term = undefined;
    await before?.connection.end().catch(() => {});
    const term = await beginTerm({
      databaseUrl,
      brokerId,
      advertised,
      patienceMs,
      formerBackends,
      ownEpochs: this.#ownEpochs,
      signal: this.#stop.signal,
      onLost: error => {
        if (this.#term === term) this.#lost(error.message);
      },
    });
    try {
      if (!this.#loaded) {
        // What a process before, killed, was still committing until the term began is in them now.
        await topics.reread();
        await this.segments.load();
        await this.#loadEnds(term, [...topics.all()]);
        this.#loaded = true;
      } else {
        await this.#settle();
      }
      const sessions = await this.#openWriterSessions(term);
      this.#term = term;
      this.#writerSessions = sessions;
      this.#writer.resume(sessions);
    } catch (error) {
      await term.connection.end().catch(() => {});
      throw error;
    }
  }

  /** All or none: a try that fails must not keep connections, of which there may be too few for the next. */
  async #openWriterSessions(term: Term): Promise<Session[]> {
    const opening = await Promise.allSettled(
      Array.from({ length: this.#options.writers }, () =>
        Session.open(this.#options.databaseUrl, {
          applicationName: 'millrace writer',
          onLost: error => {
            if (this.#term === term) this.#lost(error.message);
          },
        }),
      ),
    );
    const sessions = opening.flatMap(opened => (opened.status === 'fulfilled' ? [opened.value] : []));
    const failed = opening.find(opened => opened.status === 'rejected');
    if (failed === undefined) return sessions;
    for (const session of sessions) session.destroy();
    throw failed.reason;
  }

  /** Reads all ends back, at start. In chunks of topics: a transaction locks every segment it looks into. */
  async #loadEnds(term: Term, topics: readonly Topic[]): Promise<void> {
    this.#nextGlobalOffset = term.globalOffsetFloor;
    for (let i = 0; i < topics.length; i += 200) {
      const chunk = topics.slice(i, i + 200);
      for (const end of await this.#readEnds(chunk.map(topic => topic.id))) {
        if (end.next_global_offset > this.#nextGlobalOffset) this.#nextGlobalOffset = end.next_global_offset;
        let partitions = this.#partitions.get(end.topic_id);
        if (!partitions) {
          partitions = [];
          this.#partitions.set(end.topic_id, partitions);
        }
        partitions[end.partition_id] = new PartitionLog(
          end.topic_id,
          end.partition_id,
          end.log_start_offset,
          end.next_offset,
        );
      }
    }
  }

  /**
   * Reads back what became of groups without an answer, and of asynchronous commits not flushed. A group is one
   * transaction: any of its partitions tells of all, but for those whose topic has been deleted since. The new term's own
   * commit has flushed whatever survived.
   */
  async #settle(): Promise<void> {
    const inDoubt = new Set([...this.#unflushed, ...this.#writer.unsettled]);
    const topicIds = [...new Set(Array.from(inDoubt, partition => partition.topicId))];
    const ends = await this.#readEnds(topicIds);
    const endOfPartition = (partition: PartitionLog) =>
      ends.find(row => row.topic_id === partition.topicId && row.partition_id === partition.partition)?.next_offset ??
      partition.committedEnd;
    for (const partition of this.#unflushed) {
      const end = endOfPartition(partition);
      if (end < partition.committedEnd) partition.cutBack(end);
    }
    this.#writer.settle(this.#writer.unsettled.some(partition => endOfPartition(partition) > partition.committedEnd));
    for (const partition of [...inDoubt, ...this.#unflushed]) {
      partition.highWatermark = partition.committedEnd;
      partition.wake();
    }
    this.#unflushed.clear();
  }

  async #readEnds(topicIds: number[]): Promise<EndRow[]> {
    const { rows } = await this.#options.pool.query<EndRow>(
      `SELECT e.topic_id, e.partition_id, p.log_start_offset, e.next_offset, e.next_global_offset
       FROM kafka.log_ends($1) e JOIN kafka.partitions p USING (topic_id, partition_id)`,
      [topicIds],
    );
    return rows;
  }

  /** Makes asynchronous commits durable: WAL is flushed in order, so one synchronous commit after them does. */
  async #flush(): Promise<void> {
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (this.#unflushed.size > 0 && this.#term) {
        const ends = Array.from(this.#unflushed, partition => [partition, partition.committedEnd] as const);
        await this.#options.pool.query(`BEGIN; SELECT pg_logical_emit_message(true, 'millrace', ''); COMMIT`);
        for (const [partition, end] of ends) {
          if (partition.committedEnd === end) this.#unflushed.delete(partition);
          if (end > partition.highWatermark) partition.highWatermark = end;
          partition.wake();
        }
      }
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'a flush of asynchronous commits failed');
      this.#lost('Postgres did not flush');
    } finally {
      this.#flushing = false;
    }
  }
}

interface EndRow {
  topic_id: number;
  partition_id: number;
  log_start_offset: bigint;
  next_offset: bigint;
  next_global_offset: bigint;
}
