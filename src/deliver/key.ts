// A key that is read again when the file it was given in has changed. What the file holds then must be as good as it had to
// be at the start; until it is, the key of before is used, and `trouble` says why.
import { readFile } from 'node:fs/promises';
import { codeOf, messageOf } from '../runtime/errors.ts';

export interface KeyOptions<T> {
  /** For messages. */
  readonly setting: string;
  readonly text: string;
  /** Undefined where it is in no file. */
  readonly file: string | undefined;
  /** Throws where it cannot be used. `before`: what was used until now. */
  parse(text: string, before: string | undefined): T;
}

export class Key<T> {
  readonly #options: KeyOptions<T>;
  #text: string;
  #value: T;
  /** What the file held when it was looked at last, or why it could not be read. */
  #seen: string;
  #trouble: string | undefined;

  constructor(options: KeyOptions<T>) {
    this.#options = options;
    this.#text = options.text;
    this.#seen = options.text;
    this.#value = options.parse(options.text, undefined);
  }

  get setting(): string {
    return this.#options.setting;
  }

  get value(): T {
    return this.#value;
  }

  /** Why the file is not what is used. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Reads the file. Returns what is to be told of it, once: another key is used, or cannot be. */
  async look(): Promise<'changed' | 'refused' | undefined> {
    const { file, setting, parse } = this.#options;
    if (file === undefined) return undefined;
    let text: string | undefined;
    let unreadable = '';
    try {
      text = (await readFile(file, 'utf8')).trim();
    } catch (error) {
      unreadable = codeOf(error) ?? messageOf(error);
    }
    const seen = text ?? unreadable;
    if (seen === this.#seen) return undefined;
    this.#seen = seen;
    try {
      if (text === undefined) throw new Error(`${setting}: ${file} cannot be read (${unreadable})`);
      if (text !== this.#text) this.#value = parse(text, this.#text);
      this.#text = text;
      this.#trouble = undefined;
      return 'changed';
    } catch (error) {
      this.#trouble = `${messageOf(error)}; the key of before is used`;
      return 'refused';
    }
  }
}
