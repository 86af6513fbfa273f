import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openSinkRig, type SinkRig } from '../../test/sink-rig.ts';
import { NewKeys } from './new-keys.ts';

test('a key that was there puts the next try off, longer each time, until keys are new again', () => {
  const keys = new NewKeys();
  const batchesUntilNextTry = (): number => {
    let batches = 0;
    while (!keys.expected()) batches++;
    return batches;
  };
  assert.equal(batchesUntilNextTry(), 0);
  const pauses = Array.from({ length: 10 }, () => {
    keys.refuted();
    return batchesUntilNextTry();
  });
  assert.deepEqual(pauses, [8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
  keys.confirmed();
  keys.refuted();
  assert.equal(batchesUntilNextTry(), 8);
});

describe('COPY of new keys into the table', () => {
  let rig: SinkRig;
  before(async () => {
    rig = await openSinkRig();
  });
  after(() => rig.remove());

  test('give way to ON CONFLICT where a key is there', async () => {
    await rig.query(`CREATE TABLE readings (id int PRIMARY KEY, n int, written_by text DEFAULT 'INSERT')`);
    // Each row tells by which statement it came.
    await rig.query(`CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF current_query() NOT LIKE '%DO UPDATE%' THEN NEW.written_by := 'COPY'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER tell BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION tell()`);
    const topic = await rig.createTopic('readings');
    const sink = await rig.start('readings', { topics: ['readings'] });
    for (const ids of [[1, 2], [2, 3], [4]]) {
      await rig.send(
        topic,
        ids.map(id => ({ key: { id }, value: { n: id * 10 + ids.length } })),
      );
      await sink.caughtUp();
    }
    assert.deepEqual(await rig.query('SELECT id, n, written_by FROM readings ORDER BY id'), [
      { id: 1, n: 12, written_by: 'COPY' },
      { id: 2, n: 22, written_by: 'COPY' },
      { id: 3, n: 32, written_by: 'INSERT' },
      { id: 4, n: 41, written_by: 'INSERT' },
    ]);
    await sink.stop();
  });

  test('keeps the order of writes and deletes, whatever is new', async () => {
    await rig.query('CREATE TABLE kept (id int PRIMARY KEY, n int, note text)');
    const topic = await rig.createTopic('kept');
    const write = (id: number, n: number) => ({ key: { id }, value: { n } });
    const remove = (id: number) => ({ key: { id }, value: null });
    const sink = await rig.start('kept', { topics: ['kept'], delete: true });
    for (const messages of [
      [write(1, 1), write(2, 1), remove(1), write(3, 1)],
      [write(4, 1), write(5, 1), remove(4), write(4, 2), remove(5)],
      [write(6, 1), write(6, 2)],
      [remove(6), write(7, 1), { key: { id: 8 }, value: { n: 1, note: 'x' } }, write(7, 2)],
    ]) {
      await rig.send(topic, messages);
      await sink.caughtUp();
    }
    assert.deepEqual(await rig.query('SELECT id, n, note FROM kept ORDER BY id'), [
      { id: 2, n: 1, note: null },
      { id: 3, n: 1, note: null },
      { id: 4, n: 2, note: null },
      { id: 7, n: 2, note: null },
      { id: 8, n: 1, note: 'x' },
    ]);
    await sink.stop();
  });

  test('stages a batch of new keys that has a row that Postgres refuses, and dead-letters that row alone', async () => {
    await rig.query('CREATE TABLE checked (id int PRIMARY KEY, n int CHECK (n < 5))');
    const topic = await rig.createTopic('checked');
    const sink = await rig.start('checked', { topics: ['checked'], errors: 'dead-letter' });
    await rig.send(
      topic,
      [1, 2, 9, 4].map(n => ({ key: { id: n }, value: { n } })),
    );
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT id FROM checked ORDER BY id'), [{ id: 1 }, { id: 2 }, { id: 4 }]);
    assert.equal((await rig.records('checked.dead-letter')).length, 1);
    await sink.stop();
  });

  test('write nothing where the unique index has gone', async () => {
    await rig.query('CREATE TABLE unkeyed (id int PRIMARY KEY, n int)');
    const topic = await rig.createTopic('unkeyed');
    const sink = await rig.start('unkeyed', { topics: ['unkeyed'] });
    await rig.send(topic, [{ key: { id: 1 }, value: { n: 1 } }]);
    await sink.caughtUp();
    await rig.query('ALTER TABLE unkeyed DROP CONSTRAINT unkeyed_pkey');
    await rig.send(topic, [{ key: { id: 1 }, value: { n: 2 } }]);
    await sink.reached('retrying');
    assert.deepEqual(await rig.query('SELECT * FROM unkeyed'), [{ id: 1, n: 1 }]);
    await rig.query('ALTER TABLE unkeyed ADD PRIMARY KEY (id)');
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT * FROM unkeyed'), [{ id: 1, n: 2 }]);
    await sink.stop();
  });
});
