// Rows on their way into COPY … (FORMAT binary) (manual, "COPY"), in one buffer that grows and is used again. The stream
// of COPY data may be cut anywhere, so rows are packed into CopyData messages of some 64 KB. A row that turns out not to
// fit its columns is taken back.
import type { CopyPayload } from './copy.ts';

const signature = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1'); // flags and extension length are 0
const messageBytes = 65_536;
/** Up to this length a loop is quicker than the call into native code. */
const loopChars = 40;

export class CopyRows {
  bytes: Buffer;
  at = 0;
  rows = 0;
  /** Values have been read with their numbers as they are written, where doubles do not hold them. */
  exact = false;
  #message = 0;
  #row = 0;
  #payload: CopyPayload | undefined;

  constructor(bytes: Buffer = Buffer.allocUnsafe(262_144)) {
    this.bytes = bytes;
    this.#beginMessage();
    this.at += signature.copy(this.bytes, this.at);
  }

  beginRow(columns: number): void {
    if (this.at - this.#message >= messageBytes) {
      this.#endMessage();
      this.#beginMessage();
    }
    this.#row = this.at;
    this.reserve(2);
    this.bytes[this.at++] = columns >> 8;
    this.bytes[this.at++] = columns & 0xff;
    this.rows++;
  }

  /** Takes the row back that was begun last. */
  undoRow(): void {
    this.at = this.#row;
    this.rows--;
  }

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    const wanted = this.at + count;
    if (wanted <= this.bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(wanted, this.bytes.length * 2));
    this.bytes.copy(grown, 0, 0, this.at);
    this.bytes = grown;
  }

  null(): void {
    this.reserve(4);
    this.uint32(0xffffffff);
  }

  /** The length of a value that follows; room for both is made. */
  length(bytes: number): void {
    this.reserve(4 + bytes);
    this.uint32(bytes);
  }

  byte(value: number): void {
    this.bytes[this.at++] = value;
  }

  // From here on room must have been made.
  uint16(value: number): void {
    const { bytes, at } = this;
    bytes[at] = value >> 8;
    bytes[at + 1] = value;
    this.at = at + 2;
  }

  uint32(value: number): void {
    const { bytes, at } = this;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    this.at = at + 4;
  }

  /** A safe integer as int64. */
  int64(value: number): void {
    const high = Math.floor(value / 2 ** 32);
    this.uint32(high);
    this.uint32(value - high * 2 ** 32);
  }

  bigint64(value: bigint): void {
    this.bytes.writeBigInt64BE(value, this.at);
    this.at += 8;
  }

  double(value: number): void {
    this.bytes.writeDoubleBE(value, this.at);
    this.at += 8;
  }

  /** A value that is text: its length in UTF-8, then its bytes. `prefix`: a byte that precedes it. */
  text(value: string, prefix = -1): void {
    const { length } = value;
    const head = prefix < 0 ? 0 : 1;
    this.reserve(4 + head + length * 3);
    const start = this.at + 4 + head;
    if (head === 1) this.bytes[this.at + 4] = prefix;
    let written = 0;
    if (length <= loopChars) {
      const { bytes } = this;
      for (; written < length; written++) {
        const code = value.charCodeAt(written);
        if (code > 0x7f) break;
        bytes[start + written] = code;
      }
    }
    if (written < length) written = this.bytes.write(value, start, 'utf8');
    this.uint32(written + head);
    this.at = start + written;
  }

  blob(value: Buffer): void {
    this.length(value.length);
    this.at += value.copy(this.bytes, this.at);
  }

  /** The messages of the COPY, CopyDone included. The bytes are used until the server has taken them. */
  finish(): CopyPayload {
    if (this.#payload) return this.#payload;
    this.reserve(2 + 5);
    this.uint16(0xffff); // trailer
    this.#endMessage();
    this.bytes[this.at++] = 0x63; // CopyDone
    this.uint32(4);
    this.#payload = { chunks: [this.bytes.subarray(0, this.at)], release() {} };
    return this.#payload;
  }

  #beginMessage(): void {
    this.reserve(5 + signature.length);
    this.#message = this.at;
    this.bytes[this.at] = 0x64; // CopyData
    this.at += 5;
  }

  #endMessage(): void {
    this.bytes.writeInt32BE(this.at - this.#message - 1, this.#message + 1);
  }
}
