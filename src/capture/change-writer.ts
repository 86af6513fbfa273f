// Turns the changes of one capture into records: which topic and partition, which key, which envelope; tombstones after
// deletes; a change of the key as a delete and a create that name each other.
import type { Lsn } from '../postgres/lsn.ts';
import type { Message, Relation, Tuple } from '../postgres/pgoutput.ts';
import { TopicError } from '../storage/topics.ts';
import type { Blob } from './batch-builder.ts';
import { type CaptureDefinition, isCaptured, isOutbox, isPartCaptured, topicOf } from './definition.ts';
import { type ChangeImages, Envelope, type Operation, type SnapshotMark } from './envelope.ts';
import { messageKeyHead } from './envelope-schema.ts';
import { JsonBuffer } from './json-buffer.ts';
import { type OutboxEvent, OutboxRouter } from './outbox.ts';
import { type Outlet, RecordTooLarge, type Target } from './outlet.ts';
import { CaptureError, type Source } from './source.ts';
import type { ChangeHandler, Transaction } from './stream.ts';
import { Table } from './table.ts';
import { TransactionRecords } from './transaction-records.ts';

export interface ChangeWriterOptions {
  readonly definition: CaptureDefinition;
  readonly source: Source;
  readonly outlet: Outlet;
  readonly defaultPartitions: number;
  /** Gets Millrace's own logical messages: kafka.produce. */
  readonly onMessage?: (
    message: Message & { kind: 'message' },
    transaction: Transaction,
    ordinal: number,
  ) => void | Promise<void>;
  readonly onDeadLetter: (topic: string, reason: string) => void;
}

export interface CapturedTable {
  readonly table: Table;
  readonly target: Target;
}

export interface SnapshotRecord {
  readonly key: Buffer | null;
  readonly value: Buffer;
  readonly headers: Buffer;
}

const nullBlob: Blob = { bytes: null, start: 0, end: 0 };
/** Logical messages of Millrace's own begin with this, and are nobody's events. */
export const ownPrefix = 'millrace';
/** What logical messages are counted as in a transaction. */
const messages = 'message';

export class ChangeWriter implements ChangeHandler {
  readonly #options: ChangeWriterOptions;
  readonly #relations = new Map<number, CapturedTable | null>();
  readonly #outboxes = new Map<number, OutboxRouter>();
  readonly #envelope: Envelope;
  readonly #key = new JsonBuffer(256);
  readonly #value = new JsonBuffer(16_384);
  readonly #keyBlob: Blob = { bytes: null, start: 0, end: 0 };
  readonly #valueBlob: Blob = { bytes: null, start: 0, end: 0 };
  readonly #transactions: TransactionRecords | undefined;
  #clockAt = 0;

  constructor(options: ChangeWriterOptions) {
    this.#options = options;
    const { definition, source } = options;
    this.#envelope = new Envelope(definition.format, { prefix: definition.prefix, database: source.database });
    if (definition.transactionMetadata) this.#transactions = new TransactionRecords(definition, options.outlet);
  }

  async relation(relation: Relation): Promise<void> {
    const { definition } = this.#options;
    const { id, schema, name } = relation;
    this.#outboxes.delete(id);
    if (isOutbox(definition, schema, name)) {
      this.#outboxes.set(id, new OutboxRouter(relation, definition.outbox!.topic));
      this.#relations.set(id, null);
      return;
    }
    const captured = (await this.describe(relation)) ?? null;
    if (captured !== null) await this.#transactions?.makeTopic();
    this.#relations.set(id, captured);
  }

  /** The table as it is captured; undefined where it is not. */
  async describe(relation: Relation): Promise<CapturedTable | undefined> {
    const { definition, source, outlet, defaultPartitions } = this.#options;
    const { schema, name, columns } = relation;
    if (
      !isCaptured(definition, schema, name) &&
      !isPartCaptured(definition, relation, await source.ancestors(relation.id))
    )
      return undefined;
    await source.loadTypes(columns.map(column => column.typeOid));
    const qualified = `${schema}.${name}`;
    const prefixed = (columnName: string): string | undefined =>
      columnName.startsWith(`${qualified}.`) ? columnName.slice(qualified.length + 1) : undefined;
    const topic = topicOf(definition, schema, name);
    const table = new Table(relation, {
      style: {
        style: definition.format === 'debezium' ? 'debezium' : 'plain',
        decimals: definition.decimals,
        binary: definition.binary,
      },
      types: source.type,
      facts: definition.format === 'debezium' ? await source.columnFacts(relation.id) : new Map(),
      ...(definition.schemas ? { schemaName: topic } : {}),
      keyColumns: definition.keys[qualified] ?? (await source.primaryKey(relation.id)) ?? identityOf(relation),
      excluded: new Set(definition.excludeColumns.flatMap(column => prefixed(column) ?? [])),
      masks: new Map(
        Object.entries(definition.maskColumns).flatMap(([column, mask]) => {
          const own = prefixed(column);
          return own === undefined ? [] : [[own, mask] as const];
        }),
      ),
    });
    const partitions = definition.partitions ?? defaultPartitions;
    const target = await outlet.target(topic, partitions, definition.topicConfig).catch((error: unknown) => {
      if (!(error instanceof TopicError)) throw error;
      throw new CaptureError(
        `table ${schema}.${name} cannot go to topic ${topic}: ${error.message}`,
        'give another name pattern with topic, or leave the table out with exclude; then resume the capture',
      );
    });
    return { table, target };
  }

  begin(transaction: Transaction): void {
    const now = Date.now();
    if (now !== this.#clockAt) {
      this.#clockAt = now;
      this.#envelope.clock(now);
    }
    this.#envelope.begin(transaction);
    this.#transactions?.begin();
  }

  commit(transaction: Transaction, changes: number, endLsn: Lsn): void {
    this.#transactions?.end(transaction, changes, endLsn);
  }

  /** Has the event's place in its transaction written with it. A message of its own is in no transaction. */
  #place(transactions: TransactionRecords, collection: string, transaction: Transaction, walStart: Lsn): void {
    if (transaction.xid !== null) this.#envelope.place(transactions.next(collection, transaction, walStart));
  }

  change(message: Message, transaction: Transaction, ordinal: number, walStart: Lsn): void | Promise<void> {
    switch (message.kind) {
      case 'insert': {
        const captured = this.#captured(message.relationId);
        if (captured === null) {
          const outbox = this.#outboxes.get(message.relationId);
          return outbox && this.#outbox(outbox.event(message.after), transaction, ordinal);
        }
        return this.#write(captured, 'c', undefined, false, message.after, transaction, ordinal, walStart);
      }
      case 'update': {
        const captured = this.#captured(message.relationId);
        if (captured === null) return undefined;
        const { before, beforeIsKey, after } = message;
        if (before !== undefined && !captured.table.keyless && captured.table.keyChanged(before, after)) {
          return this.#rekey(captured, before, beforeIsKey, after, transaction, ordinal, walStart);
        }
        return this.#write(captured, 'u', before, beforeIsKey, after, transaction, ordinal, walStart);
      }
      case 'delete': {
        const captured = this.#captured(message.relationId);
        if (captured === null) return undefined;
        return this.#write(
          captured,
          'd',
          message.before,
          message.beforeIsKey,
          undefined,
          transaction,
          ordinal,
          walStart,
        );
      }
      case 'truncate':
        return this.#truncate(message.relationIds, transaction, ordinal, walStart);
      case 'message':
        return this.#message(message, transaction, ordinal, walStart);
      default:
        return undefined;
    }
  }

  /** A table as the stream has last described it; null where it is not captured. */
  relationOf(relationId: number): CapturedTable | null | undefined {
    return this.#relations.get(relationId);
  }

  /** Records of rows that a snapshot has read come next. */
  beginSnapshot(transaction: Transaction, mark: SnapshotMark): void {
    this.#envelope.begin(transaction, mark);
  }

  /** `ordinal` goes into the headers. */
  snapshotRecord({ table }: CapturedTable, row: Tuple, transaction: Transaction, ordinal: number): SnapshotRecord {
    this.#value.reset();
    const images: ChangeImages = {
      operation: 'r',
      before: undefined,
      beforeIsKey: false,
      after: row,
      unchangedFrom: undefined,
    };
    this.#envelope.change(this.#value, table, images, transaction.commitLsn, ordinal);
    this.#key.reset();
    if (!table.keyless) table.writeRecordKey(this.#key, row);
    return {
      key: table.keyless ? null : this.#key.copy(),
      value: this.#value.copy(),
      headers: transaction.headers.with(ordinal, []),
    };
  }

  /** Adds it as one of the change at `ordinal` of the transaction. */
  addSnapshotRecord(
    target: Target,
    transaction: Transaction,
    ordinal: number,
    { key, value, headers }: SnapshotRecord,
  ): void | Promise<void> {
    const blob = (bytes: Buffer | null): Blob => ({ bytes, start: 0, end: bytes?.length ?? 0 });
    return this.#add(target, -1, transaction, ordinal, blob(key), blob(value), headers, headers.length);
  }

  #captured(relationId: number): CapturedTable | null {
    const captured = this.#relations.get(relationId);
    if (captured === undefined) throw new Error(`a change of relation ${relationId}, which was not described`);
    return captured;
  }

  #blob(blob: Blob, buffer: JsonBuffer): Blob {
    blob.bytes = buffer.bytes;
    blob.start = 0;
    blob.end = buffer.at;
    return blob;
  }

  #write(
    captured: CapturedTable,
    operation: Operation,
    before: Tuple | undefined,
    beforeIsKey: boolean,
    after: Tuple | undefined,
    transaction: Transaction,
    ordinal: number,
    walStart: Lsn,
    link?: readonly [string, Buffer],
    unchangedFrom = beforeIsKey ? undefined : before,
  ): void | Promise<void> {
    const { table, target } = captured;
    const { definition } = this.#options;
    const transactions = this.#transactions;
    if (transactions !== undefined) this.#place(transactions, table.qualified, transaction, walStart);
    this.#value.reset();
    const missing = this.#envelope.change(
      this.#value,
      table,
      { operation, before, beforeIsKey, after, unchangedFrom },
      walStart,
      ordinal,
    );
    this.#key.reset();
    if (!table.keyless) table.writeRecordKey(this.#key, after ?? before!);
    const key = table.keyless ? nullBlob : this.#blob(this.#keyBlob, this.#key);
    let { bytes, end } = transaction.headers;
    if (missing || link) {
      const more: [string, Buffer | null][] = link ? [[link[0], link[1]]] : [];
      if (missing) more.push(['unchanged', Buffer.from(missing.join(','))]);
      bytes = transaction.headers.with(ordinal, more);
      end = bytes.length;
    } else {
      transaction.headers.ordinal(ordinal);
      end = transaction.headers.end;
    }
    const bare = definition.format === 'after' && operation === 'd';
    const value = bare ? nullBlob : this.#blob(this.#valueBlob, this.#value);
    if (bare && table.keyless) return undefined; // a tombstone of nothing
    const added = this.#add(target, -1, transaction, ordinal, key, value, bytes, end);
    if (operation !== 'd' || bare || table.keyless || !definition.tombstones) return added;
    const tombstone = () => this.#add(target, -1, transaction, ordinal, key, nullBlob, bytes, end);
    return added ? added.then(tombstone) : tombstone();
  }

  async #rekey(
    captured: CapturedTable,
    before: Tuple,
    beforeIsKey: boolean,
    after: Tuple,
    transaction: Transaction,
    ordinal: number,
    walStart: Lsn,
  ): Promise<void> {
    // The tuples are overwritten by the next message only, which waits for this.
    const keyOf = (row: Tuple): Buffer => {
      this.#key.reset();
      captured.table.writeKey(this.#key, row);
      return this.#key.copy();
    };
    const [oldKey, newKey] = [keyOf(before), keyOf(after)];
    await this.#write(captured, 'd', before, beforeIsKey, undefined, transaction, ordinal, walStart, [
      '__debezium.newkey',
      newKey,
    ]);
    const whole = beforeIsKey ? undefined : before;
    await this.#write(
      captured,
      'c',
      undefined,
      false,
      after,
      transaction,
      ordinal,
      walStart,
      ['__debezium.oldkey', oldKey],
      whole,
    );
  }

  /** An event per table, in each of its partitions: what comes after it in any of them is not of the rows before. */
  async #truncate(
    relationIds: readonly number[],
    transaction: Transaction,
    ordinal: number,
    walStart: Lsn,
  ): Promise<void> {
    if (this.#options.definition.format === 'after') return;
    for (const relationId of relationIds) {
      const captured = this.#relations.get(relationId);
      if (!captured) continue;
      const transactions = this.#transactions;
      if (transactions !== undefined) this.#place(transactions, captured.table.qualified, transaction, walStart);
      this.#value.reset();
      const images: ChangeImages = {
        operation: 't',
        before: undefined,
        beforeIsKey: false,
        after: undefined,
        unchangedFrom: undefined,
      };
      this.#envelope.change(this.#value, captured.table, images, walStart, ordinal);
      transaction.headers.ordinal(ordinal);
      const { bytes, end } = transaction.headers;
      const value = this.#blob(this.#valueBlob, this.#value);
      for (let partition = 0; partition < captured.target.partitions.length; partition++) {
        await this.#add(captured.target, partition, transaction, ordinal, nullBlob, value, bytes, end);
      }
    }
  }

  #message(
    message: Message & { kind: 'message' },
    transaction: Transaction,
    ordinal: number,
    walStart: Lsn,
  ): void | Promise<void> {
    const { definition, outlet, onMessage } = this.#options;
    const { prefix } = message;
    if (prefix === ownPrefix || prefix.startsWith(`${ownPrefix}.`)) return onMessage?.(message, transaction, ordinal);
    if (!definition.messages || definition.format === 'after') return undefined;
    const topic = `${definition.prefix}.message`;
    const target = outlet.known(topic);
    if (target === undefined) {
      const made = outlet.target(topic, 1, definition.topicConfig);
      return made.then(() => this.#message(message, transaction, ordinal, walStart));
    }
    const transactions = this.#transactions;
    if (transactions !== undefined) {
      if (!transactions.ready) {
        return transactions.makeTopic().then(() => this.#message(message, transaction, ordinal, walStart));
      }
      this.#place(transactions, messages, transaction, walStart);
    }
    this.#value.reset();
    this.#envelope.message(this.#value, prefix, message.content, walStart, ordinal, definition);
    this.#key.reset();
    if (definition.schemas) this.#key.raw(messageKeyHead);
    this.#key.ascii('{"prefix":');
    this.#key.text(prefix);
    this.#key.ascii(definition.schemas ? '}}' : '}');
    transaction.headers.ordinal(ordinal);
    const { bytes, end } = transaction.headers;
    const key = this.#blob(this.#keyBlob, this.#key);
    return this.#add(target, -1, transaction, ordinal, key, this.#blob(this.#valueBlob, this.#value), bytes, end);
  }

  #outbox(event: OutboxEvent, transaction: Transaction, ordinal: number): void | Promise<void> {
    const { definition, outlet, defaultPartitions } = this.#options;
    const target = outlet.known(event.topic);
    if (target === undefined) {
      const made = outlet.target(event.topic, definition.partitions ?? defaultPartitions, definition.topicConfig);
      return made.then(
        () => this.#outbox(event, transaction, ordinal),
        (error: unknown) => {
          if (!(error instanceof TopicError)) throw error;
          const key: Blob = { bytes: event.key, start: 0, end: event.key?.length ?? 0 };
          return this.#deadLetter(event.topic, transaction, ordinal, key, error);
        },
      );
    }
    const headers = transaction.headers.with(ordinal, event.headers);
    const blob = (bytes: Buffer | null): Blob => ({ bytes, start: 0, end: bytes?.length ?? 0 });
    return this.#add(target, -1, transaction, ordinal, blob(event.key), blob(event.payload), headers, headers.length);
  }

  /** A record that no batch can hold goes to the capture's dead letters, without its value; the others go on. */
  #add(
    target: Target,
    partition: number,
    transaction: Transaction,
    ordinal: number,
    key: Blob,
    value: Blob,
    headers: Buffer,
    headersEnd: number,
  ): void | Promise<void> {
    const { commitLsn, commitMs } = transaction;
    try {
      this.#options.outlet.add(target, partition, commitLsn, ordinal, commitMs, key, value, headers, headersEnd);
    } catch (error) {
      if (!(error instanceof RecordTooLarge)) throw error;
      return this.#deadLetter(target.name, transaction, ordinal, key, error);
    }
    return undefined;
  }

  async #deadLetter(topic: string, transaction: Transaction, ordinal: number, key: Blob, error: Error): Promise<void> {
    const { definition, outlet, onDeadLetter } = this.#options;
    onDeadLetter(topic, error.message);
    const target = await outlet.target(`${definition.prefix}.dead-letter`, 1);
    const headers = transaction.headers.with(ordinal, [
      ['topic', Buffer.from(topic)],
      ['reason', Buffer.from(error.message)],
    ]);
    const small = key.end - key.start < 65_536 ? key : nullBlob;
    outlet.add(target, 0, transaction.commitLsn, ordinal, transaction.commitMs, small, nullBlob, headers);
  }
}

/** What a table that has been dropped since was told apart by, as the stream says. */
function identityOf({ replicaIdentity, columns }: Relation): readonly string[] {
  if (replicaIdentity !== 'default' && replicaIdentity !== 'index') return [];
  return columns.filter(({ isKey }) => isKey).map(({ name }) => name);
}
