// Tables of every built-in type are captured into topics, and sinks keep twins of them, while rows and columns are changed
// and Millrace, its PostgreSQL and the sinks' own connections are killed. In the end each table and its twin are equal.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { columnsOf, createTypes, randomValues, type TypedColumn } from '../twin-types.ts';
import { type Random, randomFrom } from './random.ts';
import { TestServer } from './server.ts';
import { endSessions, eventually, strikeServer } from './strike.ts';

const allFaults = [
  'broker',
  'broker',
  'postgres',
  'postmaster',
  'backend',
  'sinks',
  'walsender',
  'both',
  'stop',
] as const;
export type TwinFault = (typeof allFaults)[number];

export interface TwinRounds {
  readonly seed: number;
  readonly rounds: number;
  /** One for each round, in turn; without them any. */
  readonly faults?: readonly TwinFault[];
  readonly say?: (line: string) => void;
}

export interface TwinRoundsResult {
  readonly statements: number;
  readonly added: number;
  readonly dropped: number;
  /** Of all tables in the end. */
  readonly rows: number;
}

interface Table {
  readonly name: string;
  readonly capture: object;
  readonly format: 'plain' | 'debezium';
  /** What columns are added of: in plain a sink makes them by their values, with schemas by their types. */
  readonly addable: readonly (readonly [type: string, value: string])[];
  /** As they are now; a dropped one may still be here while the answer to its DDL is not known. */
  columns: TypedColumn[];
  /** Changes that may still be made in this round. */
  left: number;
  statements: number;
  added: number;
  dropped: number;
}

/** Of ids; rows that are inserted have those of the lower half. */
const maxId = 400;
/** Of each table: who is killed for long on a slow machine has no more to catch up with. */
const changesPerRound = 15;

const newTables = (): Table[] => {
  const counts = { left: 0, statements: 0, added: 0, dropped: 0 };
  const byValue = [
    ['int8', 'n * 3'],
    ['text', `'text ' || n`],
    ['bool', 'n % 2 = 0'],
  ] as const;
  const byType = [
    ...byValue,
    ['int4', 'n'],
    ['float8', 'n / 7.0'],
    ['date', `'2024-02-29'::date + n % 100`],
    ['timestamptz', 'now()'],
    ['uuid', 'gen_random_uuid()'],
    ['bytea', 'int4send(n)'],
  ] as const;
  return [
    { name: 'plain', capture: {}, format: 'plain', addable: byValue, columns: columnsOf('plain'), ...counts },
    {
      name: 'envelopes',
      capture: { schemas: true },
      format: 'debezium',
      addable: byType,
      columns: columnsOf('debezium'),
      ...counts,
    },
  ];
};

/** Throws where a twin is not what its table is. */
export async function twinRounds({ seed, rounds, faults, say = () => {} }: TwinRounds): Promise<TwinRoundsResult> {
  const random = randomFrom(seed);
  const tables = newTables();
  const server = await TestServer.start({ settings: { 'log.level': 'warn', 'num.partitions': '3' } });
  try {
    await setUp(server, tables);
    let writing = true;
    const writers = Promise.all(
      tables.map((table, i) => write(server, table, randomFrom(seed + i + 1), () => writing)),
    );
    writers.catch(() => {}); // told when it is waited for
    for (let round = 0; round < rounds; round++) {
      for (const table of tables) table.left = changesPerRound;
      await delay(300 + random.below(1200)); // when to kill: nothing is waited for
      const fault = faults ? faults[round % faults.length]! : random.pick(allFaults);
      say(`round ${round}: ${fault}`);
      await strike(server, fault, random);
    }
    await delay(300);
    writing = false;
    await writers;
    let rows = 0;
    for (const table of tables) rows += await check(server, table);
    const sum = (of: (table: Table) => number): number => tables.reduce((total, table) => total + of(table), 0);
    return { statements: sum(t => t.statements), added: sum(t => t.added), dropped: sum(t => t.dropped), rows };
  } finally {
    await server.remove();
  }
}

async function setUp(server: TestServer, tables: readonly Table[]): Promise<void> {
  const client = await server.sql();
  await client.query(`${createTypes}; CREATE SCHEMA twin`);
  for (const { name, columns } of tables) {
    const body = columns.map(column => `${column.name} ${column.type}`).join(', ');
    for (const schema of ['public', 'twin']) {
      await client.query(`CREATE TABLE ${schema}.${name} (id int, part int, ${body}, PRIMARY KEY (id, part))`);
    }
  }
  await client.end();
  for (const { name, capture, format } of tables) {
    await make(server, 'captures', name, { tables: [`public.${name}`], format, partitions: 3, ...capture });
    await make(server, 'sinks', name, {
      topics: [`${name}.public.*`],
      table: 'twin.{1}',
      format,
      evolve: true,
      batchRows: 200,
      lingerMs: 5,
    });
  }
}

async function make(server: TestServer, kind: 'captures' | 'sinks', name: string, definition: object): Promise<void> {
  const answer = await fetch(`${server.http}/api/${kind}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name, definition }),
  });
  assert.equal(answer.status, 201, await answer.text());
}

async function strike(server: TestServer, fault: TwinFault, random: Random): Promise<void> {
  if (fault === 'sinks') await endSessions(server, `application_name = 'millrace sink'`);
  else if (fault === 'walsender') await endSessions(server, `backend_type = 'walsender'`);
  else await strikeServer(server, fault, random);
}

/** Until it is told to stop. A statement that fails or whose answer is lost is left at that: the tables say what is. */
async function write(server: TestServer, table: Table, random: Random, goOn: () => boolean): Promise<void> {
  while (goOn()) {
    await eventually(server, async client => {
      for (; goOn(); await delay(random.below(30))) {
        if (table.left <= 0) continue;
        table.left--;
        table.columns = await columnsNow(client, table);
        try {
          if (random.below(12) === 0) await alter(client, table, random);
          else await change(client, table, random);
          table.statements++;
        } catch (error) {
          // Keys that meet; anything else is the connection.
          if (!(error instanceof pg.DatabaseError) || error.code !== '23505') throw error;
        }
      }
    });
  }
}

/** Those that there are, whatever was not answered. */
async function columnsNow(client: pg.Client, { name, columns }: Table): Promise<TypedColumn[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [`public.${name}`],
  );
  const there = new Set(rows.map(row => row.name));
  return columns.filter(column => there.has(column.name));
}

async function alter(client: pg.Client, table: Table, random: Random): Promise<void> {
  const { name, columns } = table;
  if (columns.length > 40 && random.below(2) === 0) {
    await client.query(`ALTER TABLE public.${name} DROP COLUMN ${random.pick(columns).name}`);
    table.dropped++;
    return;
  }
  const [type, value] = random.pick(table.addable);
  const column = { name: `added_${table.added++}`, type, values: [value] };
  // Known before it is there: the answer may be lost.
  columns.push(column);
  await client.query(`ALTER TABLE public.${name} ADD COLUMN ${column.name} ${type}`);
}

async function change(client: pg.Client, { name, columns }: Table, random: Random): Promise<void> {
  const table = `public.${name}`;
  const list = columns.map(column => column.name).join(', ');
  const values = randomValues(columns);
  const some = `id % ${2 + random.below(9)} = ${random.below(2)}`;
  const statements: string[] = [];
  for (let left = 1 + random.below(3); left > 0; left--) {
    switch (random.below(6)) {
      case 0:
        statements.push(`DELETE FROM ${table} WHERE ${some}`);
        break;
      case 1: {
        const { name: column, type, values: of } = random.pick(columns);
        statements.push(
          `UPDATE ${table} SET ${column} = (SELECT (${random.pick(of)})::${type} FROM (SELECT id AS n) x) WHERE ${some}`,
        );
        break;
      }
      case 2:
        statements.push(`UPDATE ${table} SET id = ${maxId} - id WHERE id <> ${maxId / 2} AND ${some}
          AND NOT EXISTS (SELECT FROM ${table} o WHERE o.id = ${maxId} - ${name}.id AND o.part = ${name}.part)`);
        break;
      case 3:
        statements.push(`UPDATE ${table} SET (${list}) = (SELECT ${values} FROM (SELECT id AS n) x) WHERE ${some}`);
        break;
      default: {
        const from = 1 + random.below(maxId / 2 - 50);
        statements.push(`INSERT INTO ${table} (id, part, ${list})
          SELECT n, n % 3, ${values} FROM generate_series(${from}, ${from + random.below(50)}) n ON CONFLICT DO NOTHING`);
      }
    }
  }
  await client.query(statements.join('; '));
}

async function check(server: TestServer, table: Table): Promise<number> {
  const { name } = table;
  const wanted = await eventually(server, async client => {
    table.columns = await columnsNow(client, table);
    return stateOf(client, 'public', table, new Set(table.columns.map(column => column.name)));
  });
  for (const deadline = Date.now() + 180_000; ; await delay(100)) {
    const found = await eventually(server, async client =>
      stateOf(client, 'twin', table, await columnsOfTwin(client, name)),
    );
    if (found.sum === wanted.sum) return wanted.rows;
    const answer = await fetch(`${server.http}/api/sinks/${name}`);
    const { state, reason } = (await answer.json()) as { state: string; reason?: string };
    assert.notEqual(state, 'failed', `${name}: ${reason}`);
    if (Date.now() > deadline) {
      const differing = await eventually(server, client => differences(client, table));
      assert.fail(
        `${name} and its twin differ: ${JSON.stringify(differing)}; the sink is ${state}, ${reason}; ${server.log.slice(-2000)}`,
      );
    }
  }
}

async function columnsOfTwin(client: pg.Client, name: string): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [`twin.${name}`],
  );
  return new Set(rows.map(row => row.name));
}

/** Of the columns that the table has now. One that has never had a value is not in the twin. */
async function stateOf(
  client: pg.Client,
  schema: string,
  { name, columns }: Table,
  there: ReadonlySet<string>,
): Promise<{ rows: number; sum: string }> {
  const list = columns.map(column => (there.has(column.name) ? `${column.name}::text` : 'NULL'));
  const { rows } = await client.query<{ rows: number; sum: string }>(
    `SELECT count(*)::int AS rows, coalesce(md5(string_agg(ROW(id, part, ${list.join(', ')})::text, E'\\n' ORDER BY id, part)), '') AS sum
     FROM ${schema}.${name}`,
  );
  return rows[0]!;
}

async function differences(client: pg.Client, { name, columns }: Table): Promise<unknown[]> {
  const there = await columnsOfTwin(client, name);
  const found: unknown[] = [];
  for (const column of columns.map(({ name: of }) => of).filter(of => there.has(of))) {
    const { rows } = await client.query(
      `SELECT id, part, a.${column}::text AS source, b.${column}::text AS twin
       FROM public.${name} a FULL JOIN twin.${name} b USING (id, part)
       WHERE a.${column}::text IS DISTINCT FROM b.${column}::text LIMIT 1`,
    );
    if (rows[0]) found.push({ column, ...rows[0] });
  }
  const { rows: alone } = await client.query(
    `SELECT id, part, a.ctid IS NULL AS "only in the twin" FROM public.${name} a FULL JOIN twin.${name} b USING (id, part)
     WHERE a.ctid IS NULL OR b.ctid IS NULL LIMIT 3`,
  );
  return [...found, ...alone];
}
