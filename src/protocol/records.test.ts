import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import * as header from './record-batch.ts';
import { buildBatch, findRecord, holdsRecords, type NewRecord, readRecords } from './records.ts';
import { WireError } from './wire.ts';

const plain = { noNullPrototype: true };
const blob = fc.option(fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)));
const timestamp = fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n });
const anyRecord: fc.Arbitrary<NewRecord> = fc.record(
  {
    timestamp: fc.oneof(fc.bigInt({ min: 0n, max: 100n }), timestamp),
    key: blob,
    value: blob,
    headers: fc.array(fc.record({ key: fc.string({ maxLength: 10 }), value: blob }, plain), { maxLength: 4 }),
  },
  plain,
);
const section = (batch: Buffer): Buffer => batch.subarray(header.headerBytes);

test('a batch gives back the records it was built of', () => {
  fc.assert(
    fc.property(fc.array(anyRecord, { minLength: 1, maxLength: 20 }), timestamp, (records, baseOffset) => {
      const batch = buildBatch({ records, baseOffset });
      assert.equal(header.batchBytes(batch), batch.length);
      assert.equal(header.crc(batch), header.computeCrc(batch));
      assert.equal(header.lastOffset(batch), baseOffset + BigInt(records.length - 1));
      assert.ok(holdsRecords(section(batch), records.length));
      assert.deepEqual(
        readRecords(batch, section(batch)),
        records.map((record, i) => ({ offset: baseOffset + BigInt(i), ...record })),
      );
    }),
  );
});

test('a record is found by its time as if all were read', () => {
  const times = fc.array(fc.bigInt({ min: -5n, max: 2n ** 41n }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(
      times,
      fc.nat(20),
      fc.bigInt({ min: -5n, max: 2n ** 41n }),
      fc.boolean(),
      (times, skip, since, append) => {
        const value = Buffer.from('value');
        const batch = buildBatch({ baseOffset: 100n, records: times.map(timestamp => ({ timestamp, value })) });
        if (append) header.stampAppendTime(batch, 0, 2n ** 40n);
        const section = batch.subarray(header.headerBytes);
        const from = 100n + BigInt(skip);
        const expected = readRecords(batch, section).find(record => record.offset >= from && record.timestamp >= since);
        assert.deepEqual(
          findRecord(batch, section, from, timestamp => timestamp >= since),
          expected && { offset: expected.offset, timestamp: expected.timestamp },
        );
      },
    ),
  );
});

test('the header says what the batch was built with', () => {
  const batch = buildBatch({
    records: [{ timestamp: 50n }, { timestamp: 70n }, { timestamp: 60n }],
    baseOffset: 9n,
    leaderEpoch: 4,
    producerId: 77n,
    producerEpoch: 2,
    baseSequence: 5,
    isTransactional: true,
    isControl: true,
  });
  assert.equal(header.magic(batch), 2);
  assert.equal(header.baseOffset(batch), 9n);
  assert.equal(header.leaderEpoch(batch), 4);
  assert.equal(header.baseTimestamp(batch), 50n);
  assert.equal(header.maxTimestamp(batch), 70n);
  assert.equal(header.producerId(batch), 77n);
  assert.equal(header.producerEpoch(batch), 2);
  assert.equal(header.baseSequence(batch), 5);
  assert.equal(header.recordCount(batch), 3);
  assert.ok(header.isTransactional(batch));
  assert.ok(header.isControl(batch));
  assert.equal(header.codec(batch), 0);
});

test('offset and leader epoch are assigned without touching the CRC; the append time makes it anew', () => {
  const batch = buildBatch({ records: [{ timestamp: 5n }, { timestamp: 6n }] });
  header.assignOffset(batch, 0, 1000n, 8);
  assert.equal(header.crc(batch), header.computeCrc(batch));
  header.stampAppendTime(batch, 0, 99n);
  assert.equal(header.crc(batch), header.computeCrc(batch));
  assert.deepEqual(
    readRecords(batch, section(batch)).map(({ offset, timestamp }) => [offset, timestamp]),
    [
      [1000n, 99n],
      [1001n, 99n],
    ],
  );
});

test('a run is split into its whole batches', () => {
  const [a, b] = [buildBatch({ records: [{ timestamp: 1n }] }), buildBatch({ records: [{ timestamp: 2n }] })];
  const run = Buffer.concat([a, b, a.subarray(0, 66)]);
  assert.deepEqual(header.splitBatches(run), [a, b]);
  assert.deepEqual(header.splitBatches(Buffer.alloc(0)), []);
  const old = Buffer.from(a);
  old[16] = 1;
  assert.throws(() => header.splitBatches(old), WireError);
  const negative = Buffer.from(a);
  negative.writeInt32BE(-5, 8);
  assert.throws(() => header.splitBatches(negative), WireError);
});

test('mutated records are read or refused, never anything else', () => {
  const records = fc.array(anyRecord, { minLength: 1, maxLength: 5 });
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(records, edits, (originals, changes) => {
      const batch = buildBatch({ records: originals });
      const bytes = Buffer.from(section(batch));
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
      try {
        readRecords(batch, bytes);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
      holdsRecords(bytes, originals.length);
    }),
    { numRuns: 500 },
  );
});
