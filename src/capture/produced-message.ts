// What kafka.produce puts into the WAL (migrations/0008_produce.sql), read and proven: a digest of 32 bytes, then
// version, partition, topic, key, value and headers, each with its length before it.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Pool } from '../postgres/pool.ts';

export const producePrefix = 'millrace.produce';

export interface ProducedRecord {
  readonly topic: string;
  /** -1: by the key. */
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [string, Buffer | null])[];
}

const digestBytes = 32;
const blockBytes = 64;
const keyBytes = 32;

/** The database's key; made when there is none. */
export async function readProduceKey(pool: Pool): Promise<Buffer> {
  const made = Buffer.alloc(blockBytes);
  randomBytes(keyBytes).copy(made);
  const padded = (constant: number) => Buffer.from(made.map(byte => byte ^ constant));
  await pool.query('INSERT INTO kafka.produce_key (inner_pad, outer_pad) VALUES ($1, $2) ON CONFLICT DO NOTHING', [
    padded(0x36),
    padded(0x5c),
  ]);
  const { rows } = await pool.query<{ inner_pad: Buffer }>('SELECT inner_pad FROM kafka.produce_key');
  return Buffer.from(rows[0]!.inner_pad.map(byte => byte ^ 0x36)).subarray(0, keyBytes);
}

/** The record, if kafka.produce made the message in transaction `xid`; undefined for a forgery. */
export function readProduced(content: Buffer, xid: number, key: Buffer): ProducedRecord | undefined {
  if (content.length < digestBytes) return undefined;
  const payload = content.subarray(digestBytes);
  const transaction = Buffer.alloc(8);
  transaction.writeUInt32BE(xid, 4);
  const digest = createHmac('sha256', key).update(transaction).update(payload).digest();
  if (!timingSafeEqual(digest, content.subarray(0, digestBytes))) return undefined;
  let at = 5;
  const blob = (): Buffer | null => {
    const length = payload.readInt32BE(at);
    at += 4;
    if (length < 0) return null;
    at += length;
    return payload.subarray(at - length, at);
  };
  const partition = payload.readInt32BE(1);
  const topic = blob()!.toString();
  const recordKey = blob();
  const value = blob();
  const headers: [string, Buffer | null][] = [];
  const count = payload.readInt32BE(at);
  at += 4;
  for (let i = 0; i < count; i++) headers.push([blob()!.toString(), blob()]);
  return { topic, partition, key: recordKey, value, headers };
}
