import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { baseOffset, lastOffset } from '../protocol/record-batch.ts';
import { buildBatch } from '../protocol/records.ts';
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
function readModel(held: readonly Buffer[], offset: bigint, maxBytes: number, atLeastOne: boolean): Buffer[] {
  const taken: Buffer[] = [];
  let bytes = 0;
  for (const batch of held.filter(batch => lastOffset(batch) >= offset)) {
    const first = atLeastOne && taken.length === 0;
    if (!first && bytes + batch.length > maxBytes) break;
    taken.push(batch);
    bytes += batch.length;
  }
  return taken;
}

const shape = fc.record({ records: fc.integer({ min: 1, max: 4 }), valueBytes: fc.integer({ min: 0, max: 60 }) });

test('reads agree with a list of batches, over any appends and evictions of several partitions', () => {
  const partitions = 3;
  const operation = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.nat(partitions - 1), fc.array(shape, { minLength: 1, maxLength: 3 })) },
    {
      weight: 2,
      arbitrary: fc.record({
        of: fc.nat(partitions - 1),
        at: fc.double({ min: 0, max: 1, noNaN: true }),
        maxBytes: fc.nat(900),
        atLeastOne: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ drop: fc.nat(partitions - 1) }) },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 400, max: 8000 }),
      fc.array(operation, { maxLength: 120 }),
      (maxBytes, operations) => {
        const cache = new TailCache(maxBytes);
        const tails = Array.from({ length: partitions }, () => new Tail());
        const ends = new Array<bigint>(partitions).fill(0n);
        const runs: Run[][] = tails.map(() => []);
        let order: { of: number; run: Run }[] = [];
        const cost = () => order.reduce((sum, { run }) => sum + run.bytes + 256, 0);
        for (const operation of operations) {
          if (Array.isArray(operation)) {
            const [of, batches] = operation;
            const run = runAt(ends[of]!, batches);
            ends[of] = run.lastOffset + 1n;
            cache.add(tails[of]!, run);
            runs[of]!.push(run);
            order.push({ of, run });
            while (cost() > maxBytes) runs[order.shift()!.of]!.shift();
          } else if ('drop' in operation) {
            cache.drop(tails[operation.drop]!);
            runs[operation.drop] = [];
            order = order.filter(({ of }) => of !== operation.drop);
          } else {
            const held = runs[operation.of]!.flatMap(run => [...run.batches]);
            const start = tails[operation.of]!.start;
            assert.equal(start, runs[operation.of]![0]?.baseOffset);
            if (start === undefined) continue;
            const offset = start + BigInt(Math.floor(operation.at * Number(ends[operation.of]! - start + 1n)));
            const { batches, bytes } = tails[operation.of]!.read(offset, operation.maxBytes, operation.atLeastOne);
            const expected = readModel(held, offset, operation.maxBytes, operation.atLeastOne);
            assert.deepEqual(
              batches.map(batch => baseOffset(batch)),
              expected.map(batch => baseOffset(batch)),
            );
            assert.equal(
              bytes,
              expected.reduce((sum, batch) => sum + batch.length, 0),
            );
          }
          assert.equal(cache.bytes, cost());
          assert.ok(cache.bytes <= maxBytes);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('a run larger than the cache leaves it at once, and the partition reads from Postgres again', () => {
  const cache = new TailCache(1000);
  const tail = new Tail();
  cache.add(tail, runAt(0n, [{ records: 1, valueBytes: 10 }]));
  cache.add(tail, runAt(1n, [{ records: 1, valueBytes: 5000 }]));
  assert.equal(tail.start, undefined);
  assert.equal(cache.bytes, 0);
  cache.add(tail, runAt(2n, [{ records: 2, valueBytes: 10 }]));
  assert.equal(tail.start, 2n);
  assert.equal(tail.read(3n, 10_000, false).batches.length, 1);
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
