// Fills an inbox from its topics: reads, makes entries, appends them with how far it has read, and hands what is new to the
// connections of this process. While one batch is appended the next is gathered. It is begun again with backoff whenever
// something breaks; where it stands is in the database, so that is the same after a lost answer and a kill -9.
import type { Logger } from 'pino';
import { lastOffset } from '../protocol/record-batch.ts';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { LogSource } from '../source/log-source.ts';
import { type Cursor, PartitionReader } from '../source/reader.ts';
import type { SourcePartition } from '../source/source.ts';
import type { Log } from '../storage/log.ts';
import type { Topics } from '../storage/topics.ts';
import { cannotBeStored } from '../storage/write-lane.ts';
import { type Appender, type Move, placeKey } from './appender.ts';
import { type InboxDefinition, matchesTopic } from './definition.ts';
import { type Entry, entryOf, lostEntry } from './event.ts';
import type { InboxEvent } from './inbox.ts';

export interface IngestContext {
  readonly log: Log;
  readonly topics: Topics;
  readonly logger: Logger;
}

export interface IngestCounters {
  /** Records whose offsets lie behind, of whatever became of them. */
  records: number;
  events: number;
  duplicates: number;
  dead: number;
}

export type IngestState = 'starting' | 'running' | 'waiting' | 'retrying' | 'stopped' | 'paused' | 'failed';

export interface IngestStatus extends Readonly<IngestCounters> {
  readonly name: string;
  readonly state: IngestState;
  readonly reason: string | undefined;
  readonly hint: string | undefined;
  /** Records that are not in the inbox yet. */
  readonly lag: bigint;
}

export interface IngestOptions extends IngestContext {
  readonly definition: InboxDefinition;
  readonly appender: Appender;
  /** What has been committed, in order. */
  readonly onAppended: (events: readonly InboxEvent[], end: bigint) => void;
}

interface Source extends Cursor {
  /** Records before it are in the inbox, as far as they became events. */
  stored: bigint;
  /** What the group's committed offset is. */
  committed: bigint;
}

interface Batch {
  readonly entries: Entry[];
  readonly keys: Set<string>;
  bytes: number;
}

const maxEntries = 2000;
const maxBytes = 2 * 1024 * 1024;
/** Asked of the log at once. */
const readBytes = 512 * 1024;
const checkpointMs = 1000;
const housekeepingMs = 60_000;
const keepOffsetsMs = 3_600_000;

export class Ingest {
  readonly #options: IngestOptions;
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  readonly #stopped = aborted(this.#stopping.signal);
  readonly counters: IngestCounters;
  #running: Promise<void> | undefined;
  #state: IngestState = 'starting';
  #reason: string | undefined;
  #sources: readonly Source[] = [];
  #checkpointAt = 0;
  #housekeepingAt = 0;
  #keptAt = Date.now();

  /** `counters` go on from those of the one before it. */
  constructor(options: IngestOptions, counters = noCounters()) {
    this.#options = options;
    this.counters = counters;
    this.#logger = options.logger.child({ inbox: options.definition.name });
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Appends what has been read, and ends. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    this.#state = 'stopped';
  }

  status(): IngestStatus {
    const lag = this.#sources.reduce((sum, { log, stored }) => sum + log.highWatermark - stored, 0n);
    return {
      name: this.#options.definition.name,
      state: this.#state,
      reason: this.#reason,
      hint: undefined,
      lag,
      ...this.counters,
    };
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let wait = backoff({ firstMs: 50, maxMs: 5000 });
    while (!signal.aborted) {
      try {
        await this.#attempt();
        wait = backoff({ firstMs: 50, maxMs: 5000 });
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.warn({ error: messageOf(error), code: codeOf(error) }, 'an inbox is not filled; trying again');
        this.#state = 'retrying';
        this.#reason = messageOf(error);
        await Promise.race([wait(), this.#stopped]);
      }
    }
  }

  /** Runs until it is stopped, or its topics are others; throws when something breaks. */
  async #attempt(): Promise<void> {
    const { appender, log, topics, definition, onAppended } = this.#options;
    const source = new LogSource(log, topics);
    const wanted = (topic: string): boolean => matchesTopic(definition.topics, topic);
    const ending = new AbortController();
    const end = (): void => ending.abort();
    this.#stopping.signal.addEventListener('abort', end);
    const stopListening = source.onChange(wanted, end);
    try {
      await appender.load();
      onAppended([], appender.next - 1n);
      this.#sources = await this.#open(await source.partitions(wanted));
      if (this.#sources.length === 0) {
        this.#state = 'waiting';
        this.#reason = `there is no topic ${definition.topics.join(', ')}`;
        await aborted(ending.signal);
        return;
      }
      this.#state = 'running';
      this.#reason = undefined;
      await this.#fill(ending.signal);
    } finally {
      stopListening();
      this.#stopping.signal.removeEventListener('abort', end);
    }
  }

  async #open(found: readonly SourcePartition[]): Promise<Source[]> {
    const { appender, definition } = this.#options;
    const begin = found.map(({ topic, partition, logStartOffset, highWatermark }) => ({
      topicId: topic.id,
      partition,
      offset: definition.start === 'latest' ? highWatermark : logStartOffset,
    }));
    const positions = await appender.positions(begin);
    return found.flatMap(log => {
      const position = positions.get(placeKey({ topicId: log.topic.id, partition: log.partition }));
      if (position === undefined) return []; // deleted meanwhile; another attempt follows
      return [{ log, position: position.next, stored: position.next, committed: position.expected }];
    });
  }

  async #fill(ending: AbortSignal): Promise<void> {
    let batch = newBatch();
    const lost = (source: Source, next: bigint, reason: string): void => {
      const { log, position } = source;
      this.#logger.warn({ topic: log.topic.name, partition: log.partition, offset: position, next }, reason);
      this.#add(batch, lostEntry(placeOf(log), next - 1n, reason));
    };
    const reader = new PartitionReader({
      cursors: this.#sources,
      readBytes,
      take: ({ log }, record) => {
        if (isFull(batch)) return false;
        this.counters.records++;
        const entry = entryOf(this.#options.definition, record, placeOf(log));
        if (entry !== undefined) this.#add(batch, entry);
        return true;
      },
      // Retention was quicker, or the offset was moved to where nothing is.
      outOfRange: source => {
        const { logStartOffset, highWatermark } = source.log;
        const next = source.position < logStartOffset ? logStartOffset : highWatermark;
        lost(source, next, `offsets ${source.position} to ${next} are not in the log`);
        source.position = next;
      },
      unreadable: (source, raw, error) =>
        lost(source, lastOffset(raw) + 1n, `the batch cannot be read: ${error.message}`),
    });
    let writing: Promise<void> | undefined;
    let failure: Error | undefined;
    while (failure === undefined) {
      while (!isFull(batch) && (await reader.readSome())) if (writing === undefined && batch.entries.length > 0) break;
      await writing;
      if (failure !== undefined) break;
      await this.#keepHouse();
      await this.#release();
      // What waits for its time is in no row that tells how far has been read.
      const scheduled = batch.entries.some(({ due }) => due !== null);
      const moves = this.#moves(ending.aborted || scheduled);
      const reached = this.#sources.map(source => [source, source.position] as const);
      const settle = (): void => {
        for (const [source, position] of reached) source.stored = position;
      };
      if (batch.entries.length > 0 || moves.length > 0) {
        const { entries } = batch;
        batch = newBatch();
        writing = this.#write(entries, moves).then(
          () => {
            writing = undefined;
            settle();
          },
          (error: Error) => {
            failure = error;
          },
        );
        if (!ending.aborted) continue;
        await writing;
      } else {
        settle();
      }
      if (failure !== undefined) break;
      if (ending.aborted) return;
      const idleMs = this.#moved() ? checkpointMs : housekeepingMs;
      await reader.wait(Math.min(idleMs, this.#options.appender.untilDue()), ending);
    }
    await writing;
    throw failure;
  }

  #add(batch: Batch, entry: Entry): void {
    if (batch.keys.has(entry.key)) {
      this.counters.duplicates++;
      return;
    }
    batch.keys.add(entry.key);
    batch.entries.push(entry);
    batch.bytes += (entry.data?.length ?? 0) + 200;
  }

  #moved(): boolean {
    return this.#sources.some(({ position, committed }) => position !== committed);
  }

  /** The offsets to commit with the next batch: all that have moved, where it is time. */
  #moves(last: boolean): (Move & { source: Source })[] {
    if (!last && Date.now() - this.#checkpointAt < checkpointMs) return [];
    return this.#sources
      .filter(({ position, committed, log }) => position !== committed && !log.deleted)
      .map(source => {
        const { log, position, committed } = source;
        return { source, topicId: log.topic.id, partition: log.partition, expected: committed, next: position };
      });
  }

  async #write(entries: readonly Entry[], moves: readonly (Move & { source: Source })[]): Promise<void> {
    const { appender, onAppended } = this.#options;
    let fresh: { entry: Entry; seq: bigint }[];
    let waiting: number;
    try {
      ({ fresh, waiting } = await appender.append(entries, moves));
    } catch (error) {
      if (!cannotBeStored(error) || entries.length === 0) throw error;
      await this.#writeApart(entries, messageOf(error));
      await this.#write([], moves);
      return;
    }
    for (const { source, next } of moves) source.committed = next;
    if (moves.length > 0) this.#checkpointAt = Date.now();
    const topicNames = new Map(this.#sources.map(({ log: { topic } }) => [topic.id, topic.name]));
    const dead = fresh.filter(({ entry }) => entry.dead !== null).length;
    this.counters.dead += dead;
    this.counters.events += fresh.length - dead;
    this.counters.duplicates += entries.length - fresh.length - waiting;
    if (fresh.length === 0) return;
    const events = fresh.map(({ entry, seq }) => ({
      seq,
      subscriber: entry.subscriber,
      eventId: entry.eventId,
      type: entry.type,
      priority: entry.priority,
      topic: topicNames.get(entry.topicId) ?? '',
      time: Number(entry.time),
      expires: entry.expires,
      data: entry.data ?? '',
    }));
    onAppended(events, appender.next - 1n);
  }

  /** Postgres refuses something in these; what it is becomes a dead row. */
  async #writeApart(entries: readonly Entry[], reason: string): Promise<void> {
    if (entries.length > 1) {
      const middle = entries.length >> 1;
      await this.#write(entries.slice(0, middle), []);
      await this.#write(entries.slice(middle), []);
      return;
    }
    const entry = entries[0]!;
    if (entry.dead !== null) throw new Error(reason);
    const nothing = { expires: null, due: null, subscriber: null, eventId: '', type: null, data: null };
    await this.#write([{ ...entry, ...nothing, dead: `PostgreSQL refuses it: ${reason}` }], []);
  }

  /** What has waited for its time goes to the inbox. */
  async #release(): Promise<void> {
    const { appender, onAppended } = this.#options;
    while (appender.untilDue() === 0) {
      const { taken, fresh } = await appender.release(maxEntries);
      this.counters.events += fresh;
      this.counters.duplicates += taken - fresh;
      if (fresh > 0) onAppended([], appender.next - 1n);
    }
  }

  async #keepHouse(): Promise<void> {
    const now = Date.now();
    if (now - this.#housekeepingAt < housekeepingMs) return;
    this.#housekeepingAt = now;
    const { appender } = this.#options;
    await appender.turn();
    try {
      await appender.dropPast();
    } catch (error) {
      // Somebody reads it; or the fence, which the next append tells too.
      this.#logger.warn({ error: messageOf(error) }, 'a part of an inbox that is past its retention was not dropped');
    }
    if (now - this.#keptAt < keepOffsetsMs) return;
    this.#keptAt = now;
    await appender.keepOffsets();
  }
}

export const noCounters = (): IngestCounters => ({ records: 0, events: 0, duplicates: 0, dead: 0 });
const placeOf = ({ topic, partition }: SourcePartition) => ({ topic: topic.name, topicId: topic.id, partition });
const newBatch = (): Batch => ({ entries: [], keys: new Set(), bytes: 0 });
const isFull = ({ entries, bytes }: Batch): boolean => entries.length >= maxEntries || bytes >= maxBytes;
