// The decoder on what real servers write, in every protocol version they have, and on the same bytes damaged.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import type pg from 'pg';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { type Message, PgOutputDecoder, PgOutputError, protocolVersion, type Tuple } from './pgoutput.ts';

let database: TestDatabase;
let sql: pg.PoolClient;
let newestProtocol: number;
const slot = `decoder_${Math.random().toString(36).slice(2)}`;

before(async () => {
  database = await createDatabase();
  sql = await database.pool.connect();
  const { rows } = await sql.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`);
  newestProtocol = protocolVersion(rows[0]!.version);
  await sql.query(`
    CREATE TABLE keyed (id int, part text, note text, big text, PRIMARY KEY (part, id));
    ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE whole (id int, note varchar(10));
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE "Mixed ""Case""" (id int PRIMARY KEY, v numeric(7,3));
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE moods (id int PRIMARY KEY, m mood);
    CREATE PUBLICATION p FOR TABLE keyed, whole, "Mixed ""Case""", moods`);
  await sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
});

after(async () => {
  sql?.release();
  await database?.drop();
});

/** What the slot has, without taking it. */
async function changes(protocol: number, options: Readonly<Record<string, string>> = {}): Promise<Buffer[]> {
  const all = { proto_version: String(protocol), publication_names: 'p', messages: 'true', ...options };
  const { rows } = await sql.query<{ data: Buffer }>(
    `SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, VARIADIC $2)`,
    [slot, Object.entries(all).flat()],
  );
  return rows.map(row => row.data);
}

const forget = () => sql.query('SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())', [slot]);

const textsOf = (tuple: Tuple | undefined) =>
  tuple && Array.from({ length: tuple.length }, (_, i) => (tuple.isUnchanged(i) ? 'unchanged' : tuple.text(i)));

/** Messages with their rows as texts: what can be kept. */
function readAll(data: readonly Buffer[]): object[] {
  const decoder = new PgOutputDecoder();
  return data.map(bytes => {
    const message = decoder.read(bytes);
    if (message.kind === 'insert') return { kind: 'insert', after: textsOf(message.after) };
    if (message.kind === 'update') {
      const { beforeIsKey, before, after } = message;
      return { kind: 'update', beforeIsKey, before: textsOf(before), after: textsOf(after) };
    }
    if (message.kind === 'delete') return { kind: 'delete', key: message.beforeIsKey, before: textsOf(message.before) };
    if (message.kind === 'message') return { ...message, content: message.content.toString() };
    return message;
  });
}

const rowsOf = (messages: readonly object[]) =>
  messages.filter(message => ['insert', 'update', 'delete'].includes((message as Message).kind));

test('rows are as they were written: null, empty, key, whole, unchanged', async () => {
  await sql.query(`BEGIN;
    INSERT INTO keyed VALUES (1, 'a', NULL, repeat('x', 9000)), (2, '', 'żółw', NULL);
    UPDATE keyed SET note = 'n' WHERE id = 1;
    UPDATE keyed SET id = 3 WHERE id = 2;
    DELETE FROM keyed WHERE id = 1;
    INSERT INTO whole VALUES (1, 'one'), (NULL, NULL);
    UPDATE whole SET note = 'two' WHERE id = 1;
    DELETE FROM whole WHERE id IS NULL;
    INSERT INTO "Mixed ""Case""" VALUES (1, 1234.5);
    INSERT INTO moods VALUES (1, 'ok');
    COMMIT`);
  const x = 'x'.repeat(9000);
  for (let protocol = 1; protocol <= newestProtocol; protocol++) {
    const messages = readAll(await changes(protocol));
    assert.deepEqual(rowsOf(messages), [
      { kind: 'insert', after: ['1', 'a', null, x] },
      { kind: 'insert', after: ['2', '', 'żółw', null] },
      { kind: 'update', beforeIsKey: false, before: undefined, after: ['1', 'a', 'n', 'unchanged'] },
      { kind: 'update', beforeIsKey: true, before: ['2', '', null, null], after: ['3', '', 'żółw', null] },
      { kind: 'delete', key: true, before: ['1', 'a', null, null] },
      { kind: 'insert', after: ['1', 'one'] },
      { kind: 'insert', after: [null, null] },
      { kind: 'update', beforeIsKey: false, before: ['1', 'one'], after: ['1', 'two'] },
      { kind: 'delete', key: false, before: [null, null] },
      { kind: 'insert', after: ['1', '1234.500'] },
      { kind: 'insert', after: ['1', 'ok'] },
    ]);
    const relations = (messages as Message[]).filter(message => message.kind === 'relation');
    assert.deepEqual(
      relations.map(({ schema, name, replicaIdentity, columns }) => [
        `${schema}.${name} ${replicaIdentity}`,
        ...columns.map(column => `${column.isKey ? '*' : ''}${column.name}:${column.typeModifier}`),
      ]),
      [
        ['public.keyed default', '*id:-1', '*part:-1', 'note:-1', 'big:-1'],
        ['public.whole full', '*id:-1', '*note:14'],
        ['public.Mixed "Case" default', '*id:-1', `v:${(7 << 16) + 3 + 4}`],
        ['public.moods default', '*id:-1', 'm:-1'],
      ],
    );
    assert.deepEqual(
      (messages as Message[]).filter(message => message.kind === 'type').map(({ schema, name }) => `${schema}.${name}`),
      ['public.mood'],
    );
  }
  await forget();
});

test('transactions, truncates and logical messages', async () => {
  await sql.query(`BEGIN; TRUNCATE keyed, whole RESTART IDENTITY CASCADE;
    SELECT pg_logical_emit_message(true, 'pre fix', 'żółw'); COMMIT`);
  await sql.query(`BEGIN; SELECT pg_logical_emit_message(true, 'gone', ''); ROLLBACK`);
  await sql.query(`SELECT pg_logical_emit_message(false, 'alone', '')`);
  await sql.query(`COMMENT ON TABLE whole IS 'a commit, which flushes the WAL'`);
  const { rows } = await sql.query<{ now: string; lsn: string }>(
    `SELECT (extract(epoch FROM now()) * 1000000)::int8::text AS now, (pg_current_wal_lsn() - '0/0')::text AS lsn`,
  );
  const messages = readAll(await changes(1)).slice(0, 7) as Message[]; // 14 and older tell of the comment's commit
  assert.deepEqual(
    messages.map(({ kind }) => kind),
    ['begin', 'relation', 'relation', 'truncate', 'message', 'commit', 'message'],
  );
  const [begin, , , truncate, message, commit, alone] = messages;
  assert.ok(begin?.kind === 'begin' && commit?.kind === 'commit' && truncate?.kind === 'truncate');
  assert.equal(begin.finalLsn, commit.commitLsn);
  assert.equal(begin.timestamp, commit.timestamp);
  assert.ok(commit.endLsn > commit.commitLsn && commit.endLsn <= BigInt(rows[0]!.lsn));
  assert.ok(BigInt(rows[0]!.now) - begin.timestamp < 60_000_000n && begin.timestamp <= BigInt(rows[0]!.now));
  assert.deepEqual([truncate.relationIds.length, truncate.cascade, truncate.restartIdentity], [2, true, true]);
  assert.ok(message?.kind === 'message' && alone?.kind === 'message');
  assert.deepEqual([message.transactional, message.prefix, String(message.content)], [true, 'pre fix', 'żółw']);
  assert.deepEqual([alone.transactional, alone.prefix, alone.content.length], [false, 'alone', 0]);
  await forget();
});

test('a transaction in progress comes in blocks, in which everything names its subtransaction', async t => {
  if (newestProtocol < 2) return t.skip('the server does not stream');
  await sql.query(`SET logical_decoding_work_mem = '64kB'`);
  await sql.query(`BEGIN;
    INSERT INTO whole SELECT i, 'row' FROM generate_series(1, 3000) i;
    SAVEPOINT s; INSERT INTO whole SELECT i, 'gone' FROM generate_series(1, 3000) i; ROLLBACK TO s;
    SAVEPOINT r; INSERT INTO keyed VALUES (7, 'sub', NULL, NULL); RELEASE r;
    COMMIT`);
  for (let protocol = 2; protocol <= newestProtocol; protocol++) {
    for (const streaming of protocol >= 4 ? ['on', 'parallel'] : ['on']) {
      const decoder = new PgOutputDecoder();
      const rows = new Map<number, number>();
      const aborted = new Set<number>();
      let [top, blocks, committed] = [0, 0, false];
      for (const data of await changes(protocol, { streaming })) {
        const message = decoder.read(data);
        if (message.kind === 'streamStart') {
          assert.equal(message.first, blocks++ === 0);
          top = message.xid;
        } else if (message.kind === 'insert') {
          assert.ok(decoder.streaming && message.xid > 0);
          rows.set(message.xid, (rows.get(message.xid) ?? 0) + 1);
        } else if (message.kind === 'streamAbort') {
          assert.equal(message.xid, top);
          aborted.add(message.subxid);
        } else if (message.kind === 'streamCommit') {
          assert.equal(message.xid, top);
          committed = true;
        }
      }
      assert.ok(blocks > 1 && committed && aborted.size === 1);
      assert.equal(rows.get(top), 3000);
      const kept = [...rows].filter(([xid]) => !aborted.has(xid));
      assert.equal(
        kept.reduce((sum, [, count]) => sum + count, 0),
        3001,
      );
    }
  }
  await sql.query('RESET logical_decoding_work_mem');
  await forget();
});

test('bytes cut short or changed are refused, or are another message: nothing else', async () => {
  await sql.query(`BEGIN; INSERT INTO keyed VALUES (8, 'eight', NULL, 'b'); UPDATE keyed SET part = 'x' WHERE id = 8;
    DELETE FROM keyed WHERE id = 8; TRUNCATE whole; SELECT pg_logical_emit_message(true, 'p', 'content'); COMMIT`);
  const real = await changes(newestProtocol);
  const kinds = new Set(real.map(data => data[0]));
  assert.equal(kinds.size, 8, 'begin, relation, insert, update, delete, truncate, message, commit');
  const reads = (data: Buffer): void => {
    try {
      new PgOutputDecoder().read(data);
    } catch (error) {
      assert.ok(error instanceof PgOutputError, String(error));
    }
  };
  for (const data of real) {
    for (let length = 0; length < data.length; length++) {
      assert.throws(() => new PgOutputDecoder().read(data.subarray(0, length)), PgOutputError);
    }
  }
  fc.assert(
    fc.property(fc.constantFrom(...real), fc.nat(), fc.integer({ min: 0, max: 255 }), (data, place, byte) => {
      const damaged = Buffer.from(data);
      damaged[place % data.length] = byte;
      reads(damaged);
    }),
    { numRuns: 5000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), bytes => reads(Buffer.from(bytes))),
    { numRuns: 2000 },
  );
});
