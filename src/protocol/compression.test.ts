import assert from 'node:assert/strict';
import test from 'node:test';
import { gzipSync } from 'node:zlib';
import { Encoder } from '@toondepauw/node-zstd';
import { compressFrameSync } from 'lz4-napi';
import { compressSync } from 'snappy';
import {
  CompressionError,
  codecNames,
  codecNumber,
  compress,
  decodeBatch,
  decompress,
  recompress,
} from './compression.ts';
import { inflatedAtMost, lz4Bound, zstdBound } from './inflated-size.ts';
import * as header from './record-batch.ts';
import { buildBatch, readRecords } from './records.ts';

const mib = 1024 * 1024;
const limit = 4 * mib;
const text = Buffer.from('All work and no play makes a log. '.repeat(5000));
const noise = Buffer.from(Array.from({ length: 70_000 }, (_, i) => (Math.imul(i, 2654435761) >>> 13) & 0xff));
const varied = Buffer.from(Array.from({ length: 20_000 }, (_, i) => `${(i * i) % 977} `).join(''));
const compressed = codecNames.filter(name => name !== 'none');

const rejects = (promise: Promise<unknown>, tooLarge: boolean): Promise<void> =>
  assert.rejects(promise, error => error instanceof CompressionError && error.tooLarge === tooLarge);

for (const name of compressed) {
  const codec = codecNumber(name);
  test(`${name}: what is compressed comes back`, async () => {
    for (const bytes of [text, noise, Buffer.alloc(0), Buffer.from('x')]) {
      assert.deepEqual(await decompress(await compress(bytes, codec), codec, limit), bytes);
    }
  });

  test(`${name}: the limit holds to the byte`, async () => {
    const bytes = await compress(text, codec);
    assert.equal((await decompress(bytes, codec, text.length)).length, text.length);
    await rejects(decompress(bytes, codec, text.length - 1), true);
  });

  test(`${name}: a bomb is refused before it is inflated`, async () => {
    const bomb = await compress(Buffer.alloc(64 * mib), codec);
    const before = process.memoryUsage().rss;
    await rejects(decompress(bomb, codec, mib), true);
    assert.ok(process.memoryUsage().rss - before < 16 * mib);
  });

  test(`${name}: rubbish and torn bytes are refused`, async () => {
    await rejects(decompress(noise, codec, limit), false);
    const bytes = await compress(noise, codec);
    await rejects(decompress(bytes.subarray(0, bytes.length / 2), codec, limit), false);
  });

  test(`${name}: a batch is rewritten there and back`, async () => {
    const records = Array.from({ length: 100 }, (_, i) => ({
      timestamp: BigInt(i),
      key: null,
      value: Buffer.from(`value ${i}`),
      headers: [{ key: 'h', value: null }],
    }));
    const batch = buildBatch({ records, baseOffset: 40n, producerId: 3n, producerEpoch: 0, baseSequence: 0 });
    const packed = await recompress(batch, codec, { maxBytes: limit });
    assert.equal(header.codec(packed), codec);
    assert.equal(header.crc(packed), header.computeCrc(packed));
    assert.equal(header.batchBytes(packed), packed.length);
    assert.ok(packed.length < batch.length);
    assert.deepEqual(await decodeBatch(packed, limit), readRecords(batch, batch.subarray(header.headerBytes)));
    assert.deepEqual(await recompress(packed, 0, { maxBytes: limit }), batch);
    await rejects(recompress(packed, 0, { maxBytes: 100 }), true);
  });
}

test('levels are the codec’s own', async () => {
  for (const name of ['gzip', 'zstd'] as const) {
    const codec = codecNumber(name);
    const [fast, best] = [await compress(varied, codec, 1), await compress(varied, codec, 9)];
    assert.notEqual(fast.length, best.length);
  }
});

test('codec numbers beyond zstd are refused', async () => {
  await rejects(decompress(text, 5, limit), false);
  await rejects(compress(text, 7), false);
});

test('raw snappy is read like framed snappy, and a false length is refused', async () => {
  assert.deepEqual(await decompress(compressSync(text), 2, limit), text);
  await rejects(decompress(Buffer.from([0xff, 0xff, 0x7f, 0x00]), 2, limit), false);
});

test('a rewritten batch holds the records its header counts', async () => {
  const batch = buildBatch({ records: [{ timestamp: 1n }, { timestamp: 2n }] });
  batch.writeInt32BE(3, 57);
  await rejects(recompress(batch, 1, { maxBytes: limit }), false);
});

test('bounds: lz4 is exact where it matters, zstd counts whole blocks', () => {
  const lz4 = compressFrameSync(text);
  assert.ok(lz4Bound(lz4, Number.MAX_SAFE_INTEGER) >= text.length);
  assert.equal(lz4Bound(lz4, 0), text.length);
  const bound = zstdBound(new Encoder(3).encodeSync(text));
  assert.ok(bound >= text.length && bound < text.length + 3 * 128 * 1024);
});

test('gzip of several members is read whole', async () => {
  const two = Buffer.concat([gzipSync(Buffer.from('one ')), gzipSync(Buffer.from('two'))]);
  assert.equal((await decompress(two, 1, limit)).toString(), 'one two');
});

test('zeros, which compress best, become no more than is reckoned with', async () => {
  for (const codec of codecNames.keys()) {
    for (const bytes of [1, 1000, 1_000_000]) {
      const compressed = await compress(Buffer.alloc(bytes), codec);
      assert.ok(inflatedAtMost(codec, compressed.length) >= bytes, codecNames[codec]);
    }
  }
});
