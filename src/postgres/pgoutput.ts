// Logical decoding's standard plugin, pgoutput, protocol versions 1 to 4 (manual, "Logical Replication Message
// Formats"). Bytes only, no I/O. What a message says of a row stays where it is: a Tuple is the places of the values
// in the message's own bytes, because at a hundred thousand rows a second an object per value is what costs.
import type { Lsn } from './lsn.ts';

/** Bytes that no server of a version we know sends. */
export class PgOutputError extends Error {
  override name = 'PgOutputError';
}

export const valueKind = { null: 0x6e, unchangedToast: 0x75, text: 0x74, binary: 0x62 } as const;

/** A row's values, in the order of the relation's columns. Overwritten by the decoder's next message. */
export class Tuple {
  bytes: Buffer = Buffer.alloc(0);
  length = 0;
  kinds = new Uint8Array(32);
  starts = new Int32Array(32);
  ends = new Int32Array(32);

  isNull(column: number): boolean {
    return this.kinds[column] === valueKind.null;
  }

  /** A value that is stored out of line and was not changed, so that it was not logged. */
  isUnchanged(column: number): boolean {
    return this.kinds[column] === valueKind.unchangedToast;
  }

  /** The text of a value; null where there is none, or it is unchanged TOAST. */
  text(column: number): string | null {
    const kind = this.kinds[column];
    if (kind !== valueKind.text && kind !== valueKind.binary) return null;
    return this.bytes.toString('utf8', this.starts[column], this.ends[column]);
  }

  /** Sees to room for `columns`. */
  resize(columns: number): void {
    this.length = columns;
    if (columns <= this.kinds.length) return;
    this.kinds = new Uint8Array(columns);
    this.starts = new Int32Array(columns);
    this.ends = new Int32Array(columns);
  }
}

export interface RelationColumn {
  /** Part of the replica identity. */
  readonly isKey: boolean;
  readonly name: string;
  readonly typeOid: number;
  readonly typeModifier: number;
}

/** default: the primary key; index: another unique index. */
export type ReplicaIdentity = 'default' | 'nothing' | 'full' | 'index';

export interface Relation {
  readonly kind: 'relation';
  readonly xid: number;
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
}

/** `xid` is 0 outside of a streamed transaction; in one, that of the subtransaction. */
export type Message =
  | { readonly kind: 'begin'; readonly finalLsn: Lsn; readonly timestamp: bigint; readonly xid: number }
  | { readonly kind: 'commit'; readonly commitLsn: Lsn; readonly endLsn: Lsn; readonly timestamp: bigint }
  | { readonly kind: 'origin'; readonly lsn: Lsn; readonly name: string }
  | Relation
  | {
      readonly kind: 'type';
      readonly xid: number;
      readonly id: number;
      readonly schema: string;
      readonly name: string;
    }
  | { readonly kind: 'insert'; readonly xid: number; readonly relationId: number; readonly after: Tuple }
  | {
      readonly kind: 'update';
      readonly xid: number;
      readonly relationId: number;
      /** The replica identity's columns when they changed, or the whole row; undefined when neither was sent. */
      readonly before: Tuple | undefined;
      readonly beforeIsKey: boolean;
      readonly after: Tuple;
    }
  | {
      readonly kind: 'delete';
      readonly xid: number;
      readonly relationId: number;
      readonly before: Tuple;
      readonly beforeIsKey: boolean;
    }
  | {
      readonly kind: 'truncate';
      readonly xid: number;
      readonly relationIds: readonly number[];
      readonly cascade: boolean;
      readonly restartIdentity: boolean;
    }
  | {
      readonly kind: 'message';
      readonly xid: number;
      readonly transactional: boolean;
      readonly lsn: Lsn;
      readonly prefix: string;
      readonly content: Buffer;
    }
  | { readonly kind: 'streamStart'; readonly xid: number; readonly first: boolean }
  | { readonly kind: 'streamStop' }
  | {
      readonly kind: 'streamCommit';
      readonly xid: number;
      readonly commitLsn: Lsn;
      readonly endLsn: Lsn;
      readonly timestamp: bigint;
    }
  | { readonly kind: 'streamAbort'; readonly xid: number; readonly subxid: number }
  | {
      readonly kind: 'prepare' | 'beginPrepare' | 'streamPrepare' | 'commitPrepared' | 'rollbackPrepared';
      readonly xid: number;
      readonly endLsn: Lsn;
      readonly gid: string;
    };

/** pgoutput counts microseconds from the year 2000; everything of ours from 1970. */
const epochMicros = 946_684_800_000_000n;

/** The newest protocol that a server of `version` (server_version_num) speaks. */
export function protocolVersion(version: number): number {
  if (version >= 160_000) return 4;
  if (version >= 150_000) return 3;
  return version >= 140_000 ? 2 : 1;
}

export class PgOutputDecoder {
  readonly #before = new Tuple();
  readonly #after = new Tuple();
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #end = 0;
  /** Between stream start and stop, every message names its transaction. */
  #streaming: boolean;

  /** `streaming`: begin inside a stream block, as with messages that were put aside from one. */
  constructor(streaming = false) {
    this.#streaming = streaming;
  }

  get streaming(): boolean {
    return this.#streaming;
  }

  /** Reads the message at `start`. Tuples and a message's content are views of `bytes`. Throws PgOutputError. */
  read(bytes: Buffer, start = 0, end = bytes.length): Message {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    const message = this.#message(this.#byte());
    if (this.#at !== end) throw new PgOutputError(`${end - this.#at} bytes after a ${message.kind} message`);
    return message;
  }

  #message(type: number): Message {
    switch (type) {
      case 0x49: // I
        return this.#insert();
      case 0x55: // U
        return this.#update();
      case 0x44: // D
        return this.#delete();
      case 0x42: // B
        return { kind: 'begin', finalLsn: this.#int64(), timestamp: this.#timestamp(), xid: this.#int32() };
      case 0x43: // C
        this.#byte();
        return { kind: 'commit', commitLsn: this.#int64(), endLsn: this.#int64(), timestamp: this.#timestamp() };
      case 0x4f: // O
        return { kind: 'origin', lsn: this.#int64(), name: this.#string() };
      case 0x52: // R
        return this.#relation();
      case 0x59: // Y
        return { kind: 'type', xid: this.#xid(), id: this.#int32(), schema: this.#schema(), name: this.#string() };
      case 0x54: // T
        return this.#truncate();
      case 0x4d: // M
        return this.#logicalMessage();
      case 0x53: {
        // S
        const xid = this.#int32();
        this.#streaming = true;
        return { kind: 'streamStart', xid, first: this.#byte() === 1 };
      }
      case 0x45: // E
        this.#streaming = false;
        return { kind: 'streamStop' };
      case 0x63: {
        // c
        const xid = this.#int32();
        this.#byte();
        return {
          kind: 'streamCommit',
          xid,
          commitLsn: this.#int64(),
          endLsn: this.#int64(),
          timestamp: this.#timestamp(),
        };
      }
      case 0x41: {
        // A; version 4 with streaming=parallel adds the abort's LSN and time
        const abort: Message = { kind: 'streamAbort', xid: this.#int32(), subxid: this.#int32() };
        if (this.#end - this.#at === 16) this.#at = this.#end;
        return abort;
      }
      case 0x62: // b
        return this.#twoPhase('beginPrepare', false);
      case 0x50: // P
        return this.#twoPhase('prepare', true);
      case 0x4b: // K
        return this.#twoPhase('commitPrepared', true);
      case 0x70: // p
        return this.#twoPhase('streamPrepare', true);
      case 0x72: {
        // r: one timestamp more than the others
        this.#byte();
        this.#int64();
        const endLsn = this.#int64();
        this.#int64();
        this.#int64();
        return { kind: 'rollbackPrepared', endLsn, xid: this.#int32(), gid: this.#string() };
      }
      default:
        throw new PgOutputError(`unknown message 0x${type.toString(16)}`);
    }
  }

  #twoPhase(kind: 'beginPrepare' | 'prepare' | 'commitPrepared' | 'streamPrepare', flags: boolean): Message {
    if (flags) this.#byte();
    this.#int64();
    const endLsn = this.#int64();
    this.#int64();
    return { kind, endLsn, xid: this.#int32(), gid: this.#string() };
  }

  #insert(): Message {
    const xid = this.#xid();
    const relationId = this.#int32();
    this.#expect(0x4e);
    return { kind: 'insert', xid, relationId, after: this.#tuple(this.#after) };
  }

  #update(): Message {
    const xid = this.#xid();
    const relationId = this.#int32();
    let type = this.#byte();
    let before: Tuple | undefined;
    const beforeIsKey = type === 0x4b;
    if (beforeIsKey || type === 0x4f) {
      before = this.#tuple(this.#before);
      type = this.#byte();
    }
    if (type !== 0x4e) throw new PgOutputError(`an update without a new row, but 0x${type.toString(16)}`);
    return { kind: 'update', xid, relationId, before, beforeIsKey, after: this.#tuple(this.#after) };
  }

  #delete(): Message {
    const xid = this.#xid();
    const relationId = this.#int32();
    const type = this.#byte();
    if (type !== 0x4b && type !== 0x4f) throw new PgOutputError(`a delete of 0x${type.toString(16)}`);
    return { kind: 'delete', xid, relationId, before: this.#tuple(this.#before), beforeIsKey: type === 0x4b };
  }

  #relation(): Relation {
    const xid = this.#xid();
    const id = this.#int32();
    const schema = this.#schema();
    const name = this.#string();
    const replicaIdentity = this.#replicaIdentity();
    const columns: RelationColumn[] = [];
    for (let count = this.#int16(); count > 0; count--) {
      const isKey = (this.#byte() & 1) !== 0;
      columns.push({ isKey, name: this.#string(), typeOid: this.#int32(), typeModifier: this.#int32() | 0 });
    }
    return { kind: 'relation', xid, id, schema, name, replicaIdentity, columns };
  }

  #replicaIdentity(): ReplicaIdentity {
    const identity = this.#byte();
    switch (identity) {
      case 0x64:
        return 'default';
      case 0x6e:
        return 'nothing';
      case 0x66:
        return 'full';
      case 0x69:
        return 'index';
      default:
        throw new PgOutputError(`unknown replica identity 0x${identity.toString(16)}`);
    }
  }

  #truncate(): Message {
    const xid = this.#xid();
    const count = this.#int32();
    const flags = this.#byte();
    const relationIds: number[] = [];
    this.#need(count * 4);
    for (let i = 0; i < count; i++) relationIds.push(this.#int32());
    return {
      kind: 'truncate',
      xid,
      relationIds,
      cascade: (flags & 1) !== 0,
      restartIdentity: (flags & 2) !== 0,
    };
  }

  #logicalMessage(): Message {
    const xid = this.#xid();
    const transactional = this.#byte() === 1;
    const lsn = this.#int64();
    const prefix = this.#string();
    const length = this.#int32();
    this.#need(length);
    const content = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return { kind: 'message', xid, transactional, lsn, prefix, content };
  }

  #tuple(tuple: Tuple): Tuple {
    const bytes = this.#bytes;
    const count = this.#int16();
    tuple.resize(count);
    tuple.bytes = bytes;
    const { kinds, starts, ends } = tuple;
    let at = this.#at;
    for (let i = 0; i < count; i++) {
      if (at >= this.#end) throw new PgOutputError('a row cut short');
      const kind = bytes[at++]!;
      kinds[i] = kind;
      if (kind === valueKind.text || kind === valueKind.binary) {
        if (this.#end - at < 4) throw new PgOutputError('a row cut short');
        const length = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
        at += 4;
        if (length < 0 || length > this.#end - at) throw new PgOutputError(`a value of ${length} bytes`);
        starts[i] = at;
        at += length;
        ends[i] = at;
      } else if (kind !== valueKind.null && kind !== valueKind.unchangedToast) {
        throw new PgOutputError(`unknown kind of value 0x${kind.toString(16)}`);
      }
    }
    this.#at = at;
    return tuple;
  }

  #need(bytes: number): void {
    if (bytes < 0 || bytes > this.#end - this.#at) throw new PgOutputError(`message cut short at ${this.#at}`);
  }

  #expect(byte: number): void {
    const found = this.#byte();
    if (found !== byte) throw new PgOutputError(`0x${found.toString(16)} instead of 0x${byte.toString(16)}`);
  }

  #byte(): number {
    this.#need(1);
    return this.#bytes[this.#at++]!;
  }

  #int16(): number {
    this.#need(2);
    const value = this.#bytes.readUInt16BE(this.#at);
    this.#at += 2;
    return value;
  }

  #int32(): number {
    this.#need(4);
    const value = this.#bytes.readUInt32BE(this.#at);
    this.#at += 4;
    return value;
  }

  #int64(): bigint {
    this.#need(8);
    const value = this.#bytes.readBigUInt64BE(this.#at);
    this.#at += 8;
    return value;
  }

  /** Microseconds since 1970. */
  #timestamp(): bigint {
    return BigInt.asIntN(64, this.#int64()) + epochMicros;
  }

  #xid(): number {
    return this.#streaming ? this.#int32() : 0;
  }

  #schema(): string {
    return this.#string() || 'pg_catalog';
  }

  #string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0 || end >= this.#end) throw new PgOutputError(`a string without an end at ${this.#at}`);
    const value = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return value;
  }
}
