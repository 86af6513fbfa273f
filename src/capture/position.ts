// Where a change stands among all changes of a database: the LSN of its transaction's commit, and its number in the
// transaction, from 0. Rows of one COPY share an LSN, so the LSN alone is not enough.
import type { Lsn } from '../postgres/lsn.ts';

export interface Position {
  readonly commitLsn: Lsn;
  readonly ordinal: number;
}

export function isAfter(commitLsn: Lsn, ordinal: number, position: Position): boolean {
  return commitLsn === position.commitLsn ? ordinal > position.ordinal : commitLsn > position.commitLsn;
}
