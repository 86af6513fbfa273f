import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createDatabase } from '../../test/database.ts';
import { BufferPool } from '../runtime/buffer-pool.ts';
import { CopyEncoder } from './copy.ts';
import { Session } from './session.ts';

const database = await createDatabase({ empty: true });
const session = await Session.open(database.url, { applicationName: 'millrace copy test' });
after(async () => {
  await session.end();
  await database.drop();
});

const copyInto = (table: string) => `COPY ${table} FROM STDIN (FORMAT binary)`;

test('what the encoder writes is what Postgres reads, at every size of value and of slab', async () => {
  await session.execute('CREATE TABLE copied (n int GENERATED ALWAYS AS IDENTITY, a int, b bigint, c bytea)');
  // Around the bounds where values go by reference and where slabs end.
  const size = fc.oneof(fc.nat(300), fc.constantFrom(0, 8191, 8192, 8193, 65_000, 65_536, 200_000));
  const part = size.map(bytes => Buffer.alloc(bytes, bytes % 251));
  const row = fc.record({
    int: fc.integer(),
    long: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    parts: fc.array(part, { maxLength: 4 }),
  });
  const memory = new BufferPool(1024 * 1024); // what one run has written is still in the slabs of the next
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 40 }), async rows => {
      const encoder = new CopyEncoder(memory);
      for (const { int, long, parts } of rows) {
        const bytes = parts.reduce((sum, part) => sum + part.length, 0);
        encoder.row(3, 12 + bytes);
        encoder.int32(int);
        encoder.int64(long);
        encoder.bytes(parts, bytes);
      }
      const payload = encoder.finish();
      await session.execute(`TRUNCATE copied RESTART IDENTITY; ${copyInto('copied (a, b, c)')}`, [payload]);
      payload.release();
      const { rows: found } = await session.query('SELECT a, b, c FROM copied ORDER BY n', []);
      assert.deepEqual(
        found.map(([a, b, c]) => ({ a: a!.readInt32BE(), b: b!.readBigInt64BE(), c })),
        rows.map(({ int, long, parts }) => ({ a: int, b: long, c: Buffer.concat(parts) })),
      );
    }),
    { numRuns: 60 },
  );
});

test('two COPYs travel in one query, between other statements', async () => {
  await session.execute('CREATE TABLE one (n int); CREATE TABLE two (n int)');
  const payload = (...numbers: number[]) => {
    const encoder = new CopyEncoder();
    for (const n of numbers) {
      encoder.row(1, 4);
      encoder.int32(n);
    }
    return encoder.finish();
  };
  await session.execute(`BEGIN; ${copyInto('one')}; UPDATE one SET n = n + 1; ${copyInto('two')}; COMMIT`, [
    payload(1, 2),
    payload(3),
  ]);
  const { rows: sums } = await session.query('SELECT (SELECT sum(n) FROM one)::int, (SELECT sum(n) FROM two)::int', []);
  assert.deepEqual(
    sums[0]!.map(value => value!.readInt32BE()),
    [5, 3],
  );
});

test('a row with a column too few or too many is a mistake that is said', () => {
  const encoder = new CopyEncoder();
  encoder.row(2, 8);
  encoder.int32(1);
  assert.throws(() => encoder.row(2, 8), /the row before lacks 1 columns/);
  assert.throws(() => encoder.finish(), /the last row lacks 1 columns/);
});
