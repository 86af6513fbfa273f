// Records that mirrors copy in tests of both directions.
import assert from 'node:assert/strict';
import { decodeBatch } from '../src/protocol/compression.ts';
import type { NewRecord } from '../src/protocol/records.ts';

export const text = (value: string): Buffer => Buffer.from(value);
export const now = BigInt(Date.now());

export const records = (count: number): NewRecord[] =>
  Array.from({ length: count }, (_, i) => ({ timestamp: now + BigInt(i), key: text(`k${i}`), value: text(`v${i}`) }));

/** Nulls, what is empty, and a header that is there twice. */
export const odd: readonly NewRecord[] = [
  { timestamp: 5n, key: null, value: null },
  {
    timestamp: now,
    key: text(''),
    value: text('headers'),
    headers: [
      { key: 'a', value: text('1') },
      { key: 'a', value: null },
      { key: '', value: text('') },
    ],
  },
];

/** That a batch begins with what `odd` has. */
export async function assertOdd(batch: Buffer): Promise<void> {
  const [first, second] = await decodeBatch(batch, 2 ** 20);
  assert.deepEqual([first!.key, first!.value, first!.timestamp], [null, null, 5n]);
  assert.deepEqual(
    second!.headers.map(({ key, value }) => [key, value?.toString() ?? null]),
    [
      ['a', '1'],
      ['a', null],
      ['', ''],
    ],
  );
}
