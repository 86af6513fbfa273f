// JSON as records have it. JSON.parse makes doubles of all numbers; where a text has numbers with more digits than those
// hold, it is read again with each such number kept as it is written.

/** A number as it is written. */
export class ExactNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }
}

/**
 * More digits than a double keeps, an exponent that it may not have, zeros at a fraction's end. May be inside a string: then
 * it costs time only.
 */
const inexact = /\d[\d.]{15}|\d[eE][+-]?\d{3}|\.\d*0(?!\d)/;

/** Throws SyntaxError. */
export function parseJson(text: string): unknown {
  return inexact.test(text) ? new ExactReader(text).read() : JSON.parse(text);
}

/** As JSON.stringify, exact numbers as they were. */
export function stringifyJson(value: unknown): string {
  if (value instanceof ExactNumber) return value.text;
  if (Array.isArray(value)) return `[${value.map(stringifyJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, inner]) => `${JSON.stringify(key)}:${stringifyJson(inner)}`)
    .join(',')}}`;
}

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const string = /"(?:[^"\\]|\\.)*"/sy;
const word = /[a-z]+/y;
const space = /[ \t\n\r]*/y;

class ExactReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    // What JSON.parse refuses is refused; below only what it takes is taken apart.
    JSON.parse(text);
    this.#text = text;
  }

  read(): unknown {
    this.#skip();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object();
      case '[':
        return this.#array();
      case '"':
        return JSON.parse(this.#match(string));
      case 't':
      case 'f':
      case 'n':
        return JSON.parse(this.#match(word));
      default:
        return readNumber(this.#match(number));
    }
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    while (this.#next('}')) {
      const key = JSON.parse(this.#match(string)) as string;
      this.#skip();
      this.#at++; // the colon
      const value = this.read();
      if (key === '__proto__') Object.defineProperty(object, key, { value, enumerable: true });
      else object[key] = value;
    }
    return object;
  }

  #array(): unknown[] {
    const array: unknown[] = [];
    while (this.#next(']')) array.push(this.read());
    return array;
  }

  /** Past the bracket or comma before an element; false past the bracket that ends it. */
  #next(end: string): boolean {
    if (this.#text[this.#at] !== end) this.#at++;
    this.#skip();
    if (this.#text[this.#at] !== end) return true;
    this.#at++;
    this.#skip();
    return false;
  }

  #skip(): void {
    space.lastIndex = this.#at;
    space.test(this.#text);
    this.#at = space.lastIndex;
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#text)!;
    this.#at = pattern.lastIndex;
    this.#skip();
    return found;
  }
}

/** As it is written, where a double does not hold it. */
export function readNumber(text: string): number | ExactNumber {
  const value = Number(text);
  return inexact.test(text) || !Number.isFinite(value) ? new ExactNumber(text) : value;
}
