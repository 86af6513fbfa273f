import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ErrorCode } from '../protocol/errors.ts';
import { buildBatch } from '../protocol/records.ts';
import { mostProducers, Producers, type SequenceCheck } from './producers.ts';

interface Sent {
  readonly id: bigint;
  readonly epoch: number;
  readonly first: number;
  readonly records: number;
}

function batchOf({ id, epoch, first, records }: Sent, baseOffset = 0n): Buffer {
  return buildBatch({
    records: Array.from({ length: records }, () => ({ timestamp: 0n })),
    baseOffset,
    producerId: id,
    producerEpoch: epoch,
    baseSequence: first,
  });
}

const after = (sequence: number, count: number): number => (sequence + count) % 2 ** 31;
const refused = (error: number): SequenceCheck => ({ kind: 'refused', error });

/** The rules as KIP-98 has them, over everything a producer ever had appended. */
class Model {
  readonly producers = new Map<
    bigint,
    { epoch: number; batches: { first: number; records: number; offset: bigint }[] }
  >();

  check({ id, epoch, first, records }: Sent): SequenceCheck {
    const known = this.producers.get(id);
    if (!known) return { kind: 'append' };
    if (epoch < known.epoch) return refused(ErrorCode.INVALID_PRODUCER_EPOCH);
    if (epoch > known.epoch) {
      return first === 0 ? { kind: 'append' } : refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    const repeated = known.batches.slice(-5).find(batch => batch.first === first && batch.records === records);
    if (repeated) return { kind: 'duplicate', baseOffset: repeated.offset };
    const newest = known.batches.at(-1)!;
    return first === after(newest.first, newest.records)
      ? { kind: 'append' }
      : refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER);
  }

  append({ id, epoch, first, records }: Sent, offset: bigint): void {
    const known = this.producers.get(id);
    const batches = known?.epoch === epoch ? known.batches : [];
    this.producers.set(id, { epoch, batches: [...batches, { first, records, offset }] });
  }

  copy(): Model {
    const model = new Model();
    for (const [id, known] of this.producers) model.producers.set(id, known);
    return model;
  }
}

const step = fc.record({
  id: fc.bigInt({ min: 0n, max: 2n }),
  bumpEpoch: fc.constantFrom(0, 0, 0, 0, 0, 1, -1),
  /** Mostly the sequence that is due; else a step from it. */
  skip: fc.constantFrom(0, 0, 0, 0, 1, -1, -3, -7, 1000, -1000),
  records: fc.integer({ min: 1, max: 3 }),
  repeat: fc.option(fc.nat(7), { freq: 3 }),
});
const group = fc.record({
  steps: fc.array(step, { maxLength: 8 }),
  outcome: fc.constantFrom('commit', 'commit', 'fail', 'restart'),
});

test('duplicates, gaps and epochs are told apart as a model tells them, over failed commits and restarts', () => {
  // Both ends of the sequences' circle.
  const firstSequence = fc.constantFrom(0, 2 ** 31 - 4);
  fc.assert(
    fc.property(firstSequence, fc.array(group, { maxLength: 25 }), (begin, groups) => {
      let producers = new Producers();
      let model = new Model();
      let sent: Sent[] = [];
      let offset = 0n;
      const log: Buffer[] = [];
      for (const { steps, outcome } of groups) {
        const before = { model: model.copy(), sent: [...sent], offset };
        const inGroup: Buffer[] = [];
        producers.begin();
        for (const { id, bumpEpoch, skip, records, repeat } of steps) {
          const known = model.producers.get(id);
          const newest = known?.batches.at(-1);
          const due = newest ? after(newest.first, newest.records) : begin;
          const epoch = Math.max((known?.epoch ?? 3) + bumpEpoch, 0);
          const first = bumpEpoch > 0 && skip === 0 ? 0 : (due + skip + 2 ** 31) % 2 ** 31;
          const old = sent.filter(batch => batch.id === id);
          const batch = repeat !== null && old.length > repeat ? old.at(-1 - repeat)! : { id, epoch, first, records };
          const check = producers.check(batchOf(batch));
          assert.deepEqual(check, model.check(batch), JSON.stringify({ ...batch, id: Number(batch.id) }));
          if (check.kind !== 'append') continue;
          producers.append(batchOf(batch), offset, 1);
          inGroup.push(batchOf(batch, offset));
          model.append(batch, offset);
          sent.push(batch);
          offset += BigInt(batch.records);
        }
        if (outcome === 'commit') {
          producers.settle();
          log.push(...inGroup);
        } else {
          // A commit that failed, or a crash before it: nothing of the group is in the log.
          ({ model, sent, offset } = before);
          if (outcome === 'fail') producers.revert();
          else {
            producers = new Producers();
            for (const batch of log) producers.replay(batch, 1);
          }
        }
      }
      const restored = new Producers();
      restored.restore(JSON.parse(JSON.stringify(producers.snapshot())));
      assert.deepEqual(restored.snapshot(), producers.snapshot());
    }),
    { numRuns: 500 },
  );
});

test('a batch without a producer id is always appended and leaves nothing behind', () => {
  const producers = new Producers();
  const batch = buildBatch({ records: [{ timestamp: 0n }] });
  producers.begin();
  assert.deepEqual(producers.check(batch), { kind: 'append' });
  producers.append(batch, 0n, 1);
  producers.settle();
  assert.deepEqual(producers.check(batch), { kind: 'append' });
  assert.equal(producers.size, 0);
});

test('producers unused for long are forgotten, and then any sequence begins', () => {
  const producers = new Producers();
  producers.begin();
  producers.append(batchOf({ id: 1n, epoch: 0, first: 0, records: 1 }), 0n, 100);
  producers.append(batchOf({ id: 2n, epoch: 0, first: 0, records: 1 }), 1n, 200);
  producers.settle();
  producers.expire(150);
  assert.equal(producers.size, 1);
  assert.deepEqual(producers.check(batchOf({ id: 1n, epoch: 0, first: 7, records: 1 })), { kind: 'append' });
  assert.equal(producers.check(batchOf({ id: 2n, epoch: 0, first: 7, records: 1 })).kind, 'refused');
});

test('a partition remembers a bounded number of producers: those that wrote last', () => {
  const producers = new Producers();
  const write = (id: number, first: number, offset: number) => {
    producers.begin();
    producers.append(batchOf({ id: BigInt(id), epoch: 0, first, records: 1 }), BigInt(offset), 1);
    producers.settle();
  };
  const repeated = (id: number) => producers.check(batchOf({ id: BigInt(id), epoch: 0, first: 0, records: 1 })).kind;
  for (let id = 0; id < mostProducers; id++) write(id, 0, id);
  write(0, 1, mostProducers); // and so 1 is the one that has not written for the longest
  write(mostProducers, 0, mostProducers + 1);
  assert.equal(producers.size, mostProducers);
  assert.deepEqual([0, 1, 2, mostProducers].map(repeated), ['duplicate', 'append', 'duplicate', 'duplicate']);
  const restored = new Producers();
  restored.restore(producers.snapshot());
  restored.replay(batchOf({ id: -5n + 2n ** 40n, epoch: 0, first: 0, records: 1 }), 2);
  assert.equal(restored.size, mostProducers);
  assert.equal(restored.check(batchOf({ id: 2n, epoch: 0, first: 0, records: 1 })).kind, 'append');
  assert.equal(restored.check(batchOf({ id: 0n, epoch: 0, first: 0, records: 1 })).kind, 'duplicate');
});
