// Where transactions begin and end, in {prefix}.transaction, and the place of each event in its transaction, as Debezium
// has them. A transaction begins with its first event that is captured: one without any leaves no record. All that is
// kept of it is a number for each table.
import type { Lsn } from '../postgres/lsn.ts';
import type { Blob } from './batch-builder.ts';
import type { CaptureDefinition } from './definition.ts';
import { transactionKeyHead, transactionValueHead } from './envelope-schema.ts';
import { asciiJson, JsonBuffer } from './json-buffer.ts';
import { type Outlet, RecordTooLarge } from './outlet.ts';
import type { Transaction } from './stream.ts';

export class TransactionRecords {
  readonly #definition: CaptureDefinition;
  readonly #outlet: Outlet;
  readonly #topic: string;
  /** Events of each table (schema.table) so far. */
  readonly #counts = new Map<string, number>();
  #total = 0;
  readonly #key = new JsonBuffer(512);
  readonly #value = new JsonBuffer(2048);

  constructor(definition: CaptureDefinition, outlet: Outlet) {
    this.#definition = definition;
    this.#outlet = outlet;
    this.#topic = `${definition.prefix}.transaction`;
  }

  begin(): void {
    this.#counts.clear();
    this.#total = 0;
  }

  /** Whether its topic is there; else it is to be made before an event comes. */
  get ready(): boolean {
    return this.#outlet.known(this.#topic) !== undefined;
  }

  async makeTopic(): Promise<void> {
    await this.#outlet.target(this.#topic, 1, this.#definition.topicConfig);
  }

  /** Counts an event of a table, at `walStart`; returns its block. The transaction begins with the first. */
  next(collection: string, transaction: Transaction, walStart: Lsn): string {
    const { xid } = transaction;
    if (this.#total === 0) this.#write(transaction, 0, 'BEGIN', walStart, 'null,"data_collections":null');
    const count = (this.#counts.get(collection) ?? 0) + 1;
    this.#counts.set(collection, count);
    this.#total++;
    return `{"id":"${xid}:${walStart}","total_order":${this.#total},"data_collection_order":${count}}`;
  }

  /** `changes`: how many the transaction had, those that are not captured among them. */
  end(transaction: Transaction, changes: number, endLsn: Lsn): void {
    if (this.#total === 0) return;
    const collections = Array.from(
      this.#counts,
      ([name, count]) => `{"data_collection":${asciiJson(name)},"event_count":${count}}`,
    );
    // After its beginning, which has ordinal 0, and before everything else.
    const write = (list: string): void =>
      this.#write(transaction, changes, 'END', endLsn, `${this.#total},"data_collections":${list}`);
    try {
      write(`[${collections.join(',')}]`);
    } catch (error) {
      if (!(error instanceof RecordTooLarge)) throw error;
      write('null'); // of so many tables: how many events there were is still told
    }
  }

  #write(transaction: Transaction, ordinal: number, status: 'BEGIN' | 'END', lsn: Lsn, counts: string): void {
    const target = this.#outlet.known(this.#topic);
    // Somebody has deleted it; the capture begins again, and makes it anew.
    if (target === undefined) throw new Error(`there is no topic ${this.#topic} any more`);
    const { xid, commitLsn, commitMs, headers } = transaction;
    const { schemas } = this.#definition;
    const id = `"id":"${xid}:${lsn}"`;
    const blob = (out: JsonBuffer, head: Buffer, payload: string): Blob => {
      out.reset();
      if (schemas) out.raw(head);
      out.ascii(payload);
      if (schemas) out.byte(0x7d);
      return { bytes: out.bytes, start: 0, end: out.at };
    };
    const value = `{"status":"${status}",${id},"event_count":${counts},"ts_ms":${commitMs}}`;
    headers.ordinal(ordinal);
    this.#outlet.add(
      target,
      -1,
      commitLsn,
      ordinal,
      commitMs,
      blob(this.#key, transactionKeyHead, `{${id}}`),
      blob(this.#value, transactionValueHead, value),
      headers.bytes,
      headers.end,
    );
  }
}
