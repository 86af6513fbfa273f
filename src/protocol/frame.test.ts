import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FrameReader } from './frame.ts';
import { WireError } from './wire.ts';

const framed = (body: Buffer): Buffer => {
  const size = Buffer.alloc(4);
  size.writeInt32BE(body.length);
  return Buffer.concat([size, body]);
};

test('frames come out whole however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 6000 }), { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 }),
      (bodies, cuts) => {
        const stream = Buffer.concat(bodies.map(body => framed(Buffer.from(body))));
        let reserved = 0;
        const reader = new FrameReader({
          maxBytes: 6000,
          reserve: bytes => {
            reserved += bytes;
          },
        });
        const frames: Buffer[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const end = at + cuts[i % cuts.length]!;
          frames.push(...reader.push(stream.subarray(at, end)));
          at = end;
        }
        assert.deepEqual(
          frames.map(frame => Buffer.from(frame)),
          bodies.map(body => Buffer.from(body)),
        );
        assert.equal(
          reserved,
          bodies.reduce((sum, body) => sum + body.length, 0),
        );
        assert.equal(reader.reserved, 0);
      },
    ),
  );
});

test('a frame keeps no more memory alive than itself', () => {
  const reader = new FrameReader({ maxBytes: 1 << 20 });
  const [frame] = reader.push(framed(Buffer.alloc(5000, 7)));
  assert.equal(frame!.buffer.byteLength, 5000);
});

test('a size outside the limits is refused before anything is reserved', () => {
  for (const size of [-1, 0, 1001, 2_000_000_000, 0x47455420]) {
    const reader = new FrameReader({ maxBytes: 1000, reserve: () => assert.fail('reserved') });
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(size);
    assert.throws(() => reader.push(bytes), WireError);
  }
});

test('a large claim is believed only as bytes arrive', () => {
  const reserved: number[] = [];
  const kib = 1024;
  const reader = new FrameReader({ maxBytes: 4096 * kib, reserve: bytes => reserved.push(bytes / kib) });
  const size = Buffer.alloc(4);
  size.writeInt32BE(3000 * kib);
  reader.push(size);
  assert.deepEqual(reserved, [4]);
  const body = Buffer.alloc(3000 * kib, 3);
  reader.push(body.subarray(0, 4 * kib));
  assert.equal(reader.reserved, 4 * kib);
  reader.push(body.subarray(4 * kib, 4 * kib + 1));
  assert.equal(reader.reserved, 8 * kib);
  reader.push(body.subarray(4 * kib + 1, 60 * kib));
  assert.deepEqual([reader.reserved, reader.wanted], [60 * kib, 0]);
  reader.push(body.subarray(60 * kib, 61 * kib));
  assert.deepEqual([reader.reserved, reader.wanted], [120 * kib, 904 * kib]);
  reader.push(body.subarray(61 * kib, 1024 * kib));
  assert.deepEqual([reader.reserved, reader.wanted], [1024 * kib, 1024 * kib]);
  const [frame] = reader.push(body.subarray(1024 * kib));
  assert.equal(
    reserved.reduce((sum, bytes) => sum + bytes),
    3000,
  );
  assert.deepEqual([reader.reserved, reader.wanted], [0, 0]);
  assert.ok(frame!.equals(body));
});
