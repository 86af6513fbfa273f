// A topic's template, for as long as most records are like it. One that serves few is given up and learned anew of a later
// record; where none ever serves, records are looked at for one ever more seldom.
import type { LogRecord } from '../protocol/records.ts';
import type { ChangeReader } from './change.ts';
import type { Mapping } from './mapping.ts';
import { RowTemplate } from './row-template.ts';

/** Records that may be unlike a template more than are like it. */
const patience = 32;
const mostCredit = 256;
const longestPause = 65_536;

export class RowTemplates {
  #mapping: Mapping | undefined;
  #template: RowTemplate | undefined;
  /** Records that were like it less those that were not. */
  #credit = 0;
  /** Records until one is learned of, and how many the next time. */
  #pause = 0;
  #nextPause = patience;

  /** Undefined where there is none now. */
  of(mapping: Mapping): RowTemplate | undefined {
    return this.#mapping === mapping ? this.#template : undefined;
  }

  /** `count` records were like the template. */
  fit(count: number): void {
    this.#credit = Math.min(this.#credit + count, mostCredit);
    if (this.#credit === mostCredit) this.#nextPause = patience;
  }

  /** One was not. */
  unfit(): void {
    if (--this.#credit < 0) this.#rest();
  }

  /** The general way has taken a record, and `reader` has read it. */
  learn(mapping: Mapping, reader: ChangeReader, record: LogRecord): void {
    if (this.#mapping !== mapping) {
      this.#mapping = mapping;
      this.#template = undefined;
      this.#pause = 0;
    }
    if (this.#template !== undefined || this.#pause-- > 0) return;
    this.#template = RowTemplate.learn(mapping, reader, record);
    this.#credit = patience;
    if (this.#template === undefined) this.#rest();
  }

  #rest(): void {
    this.#template = undefined;
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(this.#nextPause * 2, longestPause);
  }
}
