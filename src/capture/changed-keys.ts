// The keys of one table that streamed transactions have changed, for as long as a snapshot of the table may be read that
// does not see them: a row which was read before such a change must not come after it in the topic.
import type { Visibility } from './visibility.ts';

/** Keys remembered for a table; a transaction that brings more is noted as changing everything. */
const maxKeys = 200_000;

/** By key, whether the stream has its rows whole: not where values that are stored out of line were left out of one. */
export type Changed = ReadonlyMap<string, boolean>;

export class ChangedKeys {
  /** By transaction; `all` for one that changed more keys than are remembered, or truncated the table. */
  readonly #byXid = new Map<number, Map<string, boolean> | 'all'>();
  #count = 0;

  add(xid: number, key: string, whole = true): void {
    const keys = this.#byXid.get(xid);
    if (keys === 'all') return;
    if (this.#count >= maxKeys) {
      this.addAll(xid);
      return;
    }
    const noted = keys ?? new Map<string, boolean>();
    if (keys === undefined) this.#byXid.set(xid, noted);
    const before = noted.size;
    noted.set(key, whole && (noted.get(key) ?? true));
    this.#count += noted.size - before;
  }

  addAll(xid: number): void {
    this.#drop(xid);
    this.#byXid.set(xid, 'all');
  }

  /** What was changed behind the back of `visibility`. */
  unseenBy(visibility: Visibility): Changed | 'all' {
    const whole = new Map<string, boolean>();
    for (const [xid, keys] of this.#byXid) {
      if (visibility.sees(xid)) continue;
      if (keys === 'all') return 'all';
      for (const [key, isWhole] of keys) whole.set(key, isWhole && (whole.get(key) ?? true));
    }
    return whole;
  }

  /** Nothing will be read any more that sees less than each of `floors`. */
  forget(floors: readonly Visibility[]): void {
    for (const xid of [...this.#byXid.keys()]) {
      if (floors.every(floor => floor.sees(xid))) this.#drop(xid);
    }
  }

  #drop(xid: number): void {
    const keys = this.#byXid.get(xid);
    if (keys instanceof Map) this.#count -= keys.size;
    this.#byXid.delete(xid);
  }
}
