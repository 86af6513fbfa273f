// Holds a mirror's source against its target, record by record: offsets by the map of ranges, then key, value, headers and
// timestamp. Two batches that are the same bytes but for what a producer and a broker write into them are not unpacked.
import { createHash } from 'node:crypto';
import { earliest, latest, listOffsets } from '../client/admin.ts';
import type { Cluster } from '../client/cluster.ts';
import { type FetchOptions, fetchPartition } from '../client/fetch.ts';
import { decodeBatch } from '../protocol/compression.ts';
import * as header from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import { abortedBatches } from '../source/kafka-partition.ts';
import type { MappedRange } from './mirrors.ts';

export interface Difference {
  readonly topic: string;
  readonly partition: number;
  readonly kind: 'differs' | 'missing' | 'foreign';
  /** undefined for what only the target has. */
  readonly sourceOffset: bigint | undefined;
  readonly targetOffset: bigint;
  /** SHA-256 over timestamp, key, value and headers, its first 16 digits; undefined for what is not there. */
  readonly sourceDigest: string | undefined;
  readonly targetDigest: string | undefined;
}

export interface Compared {
  /** Records that both sides have. */
  readonly records: bigint;
  readonly differences: bigint;
  /** Offsets of the target between ranges and behind the last: not the mirror's. */
  readonly foreign: bigint;
}

export interface ComparedPartition {
  readonly source: Cluster;
  readonly target: Cluster;
  readonly topic: string;
  readonly partition: number;
  readonly targetTopic: string;
  /** Of this partition, in order. */
  readonly ranges: readonly Pick<MappedRange, 'sourceOffset' | 'targetOffset' | 'records'>[];
  /** Before it the mirror wrote nothing: what is there is not its affair. */
  readonly targetStart: bigint;
  readonly onDifference: (difference: Difference) => void;
}

const fetchBytes = 4 * 2 ** 20;
const unpackedBytes = 256 * 2 ** 20;
/** Of a batch's attributes. */
const codecAndTimestamps = 0x0f;

export async function comparePartition(of: ComparedPartition): Promise<Compared> {
  const { source, target, topic, targetTopic, partition, ranges, onDifference } = of;
  const startOf = async (cluster: Cluster, name: string) =>
    (await listOffsets(cluster, name, [partition], earliest)).get(partition)!;
  const sourceStart = await startOf(source, topic);
  const targetStart = await startOf(target, targetTopic);
  const targetEnd = (await listOffsets(target, targetTopic, [partition], latest)).get(partition)!;
  let records = 0n;
  let differences = 0n;
  let foreign = 0n;
  let expected = of.targetStart;
  const report = (difference: Omit<Difference, 'topic' | 'partition'>): void => {
    if (difference.kind === 'foreign') foreign++;
    else differences++;
    onDifference({ topic, partition, ...difference });
  };
  const strangers = async (from: bigint, to: bigint): Promise<void> => {
    if (from >= to) return;
    const walk = new Walk(target, targetTopic, partition, from, to);
    for (let batch = await walk.batch(); batch !== undefined; batch = await walk.batch()) {
      for (const record of await walk.records(batch)) {
        const targetDigest = digestOf(record);
        report({
          kind: 'foreign',
          sourceOffset: undefined,
          targetOffset: record.offset,
          sourceDigest: undefined,
          targetDigest,
        });
      }
      walk.pass(batch);
    }
  };
  for (const range of ranges) {
    const shift = range.targetOffset - range.sourceOffset;
    await strangers(largest(expected, targetStart), range.targetOffset);
    const from = largest(range.sourceOffset, sourceStart, targetStart - shift);
    const end = range.sourceOffset + range.records;
    expected = range.targetOffset + range.records;
    if (from >= end) continue;
    records += await compareRange(
      new Walk(source, topic, partition, from, end, 'read_committed'),
      new Walk(target, targetTopic, partition, from + shift, smallest(end + shift, targetEnd)),
      shift,
      report,
    );
  }
  await strangers(largest(expected, targetStart), targetEnd);
  return { records, differences, foreign };
}

/** Math.max for bigints. */
function largest(...values: readonly bigint[]): bigint {
  let most = values[0]!;
  for (const value of values) if (value > most) most = value;
  return most;
}

/** Returns how many records both have. */
async function compareRange(
  left: Walk,
  right: Walk,
  shift: bigint,
  report: (difference: Omit<Difference, 'topic' | 'partition'>) => void,
): Promise<bigint> {
  let same = 0n;
  for (;;) {
    const [a, b] = await Promise.all([left.batch(), right.batch()]);
    if (a !== undefined && b !== undefined && left.isWhole(a) && right.isWhole(b) && areSame(a, b, shift)) {
      same += BigInt(header.recordCount(a));
      left.pass(a);
      right.pass(b);
      continue;
    }
    if (a === undefined && b === undefined) return same;
    const [ours, theirs] = await Promise.all([
      a === undefined ? [] : left.records(a),
      b === undefined ? [] : right.records(b),
    ]);
    // As far as both have been read; what is behind it stays for the next batch.
    const to = smallest(a && header.lastOffset(a) + 1n, b && header.lastOffset(b) + 1n - shift);
    const there = new Map(theirs.map(record => [record.offset - shift, record]));
    for (const record of ours) {
      if (record.offset >= to) break;
      const other = there.get(record.offset);
      there.delete(record.offset);
      if (other !== undefined && isSame(record, other)) {
        same++;
        continue;
      }
      const sourceDigest = digestOf(record);
      const targetDigest = other && digestOf(other);
      const at = { sourceOffset: record.offset, targetOffset: record.offset + shift, sourceDigest, targetDigest };
      report({ kind: other === undefined ? 'missing' : 'differs', ...at });
    }
    for (const [offset, record] of there) {
      if (offset >= to) break;
      const targetOffset = record.offset;
      report({
        kind: 'foreign',
        sourceOffset: undefined,
        targetOffset,
        sourceDigest: undefined,
        targetDigest: digestOf(record),
      });
    }
    left.passTo(to);
    right.passTo(to + shift);
  }
}

/** Of those that there are; at least one is. */
function smallest(a: bigint | undefined, b: bigint | undefined): bigint {
  if (a === undefined || b === undefined) return (a ?? b)!;
  return a < b ? a : b;
}

/** Whether all but offsets, epochs, the producer's fields and its transaction is the same. */
function areSame(a: Buffer, b: Buffer, shift: bigint): boolean {
  return (
    a.length === b.length &&
    header.baseOffset(a) + shift === header.baseOffset(b) &&
    (header.attributes(a) & codecAndTimestamps) === (header.attributes(b) & codecAndTimestamps) &&
    header.lastOffsetDelta(a) === header.lastOffsetDelta(b) &&
    header.baseTimestamp(a) === header.baseTimestamp(b) &&
    header.maxTimestamp(a) === header.maxTimestamp(b) &&
    header.recordCount(a) === header.recordCount(b) &&
    a.subarray(header.headerBytes).equals(b.subarray(header.headerBytes))
  );
}

function isSame(a: LogRecord, b: LogRecord): boolean {
  return (
    a.timestamp === b.timestamp &&
    equal(a.key, b.key) &&
    equal(a.value, b.value) &&
    a.headers.length === b.headers.length &&
    a.headers.every(({ key, value }, i) => key === b.headers[i]!.key && equal(value, b.headers[i]!.value))
  );
}

const equal = (a: Buffer | null, b: Buffer | null): boolean => (a === null || b === null ? a === b : a.equals(b));

export function digestOf({ timestamp, key, value, headers }: LogRecord): string {
  const hash = createHash('sha256');
  const add = (bytes: Buffer | null): void => {
    hash.update(`${bytes === null ? -1 : bytes.length},`);
    if (bytes !== null) hash.update(bytes);
  };
  hash.update(`${timestamp},`);
  add(key);
  add(value);
  for (const { key: name, value: held } of headers) {
    add(Buffer.from(name));
    add(held);
  }
  return hash.digest('hex').slice(0, 16);
}

/** The batches of a stretch of a partition that hold records, one after another. */
class Walk {
  readonly #cluster: Cluster;
  readonly #topic: string;
  readonly #partition: number;
  readonly #end: bigint;
  readonly #isolation: FetchOptions['isolation'];
  #at: bigint;
  #batches: Buffer[] = [];
  /** Base offsets of those whose transaction was aborted. */
  readonly #aborted = new Set<bigint>();
  #unpacked: { readonly batch: Buffer; readonly records: readonly LogRecord[] } | undefined;
  #ahead: Promise<Buffer[]> | undefined;
  #aheadFrom = -1n;

  constructor(
    cluster: Cluster,
    topic: string,
    partition: number,
    from: bigint,
    end: bigint,
    isolation: FetchOptions['isolation'] = 'read_uncommitted',
  ) {
    this.#cluster = cluster;
    this.#topic = topic;
    this.#partition = partition;
    this.#at = from;
    this.#end = end;
    this.#isolation = isolation;
  }

  /** The one that holds the offset it is at, or the next one; undefined at the end. */
  async batch(): Promise<Buffer | undefined> {
    while (this.#at < this.#end) {
      const [first] = this.#batches;
      if (first === undefined) {
        this.#batches = await this.#fetch(this.#at);
        if (this.#batches.length === 0)
          throw new Error(`${this.#topic}-${this.#partition} gives nothing at ${this.#at}`);
        // While these are compared.
        const next = header.lastOffset(this.#batches.at(-1)!) + 1n;
        if (next < this.#end) this.#readAhead(next);
      } else if (header.lastOffset(first) < this.#at || this.#isEmpty(first)) {
        this.passTo(largest(this.#at, header.lastOffset(first) + 1n));
      } else {
        return header.baseOffset(first) < this.#end ? first : undefined;
      }
    }
    return undefined;
  }

  #isEmpty(batch: Buffer): boolean {
    return header.isControl(batch) || header.recordCount(batch) === 0 || this.#aborted.has(header.baseOffset(batch));
  }

  isWhole(batch: Buffer): boolean {
    return header.baseOffset(batch) >= this.#at && header.lastOffset(batch) < this.#end;
  }

  /** From where it is, up to the end. */
  async records(batch: Buffer): Promise<LogRecord[]> {
    if (this.#unpacked?.batch !== batch) {
      this.#unpacked = { batch, records: await decodeBatch(batch, unpackedBytes) };
    }
    return this.#unpacked.records.filter(({ offset }) => offset >= this.#at && offset < this.#end);
  }

  pass(batch: Buffer): void {
    this.passTo(header.lastOffset(batch) + 1n);
  }

  passTo(offset: bigint): void {
    this.#at = offset;
    while (this.#batches[0] !== undefined && header.lastOffset(this.#batches[0]) < offset) {
      this.#aborted.delete(header.baseOffset(this.#batches.shift()!));
    }
  }

  #readAhead(from: bigint): void {
    this.#aheadFrom = from;
    this.#ahead = this.#read(from);
    this.#ahead.catch(() => {}); // told when it is needed
  }

  #fetch(from: bigint): Promise<Buffer[]> {
    if (this.#ahead !== undefined && this.#aheadFrom === from) {
      const ahead = this.#ahead;
      this.#ahead = undefined;
      return ahead;
    }
    return this.#read(from);
  }

  async #read(offset: bigint): Promise<Buffer[]> {
    const part = { topic: this.#topic, partition: this.#partition, offset, maxBytes: fetchBytes };
    const { records, aborted } = await fetchPartition(this.#cluster, part, { isolation: this.#isolation });
    const batches = header.splitBatches(records);
    for (const baseOffset of abortedBatches(batches, aborted)) this.#aborted.add(baseOffset);
    return batches;
  }
}

/** A partition and its ranges as HTTP tells them: numbers. */
export interface ToldPartition {
  readonly topic: string;
  readonly partition: number;
  readonly targetTopic: string;
}
export interface ToldRange extends ToldPartition {
  readonly sourceOffset: number;
  readonly targetOffset: number;
  readonly records: number;
}

/** All partitions of a mirror, one after another: each is read ahead on both sides. */
export async function compareMirror(of: {
  readonly source: Cluster;
  readonly target: Cluster;
  readonly partitions: readonly ToldPartition[];
  readonly ranges: readonly ToldRange[];
  readonly onDifference: (difference: Difference) => void;
  readonly onPartition?: (partition: ToldPartition, compared: Compared) => void;
}): Promise<Compared> {
  const sum = { records: 0n, differences: 0n, foreign: 0n };
  for (const each of of.partitions) {
    const ranges = of.ranges
      .filter(({ topic, partition }) => topic === each.topic && partition === each.partition)
      .map(({ sourceOffset, targetOffset, records }) => ({
        sourceOffset: BigInt(sourceOffset),
        targetOffset: BigInt(targetOffset),
        records: BigInt(records),
      }));
    if (ranges.length === 0) continue;
    const { source, target, onDifference } = of;
    const targetStart = ranges[0]!.targetOffset;
    const compared = await comparePartition({ source, target, onDifference, ...each, ranges, targetStart });
    of.onPartition?.(each, compared);
    sum.records += compared.records;
    sum.differences += compared.differences;
    sum.foreign += compared.foreign;
  }
  return sum;
}
