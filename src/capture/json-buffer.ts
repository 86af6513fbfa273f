// A growing buffer that JSON is written into, straight from the text that Postgres sent: no string, number or object is
// made per value. What is written stays until `reset`.

/** What a byte of UTF-8 needs more than itself inside a JSON string: 0, 1 (\n) or 5 (\u0001). */
const extraBytes = new Uint8Array(256);
const shortEscapes = new Uint8Array(256);
for (let byte = 0; byte < 0x20; byte++) extraBytes[byte] = 5;
for (const [byte, letter] of [
  [0x22, '"'],
  [0x5c, '\\'],
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
] as const) {
  extraBytes[byte] = 1;
  shortEscapes[byte] = letter.charCodeAt(0);
}
const hexDigits = Buffer.from('0123456789abcdef');
/** Below this a loop is quicker than a call. */
const loopBelow = 24;
const keepBytes = 4 * 1024 * 1024;
const maxSafeDigits = 16;

export class JsonBuffer {
  bytes: Buffer;
  at = 0;

  constructor(initialBytes = 16_384) {
    this.bytes = Buffer.allocUnsafeSlow(initialBytes);
  }

  reset(): void {
    this.at = 0;
    // Of a row of many megabytes nothing is kept.
    if (this.bytes.length > keepBytes) this.bytes = Buffer.allocUnsafeSlow(keepBytes / 4);
  }

  /** A copy of what has been written since `start`. */
  copy(start = 0): Buffer {
    return Buffer.from(this.bytes.subarray(start, this.at));
  }

  reserve(count: number): void {
    if (this.at + count <= this.bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, this.at + count));
    this.bytes.copy(larger, 0, 0, this.at);
    this.bytes = larger;
  }

  byte(value: number): void {
    this.reserve(1);
    this.bytes[this.at++] = value;
  }

  /** Text without characters beyond ASCII. */
  ascii(text: string): void {
    this.reserve(text.length);
    const { bytes } = this;
    let { at } = this;
    if (text.length < loopBelow) for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
    else at += bytes.write(text, at, 'latin1');
    this.at = at;
  }

  /** A number that is not negative, in decimal digits. */
  decimal(value: number | bigint): void {
    let rest = Number(value);
    if (!Number.isSafeInteger(rest)) {
      this.ascii(String(value));
      return;
    }
    this.reserve(maxSafeDigits);
    const { bytes, at } = this;
    let end = at + 1;
    for (let bound = 10; rest >= bound; bound *= 10) end++;
    for (let place = end; place > at; ) {
      const quotient = Math.floor(rest / 10);
      bytes[--place] = 0x30 + rest - quotient * 10;
      rest = quotient;
    }
    this.at = end;
  }

  /** The bytes of `source` as they are. */
  raw(source: Buffer, start = 0, end = source.length): void {
    const length = end - start;
    this.reserve(length);
    const { bytes, at } = this;
    if (length < loopBelow) for (let i = 0; i < length; i++) bytes[at + i] = source[start + i]!;
    else source.copy(bytes, at, start, end);
    this.at = at + length;
  }

  /** UTF-8 bytes as a JSON string. */
  string(source: Buffer, start = 0, end = source.length): void {
    let extra = 0;
    for (let i = start; i < end; i++) extra += extraBytes[source[i]!]!;
    this.reserve(end - start + extra + 2);
    this.bytes[this.at++] = 0x22;
    if (extra === 0) this.raw(source, start, end);
    else this.#escaped(source, start, end);
    this.byte(0x22);
  }

  #escaped(source: Buffer, start: number, end: number): void {
    const { bytes } = this;
    let { at } = this;
    for (let i = start; i < end; i++) {
      const byte = source[i]!;
      const extra = extraBytes[byte]!;
      if (extra === 0) {
        bytes[at++] = byte;
      } else if (extra === 1) {
        bytes[at++] = 0x5c;
        bytes[at++] = shortEscapes[byte]!;
      } else {
        at += bytes.write('\\u00', at, 'latin1');
        bytes[at++] = hexDigits[byte >> 4]!;
        bytes[at++] = hexDigits[byte & 15]!;
      }
    }
    this.at = at;
  }

  text(text: string): void {
    this.ascii(asciiJson(text));
  }
}

/** A string as JSON in ASCII alone. */
export function asciiJson(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
