// The log's housekeeping, every log.retention.check.interval.ms: seals segments that are no longer written to, moves
// log starts past what retention.ms and retention.bytes let go, drops segments that lie wholly before every log start,
// forgets idle producers. Deleting data is always the DROP of a table; the log start and the floors that must
// survive it move in the transaction that marks the segment.
import type { Logger } from 'pino';
import { inTransaction, type Pool } from '../postgres/pool.ts';
import type { Log } from './log.ts';
import type { PartitionLog } from './partition-log.ts';
import { tableOf } from './segments.ts';
import type { TopicSettings } from './topic-config.ts';
import type { Topic, Topics } from './topics.ts';

export interface RetentionOptions {
  readonly pool: Pool;
  readonly log: Log;
  readonly topics: Topics;
  readonly settingsOf: (topic: Topic) => TopicSettings;
  readonly brokerId: number;
  readonly intervalMs: number;
  readonly producerIdExpirationMs: number;
  readonly logger: Logger;
}

interface SealedPartition {
  segment_id: number;
  partition_id: number;
  next_offset: bigint;
  max_timestamp: bigint;
  bytes: bigint;
}

export class Retention {
  readonly #options: RetentionOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #unsubscribe: (() => void) | undefined;
  #stopped = false;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => void this.run(), this.#options.intervalMs);
    // A deleted topic gives its space back at once, not at the next interval.
    this.#unsubscribe = this.#options.topics.onChange(change => {
      if (change.kind === 'deleted') void this.run().then(() => this.run());
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unsubscribe?.();
    clearInterval(this.#timer);
    await this.#running;
  }

  /** One round now; joins the round that is under way. */
  run(): Promise<void> {
    this.#running ??= this.#round()
      .catch((error: unknown) => {
        this.#options.logger.error({ err: error }, 'retention failed; it is tried again at the next interval');
      })
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  async #round(): Promise<void> {
    const { log, topics, settingsOf, logger, producerIdExpirationMs } = this.#options;
    if (this.#stopped || !log.leading) return;
    const now = Date.now();
    for (const partition of log.openedPartitions()) partition.producers.expire(now - producerIdExpirationMs);
    for (const segment of [...log.segments.all()]) {
      const topic = topics.byId(segment.topicId);
      if (!topic || this.#isOver(segment, settingsOf(topic), now)) log.segments.close(segment);
    }
    const strays = await log.segments.sealStrays();
    if (strays > 0) logger.info({ segments: strays }, 'sealed segments that were made, but never taken into use');
    await log.segments.sealRolled();
    for (const topic of [...topics.all()]) {
      if (this.#stopped) return;
      await this.#applyTo(topic, settingsOf(topic), now);
    }
    const dropped = await log.segments.dropDoomed();
    if (dropped > 0) logger.info({ segments: dropped }, 'dropped segments');
  }

  /** A segment nobody writes to is closed when its time is over, or when all it holds is past retention. */
  #isOver(segment: { closesAt: number; maxTimestamp: bigint }, settings: TopicSettings, now: number): boolean {
    if (now >= segment.closesAt) return true;
    return settings.delete && segment.maxTimestamp >= 0n && Number(segment.maxTimestamp) < now - settings.retentionMs;
  }

  async #applyTo(topic: Topic, settings: TopicSettings, now: number): Promise<void> {
    const { pool, log, brokerId } = this.#options;
    const { rows: sealed } = await pool.query<SealedPartition>(
      `SELECT segment_id, partition_id, next_offset, max_timestamp, bytes
       FROM kafka.segments JOIN kafka.segment_partitions USING (segment_id)
       WHERE topic_id = $1 AND state = 'sealed' ORDER BY segment_id`,
      [topic.id],
    );
    const segmentIds = [...new Set(sealed.map(row => row.segment_id))];
    const empty = await this.#emptySealed(topic);
    if (segmentIds.length + empty.length === 0) return;
    const bounded = settings.delete && Number.isFinite(settings.retentionBytes);
    const unsealed = bounded ? await this.#unsealedBytes(topic) : new Map<number, bigint>();
    const starts = new Map<number, bigint>();
    const partitions = new Map<number, PartitionLog>(); // not asked for again: the topic may be deleted meanwhile
    for (let id = 0; id < topic.partitionCount; id++) {
      const partition = log.partition(topic, id);
      if (!partition) return;
      partitions.set(id, partition);
      const rows = sealed.filter(row => row.partition_id === id);
      let bytes = rows.reduce((sum, row) => sum + row.bytes, unsealed.get(id) ?? 0n);
      let start = partition.logStartOffset;
      for (const row of rows) {
        if (!settings.delete) break;
        const excess = Number(bytes - row.bytes) >= settings.retentionBytes;
        if (!excess && (await this.#newestTime(row)) >= now - settings.retentionMs) break;
        bytes -= row.bytes;
        if (row.next_offset > start) start = row.next_offset;
      }
      starts.set(id, start);
    }
    const gone = segmentIds.filter(segmentId =>
      sealed.every(row => row.segment_id !== segmentId || row.next_offset <= starts.get(row.partition_id)!),
    );
    gone.push(...empty);
    const moved = [...starts].filter(([id, start]) => start > partitions.get(id)!.logStartOffset);
    if (gone.length === 0 && moved.length === 0) return;
    await inTransaction(pool, async client => {
      await client.query(`SELECT kafka.fence($1, $2)`, [brokerId, log.epoch]);
      await client.query(
        `UPDATE kafka.partitions p
         SET log_start_offset = greatest(p.log_start_offset, moved.start),
             next_offset_floor = greatest(p.next_offset_floor, moved.start)
         FROM unnest($2::int[], $3::bigint[]) AS moved (partition_id, start)
         WHERE p.topic_id = $1 AND p.partition_id = moved.partition_id`,
        [topic.id, [...starts.keys()], [...starts.values()]],
      );
      await client.query(
        'UPDATE kafka.brokers SET global_offset_next = greatest(global_offset_next, $2) WHERE broker_id = $1',
        [brokerId, log.nextGlobalOffset],
      );
      await client.query(`UPDATE kafka.segments SET state = 'dropping' WHERE segment_id = ANY($1)`, [gone]);
    });
    for (const [id, start] of moved) partitions.get(id)!.moveStart(start);
  }

  /** By which retention.ms goes, ms: of records without timestamps when they were appended, as Kafka goes by the file's time. */
  async #newestTime(row: SealedPartition): Promise<number> {
    if (row.max_timestamp >= 0n) return Number(row.max_timestamp);
    const { rows } = await this.#options.pool.query<{ newest: Date }>(
      `SELECT max(appended_at) AS newest FROM ${tableOf(row.segment_id)} WHERE partition_id = $1`,
      [row.partition_id],
    );
    return rows[0]!.newest.getTime();
  }

  /** Bytes of each partition in segments that are not sealed: they count for retention.bytes, but are kept. */
  async #unsealedBytes(topic: Topic): Promise<Map<number, bigint>> {
    const { pool, log } = this.#options;
    const bytes = new Map<number, bigint>();
    for (const segment of log.segments.unsealed(topic.id)) {
      const { rows } = await pool.query<{ partition_id: number; bytes: bigint }>(
        `SELECT partition_id, sum(octet_length(records)) AS bytes FROM ${tableOf(segment.id)} GROUP BY partition_id`,
      );
      for (const row of rows) bytes.set(row.partition_id, (bytes.get(row.partition_id) ?? 0n) + row.bytes);
    }
    return bytes;
  }

  /** Sealed segments that never got a batch. */
  async #emptySealed(topic: Topic): Promise<number[]> {
    const { rows } = await this.#options.pool.query<{ segment_id: number }>(
      `SELECT segment_id FROM kafka.segments s WHERE topic_id = $1 AND state = 'sealed'
       AND NOT EXISTS (SELECT FROM kafka.segment_partitions p WHERE p.segment_id = s.segment_id)`,
      [topic.id],
    );
    return rows.map(row => row.segment_id);
  }
}
