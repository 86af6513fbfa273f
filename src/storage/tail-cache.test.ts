import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { baseOffset, lastOffset } from '../protocol/record-batch.ts';
import { buildBatch } from '../protocol/records.ts';
import { BufferPool } from '../runtime/buffer-pool.ts';
import { cutRun, type Run, Tail, TailCache } from './tail-cache.ts';

function batchAt(offset: bigint, records: number, valueBytes: number): Buffer {
  const value = Buffer.alloc(valueBytes, 'x');
  return buildBatch({ baseOffset: offset, records: Array.from({ length: records }, () => ({ timestamp: 0n, value })) });
}

function runAt(offset: bigint, shape: readonly { records: number; valueBytes: number }[]): Run {
  const batches: Buffer[] = [];
  let next = offset;
  for (const { records, valueBytes } of shape) {
    batches.push(batchAt(next, records, valueBytes));
    next += BigInt(records);
  }
  const bytes = batches.reduce((sum, batch) => sum + batch.length, 0);
  return { baseOffset: offset, lastOffset: next - 1n, batches, bytes };
}

/** What `Tail.read` says it does, over a plain list of batches. */
function readModel(
  held: readonly Buffer[],
  offset: bigint,
  end: bigint,
  maxBytes: number,
  atLeastOne: boolean,
): Buffer {
  const taken: Buffer[] = [];
  let bytes = 0;
  for (const batch of held) {
    if (lastOffset(batch) < offset || baseOffset(batch) >= end) continue;
    if (bytes + batch.length > maxBytes && !(atLeastOne && taken.length === 0)) break;
    taken.push(batch);
    bytes += batch.length;
  }
  return Buffer.concat(taken);
}

const shape = fc.record({ records: fc.integer({ min: 1, max: 4 }), valueBytes: fc.integer({ min: 0, max: 60 }) });

test('reads agree with a list of batches, over any appends, evictions, clears and unfinished sends', () => {
  const partitions = 3;
  const operation = fc.oneof(
    { weight: 4, arbitrary: fc.tuple(fc.nat(partitions - 1), fc.array(shape, { minLength: 1, maxLength: 3 })) },
    {
      weight: 3,
      arbitrary: fc.record({
        of: fc.nat(partitions - 1),
        at: fc.double({ min: 0, max: 1, noNaN: true }),
        behind: fc.nat(3),
        maxBytes: fc.nat(900),
        atLeastOne: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ clear: fc.nat(partitions - 1) }) },
    { weight: 1, arbitrary: fc.constant('send' as const) },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 400, max: 8000 }),
      fc.integer({ min: 64, max: 2000 }),
      fc.array(operation, { maxLength: 120 }),
      (maxBytes, slabBytes, operations) => {
        // Room to hand an evicted slab out again at once: a reader's bytes must not change under it.
        const cache = new TailCache(maxBytes, new BufferPool(2 ** 20), slabBytes);
        const tails = Array.from({ length: partitions }, () => new Tail());
        const runs: Run[][] = tails.map(() => []);
        const ends = new Array<bigint>(partitions).fill(0n);
        const sending: { got: Buffer[]; expected: Buffer; release: () => void }[] = [];
        for (const operation of operations) {
          if (operation === 'send') {
            const sent = sending.shift();
            if (sent) assert.deepEqual(Buffer.concat(sent.got), sent.expected);
            sent?.release();
          } else if (Array.isArray(operation)) {
            const [of, batches] = operation;
            const run = runAt(ends[of]!, batches);
            ends[of] = run.lastOffset + 1n;
            runs[of]!.push(run);
            cache.add(tails[of]!, run);
          } else if ('clear' in operation) {
            tails[operation.clear]!.clear();
          } else {
            const { of } = operation;
            const tail = tails[of]!;
            const { start } = tail;
            if (start === undefined) continue;
            const held = runs[of]!.filter(run => run.baseOffset >= start);
            const end = held.at(-1 - operation.behind)?.baseOffset ?? ends[of]!;
            const offset = start + BigInt(Math.floor(operation.at * Number(ends[of]! - start + 1n)));
            const { chunks, bytes, release } = tail.read(offset, end, operation.maxBytes, operation.atLeastOne);
            const all = held.flatMap(run => [...run.batches]);
            const expected = readModel(all, offset, end, operation.maxBytes, operation.atLeastOne);
            assert.deepEqual(Buffer.concat(chunks), expected);
            assert.equal(bytes, expected.length);
            sending.push({ got: chunks, expected, release });
          }
          assert.ok(cache.bytes <= Math.max(maxBytes, slabBytes) + Math.max(slabBytes, 1000));
        }
        for (const sent of sending) assert.deepEqual(Buffer.concat(sent.got), sent.expected);
      },
    ),
    { numRuns: 1000 },
  );
});

test('an evicted slab is used again once it is sent, and never while it is being sent', () => {
  const memory = new BufferPool(2 ** 20);
  const cache = new TailCache(70_000, memory, 65_536);
  const tail = new Tail();
  const fill = (offset: bigint) => cache.add(tail, runAt(offset, [{ records: 1, valueBytes: 60_000 }]));
  fill(0n);
  const read = tail.read(0n, 1n, 100_000, false);
  const before = Buffer.concat(read.chunks);
  fill(1n);
  assert.equal(tail.start, 1n);
  assert.equal(memory.freeBytes, 0, 'the first slab is pinned');
  fill(2n);
  assert.ok(memory.freeBytes > 0, 'the second is free');
  fill(3n);
  assert.deepEqual(Buffer.concat(read.chunks), before);
});

test('a run larger than the cache empties its partition, which reads from Postgres again', () => {
  const cache = new TailCache(1000, new BufferPool(0), 200);
  const tail = new Tail();
  cache.add(tail, runAt(0n, [{ records: 1, valueBytes: 10 }]));
  cache.add(tail, runAt(1n, [{ records: 1, valueBytes: 5000 }]));
  assert.equal(tail.start, undefined);
});

test('a row is cut into its batches from the one that holds the offset on', () => {
  fc.assert(
    fc.property(fc.array(shape, { minLength: 1, maxLength: 6 }), fc.nat(30), (batches, skip) => {
      const run = runAt(100n, batches);
      const offset = 100n + BigInt(skip);
      const cut = cutRun(Buffer.concat(run.batches), offset);
      const expected = run.batches.filter(batch => lastOffset(batch) >= offset);
      assert.deepEqual(cut, expected);
    }),
  );
});

test('a run that is cut short is not followed by the next, however well that would fit', () => {
  const cache = new TailCache(10_000, new BufferPool(0), 1000);
  const tail = new Tail();
  cache.add(
    tail,
    runAt(0n, [
      { records: 1, valueBytes: 10 },
      { records: 1, valueBytes: 500 },
    ]),
  );
  cache.add(tail, runAt(2n, [{ records: 1, valueBytes: 10 }]));
  const { chunks } = tail.read(0n, 3n, 300, false);
  assert.deepEqual(
    chunks.flatMap(chunk => cutRun(chunk, 0n)).map(batch => baseOffset(batch)),
    [0n],
  );
});
