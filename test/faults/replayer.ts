// A consumer that keeps tables of a database as what is read from topics in Millrace's plain format: upserts and deletes by
// key. What it has applied and up to which offset commit together, so that whatever it is sent again is passed over.
import assert from 'node:assert/strict';
import kafkajs, { type Consumer, type KafkaMessage } from 'kafkajs';
import pg from 'pg';

export interface ReplayTable {
  readonly name: string;
  /** undefined: rows are added only. */
  readonly key: string | undefined;
}

interface Event {
  readonly op: string;
  readonly data: Record<string, unknown>;
}

export class Replayer {
  readonly #consumer: Consumer;
  readonly #target: pg.Client;
  readonly #tables: ReadonlyMap<string, ReplayTable>;
  readonly #columns = new Map<string, string[]>();
  #turn: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;
  events = 0;

  private constructor(consumer: Consumer, target: pg.Client, tables: ReadonlyMap<string, ReplayTable>) {
    this.#consumer = consumer;
    this.#target = target;
    this.#tables = tables;
  }

  /** `prefix`: of the topics, before the tables' names. They must exist. */
  static async start(
    address: string,
    prefix: string,
    tables: readonly ReplayTable[],
    targetUrl: string,
  ): Promise<Replayer> {
    const target = new pg.Client({ connectionString: targetUrl });
    await target.connect();
    await target.query('CREATE TABLE applied (topic text, partition int, next bigint, PRIMARY KEY (topic, partition))');
    const kafka = new kafkajs.Kafka({
      clientId: 'replay',
      brokers: [address],
      logLevel: kafkajs.logLevel.NOTHING,
      // The broker is killed while it is asked.
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 1000, restartOnFailure: async () => true },
    });
    const consumer = kafka.consumer({ groupId: 'replay', maxWaitTimeInMs: 100, sessionTimeout: 10_000 });
    const replayer = new Replayer(consumer, target, new Map(tables.map(table => [`${prefix}${table.name}`, table])));
    for (const { name } of tables) replayer.#columns.set(name, await columnsOf(target, name));
    await consumer.connect();
    await consumer.subscribe({ topics: [...replayer.#tables.keys()], fromBeginning: true });
    await consumer.run({
      eachBatch: async ({ batch }) => {
        const { topic, partition, messages } = batch;
        // One transaction of the target at a time.
        await replayer.#next(() => replayer.#apply(topic, partition, messages));
      },
    });
    return replayer;
  }

  #next(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch((error: Error) => {
      this.#failure ??= error;
    });
    return turn;
  }

  /** Where it is in each partition; throws what it could not apply. */
  async applied(): Promise<ReadonlyMap<string, bigint>> {
    let rows: { topic: string; partition: number; next: string }[] = [];
    await this.#next(async () => {
      ({ rows } = await this.#target.query('SELECT topic, partition, next::text FROM applied'));
    });
    if (this.#failure) throw this.#failure;
    return new Map(rows.map(({ topic, partition, next }) => [`${topic}-${partition}`, BigInt(next)]));
  }

  async stop(): Promise<void> {
    await this.#consumer.disconnect().catch(() => {}); // its broker may be gone
    await this.#target.end();
  }

  async #apply(topic: string, partition: number, messages: readonly KafkaMessage[]): Promise<void> {
    const table = this.#tables.get(topic)!;
    await this.#target.query('BEGIN');
    try {
      const { rows } = await this.#target.query<{ next: string }>(
        `INSERT INTO applied VALUES ($1, $2, 0) ON CONFLICT (topic, partition) DO UPDATE SET next = applied.next RETURNING next::text`,
        [topic, partition],
      );
      let next = BigInt(rows[0]!.next);
      const fresh: KafkaMessage[] = [];
      for (const message of messages) {
        const offset = BigInt(message.offset);
        if (offset < next) continue;
        assert.equal(offset, next, `${topic}-${partition} has a hole`);
        fresh.push(message);
        next++;
      }
      if (table.key === undefined) await this.#add(table.name, fresh);
      else await this.#merge(table.name, table.key, fresh);
      await this.#target.query('UPDATE applied SET next = $3 WHERE topic = $1 AND partition = $2', [
        topic,
        partition,
        next,
      ]);
      await this.#target.query('COMMIT');
      this.events += fresh.length;
    } catch (error) {
      await this.#target.query('ROLLBACK');
      throw error;
    }
  }

  async #merge(table: string, key: string, messages: readonly KafkaMessage[]): Promise<void> {
    const newest = new Map<unknown, Record<string, unknown> | undefined>();
    for (const { value } of messages) {
      if (value === null) continue; // a tombstone, behind its delete
      const { op, data } = eventOf(value);
      newest.set(data[key], op === 'd' ? undefined : data);
    }
    const gone = [...newest].flatMap(([name, row]) => (row === undefined ? [name] : []));
    const rows = [...newest.values()].filter(row => row !== undefined);
    if (gone.length > 0) await this.#target.query(`DELETE FROM ${table} WHERE ${key} = ANY ($1)`, [gone]);
    const assignments = this.#columns.get(table)!.map(column => `${column} = excluded.${column}`);
    await this.#insert(table, rows, `ON CONFLICT (${key}) DO UPDATE SET ${assignments.join(', ')}`);
  }

  async #add(table: string, messages: readonly KafkaMessage[]): Promise<void> {
    const rows = messages.map(({ value }) => {
      const { op, data } = eventOf(value!);
      assert.match(op, /^[rc]$/, `${table} is only added to`);
      return data;
    });
    await this.#insert(table, rows, '');
  }

  async #insert(table: string, rows: readonly unknown[], conflict: string): Promise<void> {
    if (rows.length === 0) return;
    await this.#target.query(
      `INSERT INTO ${table} SELECT * FROM jsonb_populate_recordset(NULL::${table}, $1) ${conflict}`,
      [JSON.stringify(rows)],
    );
  }
}

const eventOf = (value: Buffer): Event => JSON.parse(value.toString()) as Event;

async function columnsOf(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname::text AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [table],
  );
  return rows.map(({ name }) => name);
}
