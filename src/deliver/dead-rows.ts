// Records that became no event. Their rows in the inbox hold them as they were, as JSON in the place of an event's data, until
// they are in the dead letter topic, and for as long as their part is kept.
import type { Pool } from '../postgres/pool.ts';
import type { LogRecord, NewRecord } from '../protocol/records.ts';
import type { CarriedRow, CarriedStatement } from '../storage/group.ts';
import type { Letters, Shelf } from './dead-letters.ts';
import { Inbox } from './inbox.ts';

type Original = Pick<LogRecord, 'key' | 'value' | 'headers'>;

interface Stored {
  readonly key: string | null;
  readonly value: string | null;
  /** In their order, names and values. */
  readonly headers: readonly (readonly [string, string | null])[];
}

interface DeadRow {
  readonly seq: bigint;
  readonly topic: string | null;
  readonly partition_id: number;
  readonly record_offset: bigint;
  readonly record_time: bigint;
  readonly data: string;
  readonly dead: string;
}

const encoded = (bytes: Buffer | null): string | null => bytes?.toString('base64') ?? null;
const decoded = (text: string | null): Buffer | null => (text === null ? null : Buffer.from(text, 'base64'));

/** What a dead row has as its data: bytes in base64. */
export function originalOf({ key, value, headers }: Original): string {
  const stored: Stored = {
    key: encoded(key),
    value: encoded(value),
    headers: headers.map(header => [header.key, encoded(header.value)] as const),
  };
  return JSON.stringify(stored);
}

const sent: CarriedStatement = {
  head: 'INSERT INTO kafka.inbox_dead_sent AS s (inbox_id, seq) VALUES',
  tail: 'ON CONFLICT (inbox_id) DO UPDATE SET seq = greatest(s.seq, excluded.seq)',
};
const page = 100;
/** Of originals in an append, as they are stored; a longer one is appended by itself. */
const maxBytes = 1024 * 1024;

export class DeadRows implements Shelf {
  readonly #pool: Pool;
  readonly #inbox: Inbox;

  constructor(pool: Pool, inbox: Inbox) {
    this.#pool = pool;
    this.#inbox = inbox;
  }

  async *letters(): AsyncIterable<Letters> {
    const { rows: known } = await this.#pool.query<{ seq: bigint }>(
      'SELECT seq FROM kafka.inbox_dead_sent WHERE inbox_id = $1',
      [this.#inbox.id],
    );
    let after = known[0]?.seq ?? 0n;
    for (;;) {
      const rows = await this.#read(after);
      if (rows.length === 0) return;
      let records: NewRecord[] = [];
      let bytes = 0;
      for (const row of rows) {
        if (records.length > 0 && bytes + row.data.length > maxBytes) {
          yield { records, carried: this.#carried(after) };
          records = [];
          bytes = 0;
        }
        records.push(this.#letterOf(row));
        bytes += row.data.length;
        after = row.seq;
      }
      yield { records, carried: this.#carried(after) };
    }
  }

  async tidy(): Promise<void> {
    await this.#pool.query(
      'DELETE FROM kafka.inbox_dead_sent s WHERE NOT EXISTS (SELECT FROM kafka.inboxes i WHERE i.inbox_id = s.inbox_id)',
    );
  }

  /** Those whose records are gone have no data, and nothing to be kept. By the part's index of dead rows. */
  #read(after: bigint): Promise<DeadRow[]> {
    return this.#inbox.read(async parts => {
      const found: DeadRow[] = [];
      for (const { id } of Inbox.beyond(parts, after)) {
        const { rows } = await this.#pool.query<DeadRow>(
          `SELECT seq, t.name AS topic, partition_id, record_offset, record_time, data, dead
           FROM kafka.inbox_part_${id} LEFT JOIN kafka.topic_names t USING (topic_id)
           WHERE dead IS NOT NULL AND seq > $1 AND data IS NOT NULL ORDER BY seq LIMIT $2`,
          [after, page - found.length],
        );
        found.push(...rows);
        if (found.length >= page) break;
      }
      return found;
    });
  }

  #letterOf({ seq: _, topic, partition_id, record_offset, record_time, data, dead }: DeadRow): NewRecord {
    const { key, value, headers } = JSON.parse(data) as Stored;
    const reason: Record<string, string> = {
      '__connect.errors.topic': topic ?? '',
      '__connect.errors.partition': String(partition_id),
      '__connect.errors.offset': String(record_offset),
      '__connect.errors.connector.name': this.#inbox.name,
      '__connect.errors.exception.message': dead,
      'millrace.error.code': 'BAD_EVENT',
    };
    return {
      timestamp: record_time,
      key: decoded(key),
      value: decoded(value),
      headers: [
        ...headers.map(([name, text]) => ({ key: name, value: decoded(text) })),
        ...Object.entries(reason).map(([name, text]) => ({ key: name, value: Buffer.from(text) })),
      ],
    };
  }

  #carried(seq: bigint): CarriedRow {
    return { statement: sent, key: String(this.#inbox.id), row: `(${this.#inbox.id}, ${seq})` };
  }
}
