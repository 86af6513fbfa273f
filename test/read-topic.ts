// The records of a topic, from its rows in the database, decoded here: for tests that read tens of thousands of them, which
// kafka.messages would decode one by one in SQL. That the two agree is a test of sql/messages.test.ts.
import type pg from 'pg';
import { decodeBatch } from '../src/protocol/compression.ts';
import { isControl, splitBatches } from '../src/protocol/record-batch.ts';
import type { LogRecord } from '../src/protocol/records.ts';

export interface StoredRecord extends LogRecord {
  readonly partition: number;
}

const mostBytes = 2 ** 30;

/** By partition and offset, from the log start on. A topic that does not exist has none. */
export async function readTopic(client: pg.Pool | pg.ClientBase, topic: string): Promise<StoredRecord[]> {
  const { rows } = await client.query<{ partition: number; start: string; records: Buffer }>(
    `SELECT p.partition_id AS partition, p.log_start_offset::text AS start, r.records
     FROM kafka.topics t
     CROSS JOIN LATERAL kafka.partition_starts(t.topic_id) p
     CROSS JOIN LATERAL kafka.log_pieces(t.topic_id, p.partition_id, p.log_start_offset) l
     CROSS JOIN LATERAL kafka.segment_rows(l.segment_id, p.partition_id, l.from_offset, l.to_offset) r
     WHERE t.name = $1 ORDER BY p.partition_id, r.base_offset`,
    [topic],
  );
  const read: StoredRecord[] = [];
  for (const { partition, start, records } of rows) {
    for (const batch of splitBatches(records)) {
      if (isControl(batch)) continue;
      for (const record of await decodeBatch(batch, mostBytes)) {
        if (record.offset >= BigInt(start)) read.push({ ...record, partition });
      }
    }
  }
  return read;
}

/** Of its first header with the name; null where it has none. */
export function headerOf({ headers }: LogRecord, name: string): string | null {
  return headers.find(({ key }) => key === name)?.value?.toString() ?? null;
}

/** By name; the last of several that have one. */
export function headersOf({ headers }: LogRecord): Record<string, string | null> {
  return Object.fromEntries(headers.map(({ key, value }) => [key, value?.toString() ?? null]));
}

/** A key or a value, where it is text. */
export const textOf = (bytes: Buffer | null): string | null => bytes?.toString() ?? null;
