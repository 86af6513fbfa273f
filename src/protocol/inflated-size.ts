// How large lz4 and zstd frames can become, from their block headers and without unpacking them. The decoders grow
// their output as they go and know no limit, so compression.ts asks here first. Formats: the LZ4 frame and block
// format descriptions; RFC 8878 for zstd.
import { WireError } from './wire.ts';

const lz4Magic = 0x184d2204;
const zstdMagic = 0xfd2fb528;
/** 0x184D2A50 to 0x184D2A5F begin frames to skip, in both formats. */
const isSkippable = (magic: number): boolean => magic >>> 4 === 0x184d2a5;
/** No lz4 sequence makes more than this of one of its bytes. */
const lz4Growth = 255;
const zstdMaxBlock = 128 * 1024;

class Cursor {
  readonly bytes: Buffer;
  at = 0;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  get done(): boolean {
    return this.at === this.bytes.length;
  }
  skip(count: number): number {
    const at = this.at;
    if (count > this.bytes.length - at) throw new WireError(`compressed frame cut short at ${at}`);
    this.at = at + count;
    return at;
  }
  uint8(): number {
    return this.bytes[this.skip(1)]!;
  }
  uint24(): number {
    return this.bytes.readUIntLE(this.skip(3), 3);
  }
  uint32(): number {
    return this.bytes.readUInt32LE(this.skip(4));
  }
}

/** What one byte can become at the most, by codec number: none, gzip, snappy, lz4, and zstd, which repeats a byte for a block. */
const growth = [1, 1032, 22, 255, 32_768];

/** The most that so many bytes can become, without looking at them. */
export const inflatedAtMost = (codec: number, bytes: number): number => bytes * (growth[codec] ?? 1);

/** The most that lz4 frames can become; exact where a looser bound would pass `limit`. */
export function lz4Bound(bytes: Buffer, limit: number): number {
  const loose = lz4Frames(bytes, (length, maxBlock) => Math.min(maxBlock, length * lz4Growth));
  if (loose <= limit) return loose;
  return lz4Frames(bytes, (length, _maxBlock, at) => lz4BlockSize(bytes, at, at + length));
}

function lz4Frames(bytes: Buffer, blockSize: (length: number, maxBlock: number, at: number) => number): number {
  const cursor = new Cursor(bytes);
  let total = 0;
  while (!cursor.done) {
    const magic = cursor.uint32();
    if (isSkippable(magic)) {
      cursor.skip(cursor.uint32());
      continue;
    }
    if (magic !== lz4Magic) throw new WireError('not an lz4 frame');
    const flags = cursor.uint8();
    const maxBlock = 2 ** (8 + 2 * ((cursor.uint8() >> 4) & 0x07));
    const [dictionary, contentChecksum, contentSize, blockChecksum] = [0x01, 0x04, 0x08, 0x10].map(bit => flags & bit);
    cursor.skip((contentSize ? 8 : 0) + (dictionary ? 4 : 0) + 1);
    for (let header = cursor.uint32(); header !== 0; header = cursor.uint32()) {
      const length = header & 0x7fff_ffff;
      const at = cursor.skip(length + (blockChecksum ? 4 : 0));
      total += header >>> 31 ? length : blockSize(length, maxBlock, at);
    }
    if (contentChecksum) cursor.skip(4);
  }
  return total;
}

/** What one lz4 block becomes: the sum of its literals and matches. */
function lz4BlockSize(bytes: Buffer, start: number, end: number): number {
  let total = 0;
  let at = start;
  while (at < end) {
    const token = bytes[at++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255 && at < end) {
        more = bytes[at++]!;
        literals += more;
      }
    }
    total += literals;
    at += literals;
    if (at >= end) break;
    at += 2;
    let match = (token & 0x0f) + 4;
    if (match === 19) {
      let more = 255;
      while (more === 255 && at < end) {
        more = bytes[at++]!;
        match += more;
      }
    }
    total += match;
  }
  return total;
}

/** The most that zstd frames can become: every compressed block counted as a full one. */
export function zstdBound(bytes: Buffer): number {
  const cursor = new Cursor(bytes);
  let total = 0;
  while (!cursor.done) {
    const magic = cursor.uint32();
    if (isSkippable(magic)) {
      cursor.skip(cursor.uint32());
      continue;
    }
    if (magic !== zstdMagic) throw new WireError('not a zstd frame');
    const descriptor = cursor.uint8();
    const singleSegment = (descriptor & 0x20) !== 0;
    const contentSizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
    const dictionaryBytes = [0, 1, 2, 4][descriptor & 0x03]!;
    cursor.skip((singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes);
    total += zstdBlocks(cursor);
    if (descriptor & 0x04) cursor.skip(4);
  }
  return total;
}

const zstdBlock = { raw: 0, rle: 1 } as const;

function zstdBlocks(cursor: Cursor): number {
  let total = 0;
  for (;;) {
    const header = cursor.uint24();
    const size = header >>> 3;
    const type = (header >> 1) & 0x03;
    cursor.skip(type === zstdBlock.rle ? 1 : size);
    total += type === zstdBlock.raw || type === zstdBlock.rle ? size : zstdMaxBlock;
    if (header & 0x01) return total;
  }
}
