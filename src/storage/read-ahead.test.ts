import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../test/open-log.ts';
import { PartitionLog } from './partition-log.ts';
import { ReadAhead } from './read-ahead.ts';
import type { StoredRows } from './reader.ts';

const MiB = 1024 * 1024;
const patient = { maxBytes: 4 * MiB, patienceMs: 60_000 };
const partition = () => new PartitionLog(1, 0, 0n, 1000n);

/** Rows of ten offsets each that tell whether they have been let go. */
function rowsFrom(offset: bigint, count = 1, bytes = 0): StoredRows & { released: number } {
  const stored = {
    rows: Array.from({ length: count }, (_, i) => {
      const baseOffset = offset + 10n * BigInt(i);
      return { baseOffset, lastOffset: baseOffset + 9n, records: Buffer.alloc(bytes) };
    }),
    released: 0,
    release() {
      stored.released++;
    },
  };
  return stored;
}

const basesOf = (stored: StoredRows | undefined) => stored?.rows.map(row => row.baseOffset);

test('what was read ahead is for whoever reads on there, in that partition', async () => {
  const ahead = new ReadAhead(patient);
  const [one, other] = [partition(), partition()];
  ahead.begin(one, 10n, MiB, async () => rowsFrom(10n, 3));
  assert.equal(ahead.take(other, 10n), undefined);
  assert.equal(ahead.take(one, 9n), undefined);
  assert.deepEqual(basesOf(await ahead.take(one, 10n)), [10n, 20n, 30n]);
  assert.deepEqual(basesOf(await ahead.take(one, 25n)), [20n, 30n]);
  assert.equal(ahead.take(one, 40n), undefined);
});

test('what is there already is not read again', () => {
  const ahead = new ReadAhead(patient);
  const of = partition();
  let reads = 0;
  const read = async () => {
    reads++;
    return rowsFrom(0n);
  };
  ahead.begin(of, 0n, MiB, read);
  ahead.begin(of, 0n, MiB, read);
  assert.equal(reads, 1);
});

test('memory is used again when the stretch has made room for others and the last answer has been sent', async () => {
  const ahead = new ReadAhead({ ...patient, maxBytes: MiB });
  const of = partition();
  const stored = rowsFrom(0n);
  ahead.begin(of, 0n, MiB, async () => stored);
  const [first, second] = [await ahead.take(of, 0n), await ahead.take(of, 0n)];
  first!.release();
  first!.release();
  ahead.begin(of, 10n, MiB, async () => rowsFrom(10n));
  assert.equal(ahead.take(of, 0n), undefined);
  await ahead.take(of, 10n);
  assert.equal(stored.released, 0, 'somebody is still being sent them');
  second!.release();
  await eventually(() => stored.released === 1);
});

test('rows larger than what was asked for count as what they are', async () => {
  const ahead = new ReadAhead(patient);
  const large = partition();
  ahead.begin(large, 0n, 65_536, async () => rowsFrom(0n, 2, 3 * MiB));
  const taken = await ahead.take(large, 0n);
  assert.equal(ahead.bytes, 6 * MiB);
  let reads = 0;
  const begin = () =>
    ahead.begin(partition(), 0n, 65_536, async () => {
      reads++;
      return rowsFrom(0n);
    });
  begin();
  assert.deepEqual([reads, ahead.bytes], [1, 65_536], 'what was used has made room');
  taken!.release();
  ahead.clear();
  assert.equal(ahead.bytes, 0);
});

test('no more is read ahead than may be kept, at most a megabyte at once, and many small reads count for more', () => {
  const ahead = new ReadAhead(patient);
  const asked: number[] = [];
  const begin = (maxBytes: number) =>
    ahead.begin(partition(), 0n, maxBytes, async bytes => {
      asked.push(bytes);
      return rowsFrom(0n);
    });
  for (let i = 0; i < 6; i++) begin(50 * MiB);
  assert.deepEqual(asked, [MiB, MiB, MiB, MiB]);
  assert.equal(ahead.bytes, 4 * MiB);
  ahead.clear();
  assert.equal(ahead.bytes, 0);
  for (let i = 0; i < 100; i++) begin(1);
  assert.equal(asked.length, 4 + 64);
  ahead.clear();
});

test('a read ahead that failed or found nothing leaves its taker to read, and the next to read ahead', async () => {
  const ahead = new ReadAhead(patient);
  const of = partition();
  ahead.begin(of, 0n, MiB, () => Promise.reject(new Error('lost the connection')));
  assert.equal(await ahead.take(of, 0n), undefined);
  await eventually(() => ahead.bytes === 0);
  ahead.begin(of, 0n, MiB, async () => rowsFrom(0n));
  assert.deepEqual(basesOf(await ahead.take(of, 0n)), [0n]);
  ahead.clear();
});

test('what nobody takes is let go, also when it comes only after that', async () => {
  const ahead = new ReadAhead({ maxBytes: 4 * MiB, patienceMs: 2 });
  const [early, late] = [rowsFrom(0n), rowsFrom(0n)];
  let arrive!: (rows: StoredRows) => void;
  ahead.begin(partition(), 0n, MiB, async () => early);
  ahead.begin(partition(), 0n, MiB, () => new Promise(resolve => (arrive = resolve)));
  await eventually(() => ahead.bytes === 0 && early.released === 1);
  arrive(late);
  await eventually(() => late.released === 1);
});
