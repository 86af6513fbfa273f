// The keys of one table that streamed transactions have changed, for as long as a snapshot of the table may be read that
// does not see them: a row which was read before such a change must not come after it in the topic.
import type { Visibility } from './visibility.ts';

/** Keys remembered for a table; a transaction that brings more is noted as changing everything. */
const maxKeys = 200_000;

export class ChangedKeys {
  /** By transaction; `all` for one that changed more keys than are remembered, or truncated the table. */
  readonly #byXid = new Map<number, Set<string> | 'all'>();
  #count = 0;

  add(xid: number, key: string): void {
    const keys = this.#byXid.get(xid);
    if (keys === 'all') return;
    if (this.#count >= maxKeys) {
      this.addAll(xid);
      return;
    }
    const before = keys?.size ?? 0;
    const after = keys ?? new Set<string>();
    if (keys === undefined) this.#byXid.set(xid, after);
    this.#count += after.add(key).size - before;
  }

  addAll(xid: number): void {
    this.#drop(xid);
    this.#byXid.set(xid, 'all');
  }

  /** The keys that were changed behind the back of `visibility`; or `all`. */
  unseenBy(visibility: Visibility): ReadonlySet<string> | 'all' {
    const unseen = new Set<string>();
    for (const [xid, keys] of this.#byXid) {
      if (visibility.sees(xid)) continue;
      if (keys === 'all') return 'all';
      for (const key of keys) unseen.add(key);
    }
    return unseen;
  }

  /** Nothing will be read any more that sees less than `visibility`. */
  forget(visibility: Visibility): void {
    for (const xid of [...this.#byXid.keys()]) if (visibility.sees(xid)) this.#drop(xid);
  }

  #drop(xid: number): void {
    const keys = this.#byXid.get(xid);
    if (keys instanceof Set) this.#count -= keys.size;
    this.#byXid.delete(xid);
  }
}
