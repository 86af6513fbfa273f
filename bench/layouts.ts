// Three ways to lay out the log of many topics in tables, for bench/layout.ts; docs/decisions/0001 chooses. Each is
// made in a database of its own. Intervals are the days that a topic's batches are split by: 0 and 1 exist when
// the measurement begins, 1 is written to.
import type { Client } from 'pg';
import { migrate } from '../src/postgres/migrate.ts';
import type { Pool } from '../src/postgres/pool.ts';

export interface Leaf {
  readonly table: string;
  /** The column before partition_id, where the leaf holds more than one topic. */
  readonly topicId: number | undefined;
}

export interface Layout {
  readonly name: string;
  readonly what: string;
  prepare(pool: Pool, client: Client): Promise<void>;
  createTopics(client: Client, count: number, partitions: number): Promise<void>;
  /** Makes what an interval's batches of these topics need. */
  createInterval(client: Client, topics: readonly number[], interval: number): Promise<void>;
  leaf(topic: number, interval: number): Leaf;
  /** A table that routes a row to its leaf, where there is one. */
  readonly router: string | undefined;
  /** $1 is a topic's name; answers count and bytes of its batches. */
  readonly sql: string;
  deleteTopic(client: Client, topic: number): Promise<void>;
  dropInterval(client: Client, topics: readonly number[], interval: number): Promise<void>;
}

const columns = `base_offset bigint NOT NULL, last_offset bigint NOT NULL, global_offset bigint NOT NULL,
  max_timestamp bigint NOT NULL, appended_at timestamptz NOT NULL DEFAULT now()`;
const leafOptions = 'WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_threshold = -1)';
const external = (table: string) => `ALTER TABLE ${table} ALTER records SET STORAGE EXTERNAL`;
/** now() is in interval 1. */
const bounds = (interval: number) =>
  [interval - 1, interval].map(days => `date_trunc('day', now()) + interval '${days} day'`) as [string, string];

async function eachInTransaction(client: Client, topics: readonly number[], statements: (topic: number) => string) {
  for (const topic of topics) await client.query(`BEGIN; ${statements(topic)}; COMMIT`);
}

/** The root is partitioned by topic, each topic by time. New leaves are attached, which does not block writers. */
export const partitioned: Layout = {
  name: 'A',
  what: 'one table partitioned by topic, then by time',
  router: 'a.record_batches',
  async prepare(_pool, client) {
    await client.query(`CREATE SCHEMA a; CREATE TABLE a.topics (topic_id int PRIMARY KEY, name text UNIQUE);
      CREATE TABLE a.record_batches (topic_id int NOT NULL, ${columns}, partition_id int NOT NULL, records bytea NOT NULL)
        PARTITION BY LIST (topic_id);
      CREATE INDEX ON a.record_batches (partition_id, last_offset)`);
  },
  async createTopics(client, count) {
    await client.query(`INSERT INTO a.topics SELECT i, 't' || i FROM generate_series(1, $1) i`, [count]);
    const topics = Array.from({ length: count }, (_, i) => i + 1);
    await eachInTransaction(
      client,
      topics,
      id => `CREATE TABLE a.topic_${id} (LIKE a.record_batches INCLUDING DEFAULTS) PARTITION BY RANGE (appended_at);
        ALTER TABLE a.record_batches ATTACH PARTITION a.topic_${id} FOR VALUES IN (${id})`,
    );
  },
  async createInterval(client, topics, interval) {
    const { rows } = await client.query<{ from: string; to: string }>(
      `SELECT (${bounds(interval)[0]})::text AS from, (${bounds(interval)[1]})::text AS to`,
    );
    const { from, to } = rows[0]!;
    await eachInTransaction(
      client,
      topics,
      id => `CREATE TABLE a.leaf_${id}_${interval} (LIKE a.record_batches INCLUDING DEFAULTS) ${leafOptions};
        ${external(`a.leaf_${id}_${interval}`)};
        CREATE UNIQUE INDEX ON a.leaf_${id}_${interval} (partition_id, last_offset);
        ALTER TABLE a.topic_${id} ATTACH PARTITION a.leaf_${id}_${interval} FOR VALUES FROM ('${from}') TO ('${to}')`,
    );
  },
  leaf: (topic, interval) => ({ table: `a.leaf_${topic}_${interval}`, topicId: topic }),
  sql: `SELECT count(*), sum(octet_length(records)) AS bytes
    FROM a.record_batches r JOIN a.topics t USING (topic_id) WHERE t.name = $1`,
  async deleteTopic(client, topic) {
    await client.query(`ALTER TABLE a.record_batches DETACH PARTITION a.topic_${topic} CONCURRENTLY`);
    await client.query(`DROP TABLE a.topic_${topic}`);
  },
  async dropInterval(client, topics, interval) {
    for (const topic of topics) {
      await client.query(`ALTER TABLE a.topic_${topic} DETACH PARTITION a.leaf_${topic}_${interval} CONCURRENTLY`);
      await client.query(`DROP TABLE a.leaf_${topic}_${interval}`);
    }
  },
};

/** What migrations/ make: a table for each topic and interval, listed in kafka.segments, views that look there. */
export const standalone: Layout = {
  name: 'B',
  what: 'a table of its own per topic and time, listed in a catalogue',
  router: undefined,
  prepare: async pool => {
    await migrate(pool);
  },
  async createTopics(client, count, partitions) {
    await client.query(
      `INSERT INTO kafka.topics (name, partition_count) SELECT 't' || i, $2 FROM generate_series(1, $1) i`,
      [count, partitions],
    );
    await client.query(
      `INSERT INTO kafka.partitions (topic_id, partition_id)
       SELECT topic_id, generate_series(0, partition_count - 1) FROM kafka.topics`,
    );
  },
  async createInterval(client, topics) {
    for (const topic of topics) await client.query('SELECT kafka.create_segment($1, now())', [topic]);
  },
  // Segment ids are drawn in the order in which the intervals are made.
  leaf: (topic, interval) => ({ table: `kafka.segment_${interval * standaloneTopics + topic}`, topicId: undefined }),
  sql: `SELECT count(*), sum(bytes) AS bytes FROM kafka.record_batches WHERE topic = $1`,
  async deleteTopic(client, topic) {
    await client.query(`UPDATE kafka.segments SET state = 'dropping' WHERE topic_id = $1`, [topic]);
    for (const interval of [0, 1]) await client.query(`DROP TABLE ${standalone.leaf(topic, interval).table}`);
    await client.query('DELETE FROM kafka.topics WHERE topic_id = $1', [topic]);
  },
  async dropInterval(client, topics, interval) {
    for (const topic of topics) {
      const { table } = standalone.leaf(topic, interval);
      const id = table.replace(/\D+/, '');
      await client.query(`BEGIN; DROP TABLE ${table}; DELETE FROM kafka.segments WHERE segment_id = ${id}; COMMIT`);
    }
  },
};
let standaloneTopics = 0;
export function setTopicCount(count: number): void {
  standaloneTopics = count;
}

/** All topics of a retention class in one table per interval. A deleted topic's bytes stay until the interval goes. */
export const shared: Layout = {
  name: 'C',
  what: 'topics of one retention class share a table per time',
  router: 'c.record_batches',
  async prepare(_pool, client) {
    await client.query(`CREATE SCHEMA c; CREATE TABLE c.topics (topic_id int PRIMARY KEY, name text UNIQUE);
      CREATE TABLE c.record_batches (topic_id int NOT NULL, ${columns}, partition_id int NOT NULL, records bytea NOT NULL)
        PARTITION BY RANGE (appended_at)`);
  },
  async createTopics(client, count) {
    await client.query(`INSERT INTO c.topics SELECT i, 't' || i FROM generate_series(1, $1) i`, [count]);
  },
  async createInterval(client, _topics, interval) {
    const { rows } = await client.query<{ from: string; to: string }>(
      `SELECT (${bounds(interval)[0]})::text AS from, (${bounds(interval)[1]})::text AS to`,
    );
    const table = `c.leaf_${interval}`;
    await client.query(`CREATE TABLE ${table} (LIKE c.record_batches INCLUDING DEFAULTS) ${leafOptions};
      ${external(table)};
      CREATE UNIQUE INDEX ON ${table} (topic_id, partition_id, last_offset);
      ALTER TABLE c.record_batches ATTACH PARTITION ${table} FOR VALUES FROM ('${rows[0]!.from}') TO ('${rows[0]!.to}')`);
  },
  leaf: (topic, interval) => ({ table: `c.leaf_${interval}`, topicId: topic }),
  sql: `SELECT count(*), sum(octet_length(records)) AS bytes
    FROM c.record_batches r JOIN c.topics t USING (topic_id) WHERE t.name = $1`,
  async deleteTopic(client, topic) {
    await client.query('DELETE FROM c.topics WHERE topic_id = $1', [topic]);
  },
  async dropInterval(client, _topics, interval) {
    await client.query(`ALTER TABLE c.record_batches DETACH PARTITION c.leaf_${interval} CONCURRENTLY`);
    await client.query(`DROP TABLE c.leaf_${interval}`);
  },
};
