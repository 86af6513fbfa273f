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
  const reader = new FrameReader({ maxBytes: 1024 * kib, reserve: bytes => reserved.push(bytes) });
  const size = Buffer.alloc(4);
  size.writeInt32BE(640 * kib);
  reader.push(size);
  assert.deepEqual(reserved, [64 * kib]);
  assert.equal(reader.reserved, 64 * kib);
  const body = Buffer.alloc(640 * kib, 3);
  reader.push(body.subarray(0, 64 * kib));
  assert.equal(reader.reserved, 64 * kib);
  reader.push(body.subarray(64 * kib, 64 * kib + 1));
  assert.equal(reader.reserved, 128 * kib);
  const [frame] = reader.push(body.subarray(64 * kib + 1));
  assert.deepEqual(
    reserved.map(bytes => bytes / kib),
    [64, 64, 128, 256, 128],
  );
  assert.ok(frame!.equals(body));
  assert.equal(frame!.buffer.byteLength, 640 * kib);
});
