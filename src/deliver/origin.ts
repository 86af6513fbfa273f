// Where a part of an event comes from in its record: the key, the value, a header, the topic's name, or a path into the
// JSON of the value.
import type { LogRecord } from '../protocol/records.ts';

export type Origin =
  | { readonly from: 'key' | 'value' | 'topic' }
  | { readonly from: 'header'; readonly name: string }
  | { readonly from: 'path'; readonly path: readonly string[] };

/** The record cannot become an event; the message says why. */
export class BadEvent extends Error {
  override name = 'BadEvent';
}

export function parseOrigin(text: string): Origin | undefined {
  if (text === 'key' || text === 'value' || text === 'topic') return { from: text };
  if (/^header\../.test(text)) return { from: 'header', name: text.slice('header.'.length) };
  // Names may hold anything but a dot.
  if (/^\$(\.[^.]+)+$/.test(text)) return { from: 'path', path: text.slice(2).split('.') };
  return undefined;
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** One record, its value decoded and parsed at most once. */
export class OpenRecord {
  readonly record: LogRecord;
  readonly #topic: string;
  #text: string | undefined;
  #value: { readonly parsed: unknown } | undefined;

  constructor(record: LogRecord, topic: string) {
    this.record = record;
    this.#topic = topic;
  }

  /** As text: strings as they are, other JSON as JSON. Undefined where there is nothing or null. Throws BadEvent. */
  text(origin: Origin): string | undefined {
    switch (origin.from) {
      case 'topic':
        return this.#topic;
      case 'key':
        return textOf(this.record.key, 'the key');
      case 'value':
        return this.#valueText();
      case 'header':
        return textOf(
          this.record.headers.findLast(({ key }) => key === origin.name)?.value ?? null,
          `header ${origin.name}`,
        );
      case 'path': {
        const found = this.#find(origin.path);
        if (found === undefined || found === null) return undefined;
        return clean(typeof found === 'string' ? found : JSON.stringify(found), `$.${origin.path.join('.')}`);
      }
    }
  }

  #find(path: readonly string[]): unknown {
    let at = this.#parse();
    for (const name of path) {
      if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return undefined;
      at = (at as Record<string, unknown>)[name];
    }
    return at;
  }

  #valueText(): string | undefined {
    this.#text ??= textOf(this.record.value, 'the value');
    return this.#text;
  }

  #parse(): unknown {
    if (this.#value === undefined) {
      const text = this.#valueText();
      if (text === undefined) return undefined;
      try {
        this.#value = { parsed: JSON.parse(text) };
      } catch {
        throw new BadEvent('the value is not JSON');
      }
    }
    return this.#value.parsed;
  }
}

function textOf(bytes: Buffer | null, what: string): string | undefined {
  if (bytes === null) return undefined;
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new BadEvent(`${what} is not UTF-8`);
  }
  return clean(text, what);
}

/** PostgreSQL's text holds no NUL. */
function clean(text: string, what: string): string {
  if (text.includes('\0')) throw new BadEvent(`${what} holds a NUL character`);
  return text;
}
