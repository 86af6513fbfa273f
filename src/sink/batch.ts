// What one transaction takes: records of one or more partitions, in the order they were read, and what they come to as
// rows, encoded as they are read. The bytes that they came in are kept until the transaction has committed: where Postgres
// refuses the rows, halves of them are tried.
import type { LogRecord } from '../protocol/records.ts';
import { type Cursor, recordsOf } from '../source/reader.ts';
import type { SourceTopic } from '../source/source.ts';
import { BadRecord, BadValue } from './bad-record.ts';
import type { ChangeReader } from './change.ts';
import { CopyRows } from './copy-rows.ts';
import { Inexact } from './encoders.ts';
import type { Mapping } from './mapping.ts';
import { isDirect, type RunShape } from './statements.ts';

/** A topic as one task reads it. */
export interface Inlet {
  readonly topic: SourceTopic;
  readonly reader: ChangeReader;
  /** Undefined until the table is made of the first record. */
  mapping: Mapping | undefined;
}

/** A partition that a task reads. Its position is ahead of what has committed. */
export interface Source extends Cursor {
  readonly inlet: Inlet;
  readonly partition: number;
  committed: bigint;
}

export interface Run extends RunShape {
  readonly copy: CopyRows;
  /** Rows are copied into the table itself. */
  readonly direct: boolean;
  /** The first row's number in the batch, and what follows the last. */
  readonly from: number;
  to: number;
  deletes: number;
}

export interface Truncation {
  readonly truncate: Mapping;
}

export interface BadItem {
  readonly source: Source;
  readonly record: LogRecord;
  readonly error: BadRecord;
}

export interface Taken {
  readonly source: Source;
  readonly record: LogRecord;
}

/** Records of one record batch, from an offset on and before another. */
interface Span {
  readonly source: Source;
  readonly raw: Buffer;
  readonly from: bigint;
  to: bigint;
}

/** Kept for the batches to come: one is being written while the next is made. */
const maxBuffers = 2;

export class Batch {
  readonly steps: (Run | Truncation)[] = [];
  /** Records that it has taken. */
  records = 0;
  readonly bad: BadItem[] = [];
  /** Where each partition was before the batch, and is after it. */
  readonly offsets = new Map<Source, { readonly expected: bigint; next: bigint }>();
  rows = 0;
  bytes = 0;
  readonly #open = new Map<Mapping, Run>();
  readonly #buffers: Buffer[];
  readonly #releases: (() => void)[] = [];
  readonly #spans: Span[] = [];

  /** `buffers`: memory of earlier batches, to be used again. */
  constructor(buffers: Buffer[]) {
    this.#buffers = buffers;
  }

  get empty(): boolean {
    return this.offsets.size === 0;
  }

  /** The records' memory is needed until the batch is. */
  holds(release: () => void): void {
    this.#releases.push(release);
  }

  /** It has committed: its memory is used again. */
  done(): void {
    for (const step of this.steps) {
      if ('copy' in step && this.#buffers.length < maxBuffers) this.#buffers.push(step.copy.bytes);
    }
    this.abandon();
  }

  abandon(): void {
    for (const release of this.#releases.splice(0)) release();
  }

  /** Offsets up to `next` of a partition are dealt with, `expected` being the first of them. */
  covers(source: Source, expected: bigint, next: bigint): void {
    const known = this.offsets.get(source);
    if (known) known.next = next;
    else this.offsets.set(source, { expected, next });
  }

  /**
   * `expected`: where the partition was before this record; `raw`: the record batch that it is of, where `taken` is to have it.
   * Throws BadRecord; then the batch is as it was.
   */
  add(source: Source, record: LogRecord, expected: bigint, raw?: Buffer): void {
    const { reader } = source.inlet;
    const mapping = source.inlet.mapping!;
    reader.read(record, mapping.exact);
    if (reader.operation === 'truncate') this.#truncate(source.inlet.topic, mapping);
    else this.#encodeExactly(source, mapping, record);
    this.keep(source, record, expected, raw);
  }

  /** A record that does not fit, and is a dead letter before the batch is written. */
  addBad(item: BadItem, expected: bigint, raw?: Buffer): void {
    this.bad.push(item);
    this.keep(item.source, item.record, expected, raw);
  }

  /** Takes a record that asks for nothing. */
  keep(source: Source, record: LogRecord, expected: bigint, raw?: Buffer): void {
    const next = record.offset + 1n;
    this.records++;
    this.bytes += (record.key?.length ?? 0) + (record.value?.length ?? 0) + 32;
    this.covers(source, expected, next);
    if (raw === undefined) return;
    const last = this.#spans.at(-1);
    if (last?.raw === raw && last.source === source) last.to = next;
    else this.#spans.push({ source, raw, from: record.offset, to: next });
  }

  /** The records that it has taken, decoded once more: nearly no batch is asked, and 20,000 records are 10 MB. */
  async taken(): Promise<Taken[]> {
    const taken: Taken[] = [];
    for (const { source, raw, from, to } of this.#spans) {
      for (const record of await recordsOf(raw)) {
        if (record.offset >= from && record.offset < to) taken.push({ source, record });
      }
    }
    return taken;
  }

  #truncate(topic: SourceTopic, mapping: Mapping): void {
    const { truncate } = mapping.definition;
    if (truncate === 'ignore') return;
    if (truncate === 'error') throw new BadRecord('the table was truncated: set truncate to apply or ignore');
    // Every partition has it, among records of other times.
    if (topic.partitionCount > 1) throw new BadRecord('a truncate of a topic with several partitions has no one place');
    this.#open.delete(mapping);
    this.steps.push({ truncate: mapping });
  }

  #encodeExactly(source: Source, mapping: Mapping, record: LogRecord): void {
    try {
      this.#encode(source, mapping, record, mapping.exact);
    } catch (error) {
      if (!(error instanceof Inexact)) throw error;
      source.inlet.reader.read(record, true);
      this.#encode(source, mapping, record, true);
    }
  }

  #encode(source: Source, mapping: Mapping, record: LogRecord, exact: boolean): void {
    const { reader } = source.inlet;
    mapping.assign(reader, record, source.partition);
    const deleted = reader.operation === 'delete';
    const run = this.#runFor(mapping, deleted);
    const { copy } = run;
    copy.exact = exact;
    const { values, encoders, slots } = mapping;
    const { direct } = run;
    copy.beginRow(run.slots.length + (direct ? 0 : 2));
    if (!direct) {
      copy.length(4);
      copy.uint32(this.rows);
      copy.length(1);
      copy.byte(deleted ? 1 : 0);
    }
    let at = 0;
    try {
      for (; at < run.slots.length; at++) {
        const slot = run.slots[at]!;
        const value = values[slot];
        if (value === null || value === undefined) {
          if (!deleted && slots[slot]!.column.notNull)
            throw new BadRecord(`column ${slots[slot]!.column.name} may not be null`);
          copy.null();
        } else {
          encoders[slot]!(copy, value);
        }
      }
    } catch (error) {
      copy.undoRow();
      const column = slots[run.slots[at]!]!.column.name;
      if (error instanceof BadValue) throw new BadRecord(`column ${column}: ${error.message}`, column);
      if (error instanceof BadRecord) error.column ??= column;
      throw error;
    }
    if (deleted) run.deletes++;
    this.rows++;
    run.to = this.rows;
  }

  /** The run that takes a row with the values that `mapping` has; a delete needs the key's columns only. */
  #runFor(mapping: Mapping, deleted: boolean): Run {
    const open = this.#open.get(mapping);
    const { values } = mapping;
    if (open && (deleted || sameColumns(open.slots, values))) return open;
    const slots: number[] = [];
    for (let slot = 0; slot < values.length; slot++) {
      // Columns of earlier rows, so that deletes among writes need no run of their own.
      if (values[slot] !== undefined || (deleted && mapping.lastSlots.includes(slot))) slots.push(slot);
    }
    if (!deleted) mapping.lastSlots = slots;
    const run: Run = {
      mapping,
      slots,
      direct: isDirect({ mapping, slots }),
      copy: new CopyRows(this.#buffers.pop()),
      from: this.rows,
      to: this.rows,
      deletes: 0,
    };
    this.#open.set(mapping, run);
    this.steps.push(run);
    return run;
  }
}

function sameColumns(slots: readonly number[], values: readonly unknown[]): boolean {
  let present = 0;
  for (let i = 0; i < values.length; i++) if (values[i] !== undefined) present++;
  if (present !== slots.length) return false;
  for (let i = 0; i < slots.length; i++) if (values[slots[i]!] === undefined) return false;
  return true;
}
