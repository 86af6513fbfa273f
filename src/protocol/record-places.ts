// Where the records of a batch are, checked and found in one pass, without an object for each: who takes a million of them a
// second reads keys and values where they lie. Used for one batch after another.
import { baseOffset, baseTimestamp, isLogAppendTime, maxTimestamp, recordCount } from './record-batch.ts';
import { leastRecordBytes, RecordCursor } from './record-cursor.ts';
import type { LogRecord } from './records.ts';
import { WireError } from './wire.ts';

/** Of a record: its timestamp's place, its offset's distance, key from and to, value from and to. */
const width = 6;

export class RecordPlaces {
  /** The records, uncompressed. */
  section: Buffer = Buffer.alloc(0);
  count = 0;
  /** Each offset is above the one before, as they should be. */
  ascending = true;
  #places = new Int32Array(0);
  #base = 0n;
  #firstTimestamp = 0n;
  /** With LogAppendTime (KIP-32) every record has the batch's max timestamp. */
  #appendTime: bigint | undefined;

  /** `section` is what follows the header of `batch`, uncompressed. Throws WireError. */
  read(batch: Buffer, section: Buffer): void {
    const count = recordCount(batch);
    if (count < 0 || count * leastRecordBytes > section.length) {
      throw new WireError(`${count} records announced in ${section.length} bytes`);
    }
    if (count * width > this.#places.length) this.#places = new Int32Array(count * width);
    const places = this.#places;
    const cursor = new RecordCursor(section);
    let ascending = true;
    let last = -1;
    for (let i = 0, at = 0; i < count; i++, at += width) {
      const end = cursor.begin();
      places[at] = cursor.at;
      cursor.skipVarlong();
      const delta = cursor.varint();
      ascending &&= delta > last;
      last = delta;
      places[at + 1] = delta;
      places[at + 2] = cursor.skipBlob();
      places[at + 3] = cursor.at;
      places[at + 4] = cursor.skipBlob();
      places[at + 5] = cursor.at;
      cursor.skipHeaders();
      cursor.finish(end);
    }
    if (cursor.at !== section.length) throw new WireError(`${section.length - cursor.at} bytes after the last record`);
    this.section = section;
    this.count = count;
    this.ascending = ascending;
    this.#base = baseOffset(batch);
    this.#firstTimestamp = baseTimestamp(batch);
    this.#appendTime = isLogAppendTime(batch) ? maxTimestamp(batch) : undefined;
  }

  offset(i: number): bigint {
    return this.#base + BigInt(this.#places[i * width + 1]!);
  }

  /** Where the key begins; -1 for null. */
  keyStart(i: number): number {
    return this.#places[i * width + 2]!;
  }

  keyEnd(i: number): number {
    return this.#places[i * width + 3]!;
  }

  /** Where the value begins; -1 for null. */
  valueStart(i: number): number {
    return this.#places[i * width + 4]!;
  }

  valueEnd(i: number): number {
    return this.#places[i * width + 5]!;
  }

  record(i: number): LogRecord {
    const cursor = new RecordCursor(this.section);
    cursor.at = this.#places[i * width]!;
    const timestampDelta = cursor.varlong();
    cursor.varint();
    return {
      offset: this.offset(i),
      timestamp: this.#appendTime ?? this.#firstTimestamp + timestampDelta,
      key: cursor.blob(),
      value: cursor.blob(),
      headers: cursor.headers(),
    };
  }
}
