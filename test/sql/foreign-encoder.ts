// Record batches as kafkajs encodes them: our own encoder would share our own mistakes. The records are put
// together here, from kafkajs's varints, because its own record encoder knows no null header and sorts headers by key.
import { createRequire } from 'node:module';

interface Encoder {
  buffer: Buffer;
  writeInt8(value: number): Encoder;
  writeVarInt(value: number): Encoder;
  writeVarLong(value: bigint | string | number): Encoder;
  writeVarIntBytes(value: Buffer | null): Encoder;
  writeVarIntString(value: string): Encoder;
  writeEncoder(value: Encoder): Encoder;
  writeBuffer(value: Buffer): Encoder;
}
interface Long {
  readonly isLong: true;
}
const require = createRequire(import.meta.url);
const path = 'kafkajs/src';
const Encoder: new () => Encoder = require(`${path}/protocol/encoder`);
const { RecordBatch }: { RecordBatch: (options: object) => Promise<Encoder> } = require(
  `${path}/protocol/recordBatch/v0`,
);
const Long: { fromValue(value: string): Long } = require(`${path}/utils/long`);

export interface ForeignRecord {
  readonly offsetDelta: number;
  readonly timestamp: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [key: string | Buffer, value: Buffer | null])[];
}

export interface ForeignBatch {
  readonly baseOffset: bigint;
  readonly baseTimestamp: bigint;
  readonly maxTimestamp: bigint;
  readonly records: readonly ForeignRecord[];
  readonly lastOffsetDelta?: number;
  readonly codec?: 'none' | 'gzip';
}

function encodeRecord(record: ForeignRecord, baseTimestamp: bigint): Encoder {
  const body = new Encoder()
    .writeInt8(0)
    .writeVarLong(`${record.timestamp - baseTimestamp}`)
    .writeVarInt(record.offsetDelta)
    .writeVarIntBytes(record.key)
    .writeVarIntBytes(record.value)
    .writeVarInt(record.headers.length);
  for (const [key, value] of record.headers) {
    if (typeof key === 'string') body.writeVarIntString(key);
    else body.writeVarIntBytes(key);
    body.writeVarIntBytes(value);
  }
  return new Encoder().writeVarInt(body.buffer.length).writeEncoder(body);
}

export async function encodeBatch(batch: ForeignBatch): Promise<Buffer> {
  const encoded = await RecordBatch({
    compression: batch.codec === 'gzip' ? 1 : 0,
    firstOffset: Long.fromValue(`${batch.baseOffset}`),
    firstTimestamp: Long.fromValue(`${batch.baseTimestamp}`),
    maxTimestamp: Long.fromValue(`${batch.maxTimestamp}`),
    lastOffsetDelta: batch.lastOffsetDelta ?? batch.records.at(-1)!.offsetDelta,
    records: batch.records.map(record => encodeRecord(record, batch.baseTimestamp)),
  });
  return encoded.buffer;
}

/** `count` records with a key, a value of `valueBytes` and no headers, one millisecond apart. */
export function plainBatch(baseOffset: bigint, count: number, valueBytes = 20): Promise<Buffer> {
  const timestamp = 1_700_000_000_000n;
  return encodeBatch({
    baseOffset,
    baseTimestamp: timestamp,
    maxTimestamp: timestamp + BigInt(count - 1),
    records: Array.from({ length: count }, (_, i) => ({
      offsetDelta: i,
      timestamp: timestamp + BigInt(i),
      key: Buffer.from(`key ${baseOffset + BigInt(i)}`),
      value: Buffer.alloc(valueBytes, `${baseOffset + BigInt(i)}`),
      headers: [],
    })),
  });
}
