// Webhooks that were given up, on their way to the dead letter topic. They stay in kafka.webhook_dead, for redrive, until their
// part is dropped.
import type { Pool } from '../../postgres/pool.ts';
import type { CarriedStatement } from '../../storage/group.ts';
import type { Letters, Shelf } from '../dead-letters.ts';
import { idOf } from '../frame.ts';
import type { Inbox } from '../inbox.ts';

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

export class DeadWebhooks implements Shelf {
  readonly #pool: Pool;
  readonly #inbox: Inbox;

  constructor(pool: Pool, inbox: Inbox) {
    this.#pool = pool;
    this.#inbox = inbox;
  }

  async *letters(): AsyncIterable<Letters> {
    for (;;) {
      const { rows } = await this.#pool.query<DeadRow>(
        `SELECT dead_id, seq, attempts, code, reason FROM kafka.webhook_dead d
         WHERE inbox_id = $1 AND NOT EXISTS (SELECT FROM kafka.webhook_dead_sent s WHERE s.dead_id = d.dead_id)
         ORDER BY dead_id LIMIT $2`,
        [this.#inbox.id, page],
      );
      for (const row of rows) {
        const event = await this.#eventOf(row);
        if (event !== undefined) yield this.#letterOf(row, event);
        // Its part is gone: nothing is left to be kept.
        else await this.#pool.query('DELETE FROM kafka.webhook_dead WHERE dead_id = $1', [row.dead_id]);
      }
      if (rows.length < page) return;
    }
  }

  /** What the inbox has dropped cannot be sent again. */
  async tidy(): Promise<void> {
    await this.#pool.query(
      `DELETE FROM kafka.webhook_dead WHERE inbox_id = $1
         AND seq < (SELECT min(first_seq) FROM kafka.inbox_parts WHERE inbox_id = $1)`,
      [this.#inbox.id],
    );
    await this.#pool.query(
      `DELETE FROM kafka.webhook_dead_sent s
       WHERE NOT EXISTS (SELECT FROM kafka.webhook_dead d WHERE d.dead_id = s.dead_id)`,
    );
  }

  #eventOf({ seq }: DeadRow): Promise<EventRow | undefined> {
    return this.#inbox.read(async parts => {
      const part = parts.findLast(({ firstSeq }) => firstSeq <= seq);
      if (part === undefined) return undefined;
      const { rows } = await this.#pool.query<EventRow>(
        `SELECT subscriber, event_id, event_type, t.name AS topic, partition_id, record_offset, data
         FROM kafka.inbox_part_${part.id} e LEFT JOIN kafka.topic_names t USING (topic_id) WHERE seq = $1`,
        [seq],
      );
      return rows[0];
    });
  }

  #letterOf(dead: DeadRow, event: EventRow): Letters {
    const headers: Record<string, string> = {
      '__connect.errors.topic': event.topic ?? '',
      '__connect.errors.partition': String(event.partition_id),
      '__connect.errors.offset': String(event.record_offset),
      '__connect.errors.connector.name': this.#inbox.name,
      '__connect.errors.exception.message': dead.reason,
      'millrace.error.code': dead.code,
      'millrace.error.attempts': String(dead.attempts),
      'webhook-id': idOf(this.#inbox.id, dead.seq),
      'millrace-event-id': event.event_id,
      ...(event.event_type === null ? {} : { 'millrace-event-type': event.event_type }),
    };
    const record = {
      timestamp: BigInt(Date.now()),
      key: Buffer.from(event.subscriber),
      value: Buffer.from(event.data ?? ''),
      headers: Object.entries(headers).map(([key, value]) => ({ key, value: Buffer.from(value) })),
    };
    return { records: [record], carried: { statement: sent, key: String(dead.dead_id), row: `(${dead.dead_id})` } };
  }
}
