// The value of a change event, in one of three formats:
//   debezium   before, after, source, transaction, op, ts_ms, ts_us, ts_ns, as Debezium's connector writes them;
//              with the table's schema around them, where it has one
//   plain      {"op","data","old"?,"meta"}
//   after      the row after the change alone; a delete is a tombstone
import { formatLsn, type Lsn } from '../postgres/lsn.ts';
import type { Tuple } from '../postgres/pgoutput.ts';
import { version } from '../runtime/version.ts';
import { messageValueHeads } from './envelope-schema.ts';
import { asciiJson, JsonBuffer } from './json-buffer.ts';
import type { Table } from './table.ts';
import { binaryText, type ValueStyle } from './values.ts';

export type Format = 'debezium' | 'plain' | 'after';

/** c create, u update, d delete, t truncate, r a row that a snapshot has read. */
export type Operation = 'c' | 'u' | 'd' | 't' | 'r';

/** What Debezium's source.snapshot says: of rows that an initial snapshot has read, of its last, of one asked for later. */
export type SnapshotMark = 'false' | 'true' | 'last' | 'incremental';

export interface SourceNames {
  /** What topics begin with. */
  readonly prefix: string;
  readonly database: string;
}

/** What all changes of a transaction share. */
export interface TransactionInfo {
  readonly commitLsn: Lsn;
  /** Microseconds since the Unix epoch. */
  readonly commitMicros: bigint;
  /** null for a non-transactional message. */
  readonly xid: number | null;
  /** Where the transaction before it ended. */
  readonly previousEnd: Lsn;
}

export interface ChangeImages {
  readonly operation: Operation;
  readonly before: Tuple | undefined;
  /** `before` holds the replica identity's columns only. */
  readonly beforeIsKey: boolean;
  readonly after: Tuple | undefined;
  /** A whole row that has the values which were not logged with `after`, because they did not change. */
  readonly unchangedFrom: Tuple | undefined;
}

/** Writes the values of one pipeline's events. `begin` before the first of each transaction. */
export class Envelope {
  readonly #format: Format;
  readonly #names: SourceNames;
  // As bytes: a copy takes less than half the time of writing a string.
  #head = noBytes;
  #tail = noBytes;
  #processed = noBytes;
  #transactionId = noBytes;
  readonly #position = new JsonBuffer(32);
  /** The block of the next event. */
  #transaction: string | undefined;

  constructor(format: Format, names: SourceNames) {
    this.#format = format;
    this.#names = names;
    this.clock(Date.now());
  }

  /** The time that events are said to have been processed at, ms. */
  clock(now: number): void {
    this.#processed = bytesOf(`"ts_ms":${now},"ts_us":${now}000,"ts_ns":${now}000000}`);
  }

  /** What the block `transaction` of the next event is; in the next transaction it is null. */
  place(block: string): void {
    this.#transaction = block;
  }

  begin(info: TransactionInfo, snapshot: SnapshotMark = 'false'): void {
    const micros = info.commitMicros;
    this.#transaction = undefined;
    if (this.#format === 'debezium') {
      const { prefix, database } = this.#names;
      const last = info.previousEnd === 0n ? 'null' : `\\"${info.previousEnd}\\"`;
      this.#head = bytesOf(
        `,"source":{"version":${asciiJson(version)},"connector":"postgresql","name":${asciiJson(prefix)},` +
          `"ts_ms":${micros / 1000n},"snapshot":"${snapshot}","db":${asciiJson(database)},"sequence":"[${last},\\"`,
      );
      this.#tail = bytesOf(`\\"]","ts_us":${micros},"ts_ns":${micros}000`);
      this.#transactionId = bytesOf(`,"txId":${info.xid},"lsn":`);
    } else {
      const time =
        new Date(Number(micros / 1000n)).toISOString().slice(0, -1) + String(micros % 1000n).padStart(3, '0');
      this.#head = bytesOf(
        `,"meta":{"lsn":"${formatLsn(info.commitLsn)}","xid":${info.xid},"ts":"${time}Z","ordinal":`,
      );
    }
  }

  /** Returns the names of the columns whose values were not logged. Nothing is written for a delete in format after. */
  change(
    out: JsonBuffer,
    table: Table,
    images: ChangeImages,
    lsn: Lsn,
    ordinal: number,
  ): readonly string[] | undefined {
    switch (this.#format) {
      case 'debezium':
        return this.#debezium(out, table, images, lsn);
      case 'plain':
        return this.#plain(out, table, images, ordinal);
      case 'after':
        return images.after === undefined ? undefined : table.writeRow(out, images.after, images.unchangedFrom);
    }
  }

  #debezium(out: JsonBuffer, table: Table, images: ChangeImages, lsn: Lsn): string[] | undefined {
    const { before, after, operation } = images;
    let missing: string[] | undefined;
    if (table.valueHead !== undefined) out.raw(table.valueHead);
    if (before === undefined) {
      out.raw(fixed.nothingBefore);
    } else {
      out.ascii('{"before":');
      missing = table.writeRow(out, before);
    }
    if (after === undefined) {
      out.ascii(',"after":null');
    } else {
      out.ascii(',"after":');
      missing = table.writeRow(out, after, images.unchangedFrom) ?? missing;
    }
    this.#source(out, lsn, table.names);
    if (this.#transaction === undefined) out.raw(fixed.operation[operation]);
    else out.ascii(`,"transaction":${this.#transaction},"op":"${operation}",`);
    out.raw(this.#processed);
    if (table.valueHead !== undefined) out.byte(0x7d);
    return missing;
  }

  #source(out: JsonBuffer, lsn: Lsn, names: Buffer): void {
    const position = this.#position;
    position.reset();
    position.decimal(lsn);
    out.raw(this.#head);
    out.raw(position.bytes, 0, position.at);
    out.raw(this.#tail);
    out.raw(names);
    out.raw(this.#transactionId);
    out.raw(position.bytes, 0, position.at);
    out.raw(fixed.endOfSource);
  }

  #plain(out: JsonBuffer, table: Table, images: ChangeImages, ordinal: number): string[] | undefined {
    const { before, beforeIsKey, after, operation } = images;
    let missing: string[] | undefined;
    out.ascii(`{"op":"${operation}","data":`);
    if (after !== undefined) missing = table.writeRow(out, after, images.unchangedFrom);
    else if (before === undefined) out.ascii('null');
    else if (beforeIsKey) table.writeKeyRow(out, before);
    else missing = table.writeRow(out, before);
    if (after !== undefined && before !== undefined) {
      out.ascii(',"old":');
      if (beforeIsKey) table.writeKeyRow(out, before);
      else table.writeRow(out, before);
    }
    out.raw(this.#head);
    out.decimal(ordinal);
    out.raw(table.names);
    if (missing) out.ascii(`,"unchanged":${asciiJson2(missing)}`);
    out.ascii('}}');
    return missing;
  }

  /** A logical message of somebody else's; its key is {"prefix"}. */
  message(
    out: JsonBuffer,
    prefix: string,
    content: Buffer,
    lsn: Lsn,
    ordinal: number,
    { binary, schemas }: { readonly binary: ValueStyle['binary']; readonly schemas: boolean },
  ): void {
    const message = `{"prefix":${asciiJson(prefix)},"content":"${binaryText(content, binary)}"}`;
    if (this.#format === 'debezium') {
      if (schemas) out.raw(messageValueHeads[binary === 'base64' ? 'bytes' : 'string']);
      out.ascii('{"op":"m",');
      out.raw(this.#processed, 0, this.#processed.indexOf(','));
      this.#source(out, lsn, fixed.noNames);
      out.ascii(`,"transaction":${this.#transaction ?? 'null'},"message":${message}}`);
      if (schemas) out.byte(0x7d);
    } else {
      out.ascii(`{"op":"m","data":${message}`);
      out.raw(this.#head);
      out.decimal(ordinal);
      out.ascii('}}');
    }
  }
}

const bytesOf = (text: string): Buffer => Buffer.from(text, 'latin1');
const noBytes = bytesOf('');
const operationOf = (operation: Operation): Buffer => bytesOf(`,"transaction":null,"op":"${operation}",`);

/** What is the same in every envelope of Debezium's. */
const fixed = {
  nothingBefore: bytesOf('{"before":null'),
  endOfSource: bytesOf(',"xmin":null,"origin":null,"origin_lsn":null}'),
  noNames: bytesOf(',"schema":"","table":""'),
  operation: {
    c: operationOf('c'),
    u: operationOf('u'),
    d: operationOf('d'),
    t: operationOf('t'),
    r: operationOf('r'),
  } satisfies Record<Operation, Buffer>,
};

const asciiJson2 = (names: readonly string[]): string => `[${names.map(asciiJson).join(',')}]`;
