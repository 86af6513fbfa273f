// Codecs for kafkajs, which brings only gzip. Snappy is framed as xerial's Java library frames it, as kafkajs-snappy does.

import { Decoder, Encoder } from '@toondepauw/node-zstd';
import kafkajs from 'kafkajs';
import lz4 from 'lz4-napi';
import snappy from 'snappy';

interface Encoded {
  buffer: Buffer;
}

const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
const blockBytes = 32 * 1024;

async function snappyFrame(data: Buffer): Promise<Buffer> {
  const parts: Buffer[] = [xerialMagic];
  for (let at = 0; at < data.length; at += blockBytes) {
    const block = await snappy.compress(data.subarray(at, at + blockBytes));
    const length = Buffer.alloc(4);
    length.writeInt32BE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
}

async function snappyUnframe(data: Buffer): Promise<Buffer> {
  if (!data.subarray(0, 8).equals(xerialMagic.subarray(0, 8))) return (await snappy.uncompress(data)) as Buffer;
  const parts: Buffer[] = [];
  for (let at = 16; at < data.length; ) {
    const length = data.readInt32BE(at);
    parts.push((await snappy.uncompress(data.subarray(at + 4, at + 4 + length))) as Buffer);
    at += 4 + length;
  }
  return Buffer.concat(parts);
}

const codec = (compress: (data: Buffer) => Promise<Buffer>, decompress: (data: Buffer) => Promise<Buffer>) => () => ({
  compress: (encoded: Encoded) => compress(encoded.buffer),
  decompress,
});

export function registerCodecs(): void {
  const { CompressionCodecs, CompressionTypes } = kafkajs;
  CompressionCodecs[CompressionTypes.Snappy] = codec(snappyFrame, snappyUnframe);
  CompressionCodecs[CompressionTypes.LZ4] = codec(lz4.compressFrame, lz4.decompressFrame);
  CompressionCodecs[CompressionTypes.ZSTD] = codec(
    async data => new Encoder(3).encode(data),
    data => new Decoder().decode(data),
  );
}
