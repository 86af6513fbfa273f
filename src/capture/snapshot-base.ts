// Tables whose records have no key: nothing is folded, so a row must not be there twice, once as read and once as
// streamed. Each such table gets a base, a database snapshot B. Rows whose transaction B sees are read; what other
// transactions do is streamed.
//
//   waiting    changes of the table are left out of the stream: the B that will be chosen sees them
//   choosing   the stream waits for a query: B is taken, and must see all that has been left out, or it is taken again
//   chosen     B is stored, then changes of what B sees are left out, up to the LSN where B was taken; all others pass
//
// A row says by its xmin which transaction wrote it. That is a subtransaction's id after a savepoint, and one that was
// running when B was taken looks like one that B sees: its rows may be there twice. So may rows that are inserted while
// the table is read, where ids have gone round (more than 2^32 transactions), and where the table is written anew
// meanwhile. None is ever left out by both.
import { type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { Message, Relation } from '../postgres/pgoutput.ts';
import type { Base, Job, SnapshotJobs } from './snapshot-jobs.ts';
import type { Source } from './source.ts';
import type { Transaction } from './stream.ts';
import { Visibility } from './visibility.ts';

interface Gate {
  readonly job: Job;
  readonly relationId: number | undefined;
  /** Transactions whose changes have been left out, and that B must see. */
  readonly leftOut: Set<number>;
  readonly relationIds: Set<number>;
  choosing: Promise<void> | undefined;
  base: { readonly visibility: Visibility; readonly lsn: Lsn } | undefined;
}

export class SnapshotBases {
  readonly #source: Source;
  readonly #jobs: SnapshotJobs;
  readonly #gates = new Map<Job, Gate>();
  readonly #byRelation = new Map<number, Gate>();

  constructor(source: Source, jobs: SnapshotJobs) {
    this.#source = source;
    this.#jobs = jobs;
  }

  /** Tables whose changes are looked at. */
  get waiting(): number {
    return this.#byRelation.size;
  }

  /**
   * For each initial reading of a table without a key: before the stream begins, or before the table is published. With
   * `relationId` what the stream still has of another of that name, which has been dropped, passes.
   */
  guard(job: Job, relationId?: number): void {
    if (job.base === null && job.done) return; // of an earlier version
    const gate: Gate = {
      job,
      relationId,
      leftOut: new Set(),
      relationIds: new Set(),
      choosing: undefined,
      base: undefined,
    };
    this.#gates.set(job, gate);
    if (job.base !== null) this.#chosen(gate, job.base);
  }

  forget(job: Job): void {
    const gate = this.#gates.get(job);
    if (gate) this.#remove(gate);
  }

  relation({ id, schema, name }: Relation): void {
    for (const gate of this.#gates.values()) {
      if (gate.job.schema !== schema || gate.job.name !== name) continue;
      if (gate.relationId !== undefined && gate.relationId !== id) continue;
      gate.relationIds.add(id);
      this.#byRelation.set(id, gate);
    }
  }

  /** Whether a change is for the topic. */
  passes(message: Message, transaction: Transaction): boolean | Promise<boolean> {
    if (message.kind !== 'insert' && message.kind !== 'update' && message.kind !== 'delete') return true;
    const gate = this.#byRelation.get(message.relationId);
    if (gate === undefined) return true;
    if (gate.choosing) return gate.choosing.then(() => this.passes(message, transaction));
    const { xid, commitLsn } = transaction;
    if (gate.base !== undefined) {
      if (commitLsn < gate.base.lsn) return !gate.base.visibility.sees(xid!);
      // Nothing that it sees comes any more.
      this.#remove(gate);
      return true;
    }
    gate.leftOut.add(xid!);
    return false;
  }

  /** False: transactions that B does not see have been left out already; those that write to the table end first. */
  async choose(job: Job): Promise<boolean> {
    const gate = this.#gates.get(job);
    const choose = async (): Promise<boolean> => {
      const { rows } = await this.#source.client.query<{ snapshot: string; lsn: string }>(
        'SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS lsn',
      );
      const { snapshot, lsn } = rows[0]!;
      const base: Base = { snapshot, lsn: parseLsn(lsn) };
      const visibility = new Visibility(snapshot);
      for (const xid of gate?.leftOut ?? []) if (!visibility.sees(xid)) return false;
      job.base = base;
      await this.#jobs.save(job);
      if (gate) this.#chosen(gate, base);
      return true;
    };
    const choosing = choose();
    if (gate) {
      gate.choosing = choosing.then(() => {
        gate.choosing = undefined;
      });
      gate.choosing.catch(() => {}); // the capture breaks off; nothing of the table passes any more
    }
    return choosing;
  }

  #chosen(gate: Gate, { snapshot, lsn }: Base): void {
    gate.leftOut.clear();
    if (snapshot === null) this.#remove(gate);
    else gate.base = { visibility: new Visibility(snapshot), lsn };
  }

  #remove(gate: Gate): void {
    this.#gates.delete(gate.job);
    for (const id of gate.relationIds) this.#byRelation.delete(id);
  }
}
