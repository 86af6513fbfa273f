// What one transaction takes: records of one or more partitions, in the order they were read, and what they come to as
// rows, encoded as they are read. The bytes that they came in are kept until the transaction has committed: where Postgres
// refuses the rows, halves of them are tried.

import { CopyRows } from '../postgres/copy-rows.ts';
import type { RecordPlaces } from '../protocol/record-places.ts';
import type { LogRecord } from '../protocol/records.ts';
import { type Cursor, recordsOf } from '../source/reader.ts';
import type { SourceTopic } from '../source/source.ts';
import { BadRecord, BadValue } from './bad-record.ts';
import type { ChangeReader } from './change.ts';
import { Inexact } from './encoders.ts';
import type { Mapping } from './mapping.ts';
import type { RowTemplate } from './row-template.ts';
import type { RowTemplates } from './row-templates.ts';
import { isCopyable, type RunShape } from './statements.ts';

/** A topic as one task reads it. */
export interface Inlet {
  readonly topic: SourceTopic;
  readonly reader: ChangeReader;
  readonly templates: RowTemplates;
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

/** What a batch takes at the most. */
export interface BatchBounds {
  readonly batchRows: number;
  readonly batchBytes: number;
}

/** What a record counts for besides its key and value. */
const recordBytes = 32;
/** Kept for the batches to come: one is being written while the next is made. */
const maxBuffers = 2;

export class Batch {
  readonly steps: (Run | Truncation)[] = [];
  /** Records that it has taken. */
  records = 0;
  readonly bad: BadItem[] = [];
  /** Tables that have none of its keys, it is hoped: where one has, Postgres refuses the batch, and it is to be staged. */
  readonly hopes: Mapping[] = [];
  /** Where each partition was before the batch, and is after it. */
  readonly offsets = new Map<Source, { readonly expected: bigint; next: bigint }>();
  rows = 0;
  bytes = 0;
  readonly #open = new Map<Mapping, Run>();
  /** Tables that it has had a run of. */
  readonly #met = new Set<Mapping>();
  readonly #buffers: Buffer[];
  readonly #mayHope: boolean;
  readonly #releases: (() => void)[] = [];
  readonly #spans: Span[] = [];

  /** `buffers`: memory of earlier batches, to be used again. `mayHope`: that keys are new, where they have been lately. */
  constructor(buffers: Buffer[], mayHope = false) {
    this.#buffers = buffers;
    this.#mayHope = mayHope;
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
    source.inlet.templates.learn(mapping, reader, record);
    this.keep(source, record, expected, raw);
  }

  /**
   * Takes records of `raw` from number `from` on, for as long as they are as the topic's template has them and the batch has
   * not reached `most`. Returns how many.
   */
  addMany(source: Source, places: RecordPlaces, from: number, raw: Buffer, most: BatchBounds): number {
    const { mapping, templates } = source.inlet;
    const template = mapping && templates.of(mapping);
    const run = template && this.#runLike(mapping!, template);
    if (run === undefined) return 0;
    let i = from;
    let fits = true;
    for (; i < places.count && this.records < most.batchRows && this.bytes < most.batchBytes; i++) {
      fits = this.#copyRow(run, template!, places, i);
      if (!fits) break;
      this.records++;
      this.bytes += places.valueEnd(i) - places.valueStart(i) + recordBytes;
      if (places.keyStart(i) >= 0) this.bytes += places.keyEnd(i) - places.keyStart(i);
    }
    if (!fits) templates.unfit();
    if (i === from) return 0;
    templates.fit(i - from);
    run.to = this.rows;
    this.#hold(source, raw, places.offset(from), places.offset(i - 1) + 1n, source.position);
    return i - from;
  }

  /** A record that does not fit, and is a dead letter before the batch is written. */
  addBad(item: BadItem, expected: bigint, raw?: Buffer): void {
    this.bad.push(item);
    this.keep(item.source, item.record, expected, raw);
  }

  /** Takes a record that asks for nothing. */
  keep(source: Source, record: LogRecord, expected: bigint, raw?: Buffer): void {
    this.records++;
    this.bytes += (record.key?.length ?? 0) + (record.value?.length ?? 0) + recordBytes;
    this.#hold(source, raw, record.offset, record.offset + 1n, expected);
  }

  #hold(source: Source, raw: Buffer | undefined, from: bigint, to: bigint, expected: bigint): void {
    this.covers(source, expected, to);
    if (raw === undefined) return;
    const last = this.#spans.at(-1);
    if (last?.raw === raw && last.source === source) last.to = to;
    else this.#spans.push({ source, raw, from, to });
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
    this.#beginRow(run, deleted);
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

  #beginRow({ copy, slots, direct }: Run, deleted: boolean): void {
    copy.beginRow(slots.length + (direct ? 0 : 2));
    if (direct) return;
    copy.length(4);
    copy.uint32(this.rows);
    copy.length(1);
    copy.byte(deleted ? 1 : 0);
  }

  /** False where the record is not as the template has it, or its column cannot have a value: then nothing is written. */
  #copyRow(run: Run, template: RowTemplate, places: RecordPlaces, i: number): boolean {
    const { copy } = run;
    this.#beginRow(run, false);
    try {
      if (template.write(places, i, copy)) {
        this.rows++;
        return true;
      }
    } catch (error) {
      if (!(error instanceof BadValue || error instanceof BadRecord || error instanceof Inexact)) throw error;
    }
    copy.undoRow();
    return false;
  }

  /** The run that takes rows as the template has them; undefined where one is open that has other columns, or an other order. */
  #runLike(mapping: Mapping, { slots }: RowTemplate): Run | undefined {
    const open = this.#open.get(mapping);
    if (open) return open.slots === slots ? open : undefined;
    mapping.lastSlots = slots;
    return this.#begin(mapping, slots);
  }

  /** The run that takes a row with the values that `mapping` has; a delete needs the key's columns only. */
  #runFor(mapping: Mapping, deleted: boolean): Run {
    const open = this.#open.get(mapping);
    const { values } = mapping;
    if (open && (deleted ? !open.direct : sameColumns(open.slots, values))) return open;
    // Who deletes keys is likely to write some again.
    if (open && deleted) mapping.newKeys.refuted();
    return this.#begin(mapping, this.#slotsOf(mapping, deleted), deleted);
  }

  /** The columns of the row, in the order that rows had them last where they are the same. */
  #slotsOf(mapping: Mapping, deleted: boolean): readonly number[] {
    const { values, lastSlots } = mapping;
    if (!deleted && sameColumns(lastSlots, values)) return lastSlots;
    const slots: number[] = [];
    for (let slot = 0; slot < values.length; slot++) {
      // Columns of earlier rows, so that deletes among writes need no run of their own.
      if (values[slot] !== undefined || (deleted && lastSlots.includes(slot))) slots.push(slot);
    }
    if (!deleted) mapping.lastSlots = slots;
    return slots;
  }

  /** Whether no row of the table can be in the way: in mode upsert a hope, for the first rows of a batch. */
  #hasNoneOf(mapping: Mapping): boolean {
    const { mode } = mapping.definition;
    if (mode !== 'upsert') return mode === 'insert';
    if (!this.#mayHope || this.#met.has(mapping)) return false;
    this.#met.add(mapping);
    if (!mapping.newKeys.expected()) return false;
    this.hopes.push(mapping);
    return true;
  }

  #begin(mapping: Mapping, slots: readonly number[], deleted = false): Run {
    const run: Run = {
      mapping,
      slots,
      direct: !deleted && isCopyable(mapping, slots) && this.#hasNoneOf(mapping),
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
