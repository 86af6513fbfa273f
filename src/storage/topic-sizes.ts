// How many bytes each partition holds, for DescribeLogDirs. Sealed segments have been counted; the size of the table
// of any other is shared out among its partitions by the records they have in it. Consoles ask at every refresh, so
// an answer serves everybody for a few seconds.
import type { Pool } from '../postgres/pool.ts';

const freshMs = 5000;

export interface StoredSizes {
  /** Topic id → partition → what its sealed segments hold, and where they end. */
  readonly sealed: ReadonlyMap<number, ReadonlyMap<number, { readonly bytes: bigint; readonly end: bigint }>>;
  /** Topic id → bytes on disk of the segments that are not sealed. */
  readonly unsealed: ReadonlyMap<number, bigint>;
}

export class TopicSizes {
  readonly #pool: Pool;
  #asked = 0;
  #answer: Promise<StoredSizes> | undefined;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  read(now = Date.now()): Promise<StoredSizes> {
    if (this.#answer === undefined || now - this.#asked >= freshMs) {
      this.#asked = now;
      const answer = readSizes(this.#pool);
      this.#answer = answer;
      answer.catch(() => {
        if (this.#answer === answer) this.#answer = undefined;
      });
    }
    return this.#answer;
  }
}

async function readSizes(pool: Pool): Promise<StoredSizes> {
  const [counted, tables] = await Promise.all([
    pool.query<{ topic_id: number; partition_id: number; bytes: string; end: bigint }>(
      `SELECT s.topic_id, p.partition_id, sum(p.bytes) AS bytes, max(p.next_offset) AS end
       FROM kafka.segments s JOIN kafka.segment_partitions p USING (segment_id)
       WHERE s.state = 'sealed' GROUP BY s.topic_id, p.partition_id`,
    ),
    // to_regclass: a segment may be dropped between the two looks.
    pool.query<{ topic_id: number; bytes: string }>(
      `SELECT topic_id, sum(pg_total_relation_size(to_regclass('kafka.segment_' || segment_id))) AS bytes
       FROM kafka.segments WHERE state = 'open' GROUP BY topic_id`,
    ),
  ]);
  const sealed = new Map<number, Map<number, { bytes: bigint; end: bigint }>>();
  for (const row of counted.rows) {
    let partitions = sealed.get(row.topic_id);
    if (partitions === undefined) {
      partitions = new Map();
      sealed.set(row.topic_id, partitions);
    }
    partitions.set(row.partition_id, { bytes: BigInt(row.bytes), end: row.end });
  }
  const unsealed = new Map(tables.rows.map(row => [row.topic_id, BigInt(row.bytes ?? 0)]));
  return { sealed, unsealed };
}

/** What a partition's log begins and ends with. */
export interface Extent {
  readonly logStartOffset: bigint;
  readonly highWatermark: bigint;
}

/** Bytes of each of a topic's partitions. */
export function partitionSizes(sizes: StoredSizes, topicId: number, extents: readonly Extent[]): bigint[] {
  const sealed = sizes.sealed.get(topicId);
  const records = extents.map(({ logStartOffset, highWatermark }, partition) => {
    const end = sealed?.get(partition)?.end ?? 0n;
    const from = end > logStartOffset ? end : logStartOffset;
    return highWatermark > from ? highWatermark - from : 0n;
  });
  const all = records.reduce((sum, count) => sum + count, 0n);
  const unsealed = sizes.unsealed.get(topicId) ?? 0n;
  return records.map((count, partition) => {
    const share = all === 0n ? 0n : (unsealed * count) / all;
    return (sealed?.get(partition)?.bytes ?? 0n) + share;
  });
}
