import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { openPool } from '../postgres/pool.ts';
import { type CommittedOffset, Offsets } from './offsets.ts';
import { StorageError } from './write-lane.ts';

const logger = pino({ level: 'silent' });
let database: TestDatabase;
let offsets: Offsets;
let orders: number;
let payments: number;

before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

beforeEach(async () => {
  await database.pool.query('TRUNCATE kafka.topics, kafka.consumer_groups CASCADE');
  orders = await makeTopic('orders');
  payments = await makeTopic('payments');
  offsets = new Offsets({ pool: database.pool, logger });
});

async function makeTopic(name: string): Promise<number> {
  const { rows } = await database.pool.query<{ topic_id: number }>(
    'INSERT INTO kafka.topics (name, partition_count) VALUES ($1, 8) RETURNING topic_id',
    [name],
  );
  return rows[0]!.topic_id;
}

function at(topicId: number, partition: number, offset: number | bigint, metadata = ''): CommittedOffset {
  return { topicId, partition, offset: BigInt(offset), leaderEpoch: -1, metadata };
}

async function committed(groupId: string): Promise<CommittedOffset[]> {
  return (await offsets.fetch([{ groupId, topicIds: null }])).get(groupId) ?? [];
}

/** Runs `work` while `sql` holds its locks in an open transaction, which then ends with `end`. */
async function during(
  sql: string,
  work: (other: pg.PoolClient) => Promise<void>,
  end: 'COMMIT' | 'ROLLBACK' = 'COMMIT',
): Promise<void> {
  const other = await database.pool.connect();
  try {
    await other.query('BEGIN');
    await other.query(sql);
    await work(other);
    await other.query(end);
  } finally {
    other.release();
  }
}

/** Resolves when a backend of this database waits for a lock. */
async function untilBlocked(): Promise<number> {
  for (;;) {
    const { rows } = await database.pool.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    if (rows[0]) return rows[0].pid;
  }
}

/** Resolves when no other backend of this database is at work. */
async function untilIdle(): Promise<void> {
  for (;;) {
    const { rowCount } = await database.pool.query(
      `SELECT FROM pg_stat_activity
       WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()`,
    );
    if (rowCount === 0) return;
  }
}

const lockOffsets = 'LOCK TABLE kafka.consumer_offsets IN SHARE MODE';

describe('a commit', () => {
  test('is what a fetch finds, and replaces the one before', async () => {
    await offsets.commit('g', [{ ...at(orders, 0, 5), leaderEpoch: 3, metadata: 'note' }, at(payments, 7, 2n ** 62n)]);
    assert.deepEqual(await committed('g'), [
      { topicId: orders, partition: 0, offset: 5n, leaderEpoch: 3, metadata: 'note' },
      at(payments, 7, 2n ** 62n),
    ]);
    await offsets.commit('g', [at(orders, 0, 4)]);
    assert.deepEqual(await committed('g'), [at(orders, 0, 4), at(payments, 7, 2n ** 62n)]);
  });

  test('is acknowledged after COMMIT; what comes meanwhile is one statement, the last of a key wins', async () => {
    const done: number[] = [];
    const commits: Promise<unknown>[] = [];
    await during(lockOffsets, async () => {
      for (let i = 0; i < 1000; i++) {
        const own = at(orders, 0, i);
        const shared = at(payments, 0, i);
        commits.push(
          offsets.commit(`g${i}`, [own]).then(() => done.push(i)),
          offsets.commit('shared', [shared]),
        );
        if (i === 0) await untilBlocked();
      }
      assert.deepEqual(done, []);
      assert.deepEqual(await committed('shared'), []);
    });
    await Promise.all(commits);
    assert.equal(done.length, 1000);
    assert.deepEqual(await committed('shared'), [at(payments, 0, 999)]);
    const { rows } = await database.pool.query<{ transactions: bigint; rows: bigint }>(
      'SELECT count(DISTINCT xmin::text) AS transactions, count(*) AS rows FROM kafka.consumer_offsets',
    );
    assert.deepEqual(rows[0], { transactions: 2n, rows: 1001n });
  });

  test('tells which topics are gone, and commits the others', async () => {
    const gone = await offsets.commit('g', [at(orders, 0, 1), at(987_654, 0, 1), at(payments, 0, 1)]);
    assert.deepEqual([...gone], [987_654]);
    assert.deepEqual(await committed('g'), [at(orders, 0, 1), at(payments, 0, 1)]);
  });

  for (const end of ['COMMIT', 'ROLLBACK'] as const) {
    test(`of a topic that is being deleted waits for the outcome: ${end}`, async () => {
      await offsets.commit('g', [at(orders, 0, 1)]);
      const commits: Promise<ReadonlySet<number>>[] = [];
      await during(
        `DELETE FROM kafka.topics WHERE topic_id = ${orders}`,
        async () => {
          commits.push(
            offsets.commit('g', [at(orders, 0, 2), at(orders, 1, 2)]),
            offsets.commit('h', [at(payments, 0, 2)]),
          );
          await untilBlocked();
        },
        end,
      );
      const [ofOrders, ofPayments] = await Promise.all(commits);
      assert.deepEqual([...ofOrders!], end === 'COMMIT' ? [orders] : []);
      assert.deepEqual([...ofPayments!], []);
      assert.deepEqual(await committed('g'), end === 'COMMIT' ? [] : [at(orders, 0, 2), at(orders, 1, 2)]);
      assert.deepEqual(await committed('h'), [at(payments, 0, 2)]);
    });
  }

  test('that cannot be stored fails alone', async () => {
    const outcome: PromiseSettledResult<unknown>[] = [];
    let settled: Promise<unknown> | undefined;
    await during(lockOffsets, async () => {
      const commits = [offsets.commit('first', [at(orders, 0, 1)])];
      await untilBlocked();
      for (let i = 0; i < 9; i++) commits.push(offsets.commit(i === 5 ? 'g\0' : `g${i}`, [at(orders, 0, i)]));
      settled = Promise.allSettled(commits).then(results => outcome.push(...results));
    });
    await settled;
    const failed = outcome.flatMap((result, i) => (result.status === 'rejected' ? [[i, result.reason]] : []));
    assert.deepEqual(
      failed.map(([i]) => i),
      [6],
    );
    assert.ok(failed[0]![1] instanceof StorageError && !failed[0]![1].retriable);
    assert.equal((await offsets.groups()).length, 9);
  });

  test('is refused when too many wait, and taken again afterwards', async () => {
    offsets = new Offsets({ pool: database.pool, logger, maxQueuedBytes: 10_000 });
    const refused: unknown[] = [];
    const commits: Promise<unknown>[] = [];
    await during(lockOffsets, async () => {
      for (let i = 0; i < 100; i++) {
        commits.push(offsets.commit('g', [at(orders, 0, i)]).catch(error => refused.push(error)));
      }
      await untilBlocked();
    });
    await Promise.all(commits);
    assert.ok(refused.length > 50 && refused.length < 90, `${refused.length} refused`);
    assert.ok(refused.every(error => error instanceof StorageError && error.retriable));
    await offsets.commit('g', [at(orders, 0, 1000)]);
    assert.deepEqual(await committed('g'), [at(orders, 0, 1000)]);
  });

  test('is refused once the term is over', async () => {
    await database.pool.query(
      `INSERT INTO kafka.brokers (broker_id, epoch, advertised) VALUES (1, 4, 'here:9092') ON CONFLICT DO NOTHING`,
    );
    const term = { brokerId: 1, epoch: 4 };
    offsets = new Offsets({ pool: database.pool, logger, term: () => term });
    await offsets.commit('g', [at(orders, 0, 1)]);
    term.epoch = 3;
    await assert.rejects(offsets.commit('g', [at(orders, 0, 2)]), StorageError);
    await assert.rejects(offsets.delete('g', [{ topicId: orders, partition: 0 }]), StorageError);
    assert.deepEqual(await committed('g'), [at(orders, 0, 1)]);
  });
});

describe('when the database fails', () => {
  test('a backend that was ended: the commit fails, the next one works', async () => {
    let failed: Promise<unknown> | undefined;
    await during(lockOffsets, async other => {
      failed = assert.rejects(
        offsets.commit('g', [at(orders, 0, 1)]),
        (error: unknown) => error instanceof StorageError && error.retriable,
      );
      await other.query('SELECT pg_terminate_backend($1)', [await untilBlocked()]);
      await failed;
    });
    await offsets.commit('g', [at(orders, 0, 2)]);
    assert.deepEqual(await committed('g'), [at(orders, 0, 2)]);
  });

  test('a connection lost while its backend goes on: that backend cannot overwrite a later commit', async () => {
    const pool = openPool(database.url, { max: 2, applicationName: 'millrace test lost' });
    const acquired: pg.PoolClient[] = [];
    pool.on('acquire', client => acquired.push(client));
    offsets = new Offsets({ pool, logger });
    await during(`SELECT FROM kafka.topics WHERE topic_id = ${payments} FOR UPDATE`, async () => {
      const first = offsets.commit('g', [at(orders, 0, 1), at(payments, 0, 1)]);
      await untilBlocked();
      const { connection } = acquired[0] as unknown as { connection: { stream: { destroy(): void } } };
      connection.stream.destroy();
      await assert.rejects(first, StorageError);
      await offsets.commit('g', [at(orders, 0, 2)]);
    });
    await untilIdle();
    assert.deepEqual(await committed('g'), [at(orders, 0, 2)]);
    await pool.end();
  });

  test('that is not there: everything fails, and may be tried again', async () => {
    const pool = openPool('postgres://nobody@127.0.0.1:1/nothing', { max: 1, applicationName: 'millrace test none' });
    offsets = new Offsets({ pool, logger });
    const retriable = (error: unknown) => error instanceof StorageError && error.retriable;
    await assert.rejects(offsets.commit('g', [at(orders, 0, 1)]), retriable);
    await assert.rejects(offsets.fetch([{ groupId: 'g', topicIds: null }]), retriable);
    await assert.rejects(offsets.deleteGroups(['g']), retriable);
    await offsets.idle();
    await pool.end();
  });
});

describe('a fetch', () => {
  test('answers several groups, each with what it asks for', async () => {
    await offsets.commit('a', [at(orders, 1, 10), at(orders, 0, 11), at(payments, 0, 12)]);
    await offsets.commit('b', [at(orders, 0, 20), at(payments, 0, 21)]);
    await offsets.commit('c', [at(orders, 0, 30)]);
    const found = await offsets.fetch([
      { groupId: 'a', topicIds: null },
      { groupId: 'b', topicIds: [payments, payments] },
      { groupId: 'c', topicIds: [] },
      { groupId: 'd', topicIds: null },
      { groupId: 'a', topicIds: [orders] },
    ]);
    assert.deepEqual(
      found,
      new Map([
        ['a', [at(orders, 0, 11), at(orders, 1, 10), at(payments, 0, 12)]],
        ['b', [at(payments, 0, 21)]],
      ]),
    );
  });

  test('sees what SQL has changed', async () => {
    await offsets.commit('g', [at(orders, 0, 10)]);
    await database.pool.query(`UPDATE kafka.consumer_offsets SET committed_offset = 3 WHERE group_id = 'g'`);
    assert.deepEqual(await committed('g'), [at(orders, 0, 3)]);
  });

  test('after settled() sees the commits that were under way', async () => {
    let settled: Promise<void> | undefined;
    await during(lockOffsets, async () => {
      void offsets.commit('g', [at(orders, 0, 10)]);
      await untilBlocked();
      settled = offsets.settled();
    });
    await settled;
    assert.deepEqual(await committed('g'), [at(orders, 0, 10)]);
    await offsets.settled();
  });
});

describe('deleting', () => {
  test('single offsets, whole groups, and what a topic had', async () => {
    await offsets.commit('a', [at(orders, 0, 1), at(orders, 1, 1), at(payments, 0, 1)]);
    await offsets.commit('b', [at(orders, 0, 1)]);
    await offsets.delete('a', [
      { topicId: orders, partition: 1 },
      { topicId: payments, partition: 5 },
    ]);
    assert.deepEqual(await committed('a'), [at(orders, 0, 1), at(payments, 0, 1)]);
    assert.deepEqual(await offsets.deleteGroups(['b', 'unknown']), new Set(['b']));
    assert.deepEqual(await offsets.groups(), ['a']);
    assert.deepEqual(await offsets.withOffsets(['a', 'b']), new Set(['a']));
    await database.pool.query('DELETE FROM kafka.topics WHERE topic_id = $1', [orders]);
    assert.deepEqual(await committed('a'), [at(payments, 0, 1)]);
  });

  test('follows the commits asked for before, and precedes those after', async () => {
    const first = offsets.commit('g', [at(orders, 0, 1)]);
    const deleted = offsets.deleteGroups(['g']);
    const last = offsets.commit('g', [at(payments, 0, 1)]);
    await Promise.all([first, last]);
    assert.deepEqual(await deleted, new Set(['g']));
    assert.deepEqual(await committed('g'), [at(payments, 0, 1)]);
  });

  test('every group is found, however many offsets the others have', async () => {
    const many = Array.from({ length: 8 }, (_, partition) => at(orders, partition, 1));
    const names = Array.from({ length: 50 }, (_, i) => `group ${String(i).padStart(2, '0')}`);
    await Promise.all(names.map(name => offsets.commit(name, many)));
    assert.deepEqual((await offsets.groups()).sort(), names);
  });
});

describe('expiry', () => {
  const retentionMs = 60_000;

  async function age(where: string): Promise<void> {
    await database.pool.query(`UPDATE kafka.consumer_offsets SET committed_at = now() - interval '2 minutes' ${where}`);
  }
  async function makeGroup(groupId: string, emptySince: string, members = '[]'): Promise<void> {
    await database.pool.query(
      `INSERT INTO kafka.consumer_groups (group_id, protocol_type, generation, members, updated_at)
       VALUES ($1, 'consumer', 1, $2, now() - $3::interval)`,
      [groupId, members, emptySince],
    );
  }

  test('goes by the commit for groups that only have offsets', async () => {
    await offsets.commit('simple', [at(orders, 0, 1), at(orders, 1, 1)]);
    await age('WHERE partition_id = 0');
    assert.equal(await offsets.expire(retentionMs, [], []), 1);
    assert.deepEqual(await committed('simple'), [at(orders, 1, 1)]);
  });

  test('goes by the time a group became empty for the others, and never takes a newer commit', async () => {
    for (const groupId of ['long empty', 'just empty', 'reset', 'has members', 'live']) {
      await offsets.commit(groupId, [at(orders, 0, 1)]);
      const members = groupId === 'has members' ? '[{}]' : '[]';
      await makeGroup(groupId, groupId === 'just empty' ? '10 seconds' : '2 minutes', members);
    }
    await age(`WHERE group_id <> 'reset'`);
    assert.equal(await offsets.expire(retentionMs, ['live'], []), 1);
    assert.deepEqual((await offsets.groups()).sort(), ['has members', 'just empty', 'live', 'reset']);
  });

  test('takes from live groups what they no longer subscribe to', async () => {
    await offsets.commit('live', [at(orders, 0, 1), at(payments, 0, 1)]);
    await offsets.commit('other', [at(payments, 0, 1)]);
    await age('');
    const live = ['live', 'other'];
    assert.equal(await offsets.expire(retentionMs, live, [{ groupId: 'live', topicIds: [orders] }]), 1);
    assert.deepEqual(await committed('live'), [at(orders, 0, 1)]);
    assert.deepEqual(await committed('other'), [at(payments, 0, 1)]);
    assert.equal(await offsets.expire(retentionMs, live, [{ groupId: 'live', topicIds: [] }]), 1);
  });
});
