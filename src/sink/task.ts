// One of a sink's tasks: reads its partitions, makes batches of what it reads, and writes them one after another; while one
// is being written the next is made. What is read and not committed is bounded by two batches.
//
//   gather ──▶ write ──▶ committed          a value that does not fit its column: found while gathering
//                │
//                └─ Postgres refuses rows ──▶ halves of the batch, down to the record
import { PostgresError } from '../postgres/session.ts';
import * as batchHeader from '../protocol/record-batch.ts';
import type { LogRecord } from '../protocol/records.ts';
import { nameOf, PartitionReader } from '../source/reader.ts';
import { BadRecord } from './bad-record.ts';
import { type BadItem, Batch, type Inlet, type Source, type Taken } from './batch.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { SinkDefinition } from './definition.ts';
import { UnknownField } from './mapping.ts';
import { isDataError, isSchemaError, isTransient, type TableWriter } from './table-writer.ts';
import type { Targets } from './targets.ts';

export interface SinkCounters {
  records: number;
  rows: number;
  bytes: number;
  batches: number;
  deadLetters: number;
  /** Batches that Postgres refused and that were taken apart. */
  bisected: number;
  writeMs: number;
}

export interface TaskOptions {
  readonly definition: SinkDefinition;
  readonly sources: readonly Source[];
  readonly targets: Targets;
  readonly writer: TableWriter;
  readonly deadLetters: DeadLetters;
  readonly counters: SinkCounters;
  /** Aborted: writes what it has gathered, and ends. */
  readonly stopping: AbortSignal;
}

/** What a person must decide: the sink does not try again by itself. */
export class SinkStopped extends Error {
  override name = 'SinkStopped';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** Asked for at once. */
const readBytes = 1024 * 1024;
const maxTries = 5;
/** A table is looked at again for a field that it lacks this often, ms. */
const refreshMs = 1000;

export class Task {
  readonly #options: TaskOptions;
  readonly #buffers: Buffer[] = [];
  readonly #refreshed = new Map<Inlet, number>();
  readonly #reader: PartitionReader<Source>;
  /** The one that is gathered. */
  #batch: Batch;
  #writing = false;
  #failure: Error | undefined;
  #stopAt: BadItem | undefined;

  constructor(options: TaskOptions) {
    this.#options = options;
    this.#batch = new Batch(this.#buffers);
    this.#reader = new PartitionReader({
      cursors: options.sources,
      readBytes,
      take: (source, record, raw) => {
        const batch = this.#batch;
        if (this.#isFull(batch)) return false;
        return this.#addQuickly(batch, source, record, raw) || this.#add(batch, source, record, raw);
      },
      takeMany: (source, places, from, raw) => this.#batch.addMany(source, places, from, raw, options.definition),
      pass: (source, next) => this.#batch.covers(source, source.position, next),
      holds: release => this.#batch.holds(release),
      outOfRange: source => {
        throw this.#outOfRange(source);
      },
      unreadable: (source, raw, error) => {
        throw this.#unreadable(source, raw, error);
      },
    });
  }

  /** Runs until it is told to stop; throws what it cannot go on after. */
  async run(): Promise<void> {
    const { stopping } = this.#options;
    const wake = (): void => this.#reader.wake();
    stopping.addEventListener('abort', wake);
    let written: Promise<void> = Promise.resolve();
    try {
      for (;;) {
        const batch = await this.#gather();
        await written;
        if (this.#failure) throw this.#failure;
        if (!batch.empty) {
          this.#writing = true;
          written = this.#write(batch)
            .catch((error: Error) => {
              batch.abandon();
              this.#failure = error;
            })
            .finally(() => {
              this.#writing = false;
              this.#reader.wake();
            });
        }
        if (stopping.aborted || this.#stopAt) {
          await written;
          if (this.#failure) throw this.#failure;
          if (this.#stopAt) throw stopped(this.#options.definition, this.#stopAt);
          return;
        }
      }
    } finally {
      stopping.removeEventListener('abort', wake);
      await written;
    }
  }

  /** Reads until the batch is full, or has waited its time and nothing is being written. */
  async #gather(): Promise<Batch> {
    const { definition, stopping } = this.#options;
    const batch = new Batch(this.#buffers, true);
    this.#batch = batch;
    let due = Number.POSITIVE_INFINITY;
    let most = { records: 0, bytes: 0 };
    while (!stopping.aborted && !this.#failure && !this.#stopAt && !this.#isFull(batch, most)) {
      const { records, bytes } = batch;
      const read = await this.#reader.readSome();
      most = {
        records: Math.max(most.records, batch.records - records),
        bytes: Math.max(most.bytes, batch.bytes - bytes),
      };
      if (!batch.empty && due === Number.POSITIVE_INFINITY) due = Date.now() + definition.lingerMs;
      if (Date.now() >= due && !this.#writing) break;
      if (read || stopping.aborted || this.#failure) continue;
      await this.#reader.wait(this.#writing ? Number.POSITIVE_INFINITY : due - Date.now());
    }
    return batch;
  }

  /** `more`: what the next read may bring. What of it has no room would be read again, and what was read ahead is lost. */
  #isFull({ records, bytes }: Batch, more = { records: 0, bytes: 0 }): boolean {
    const { batchRows, batchBytes } = this.#options.definition;
    if (records >= batchRows || bytes >= batchBytes) return true;
    return records + more.records > batchRows || bytes + more.bytes > batchBytes;
  }

  /** Nearly every record. False where there is more to it. */
  #addQuickly(batch: Batch, source: Source, record: LogRecord, raw: Buffer): boolean {
    if (source.inlet.mapping === undefined) return false;
    try {
      batch.add(source, record, source.position, raw);
      return true;
    } catch (error) {
      if (error instanceof BadRecord) return false;
      throw error;
    }
  }

  /** False where the sink stops at this record. */
  async #add(batch: Batch, source: Source, record: LogRecord, raw: Buffer): Promise<boolean> {
    const { inlet, position } = source;
    for (;;) {
      try {
        if (inlet.mapping === undefined && !(await this.#make(inlet, record)))
          batch.keep(source, record, position, raw);
        else batch.add(source, record, position, raw);
        return true;
      } catch (error) {
        if (!(error instanceof BadRecord)) throw error;
        if (error instanceof UnknownField && (await this.#mend(inlet, error))) continue;
        const item = { source, record, error };
        if (this.#options.definition.errors === 'stop') {
          this.#stopAt = item;
          return false;
        }
        batch.addBad(item, position, raw);
        return true;
      }
    }
  }

  /** Makes the table. False where the record would have changed nothing in it. */
  async #make(inlet: Inlet, record: LogRecord): Promise<boolean> {
    inlet.reader.read(record, true);
    if (inlet.reader.operation !== 'write') return false;
    inlet.mapping = await this.#options.targets.create(inlet.topic.name, inlet.reader, record);
    return true;
  }

  /** Whether the table has the column now. */
  async #mend(inlet: Inlet, { field, sqlType }: UnknownField): Promise<boolean> {
    const { definition, targets } = this.#options;
    const mapping = inlet.mapping!;
    if (definition.evolve && sqlType !== undefined) {
      inlet.mapping = await targets.evolve(mapping, field, sqlType);
      return true;
    }
    if (Date.now() - (this.#refreshed.get(inlet) ?? 0) < refreshMs) return false;
    this.#refreshed.set(inlet, Date.now());
    const now = await targets.mapping(inlet.topic.name);
    if (!now?.table.columns.some(column => column.name === field)) return false;
    inlet.mapping = now;
    return true;
  }

  async #write(batch: Batch): Promise<void> {
    const { counters } = this.#options;
    const began = performance.now();
    await this.#reject(batch.bad);
    try {
      await this.#commit(batch);
    } catch (error) {
      if (batch.hopes.length > 0 && error instanceof PostgresError) await this.#staged(batch);
      else if (isSchemaError(error)) await this.#again(batch);
      else if (isDataError(error)) await this.#bisect(await batch.taken(), batch.bad);
      else throw error;
      await this.#coverRest(batch);
    }
    counters.writeMs += performance.now() - began;
    batch.done();
  }

  /** Once more, for a key may have been in a table that was hoped to have none. */
  async #staged(batch: Batch): Promise<void> {
    for (const mapping of batch.hopes) mapping.newKeys.refuted();
    try {
      await this.#anew(batch);
    } catch (error) {
      if (!isSchemaError(error)) throw error;
      await this.#again(batch);
    }
  }

  /** Once more, with the tables as they are now. */
  async #again(batch: Batch): Promise<void> {
    for (const inlet of new Set(Array.from(batch.offsets.keys(), source => source.inlet))) {
      inlet.mapping = await this.#options.targets.mapping(inlet.topic.name);
    }
    await this.#anew(batch);
  }

  /** Its records in another batch; where Postgres refuses that one, in parts of it. */
  async #anew(batch: Batch): Promise<void> {
    const taken = await batch.taken();
    const same = this.#encoded(taken, batch.bad);
    try {
      await this.#reject(same.bad);
      await this.#commit(same);
    } catch (error) {
      if (!isDataError(error)) throw error;
      await this.#bisect(taken, same.bad);
    }
  }

  /** Takes deadlocks and the like as what they are. */
  async #commit(batch: Batch): Promise<void> {
    const { writer, counters, deadLetters } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        await writer.write(batch);
        break;
      } catch (error) {
        if (!isTransient(error) || tries === maxTries) throw error;
      }
    }
    for (const [source, { next }] of batch.offsets) source.committed = next;
    for (const mapping of batch.hopes) mapping.newKeys.confirmed();
    deadLetters.passed(batch.bad);
    counters.batches++;
    counters.records += batch.records;
    counters.rows += batch.rows;
    counters.bytes += batch.bytes;
  }

  /** `bad`: those of them that are known to be. */
  async #bisect(taken: readonly Taken[], bad: readonly BadItem[]): Promise<void> {
    this.#options.counters.bisected++;
    await this.#halves(taken, bad);
  }

  /** The records have been refused together. */
  async #halves(taken: readonly Taken[], bad: readonly BadItem[]): Promise<void> {
    const middle = taken.length >>> 1;
    for (const half of [taken.slice(0, middle), taken.slice(middle)]) {
      const [first] = half;
      if (first === undefined) continue;
      const part = this.#encoded(half, bad);
      try {
        await this.#reject(part.bad);
        await this.#commit(part);
      } catch (error) {
        if (!isDataError(error)) throw error;
        if (half.length > 1) {
          await this.#halves(half, bad);
          continue;
        }
        const item = { ...first, error: new BadRecord(error.message, undefined, error.code) };
        await this.#reject([item]);
        const alone = new Batch(this.#buffers);
        alone.addBad(item, first.source.committed);
        await this.#commit(alone);
      }
    }
  }

  /** A batch of the records, encoded again. */
  #encoded(taken: readonly Taken[], bad: readonly BadItem[]): Batch {
    const part = new Batch(this.#buffers);
    const known = new Map(bad.map(item => [placeOf(item), item]));
    for (const { source, record } of taken) {
      let item = known.size > 0 ? known.get(placeOf({ source, record })) : undefined;
      try {
        if (!item) part.add(source, record, source.committed);
      } catch (error) {
        if (!(error instanceof BadRecord)) throw error;
        item = { source, record, error };
      }
      if (item) part.addBad(item, source.committed);
    }
    return part;
  }

  /** Offsets without records at the end of a batch that went in parts. */
  async #coverRest(batch: Batch): Promise<void> {
    const rest = new Batch(this.#buffers);
    for (const [source, { next }] of batch.offsets) {
      if (source.committed < next) rest.covers(source, source.committed, next);
    }
    if (!rest.empty) await this.#commit(rest);
  }

  async #reject(items: readonly BadItem[]): Promise<void> {
    if (items.length === 0) return;
    const { definition, deadLetters, counters } = this.#options;
    if (definition.errors === 'stop') throw stopped(definition, items[0]!);
    counters.deadLetters += await deadLetters.send(items);
  }

  #outOfRange(source: Source): Error {
    const { logStartOffset, highWatermark } = source.log;
    const next = source.position < logStartOffset ? logStartOffset : highWatermark;
    return new SinkStopped(
      `${nameOf(source)} has offsets ${logStartOffset} to ${highWatermark}, and the sink is at ${source.position}: records are gone that it has not written`,
      `accept that: ${passing(this.#options.definition, source, next)}; then resume the sink`,
    );
  }

  #unreadable(source: Source, raw: Buffer, error: Error): Error {
    const next = batchHeader.lastOffset(raw) + 1n;
    return new SinkStopped(
      `${nameOf(source)} cannot be read from offset ${batchHeader.baseOffset(raw)} on: ${error.message}`,
      `${passing(this.#options.definition, source, next)}, then resume the sink`,
    );
  }
}

const placeOf = ({ source, record }: Taken): string => `${nameOf(source)} ${record.offset}`;

/** What a person does so that the sink goes on at `next`. */
function passing(
  { group, source: remote, database }: SinkDefinition,
  { inlet, partition }: Source,
  next: bigint,
): string {
  if (!remote && database === undefined) return `move the offset of group ${group} to ${next}`;
  return `in the target, UPDATE millrace_sink_progress SET next_offset = ${next} WHERE group_id = '${group.replaceAll("'", "''")}' AND topic = '${inlet.topic.name}' AND partition_id = ${partition}`;
}

function stopped(definition: SinkDefinition, { source, record, error }: BadItem): SinkStopped {
  return new SinkStopped(
    `${nameOf(source)}@${record.offset} does not fit ${source.inlet.mapping?.table.sql ?? 'its table'}: ${error.message} (${error.code})`,
    `mend the table or the definition and resume, set errors: dead-letter, or leave the record out: ${passing(definition, source, record.offset + 1n)}`,
  );
}
