// The codecs of record batches: gzip, snappy (raw, or in the framing of snappy-java), lz4 frames and zstd. Everything
// runs on the native thread pool. What a batch would grow to is bounded before it is inflated, so that a bomb is
// refused and not unpacked; batches are rewritten with `recompress`.
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { Decoder, Encoder } from '@toondepauw/node-zstd';
import { compressFrame, decompressFrame } from 'lz4-napi';
import * as snappy from 'snappy';
import { lz4Bound, zstdBound } from './inflated-size.ts';
import { batchBytes, codec as codecOf, headerBytes, recordCount, replaceRecords } from './record-batch.ts';
import { holdsRecords, type LogRecord, readRecords } from './records.ts';

export const codecNames = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
export type CodecName = (typeof codecNames)[number];
/** The number a codec has in a batch's attributes. */
export const codecNumber = (name: CodecName): number => codecNames.indexOf(name);

export class CompressionError extends Error {
  override readonly name = 'CompressionError';
  /** The bytes may be sound, but would grow past the limit. */
  readonly tooLarge: boolean;
  constructor(message: string, tooLarge = false, cause?: unknown) {
    super(message, { cause });
    this.tooLarge = tooLarge;
  }
}

/** The bytes are sound, but are not as many records as the batch says. */
export class RecordCountError extends CompressionError {}

interface Codec {
  decompress(bytes: Buffer, maxBytes: number): Promise<Buffer>;
  compress(bytes: Buffer, level?: number): Promise<Buffer>;
}

function refuse(bytes: number, maxBytes: number): never {
  throw new CompressionError(`records would take ${bytes} bytes uncompressed, ${maxBytes} are allowed`, true);
}

const gunzip = promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.gunzip);
const gzipBytes = promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.gzip);

const gzip: Codec = {
  async decompress(bytes, maxBytes) {
    try {
      return await gunzip(bytes, { maxOutputLength: maxBytes });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') refuse(maxBytes + 1, maxBytes);
      throw error;
    }
  },
  compress: (bytes, level) => gzipBytes(bytes, level === undefined ? {} : { level }),
};

/** What snappy-java begins its stream with; then version and least compatible version, both 1. */
const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const xerialHeader = Buffer.concat([xerialMagic, Buffer.from([0, 0, 0, 1, 0, 0, 0, 1])]);
/** Snappy's densest element makes 64 bytes of 3. */
const snappyGrowth = 22;

/** The uncompressed length that a raw snappy block begins with. */
function snappyLength(block: Buffer): number {
  let length = 0;
  for (let i = 0; i < 5 && i < block.length; i++) {
    length += (block[i]! & 0x7f) * 2 ** (7 * i);
    if (block[i]! >= 0x80) continue;
    if (length > (block.length + 1) * snappyGrowth) break;
    return length;
  }
  throw new CompressionError('snappy block with a false length');
}

function snappyBlocks(bytes: Buffer): Buffer[] {
  if (!bytes.subarray(0, xerialMagic.length).equals(xerialMagic)) return [bytes];
  const blocks: Buffer[] = [];
  let at = xerialHeader.length;
  while (at < bytes.length) {
    if (bytes.length - at < 4) throw new CompressionError('snappy stream cut short');
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length <= 0 || length > bytes.length - at) throw new CompressionError('snappy block cut short');
    blocks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return blocks;
}

const uncompressSnappy = (block: Buffer): Promise<Buffer> =>
  snappy.uncompress(block, { asBuffer: true }) as Promise<Buffer>;

const snappyCodec: Codec = {
  async decompress(bytes, maxBytes) {
    const blocks = snappyBlocks(bytes);
    let total = 0;
    for (const block of blocks) total += snappyLength(block);
    if (total > maxBytes) refuse(total, maxBytes);
    if (blocks.length === 1) return uncompressSnappy(blocks[0]!);
    return Buffer.concat(await Promise.all(blocks.map(uncompressSnappy)));
  },
  async compress(bytes) {
    // One block: readers of the framing take any length, and all of Kafka's clients read the framing.
    const block = await snappy.compress(bytes);
    const length = Buffer.alloc(4);
    length.writeInt32BE(block.length);
    return Buffer.concat([xerialHeader, length, block]);
  },
};

const lz4: Codec = {
  async decompress(bytes, maxBytes) {
    const bound = lz4Bound(bytes, maxBytes);
    if (bound > maxBytes) refuse(bound, maxBytes);
    return decompressFrame(bytes);
  },
  compress: bytes => compressFrame(bytes),
};

type ZstdOptions = { maxOutputLength?: number; params?: Record<number, number> };
type ZstdCall = (bytes: Buffer, options: ZstdOptions, done: (error: Error | null, result: Buffer) => void) => void;
/** node:zlib has zstd from Node 22.15 and 23.8 on. */
const native = zlib as unknown as { zstdCompress?: ZstdCall; zstdDecompress?: ZstdCall };
const zstdLevelParameter = 100;
const zstdDefaultLevel = 3;
/** zstdBound counts a block as full; encoders may close one early, so a batch within the limit can have this bound. */
const zstdSlack = 4;

const zstd: Codec = {
  async decompress(bytes, maxBytes) {
    const bound = zstdBound(bytes);
    if (bound > maxBytes * zstdSlack) refuse(bound, maxBytes);
    if (native.zstdDecompress === undefined) return new Decoder().decode(bytes);
    return promisify(native.zstdDecompress)(bytes, { maxOutputLength: maxBytes * zstdSlack });
  },
  async compress(bytes, level = zstdDefaultLevel) {
    if (native.zstdCompress === undefined) return new Encoder(level).encode(bytes);
    return promisify(native.zstdCompress)(bytes, { params: { [zstdLevelParameter]: level } });
  },
};

const codecs: readonly (Codec | undefined)[] = [undefined, gzip, snappyCodec, lz4, zstd];

function codecFor(number: number): Codec | undefined {
  if (number < 0 || number >= codecNames.length) throw new CompressionError(`no codec has the number ${number}`);
  return codecs[number];
}

/** Rejects with CompressionError whatever is wrong with `bytes`. */
export async function decompress(bytes: Buffer, codec: number, maxBytes: number): Promise<Buffer> {
  const chosen = codecFor(codec);
  if (chosen === undefined) return bytes;
  let result: Buffer;
  try {
    result = await chosen.decompress(bytes, maxBytes);
  } catch (error) {
    if (error instanceof CompressionError) throw error;
    throw new CompressionError(`records are not ${codecNames[codec]}`, false, error);
  }
  if (result.length > maxBytes) refuse(result.length, maxBytes);
  return result;
}

/** `level` is the codec's own, where it has levels: gzip and zstd. */
export async function compress(bytes: Buffer, codec: number, level?: number): Promise<Buffer> {
  const chosen = codecFor(codec);
  return chosen === undefined ? bytes : chosen.compress(bytes, level);
}

export interface RecompressOptions {
  /** The most that the records may take uncompressed. */
  readonly maxBytes: number;
  readonly level?: number | undefined;
}

/** The one batch in `batch`, its records in another codec and its CRC made anew. Rejects with CompressionError. */
export async function recompress(batch: Buffer, codec: number, options: RecompressOptions): Promise<Buffer> {
  const from = codecOf(batch);
  if (from === codec) return batch;
  const section = await decompress(batch.subarray(headerBytes, batchBytes(batch)), from, options.maxBytes);
  // Whoever reads the rewritten bytes trusts them, so that they hold what the header says is settled here.
  if (!holdsRecords(section, recordCount(batch))) throw new RecordCountError('the records do not fit their count');
  return replaceRecords(batch, await compress(section, codec, options.level), codec);
}

/** The records of one batch in any codec. Rejects with CompressionError or WireError. */
export async function decodeBatch(batch: Buffer, maxBytes: number): Promise<LogRecord[]> {
  const section = batch.subarray(headerBytes, batchBytes(batch));
  return readRecords(batch, await decompress(section, codecOf(batch), maxBytes));
}
