// A share of a topic's records, chosen by their keys: all of a key or none, the same ones each time, and with a larger share
// those of a smaller one and more. A record without a key is chosen by its partition and offset. What is chosen goes as
// batches of its own; the producer's sequence counts what is chosen, so that the same share read again from a noted position
// tells which records a batch in the target holds.
import { crc32c } from '@node-rs/crc32';
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import * as header from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import type { Log } from '../storage/log.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import { batchOf, recordsOf, sendable } from './rebuild.ts';

/** Records of the source that follow one another. */
export interface Run {
  readonly sourceOffset: bigint;
  readonly count: number;
}

const readBytes = 262_144;

/** Whether the record is in the `share`, in %. */
export function isShared(record: LogRecord, partition: number, share: number): boolean {
  const hash = record.key === null ? crc32c(`${partition} ${record.offset}`) : crc32c(record.key);
  return mixed(hash) % 100 < share;
}

/** What goes of a batch from `from` on, where there is any: its records here, and how many are withheld. It may be written to. */
export async function partOf(
  batch: Buffer,
  from: bigint,
  { partition, share }: { readonly partition: number; readonly share: number },
): Promise<{ readonly batch: Buffer | undefined; readonly runs: readonly Run[]; readonly withheld: number }> {
  if (share === 100) {
    const whole = await sendable(batch, from);
    return { batch: whole, runs: [{ sourceOffset: from, count: header.lastOffsetDelta(whole) + 1 }], withheld: 0 };
  }
  const records = (await recordsOf(batch)).filter(({ offset }) => offset >= from);
  const chosen = records.filter(record => isShared(record, partition, share));
  return {
    batch: chosen.length === 0 ? undefined : await batchOf(chosen, batch),
    runs: runsOf(chosen.map(({ offset }) => offset)),
    withheld: records.length - chosen.length,
  };
}

/** Where `count` records that went are here, behind `passed` others from `from` on. Rejects where they cannot be read. */
export async function recounted(
  log: Log,
  source: PartitionLog,
  { from, passed, count, share }: { from: bigint; passed: number; count: number; share: number },
): Promise<{ readonly runs: readonly Run[]; readonly withheld: number }> {
  // Gone here meanwhile: of all records it can be told without them, where offsets have no gaps.
  if (share === 100 && from < source.logStartOffset) {
    return { runs: [{ sourceOffset: from + BigInt(passed), count }], withheld: 0 };
  }
  const offsets: bigint[] = [];
  let withheld = 0;
  let left = passed;
  for (let at = from; offsets.length < count; ) {
    const { error, chunks, release } = await log.read(source, at, readBytes, true);
    try {
      if (error !== ErrorCode.NONE || chunks.length === 0) {
        throw new Error(`partition ${source.partition} cannot be read at ${at}: ${errorOf(error).name}`);
      }
      for (const batch of chunks.flatMap(chunk => header.splitBatches(chunk))) {
        for (const record of await recordsOf(batch)) {
          if (record.offset < at || offsets.length === count) continue;
          if (share < 100 && !isShared(record, source.partition, share)) withheld++;
          else if (left > 0) left--;
          else offsets.push(record.offset);
          at = record.offset + 1n;
        }
        if (offsets.length < count && at <= header.lastOffset(batch)) at = header.lastOffset(batch) + 1n;
      }
    } finally {
      release();
    }
  }
  return { runs: runsOf(offsets), withheld };
}

export function runsOf(offsets: readonly bigint[]): Run[] {
  const runs: { sourceOffset: bigint; count: number }[] = [];
  for (const offset of offsets) {
    const last = runs.at(-1);
    if (last && last.sourceOffset + BigInt(last.count) === offset) last.count++;
    else runs.push({ sourceOffset: offset, count: 1 });
  }
  return runs;
}

/** MurmurHash3's last steps: a CRC's low bits alone are not even. */
function mixed(hash: number): number {
  let bits = hash ^ (hash >>> 16);
  bits = Math.imul(bits, 0x85ebca6b);
  bits ^= bits >>> 13;
  bits = Math.imul(bits, 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
