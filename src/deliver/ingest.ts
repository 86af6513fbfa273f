// Fills an inbox from its topics: reads, makes entries, appends them with how far it has read, and hands what is new to the
// connections of this process. While one batch is appended the next is gathered. It is begun again with backoff whenever
// something breaks; where it stands is in the database, so that is the same after a lost answer and a kill -9.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from 'pino';
import { lastOffset } from '../protocol/record-batch.ts';
import { aborted } from '../runtime/aborted.ts';
import { backoff } from '../runtime/backoff.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { KafkaSource } from '../source/kafka-source.ts';
import { openSource, type SourceContext } from '../source/open.ts';
import { type Cursor, PartitionReader } from '../source/reader.ts';
import { RemoteGroup } from '../source/remote-group.ts';
import type { SourcePartition, Source as TopicSource } from '../source/source.ts';
import { cannotBeStored } from '../storage/write-lane.ts';
import { type Appender, placeKey } from './appender.ts';
import { originalOf } from './dead-rows.ts';
import { type InboxDefinition, reads } from './definition.ts';
import { type Entry, entryOf, lostEntry } from './event.ts';
import type { InboxEvent } from './inbox.ts';
import type { Move } from './positions.ts';

export interface IngestContext extends SourceContext {
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
  /** Records that became no event are among them. */
  readonly onDead: () => void;
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
  /** The last that was opened. */
  #source: TopicSource | undefined;
  #sources: readonly Source[] = [];
  /** Of a remote Kafka. */
  #group: RemoteGroup | undefined;
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
    // It may be waiting for an answer that never comes; what has been read already is appended.
    if (this.#state !== 'running') this.#source?.close();
    await this.#running;
    this.#state = 'stopped';
  }

  status(): IngestStatus {
    const lag = this.#sources.reduce((sum, { log, stored }) => sum + log.highWatermark - stored, 0n);
    const trouble = this.#source instanceof KafkaSource ? this.#source.trouble : undefined;
    const isHeldUp = trouble !== undefined && (this.#state === 'starting' || this.#state === 'running');
    return {
      name: this.#options.definition.name,
      state: isHeldUp ? 'retrying' : this.#state,
      reason: isHeldUp ? trouble.message : this.#reason,
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
    const { appender, definition, onAppended } = this.#options;
    const source = openSource(this.#options, definition.source, `millrace-inbox-${definition.name}`);
    this.#source = source;
    const wanted = (topic: string): boolean => reads(definition, topic);
    const ending = new AbortController();
    const end = (): void => ending.abort();
    this.#stopping.signal.addEventListener('abort', end);
    const stopListening = source.onChange(wanted, end);
    try {
      await appender.load();
      onAppended([], appender.next - 1n);
      const found = await source.partitions(wanted);
      this.#group = await this.#groupOf(source);
      this.#sources = await this.#open(found, source);
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
      await this.#group?.end();
      this.#group = undefined;
      source.close();
      this.#stopping.signal.removeEventListener('abort', end);
    }
  }

  /** That shows in a remote Kafka how far this has read. */
  async #groupOf(source: TopicSource): Promise<RemoteGroup | undefined> {
    if (!(source instanceof KafkaSource)) return undefined;
    const { group } = this.#options.definition;
    return new RemoteGroup({ source, clusterId: await source.clusterId(), group, logger: this.#logger });
  }

  async #open(found: readonly SourcePartition[], source: TopicSource): Promise<Source[]> {
    const { appender, definition } = this.#options;
    const committed = await this.#committed(source);
    const begin = found.map(log => {
      const { topic, partition, logStartOffset, highWatermark } = log;
      const start = definition.start === 'latest' ? highWatermark : logStartOffset;
      return { topicId: topic.id, partition, offset: committed.get(`${topic.name}-${partition}`) ?? start };
    });
    const positions = await appender.positions(begin);
    const sources = found.flatMap(log => {
      const position = positions.get(placeKey({ topicId: log.topic.id, partition: log.partition }));
      if (position === undefined) return []; // deleted meanwhile; another attempt follows
      return [{ log, position: position.next, stored: position.next, committed: position.expected }];
    });
    this.#group?.follow(sources.map(({ log, committed: next }) => ({ ...reachedOf(log), next })));
    return sources;
  }

  /** What was read elsewhere goes on in a remote Kafka that has got topics and group by a mirror. */
  async #committed(source: TopicSource): Promise<Map<string, bigint>> {
    const { appender, definition } = this.#options;
    // Later they might be a former topic's of the name.
    if (!(source instanceof KafkaSource) || (await appender.hasRead(await source.clusterId()))) return new Map();
    const offsets = await source.committed(definition.group);
    return new Map(offsets.map(({ topic, partition, offset }) => [`${topic}-${partition}`, offset]));
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
    const { appender } = this.#options;
    let appended: Awaited<ReturnType<Appender['append']>>;
    try {
      appended = await appender.append(entries, moves);
    } catch (error) {
      if (!cannotBeStored(error) || entries.length === 0) throw error;
      await this.#writeApart(entries, messageOf(error));
      await this.#write([], moves);
      return;
    }
    for (const { source, next } of moves) source.committed = next;
    this.#group?.follow(moves.map(({ source, next }) => ({ ...reachedOf(source.log), next })));
    if (moves.length > 0) this.#checkpointAt = Date.now();
    const { fresh, first, waiting } = appended;
    const topicNames = new Map(this.#sources.map(({ log: { topic } }) => [topic.id, topic.name]));
    const dead = fresh.filter(entry => entry.dead !== null).length;
    this.counters.dead += dead;
    if (dead > 0) this.#options.onDead();
    this.counters.events += fresh.length - dead;
    this.counters.duplicates += entries.length - fresh.length - waiting;
    if (fresh.length === 0) return;
    const events = fresh.map((entry, i) => ({
      seq: first + BigInt(i),
      subscriber: entry.subscriber,
      eventId: entry.eventId,
      type: entry.type,
      priority: entry.priority,
      topic: topicNames.get(entry.topicId) ?? '',
      time: Number(entry.time),
      expires: entry.expires,
      data: entry.data ?? '',
    }));
    this.#give(events, appender.next - 1n);
  }

  /** Once what comes next is on its way to Postgres, which works while connections are written to. */
  #give(events: readonly InboxEvent[], end: bigint): void {
    nextTurn()
      .then(() => this.#options.onAppended(events, end))
      .catch((error: Error) => this.#logger.error({ err: error }, 'events were not given to connections'));
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
    const nothing = { expires: null, due: null, subscriber: null, eventId: '', type: null };
    // The record itself is not at hand any more.
    const data = originalOf({ key: null, value: Buffer.from(entry.data ?? ''), headers: [] });
    await this.#write([{ ...entry, ...nothing, data, dead: `PostgreSQL refuses it: ${reason}` }], []);
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
const reachedOf = ({ topic, partition }: SourcePartition) => ({ topic, partition });
const newBatch = (): Batch => ({ entries: [], keys: new Set(), bytes: 0 });
const isFull = ({ entries, bytes }: Batch): boolean => entries.length >= maxEntries || bytes >= maxBytes;
