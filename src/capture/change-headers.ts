// The headers of a change's record: commit_lsn and ordinal, by which a consumer tells each change from every other, and
// now and then more. Written in place: a buffer per record would be most of the garbage.
import { formatLsn, type Lsn } from '../postgres/lsn.ts';
import { encodeHeaders } from '../protocol/records.ts';
import { writeVarint } from '../protocol/varint.ts';

const maxOrdinalBytes = 20;

export class ChangeHeaders {
  bytes: Buffer = Buffer.alloc(0);
  end = 0;
  /** Where the ordinal's length stands. */
  #ordinalAt = 0;
  #commitLsn = '';

  begin(commitLsn: Lsn): void {
    this.#commitLsn = formatLsn(commitLsn);
    const encoded = encodeHeaders([
      ['commit_lsn', Buffer.from(this.#commitLsn)],
      ['ordinal', Buffer.alloc(0)],
    ]);
    this.bytes = Buffer.concat([encoded, Buffer.alloc(maxOrdinalBytes)]);
    this.#ordinalAt = encoded.length - 1; // the empty value's length
  }

  ordinal(ordinal: number): void {
    const digits = String(ordinal);
    let at = writeVarint(this.bytes, this.#ordinalAt, digits.length);
    for (let i = 0; i < digits.length; i++) this.bytes[at++] = digits.charCodeAt(i);
    this.end = at;
  }

  /** The same with others after them. */
  with(ordinal: number, more: readonly (readonly [string, Buffer | null])[]): Buffer {
    return encodeHeaders([
      ['commit_lsn', Buffer.from(this.#commitLsn)],
      ['ordinal', Buffer.from(String(ordinal))],
      ...more,
    ]);
  }
}
