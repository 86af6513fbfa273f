import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { GroupStore, type StoredGroup } from './groups.ts';
import { StorageError } from './write-lane.ts';

let database: TestDatabase;
let store: GroupStore;

before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

beforeEach(async () => {
  await database.pool.query('TRUNCATE kafka.topics, kafka.consumer_groups CASCADE');
  store = new GroupStore({ pool: database.pool, logger: pino({ level: 'silent' }) });
});

function group(groupId: string, generation: number, change: Partial<StoredGroup> = {}): StoredGroup {
  return {
    groupId,
    protocolType: 'consumer',
    generation,
    protocol: 'range',
    leader: 'm-1',
    members: [
      {
        memberId: 'm-1',
        groupInstanceId: 'instance "1"',
        clientId: 'client, {1}',
        clientHost: '::1',
        sessionTimeoutMs: 45_000,
        rebalanceTimeoutMs: 300_000,
        protocols: [
          { name: 'range', metadata: Buffer.from([0, 1, 0xff, 0x5c, 0x22]) },
          { name: 'sticky', metadata: Buffer.alloc(0) },
        ],
        assignment: Buffer.from([0, 0xfe, 0x27]),
      },
    ],
    ...change,
  };
}

const empty = { members: [], protocol: null, leader: null };

async function commitOffset(groupId: string): Promise<void> {
  await database.pool.query(
    `WITH topic AS (INSERT INTO kafka.topics (name, partition_count) VALUES ($1, 1) RETURNING topic_id)
     INSERT INTO kafka.consumer_offsets (group_id, topic_id, partition_id, committed_offset) SELECT $1, topic_id, 0, 1 FROM topic`,
    [groupId],
  );
}

test('a group comes back as it was saved, bytes and all', async () => {
  await store.save(group('a', 1));
  await store.save(group('a', 2));
  await store.save(group('b', 7, { protocolType: 'connect', protocol: null, leader: null }));
  assert.deepEqual(await store.load('a'), group('a', 2));
  assert.equal(await store.load('c'), undefined);
  assert.deepEqual(
    (await store.loadAll()).sort((a, b) => a.groupId.localeCompare(b.groupId)),
    [group('a', 2), group('b', 7, { protocolType: 'connect', protocol: null, leader: null })],
  );
  assert.deepEqual(await store.list(['b', 'c']), [{ groupId: 'b', protocolType: 'connect' }]);
  assert.equal((await store.list()).length, 2);
});

test('members can be read with SQL', async () => {
  await store.save(group('a', 1));
  const { rows } = await database.pool.query(
    `SELECT m ->> 'client_id' AS client, decode(m ->> 'assignment', 'base64') AS assignment
     FROM kafka.consumer_groups, jsonb_array_elements(members) AS m`,
  );
  assert.deepEqual(rows, [{ client: 'client, {1}', assignment: Buffer.from([0, 0xfe, 0x27]) }]);
});

test('a group without members is kept for its offsets only', async () => {
  await commitOffset('used');
  await Promise.all([store.save(group('used', 1)), store.save(group('unused', 1))]);
  await Promise.all([store.save(group('used', 2, empty)), store.save(group('unused', 2, empty))]);
  assert.equal((await store.list()).length, 2);
  await store.dropUnused([]);
  assert.deepEqual(await store.list(), [{ groupId: 'used', protocolType: 'consumer' }]);
  assert.deepEqual(await store.load('used'), group('used', 2, empty));
  assert.deepEqual(await store.loadAll(), []);
  await database.pool.query('DELETE FROM kafka.consumer_offsets');
  await store.dropUnused(['used']);
  assert.equal((await store.list()).length, 1);
  await store.dropUnused([]);
  assert.deepEqual(await store.list(), []);
});

test('of saves that wait together the last of a group wins, and one that cannot be stored fails alone', async () => {
  const other = await database.pool.connect();
  await other.query('BEGIN');
  await other.query('LOCK TABLE kafka.consumer_groups IN SHARE MODE');
  const first = store.save(group('first', 1));
  const saves: Promise<unknown>[] = [first];
  const failures: unknown[] = [];
  for (let generation = 1; generation <= 20; generation++) saves.push(store.save(group('a', generation)));
  saves.push(store.save(group('bad', 1, { protocol: 'nul \0' })).catch(error => failures.push(error)));
  for (let generation = 1; generation <= 20; generation++) saves.push(store.save(group('b', generation)));
  await other.query('COMMIT');
  other.release();
  await Promise.all(saves);
  assert.ok(failures[0] instanceof StorageError && !failures[0].retriable);
  assert.deepEqual(await store.load('a'), group('a', 20));
  assert.deepEqual(await store.load('b'), group('b', 20));
  assert.equal((await store.list()).length, 3);
});

test('deleting tells which groups there were, and follows saves asked for before', async () => {
  const saved = store.save(group('a', 1));
  const deleted = store.delete(['a', 'b']);
  const savedAgain = store.save(group('a', 2));
  await Promise.all([saved, savedAgain]);
  assert.deepEqual(await deleted, new Set(['a']));
  assert.equal((await store.load('a'))?.generation, 2);
});

test('a row that is not as we write it is left out', async () => {
  await store.save(group('a', 1));
  await database.pool.query(
    `INSERT INTO kafka.consumer_groups (group_id, protocol_type, generation, members) VALUES ('odd', '', 1, '[7]')`,
  );
  assert.deepEqual(
    (await store.loadAll()).map(({ groupId }) => groupId),
    ['a'],
  );
  assert.equal(await store.load('odd'), undefined);
});

test('nothing is saved once the term is over', async () => {
  const term = { brokerId: 1, epoch: 2 };
  store = new GroupStore({ pool: database.pool, logger: pino({ level: 'silent' }), term: () => term });
  await assert.rejects(store.save(group('a', 1)), StorageError);
  await database.pool.query(`INSERT INTO kafka.brokers (broker_id, epoch, advertised) VALUES (1, 2, 'here:9092')`);
  await store.save(group('a', 1));
  term.epoch = 1;
  await assert.rejects(store.save(group('a', 2)), StorageError);
  assert.equal((await store.load('a'))?.generation, 1);
});
