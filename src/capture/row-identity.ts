// What tells the rows of one table apart, as text: the key of its records; or, where they have none, the values of the
// columns that deletes and updates name a row by (its replica identity), which may be all of them.
import type { Relation, Tuple } from '../postgres/pgoutput.ts';
import { JsonBuffer } from './json-buffer.ts';
import type { Table } from './table.ts';

export class RowIdentity {
  readonly #table: Table;
  readonly #columns: readonly number[];
  readonly #key = new JsonBuffer(256);

  /** `relation` and `table` are of the same description. */
  constructor(relation: Relation, table: Table) {
    this.#table = table;
    this.#columns = relation.columns.flatMap(({ isKey }, index) => (isKey ? [index] : []));
  }

  /** Rows may be equal. */
  get keyless(): boolean {
    return this.#table.keyless;
  }

  /** undefined: nothing ever names a row of it. */
  of(row: Tuple): string | undefined {
    if (!this.#table.keyless) {
      this.#key.reset();
      this.#table.writeKey(this.#key, row);
      return this.#key.bytes.toString('latin1', 0, this.#key.at);
    }
    if (this.#columns.length === 0) return undefined;
    let identity = '';
    for (const column of this.#columns) {
      const text = row.text(column);
      identity += text === null ? '-' : `${text.length}:${text}`;
    }
    return identity;
  }
}
