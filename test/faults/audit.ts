// What the log must hold after any crash, checked twice: as a client reads it from the beginning, and as it lies in
// the segment tables.
import assert from 'node:assert/strict';
import type pg from 'pg';
import { lastOffsetDelta, splitBatches } from '../../src/protocol/record-batch.ts';
import { readAll, recordsOf } from './kafka.ts';
import { WireClient } from './wire.ts';

/** A record's value is its id: PRODUCER:NUMBER, numbers rising. */
export interface Acknowledged {
  readonly partition: number;
  readonly offset: bigint;
  readonly id: string;
}

/** The ids of each partition's records, in offset order from 0. */
export type Contents = readonly (readonly string[])[];

export async function readContents(port: number, topic: string, partitions: number): Promise<Contents> {
  const client = await WireClient.connect(port);
  try {
    const contents: string[][] = [];
    for (let partition = 0; partition < partitions; partition++) {
      const records = await readAll(client, topic, partition);
      contents.push(
        records.map(({ offset, value }, i) => {
          assert.equal(offset, BigInt(i), `offsets of partition ${partition} are dense`);
          return value!.toString();
        }),
      );
    }
    return contents;
  } finally {
    client.close();
  }
}

/** The same from the tables; global offsets must be each record's own as well. */
export async function selectContents(sql: pg.Client, topic: string, partitions: number): Promise<Contents> {
  const contents: string[][] = Array.from({ length: partitions }, () => []);
  const globals: { first: bigint; count: bigint }[] = [];
  const { rows: segments } = await sql.query<{ segment_id: number }>(
    `SELECT segment_id FROM kafka.segments JOIN kafka.topics USING (topic_id)
     WHERE name = $1 AND state <> 'dropping' ORDER BY segment_id`,
    [topic],
  );
  for (const { segment_id: id } of segments) {
    const { rows } = await sql.query<SegmentRow>(
      `SELECT partition_id, base_offset::text, last_offset::text, global_offset::text, records
       FROM kafka.segment_${id} s ORDER BY s.partition_id, s.last_offset`,
    );
    for (const row of rows) {
      const ids = contents[row.partition_id]!;
      assert.equal(BigInt(row.base_offset), BigInt(ids.length), `rows of partition ${row.partition_id} are dense`);
      const records = await recordsOf(row.records);
      assert.equal(BigInt(row.last_offset), BigInt(row.base_offset) + BigInt(records.length) - 1n);
      for (const { offset, value } of records) {
        assert.equal(offset, BigInt(ids.length));
        ids.push(value!.toString());
      }
      globals.push({ first: BigInt(row.global_offset), count: countOf(row.records) });
    }
  }
  globals.sort((a, b) => (a.first < b.first ? -1 : 1));
  let next = 0n;
  for (const { first, count } of globals) {
    assert.ok(first >= next, `global offset ${first} is given twice`);
    next = first + count;
  }
  return contents;
}

interface SegmentRow {
  partition_id: number;
  base_offset: string;
  last_offset: string;
  global_offset: string;
  records: Buffer;
}

function countOf(records: Buffer): bigint {
  return splitBatches(records).reduce((sum, batch) => sum + BigInt(lastOffsetDelta(batch)) + 1n, 0n);
}

/** Every acknowledged record is where its producer was told, once; each producer's records are in its order. */
export function assertHolds(contents: Contents, acknowledged: Iterable<Acknowledged>): void {
  const seen = new Set<string>();
  for (const [partition, ids] of contents.entries()) {
    const newest = new Map<string, number>();
    for (const id of ids) {
      assert.ok(!seen.has(id), `${id} is there twice`);
      seen.add(id);
      const [producer, number] = id.split(':') as [string, string];
      assert.ok(Number(number) > (newest.get(producer) ?? -1), `${id} is out of order in partition ${partition}`);
      newest.set(producer, Number(number));
    }
  }
  for (const { partition, offset, id } of acknowledged) {
    const there = contents[partition]![Number(offset)];
    assert.equal(there, id, `${id} was acknowledged at ${partition}/${offset}`);
  }
}
