import assert from 'node:assert/strict';
import test from 'node:test';
import { Reader, WireError, Writer } from './wire.ts';

const reader = (...bytes: number[]): Reader => new Reader(Buffer.from(bytes));
const written = (write: (writer: Writer) => void): Buffer => {
  const writer = new Writer();
  write(writer);
  return Buffer.concat(writer.finish());
};

test('varints hold 32 bits and no more', () => {
  for (const value of [0, 1, 127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 - 1]) {
    const bytes = written(writer => writer.uvarint(value));
    assert.equal(new Reader(bytes).uvarint(), value);
  }
  assert.throws(() => reader(0xff, 0xff, 0xff, 0xff, 0x1f).uvarint(), WireError);
  assert.throws(() => reader(0x80, 0x80, 0x80, 0x80, 0x80, 0x01).uvarint(), WireError);
});

test('a length is compared with what remains before bytes are taken', () => {
  assert.throws(() => reader(0x7f, 0xff, 65).string(), WireError);
  assert.throws(() => reader(0x7f, 0xff, 0xff, 0xff).nonNullBytes(), WireError);
  assert.throws(() => reader(0xff, 0xff, 0xff, 0xff, 0x0f).compactBytes(), WireError);
  assert.throws(() => reader(0x81, 0x80, 0x03).compactString(), WireError);
  assert.throws(() => reader(1, 2, 3).int32(), WireError);
});

test('a count is compared with the least its elements can take', () => {
  assert.equal(reader(0, 0, 0, 2, 1, 2).count(1), 2);
  assert.throws(() => reader(0, 0, 0, 2, 1, 2).count(2), WireError);
  assert.throws(() => reader(0x7f, 0xff, 0xff, 0xff, 0).count(1), WireError);
  assert.throws(() => reader(0xff, 0xff, 0xff, 0xff, 0x0f, 0).compactCount(1), WireError);
  assert.throws(() => reader(0xff, 0xff, 0xff, 0xff).count(1), WireError);
  assert.equal(reader(0xff, 0xff, 0xff, 0xff).nullableCount(1), -1);
  assert.equal(reader(0).compactNullableCount(1), -1);
});

test('one message has a budget of elements', () => {
  const bytes = Buffer.alloc(20);
  bytes.writeInt32BE(10, 0);
  bytes.writeInt32BE(6, 4);
  const limited = new Reader(bytes, 0, 15);
  limited.count(1);
  assert.throws(() => limited.count(1), WireError);
});

test('the scratch buffer grows and is left as it was for the next message', () => {
  const writer = new Writer();
  const value = Buffer.alloc(1000, 7);
  for (let i = 0; i < 3000; i++) writer.nonNullBytes(value);
  const [grown] = writer.finish();
  assert.equal(grown!.length, 3000 * 1004);
  writer.reset().int32(5);
  assert.deepEqual(writer.finish(), [Buffer.from([0, 0, 0, 5])]);
});

test('tagged fields of any size are measured', () => {
  for (const length of [0, 1, 126, 127, 128, 200, 16_383, 20_000]) {
    const bytes = written(writer => {
      const start = writer.beginTag(5);
      writer.compactBytes(Buffer.alloc(length, 1));
      writer.endTag(start);
      writer.int8(42);
    });
    const read = new Reader(bytes);
    assert.equal(read.uvarint(), 5);
    const end = read.tagEnd(read.uvarint());
    assert.equal(read.compactBytes().length, length);
    read.endTag(end);
    assert.equal(read.int8(), 42);
    assert.equal(read.remaining, 0);
  }
});

test('strings past what Kafka allows and false uuids are refused when writing', () => {
  const writer = new Writer();
  assert.throws(() => writer.string('x'.repeat(40_000)), RangeError);
  assert.throws(() => writer.compactString('x'.repeat(40_000)), RangeError);
  assert.throws(() => writer.uuid('not-a-uuid'), TypeError);
});
