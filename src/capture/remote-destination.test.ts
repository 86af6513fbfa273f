// The remote target with what crashes leave behind: requests that arrive late, answers that were lost, partitions that
// have grown, been emptied or belong to others as well. The broker is scripted (test/scripted-broker.ts).
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { ScriptedBroker } from '../../test/scripted-broker.ts';
import type { Lsn } from '../postgres/lsn.ts';
import { decodeBatch } from '../protocol/compression.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import { replaceRecords } from '../protocol/record-batch.ts';
import { buildBatch } from '../protocol/records.ts';
import { WriteLane } from '../storage/write-lane.ts';
import { RemoteDestination } from './remote-destination.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

/** In a batch's header. */
const recordCountAt = 57;
const lsn = (value: number): Lsn => BigInt(value) as Lsn;
const at = (commit: number, ordinal = 0, partitionCount = 1) => ({ commitLsn: lsn(commit), ordinal, partitionCount });

/** Records of the changes (commit, 0), (commit, 1), … */
const changes = (commit: number, ...values: string[]): Buffer =>
  buildBatch({
    records: values.map((value, ordinal) => ({
      timestamp: 0n,
      value: Buffer.from(value),
      headers: [
        { key: 'commit_lsn', value: Buffer.from(`0/${commit.toString(16)}`) },
        { key: 'ordinal', value: Buffer.from(String(ordinal)) },
      ],
    })),
  });

interface Stage {
  readonly broker: ScriptedBroker;
  /** Another session of the capture; those before are over, as after a kill -9. */
  session(confirmed?: number): Promise<RemoteDestination>;
  /** Notes progress, as a capture does twice a second. */
  note(session: RemoteDestination): Promise<void>;
  values(partition?: number): Promise<string[]>;
}

async function stage(t: TestContext, partitions = 1): Promise<Stage> {
  const broker = await ScriptedBroker.start();
  broker.create('t', partitions);
  const { rows } = await database.pool.query<{ id: number }>(
    'INSERT INTO kafka.captures (name, slot_name) VALUES ($1, $1) RETURNING capture_id AS id',
    [`c${Math.random().toString(36).slice(2)}`],
  );
  const lane = new WriteLane(database.pool);
  const sessions: RemoteDestination[] = [];
  t.after(async () => {
    for (const session of sessions) session.abandon();
    await broker.stop();
  });
  return {
    broker,
    async session(confirmed = 0) {
      for (const session of sessions) session.abandon();
      const session = new RemoteDestination({
        captureId: rows[0]!.id,
        name: 'c',
        lane,
        cluster: { bootstrap: [broker.address], clientId: 'test' },
        createTopics: true,
        replicationFactor: -1,
        confirmed: lsn(confirmed),
        logger: pino({ level: 'silent' }),
      });
      sessions.push(session);
      await session.load();
      return session;
    },
    note: session => lane.transaction(client => session.note(client)),
    async values(partition = 0) {
      const { batches } = broker.topics.get('t')![partition]!;
      const records = await Promise.all(batches.map(batch => decodeBatch(batch, 2 ** 20)));
      return records.flat().map(({ value }) => value!.toString());
    },
  };
}

const open = (session: RemoteDestination) => session.open('t', 1, {});

test('after a crash the end of the partition tells what had arrived, noted or not', async t => {
  const { session, note, values } = await stage(t);
  const first = await session();
  const place = await open(first);
  assert.deepEqual(place.stored, []);
  await first.append(place, 0, changes(0x10, 'a', 'b'), at(0x10, 1));
  await note(first);
  await first.append(place, 0, changes(0x20, 'c'), at(0x20));
  const second = await session();
  const again = await open(second);
  assert.deepEqual(
    again.stored.map(stored => stored && [stored.commitLsn, stored.ordinal]),
    [[0x20n, 0]],
  );
  await second.append(again, 0, changes(0x30, 'd'), at(0x30));
  await second.append(again, 0, changes(0x40, 'e'), at(0x40));
  assert.deepEqual(await values(), ['a', 'b', 'c', 'd', 'e']);
});

test('a late request of a dead session is refused once the partition has gone on', async t => {
  const { broker, session, values } = await stage(t);
  const dead = await session();
  const place = await open(dead);
  await dead.append(place, 0, changes(0x10, 'a'), at(0x10));
  broker.decide = api => (api.key === Produce.key ? 'hold' : 'serve');
  dead.append(place, 0, changes(0x20, 'late', 'late'), at(0x20, 1)).catch(() => {});
  await broker.until(() => broker.held === 1);
  broker.decide = () => 'serve';
  const next = await session();
  await next.append(await open(next), 0, changes(0x20, 'b'), at(0x20));
  broker.release();
  assert.deepEqual(await values(), ['a', 'b']);
});

for (const records of [['late'], ['late', 'late']]) {
  test(`a late request of ${records.length} that comes before ours is found at the end, not doubled`, async t => {
    const { broker, session, values } = await stage(t);
    const dead = await session();
    const place = await open(dead);
    await dead.append(place, 0, changes(0x10, 'a'), at(0x10));
    broker.decide = api => (api.key === Produce.key ? 'hold' : 'serve');
    dead.append(place, 0, changes(0x20, ...records), at(0x20, records.length - 1)).catch(() => {});
    await broker.until(() => broker.held === 1);
    broker.decide = () => 'serve';
    const next = await session();
    const opened = await open(next);
    assert.deepEqual(
      opened.stored.map(stored => stored?.commitLsn),
      [0x10n],
    );
    broker.release();
    // As many records as one of the late requests, with other contents; and what is behind it must not go in.
    const ours = [
      next.append(opened, 0, changes(0x30, 'b'), at(0x30)),
      next.append(opened, 0, changes(0x40, 'c'), at(0x40)),
    ];
    for (const each of ours) await assert.rejects(each);
    const last = await session();
    const found = await open(last);
    assert.deepEqual(
      found.stored.map(stored => stored && [stored.commitLsn, stored.ordinal]),
      [[0x20n, records.length - 1]],
    );
    await last.append(found, 0, changes(0x30, 'b'), at(0x30));
    assert.deepEqual(await values(), ['a', ...records, 'b']);
  });
}

test('records of others behind ours, and batches that compaction has emptied, hide nothing', async t => {
  const { broker, session, values } = await stage(t);
  const first = await session();
  const place = await open(first);
  await first.append(place, 0, changes(0x10, 'a'), at(0x10));
  await first.append(place, 0, changes(0x20, 'b'), at(0x20));
  broker.append('t', 0, buildBatch({ records: [{ timestamp: 0n, value: Buffer.from('theirs') }] }));
  const { batches } = broker.topics.get('t')![0]!;
  batches[1]!.writeInt32BE(0, recordCountAt);
  batches[1] = replaceRecords(batches[1]!, Buffer.alloc(0), 0);
  const second = await session();
  const again = await open(second);
  assert.deepEqual(
    again.stored.map(stored => stored?.commitLsn),
    [0x10n],
  );
  await second.append(again, 0, changes(0x30, 'c'), at(0x30));
  assert.deepEqual(await values(), ['a', 'theirs', 'c']);
});

test('what retention has deleted is known from what was noted', async t => {
  const { broker, session, note, values } = await stage(t);
  const first = await session();
  const place = await open(first);
  await first.append(place, 0, changes(0x10, 'a'), at(0x10));
  await note(first);
  broker.append('t', 0, buildBatch({ records: [{ timestamp: 0n, value: Buffer.from('theirs') }] }));
  broker.topics.get('t')![0]!.batches.length = 0;
  const second = await session();
  const again = await open(second);
  assert.deepEqual(
    again.stored.map(stored => stored?.commitLsn),
    [0x10n],
  );
  await second.append(again, 0, changes(0x20, 'b'), at(0x20));
  assert.deepEqual(await values(), ['b']);
});

test('a target that has lost what it acknowledged ends the capture with the way out', async t => {
  const { broker, session, note } = await stage(t);
  const first = await session();
  const place = await open(first);
  await first.append(place, 0, changes(0x10, 'a'), at(0x10));
  await note(first);
  broker.create('t', 1);
  await assert.rejects(open(await session()), {
    name: 'CaptureError',
    message: /partition 0 of t ends at 0 in the target, which had acknowledged what is before 1 /,
    hint: /^to go on without them, run: DELETE FROM kafka\.capture_remote_positions/,
  });
});

test('partitions that are added are used once nothing can come again', async t => {
  const { broker, session, note } = await stage(t);
  const first = await session();
  await first.append(await open(first), 0, changes(0x10, 'a'), at(0x10));
  await note(first);
  const [only] = broker.topics.get('t')!;
  broker.create('t', 3);
  broker.topics.get('t')![0] = only!;
  assert.equal((await open(await session(0x10))).partitionCount, 1);
  assert.equal((await (await session(0x11)).find('t'))?.partitionCount, 1);
  const grown = await open(await session(0x11));
  assert.equal(grown.partitionCount, 3);
  assert.equal((await open(await session(0x10))).partitionCount, 3);
});

test('sequences that the target refuses again and again are given up for a new producer', async t => {
  const { broker, session, values } = await stage(t);
  const first = await session();
  await first.append(await open(first), 0, changes(0x10, 'a'), at(0x10));
  const [partition] = broker.topics.get('t')!;
  // A batch that was acknowledged and lost, but for its sequence: what no broker should do.
  const own = partition!.producers.snapshot();
  own[0]![3].push([1, 1, '1']);
  partition!.producers.restore(own);
  for (let refused = 0; refused < 5; refused++) {
    const next = await session();
    await assert.rejects(next.append(await open(next), 0, changes(0x20, 'b', 'c'), at(0x20, 1)), {
      code: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    });
  }
  const last = await session();
  await last.append(await open(last), 0, changes(0x20, 'b', 'c'), at(0x20, 1));
  assert.deepEqual(await values(), ['a', 'b', 'c']);
  const after = await session();
  const found = await open(after);
  assert.deepEqual(
    found.stored.map(stored => stored && [stored.commitLsn, stored.ordinal]),
    [[0x20n, 1]],
  );
});

test('topics are made where that is allowed', async t => {
  const { broker, session } = await stage(t);
  const one = await session();
  assert.equal(await one.find('new'), undefined);
  assert.equal((await one.open('new', -1, {})).partitionCount, 2);
  assert.equal(broker.topics.get('new')?.length, 2);
  const [a, b] = await Promise.all([one.open('other', 4, {}), one.open('other', 4, {})]);
  assert.equal(a, b);
  assert.equal(one.known('other'), a);
});
