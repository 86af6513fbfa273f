// What is in a key or a value: JSON alone, or JSON in Kafka Connect's envelope of schema and payload. Producers write the
// same schema before each payload, some 500 bytes of it; so what precedes the payload is remembered, and of a record that
// begins with the same bytes only the payload is parsed.
import { BadRecord } from './bad-record.ts';
import { parseJson } from './json.ts';
import { type ConnectSchema, isEnvelope } from './schema.ts';

export type PayloadFormat = 'json' | 'text' | 'bytes';

interface KnownHead {
  readonly bytes: Buffer;
  readonly schema: ConnectSchema | undefined;
}

/** Heads remembered: a topic with more schemas than these is parsed whole. */
const maxHeads = 8;
const closingBrace = 0x7d;

export class PayloadReader {
  readonly #format: PayloadFormat;
  readonly #what: string;
  readonly #heads: KnownHead[] = [];
  /** Of what was read last. */
  schema: ConnectSchema | undefined;
  /** Where the payload begins in what was read last; undefined where that is not known. */
  start: number | undefined;

  /** `what`: "key" or "value", for messages. */
  constructor(format: PayloadFormat, what: string) {
    this.#format = format;
    this.#what = what;
  }

  /** `exact`: numbers that doubles do not hold are kept as they are written. Throws BadRecord. */
  read(bytes: Buffer, exact: boolean): unknown {
    this.schema = undefined;
    this.start = undefined;
    if (this.#format === 'bytes') return bytes;
    if (this.#format === 'text') return bytes.toString();
    const head = this.#headOf(bytes);
    if (head) {
      try {
        const payload = parse(bytes.toString('utf8', head.bytes.length, bytes.length - 1), exact);
        this.schema = head.schema;
        this.start = head.bytes.length;
        return payload;
      } catch {
        // Something follows the payload: read whole.
      }
    }
    const text = bytes.toString();
    let value: unknown;
    try {
      value = parse(text, exact);
    } catch (error) {
      throw new BadRecord(`the ${this.#what} is not JSON: ${(error as Error).message.slice(0, 100)}`);
    }
    if (!isEnvelope(value)) {
      this.start = 0;
      return value;
    }
    this.schema = value.schema ?? undefined;
    this.#remember(text, this.schema);
    this.start = this.#headOf(bytes)?.bytes.length;
    return value.payload;
  }

  #headOf(bytes: Buffer): KnownHead | undefined {
    const heads = this.#heads;
    for (let i = 0; i < heads.length; i++) {
      const head = heads[i]!;
      const { length } = head.bytes;
      if (length >= bytes.length || bytes[bytes.length - 1] !== closingBrace) continue;
      if (bytes.compare(head.bytes, 0, length, 0, length) === 0) return head;
    }
    return undefined;
  }

  #remember(text: string, schema: ConnectSchema | undefined): void {
    if (this.#heads.length >= maxHeads) return;
    // A candidate is the head where it is an envelope by itself once something is put in for the payload.
    for (const { index, 0: label } of text.matchAll(/"payload"\s*:\s*/g)) {
      const head = text.slice(0, index + label.length);
      try {
        if (!isEnvelope(JSON.parse(`${head}null}`))) continue;
      } catch {
        continue;
      }
      this.#heads.push({ bytes: Buffer.from(head), schema });
      return;
    }
  }
}

const parse = (text: string, exact: boolean): unknown => (exact ? parseJson(text) : JSON.parse(text));
