import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createDatabase } from '../../test/database.ts';
import { CopyEncoder } from './copy.ts';
import { ConnectionLostError, type PostgresError, Session } from './session.ts';

const database = await createDatabase({ empty: true });
after(() => database.drop());

const open = (onLost?: (error: ConnectionLostError) => void) =>
  Session.open(database.url, { applicationName: 'millrace session test', ...(onLost ? { onLost } : {}) });
const kill = (session: Session) => database.pool.query('SELECT pg_terminate_backend($1, 5000)', [session.processId]);
const text = (value: Buffer | null | undefined) => value?.toString();

function numbers(...values: number[]) {
  const encoder = new CopyEncoder();
  for (const value of values) {
    encoder.row(1, 4);
    encoder.int32(value);
  }
  return encoder.finish();
}

test('pipelined requests are answered in order, failures included', async () => {
  const session = await open();
  await session.execute('CREATE TABLE ordered (n int PRIMARY KEY)');
  const copy = 'COPY ordered FROM STDIN (FORMAT binary)';
  const outcomes = await Promise.allSettled([
    session.execute(copy, [numbers(1, 2)]),
    session.execute(copy, [numbers(3, 1)]),
    session.query('SELECT count(*)::text FROM ordered WHERE n < $1', [10]),
    session.query('SELECT 1 / $1::int', [0]),
    session.execute('SELECT no_such_function()', []),
    session.execute(`BEGIN; SELECT 1 / 0; ${copy}; COMMIT`, [numbers(9)]),
    session.execute('ROLLBACK'),
    session.query('SELECT count(*)::text FROM ordered WHERE n < $1', [10]),
  ]);
  const codes = outcomes.map(outcome =>
    outcome.status === 'rejected' ? (outcome.reason as PostgresError).code : text(outcome.value?.rows[0]?.[0]),
  );
  assert.deepEqual(codes, [undefined, '23505', '2', '22012', '42883', '22012', undefined, '2']);
  await session.end();
});

test('values of every size come back, nulls and empty ones told apart', async () => {
  const session = await open();
  const sizes = [0, 1, 100, 65_531, 65_536, 1_000_000, 20_000_000];
  const rows = await Promise.all(
    sizes.map(size =>
      session.query(`SELECT NULL, ''::bytea, convert_to(repeat('x', $1), 'UTF8'), $2::text`, [size, null]),
    ),
  );
  for (const [
    i,
    {
      rows: [row],
    },
  ] of rows.entries()) {
    assert.equal(row![0], null);
    assert.equal(row![1]!.length, 0);
    assert.ok(row![2]!.equals(Buffer.alloc(sizes[i]!, 'x')));
    assert.equal(row![3], null);
  }
  await session.end();
});

test('more statements than are kept prepared still work, each again and again', async () => {
  const session = await open();
  for (let round = 0; round < 2; round++) {
    const results = await Promise.all(
      Array.from({ length: 600 }, (_, i) => session.query(`SELECT ${i} + $1::int`, [round])),
    );
    results.forEach(({ rows: [row] }, i) => {
      assert.equal(row![0]!.readInt32BE(), i + round);
    });
  }
  const {
    rows: [count],
  } = await session.query('SELECT count(*)::int FROM pg_prepared_statements', []);
  assert.ok(count![0]!.readInt32BE() <= 257);
  await session.end();
});

test('a statement whose preparation failed does not spoil its name', async () => {
  const session = await open();
  const sql = 'SELECT n FROM made_later WHERE n = $1';
  await assert.rejects(session.query(sql, [1]), { code: '42P01' });
  await session.execute('CREATE TABLE made_later (n int); INSERT INTO made_later VALUES (1)');
  assert.equal((await session.query(sql, [1])).rows[0]![0]!.readInt32BE(), 1);
  await session.end();
});

test('when its backend is killed, everything waiting learns that the outcome is unknown, once', async () => {
  let losses = 0;
  const session = await open(() => losses++);
  const waiting = Promise.allSettled([session.query('SELECT pg_sleep(600)', []), session.execute('SELECT 1')]);
  await kill(session);
  for (const outcome of await waiting) {
    assert.equal(outcome.status, 'rejected');
    assert.ok(outcome.reason instanceof ConnectionLostError);
  }
  assert.ok(session.lost);
  assert.equal(losses, 1);
  await assert.rejects(session.execute('SELECT 1'), ConnectionLostError);
});

test('an idle session that is killed says so', async () => {
  let tell: (error: ConnectionLostError) => void = () => {};
  const told = new Promise<ConnectionLostError>(resolve => {
    tell = resolve;
  });
  const session = await open(error => tell(error));
  await kill(session);
  assert.match((await told).message, /lost the connection to Postgres/);
  assert.ok(session.lost);
});

test('ending waits for the answers, and is no loss', async () => {
  let losses = 0;
  const session = await open(() => losses++);
  const answer = session.query('SELECT pg_sleep(0.05), 7', []);
  await session.end();
  assert.equal((await answer).rows[0]![1]!.readInt32BE(), 7);
  assert.equal(losses, 0);
  await assert.rejects(session.execute('SELECT 1'), ConnectionLostError);
});
