import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { eventually, openLog } from '../../test/open-log.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { type TopicChange, TopicError, Topics } from './topics.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());
beforeEach(() => database.pool.query('DELETE FROM kafka.topics'));

const plain = (name: string, partitionCount = 1) => ({ name, partitionCount, config: {} });
const code = (expected: ErrorCode) => (error: unknown) => error instanceof TopicError && error.code === expected;

async function partitionsOf(name: string): Promise<number[]> {
  const { rows } = await database.pool.query<{ partition_id: number }>(
    `SELECT partition_id FROM kafka.partitions JOIN kafka.topics USING (topic_id) WHERE name = $1 ORDER BY 1`,
    [name],
  );
  return rows.map(row => row.partition_id);
}

test('a topic is in the database and the map, and a later load finds it the same', async () => {
  const topics = await Topics.load(database.pool);
  const topic = await topics.create({ name: 'orders', partitionCount: 3, config: { 'retention.ms': '5' } });
  assert.match(topic.uuid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.deepEqual(await partitionsOf('orders'), [0, 1, 2]);
  assert.equal(topics.get('orders'), topic);
  assert.equal(topics.byId(topic.id), topic);
  assert.equal(topics.byUuid(topic.uuid), topic);
  assert.deepEqual([...(await Topics.load(database.pool)).all()], [{ ...topic }]);
});

test('of many creates at once of one name, one wins; in another process too', async () => {
  const first = await Topics.load(database.pool);
  const second = await Topics.load(database.pool);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, (_, i) => (i % 2 ? first : second).create(plain('one', 2))),
  );
  const lost = outcomes.filter(outcome => outcome.status === 'rejected');
  assert.equal(lost.length, 19);
  assert.ok(lost.every(({ reason }) => code(ErrorCode.TOPIC_ALREADY_EXISTS)(reason)));
  assert.deepEqual(await partitionsOf('one'), [0, 1]);
  // Whoever lost learns of the winner's topic.
  assert.equal(first.get('one')?.uuid, second.get('one')?.uuid);
});

test('names are checked, and may not collide in periods and underscores', async () => {
  const topics = await Topics.load(database.pool);
  await assert.rejects(topics.create(plain('a b')), code(ErrorCode.INVALID_TOPIC_EXCEPTION));
  const dotted = await topics.create(plain('a.b_c'));
  await assert.rejects(topics.create(plain('a_b.c')), code(ErrorCode.INVALID_TOPIC_EXCEPTION));
  await topics.delete(dotted);
  await topics.create(plain('a_b.c'));
});

test('deleting takes what belongs to the topic and dooms its segments', async () => {
  const topics = await Topics.load(database.pool);
  const topic = await topics.create(plain('gone'));
  await database.pool.query('SELECT kafka.create_segment($1, now())', [topic.id]);
  await topics.delete(topic);
  assert.equal(topics.get('gone'), undefined);
  assert.equal(topics.byUuid(topic.uuid), undefined);
  assert.deepEqual(await partitionsOf('gone'), []);
  const { rows } = await database.pool.query('SELECT state FROM kafka.segments WHERE topic_id = $1', [topic.id]);
  assert.deepEqual(rows, [{ state: 'dropping' }]);
  await assert.rejects(topics.delete(topic), code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION));
  const again = await topics.create(plain('gone'));
  assert.notEqual(again.id, topic.id);
  assert.notEqual(again.uuid, topic.uuid);
});

test('a segment made while its topic is deleted is doomed too', async () => {
  const topics = await Topics.load(database.pool);
  const topic = await topics.create(plain('racing'));
  const client = await database.pool.connect();
  await client.query('BEGIN');
  await client.query('SELECT kafka.create_segment($1, now())', [topic.id]);
  const deleting = topics.delete(topic);
  // The deletion waits for the row that create_segment has locked.
  const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
  while ((await database.pool.query(waiting)).rowCount === 0);
  await client.query('COMMIT');
  client.release();
  await deleting;
  const { rows } = await database.pool.query('SELECT state FROM kafka.segments WHERE topic_id = $1', [topic.id]);
  assert.deepEqual(rows, [{ state: 'dropping' }]);
});

test('partitions grow and never shrink', async () => {
  const topics = await Topics.load(database.pool);
  const topic = await topics.create(plain('growing', 2));
  await topics.addPartitions(topic, 5);
  assert.equal(topic.partitionCount, 5);
  assert.deepEqual(await partitionsOf('growing'), [0, 1, 2, 3, 4]);
  for (const count of [5, 4, 0, -1]) {
    await assert.rejects(topics.addPartitions(topic, count), code(ErrorCode.INVALID_PARTITIONS));
  }
  const outcomes = await Promise.allSettled([topics.addPartitions(topic, 7), topics.addPartitions(topic, 6)]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
});

test('configs are changed one after the other: no change is lost', async () => {
  const topics = await Topics.load(database.pool);
  const topic = await topics.create(plain('configured'));
  const before = topic.config;
  await Promise.all(
    ['1', '2', '3'].map(key => topics.setConfig(topic, overrides => ({ ...overrides, [`key.${key}`]: key }))),
  );
  assert.deepEqual(topic.config, { 'key.1': '1', 'key.2': '2', 'key.3': '3' });
  assert.notEqual(topic.config, before);
  assert.deepEqual((await Topics.load(database.pool)).get('configured')?.config, topic.config);
});

test('listeners hear of every change, after it is in the database', async () => {
  const topics = await Topics.load(database.pool);
  const changes: TopicChange[] = [];
  const stop = topics.onChange(change => changes.push(change));
  const topic = await topics.create(plain('heard'));
  await topics.addPartitions(topic, 2);
  await topics.setConfig(topic, () => ({ 'retention.ms': '1' }));
  await topics.delete(topic);
  stop();
  await topics.create(plain('unheard'));
  assert.deepEqual(
    changes.map(({ kind }) => kind),
    ['created', 'altered', 'altered', 'deleted'],
  );
  assert.ok(changes.every(change => change.topic === topic));
});

test('a broker whose term is over changes nothing', async () => {
  await database.pool.query(
    `INSERT INTO kafka.brokers (broker_id, epoch, advertised) VALUES (1, 5, 'x') ON CONFLICT DO NOTHING`,
  );
  let epoch = 5;
  const topics = await Topics.load(database.pool, () => ({ brokerId: 1, epoch }));
  const topic = await topics.create(plain('led'));
  epoch = 4;
  await assert.rejects(topics.create(plain('late')), code(ErrorCode.NOT_CONTROLLER));
  await assert.rejects(topics.addPartitions(topic, 9), code(ErrorCode.NOT_CONTROLLER));
  await assert.rejects(topics.delete(topic), code(ErrorCode.NOT_CONTROLLER));
  await assert.rejects(topics.setPrimary(topic, null), code(ErrorCode.NOT_CONTROLLER));
  assert.deepEqual(
    [...(await Topics.load(database.pool)).all()].map(({ name }) => name),
    ['led'],
  );
  assert.equal(topics.get('late'), undefined);
  assert.equal(topic.partitionCount, 1);
});

test('what a process that was killed is still committing is known when the term has begun', async t => {
  const { pool } = database;
  const before = await openLog(database);
  const topic = await before.createTopic('moving');
  const { epoch } = before.log;
  await before.log.stop();
  const killed = await pool.connect();
  t.after(() => killed.release(true));
  const mirror = await pool.query(`INSERT INTO kafka.mirrors (name) VALUES ('killed') RETURNING mirror_id AS id`);
  await killed.query('BEGIN');
  await killed.query('SELECT kafka.fence(1, $1)', [epoch]);
  await killed.query('UPDATE kafka.topics SET primary_mirror = $1', [mirror.rows[0].id]);
  const starting = openLog(database);
  await eventually(async () => {
    const waits = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'millrace leader'
      AND wait_event_type = 'Lock'`;
    return (await pool.query(waits)).rowCount === 1;
  });
  await killed.query('COMMIT');
  const after = await starting;
  t.after(() => after.log.stop());
  assert.equal(after.topics.byId(topic.id)!.primaryMirror, mirror.rows[0].id);
});

test('a commit that Postgres refuses changes nothing, and the next change works', async () => {
  const topics = await Topics.load(database.pool);
  await database.pool.query(`
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON kafka.topics DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (NEW.name = 'refused') EXECUTE FUNCTION refuse()`);
  await assert.rejects(topics.create(plain('refused')), { message: 'no' });
  assert.equal(topics.get('refused'), undefined);
  await topics.create(plain('taken'));
  await database.pool.query('DROP TRIGGER refuse ON kafka.topics; DROP FUNCTION refuse');
  await topics.create(plain('refused'));
});

test('a change whose answer was lost is looked up before the next change', async () => {
  const topics = await Topics.load(database.pool);
  const kept = await topics.create(plain('kept'));
  // The connection ends inside the transaction; what the broker cannot know is that somebody finished the work.
  await database.pool.query(`
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
    CREATE TRIGGER die BEFORE INSERT ON kafka.topics FOR EACH ROW WHEN (NEW.name LIKE 'lost%') EXECUTE FUNCTION die()`);
  await assert.rejects(topics.create(plain('lost')));
  await database.pool.query('DROP TRIGGER die ON kafka.topics; DROP FUNCTION die');
  await database.pool.query(`INSERT INTO kafka.topics (name, partition_count) VALUES ('lost', 1)`);
  assert.equal(topics.get('lost'), undefined);
  await assert.rejects(topics.create(plain('lost')), code(ErrorCode.TOPIC_ALREADY_EXISTS));
  assert.equal(topics.get('lost')?.name, 'lost');
  assert.equal(topics.get('kept'), kept);
});
