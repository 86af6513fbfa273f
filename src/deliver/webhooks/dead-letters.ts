// What was given up goes to a topic, written by the process that leads the log. With each record commits the row that says
// that it is there, so none is there twice. It stays in kafka.webhook_dead, for redrive, until its part is dropped.
import type { Logger } from 'pino';
import type { Pool } from '../../postgres/pool.ts';
import { ErrorCode, errorOf } from '../../protocol/errors.ts';
import { buildBatch } from '../../protocol/records.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { CarriedStatement } from '../../storage/group.ts';
import type { Log } from '../../storage/log.ts';
import { type Topic, TopicError, type Topics } from '../../storage/topics.ts';
import { idOf } from '../frame.ts';
import type { Inbox } from '../inbox.ts';

export interface DeadLettersOptions {
  readonly pool: Pool;
  readonly logger: Logger;
  readonly log: Log;
  readonly topics: Topics;
  readonly inbox: Inbox;
  readonly topic: string;
}

interface DeadRow {
  readonly dead_id: bigint;
  readonly seq: bigint;
  readonly attempts: number;
  readonly code: string;
  readonly reason: string;
}

interface EventRow {
  readonly subscriber: string;
  readonly event_id: string;
  readonly event_type: string | null;
  readonly topic: string | null;
  readonly partition_id: number;
  readonly record_offset: bigint;
  readonly data: string | null;
}

const sent: CarriedStatement = {
  head: 'INSERT INTO kafka.webhook_dead_sent (dead_id) VALUES',
  tail: 'ON CONFLICT DO NOTHING',
};
const page = 200;
const againMs = 5000;
const tidyMs = 3_600_000;
const maxMessageBytes = 64 * 1024 * 1024;

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  #running: Promise<void> | undefined;
  #wanted = false;
  #tidiedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** There may be some. */
  look(): void {
    this.#wanted = true;
    if (this.#stopped) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#wanted) this.look();
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (this.#wanted && !this.#stopped) {
        this.#wanted = false;
        while (!this.#stopped && (await this.#sendSome()));
      }
      if (!this.#stopped && Date.now() - this.#tidiedAt > tidyMs) await this.#tidy();
    } catch (error) {
      const { logger, inbox } = this.#options;
      this.#wanted = false;
      if (this.#stopped) return;
      logger.warn(
        { inbox: inbox.name, error: messageOf(error) },
        'dead letters are not in their topic yet; trying again',
      );
      this.#timer = setTimeout(() => this.look(), againMs);
    }
  }

  /** What the inbox has dropped cannot be sent again. */
  async #tidy(): Promise<void> {
    this.#tidiedAt = Date.now();
    const { pool, inbox } = this.#options;
    await pool.query(
      `DELETE FROM kafka.webhook_dead WHERE inbox_id = $1
         AND seq < (SELECT min(first_seq) FROM kafka.inbox_parts WHERE inbox_id = $1)`,
      [inbox.id],
    );
    await pool.query(
      `DELETE FROM kafka.webhook_dead_sent s
       WHERE NOT EXISTS (SELECT FROM kafka.webhook_dead d WHERE d.dead_id = s.dead_id)`,
    );
  }

  /** Whether there may be more. */
  async #sendSome(): Promise<boolean> {
    const { pool, inbox } = this.#options;
    const { rows } = await pool.query<DeadRow>(
      `SELECT dead_id, seq, attempts, code, reason FROM kafka.webhook_dead d
       WHERE inbox_id = $1 AND NOT EXISTS (SELECT FROM kafka.webhook_dead_sent s WHERE s.dead_id = d.dead_id)
       ORDER BY dead_id LIMIT $2`,
      [inbox.id, page],
    );
    for (const row of rows) {
      if (this.#stopped) return false;
      await this.#send(row);
    }
    return rows.length === page;
  }

  async #send(dead: DeadRow): Promise<void> {
    const { pool, inbox, log } = this.#options;
    const event = await inbox.read(async parts => {
      const part = parts.findLast(({ firstSeq }) => firstSeq <= dead.seq);
      if (part === undefined) return undefined;
      const { rows } = await pool.query<EventRow>(
        `SELECT subscriber, event_id, event_type, t.name AS topic, partition_id, record_offset, data
         FROM kafka.inbox_part_${part.id} e LEFT JOIN kafka.topics t USING (topic_id) WHERE seq = $1`,
        [dead.seq],
      );
      return rows[0];
    });
    if (event === undefined) {
      // Its part is gone: nothing is left to be kept.
      await pool.query('DELETE FROM kafka.webhook_dead WHERE dead_id = $1', [dead.dead_id]);
      return;
    }
    const topic = await this.#topic();
    const headers: Record<string, string> = {
      '__connect.errors.topic': event.topic ?? '',
      '__connect.errors.partition': String(event.partition_id),
      '__connect.errors.offset': String(event.record_offset),
      '__connect.errors.connector.name': inbox.name,
      '__connect.errors.exception.message': dead.reason,
      'millrace.error.code': dead.code,
      'millrace.error.attempts': String(dead.attempts),
      'webhook-id': idOf(inbox.id, dead.seq),
      'millrace-event-id': event.event_id,
      ...(event.event_type === null ? {} : { 'millrace-event-type': event.event_type }),
    };
    const batch = buildBatch({
      records: [
        {
          timestamp: BigInt(Date.now()),
          key: Buffer.from(event.subscriber),
          value: Buffer.from(event.data ?? ''),
          headers: Object.entries(headers).map(([key, value]) => ({ key, value: Buffer.from(value) })),
        },
      ],
    });
    const carried = { statement: sent, key: String(dead.dead_id), row: `(${dead.dead_id})` };
    const { error } = await log.append(topic, log.partition(topic, 0)!, batch, -1, false, carried).result;
    if (error !== ErrorCode.NONE) {
      throw new Error(`topic ${topic.name} did not take a dead letter (${errorOf(error).name})`);
    }
  }

  async #topic(): Promise<Topic> {
    const { topics, topic: name } = this.#options;
    const known = topics.get(name);
    if (known) return known;
    try {
      return await topics.create({ name, partitionCount: 1, config: { 'max.message.bytes': String(maxMessageBytes) } });
    } catch (error) {
      const made = topics.get(name);
      if (error instanceof TopicError && error.code === ErrorCode.TOPIC_ALREADY_EXISTS && made) return made;
      throw error;
    }
  }
}
