// What both captures are shown: tables of every type, first each case that is known to be hard, then random transactions
// that the same seed makes again.
import { columns, extensions, leftOut, type TypedColumn, typeDefinitions } from './column-values.ts';

const listed = (all: readonly TypedColumn[], rest: (column: TypedColumn) => string = () => ''): string =>
  all.map(column => `"${column.name}" ${column.type}${rest(column)}`).join(', ');

/** Its defaults are of every type that may have one. */
const withDefaults = columns.map(column => ({ ...column, values: column.values.slice(0, 1) }));

export const schemaSql: readonly string[] = [
  ...extensions,
  typeDefinitions,
  `CREATE TABLE every_type (id int PRIMARY KEY, ${listed(columns)})`,
  `CREATE TABLE required (id int PRIMARY KEY, ${listed(columns, () => ' NOT NULL')})`,
  `CREATE TABLE defaults (id bigserial PRIMARY KEY, ${listed(withDefaults, column => ` DEFAULT ${column.values[0]}`)})`,
  `CREATE TABLE computed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), day date NOT NULL DEFAULT current_date,
     local timestamp NOT NULL DEFAULT localtimestamp, clock time NOT NULL DEFAULT localtime, u uuid NOT NULL DEFAULT gen_random_uuid(), n int NOT NULL DEFAULT 1 + 1, m numeric(9,2) NOT NULL DEFAULT -1.5,
     t text NOT NULL DEFAULT upper('x'), f float8 NOT NULL DEFAULT -1, i8 bigint NOT NULL DEFAULT '12', b bool NOT NULL DEFAULT false, z text DEFAULT NULL, x text NOT NULL DEFAULT '', twice int GENERATED ALWAYS AS (2) STORED)`,
  `CREATE TABLE left_out (id int PRIMARY KEY, ${listed(leftOut)})`,
  `CREATE TABLE "Mixed Case" ("Some Id" int, "żółw" text, part text, PRIMARY KEY (part, "Some Id"))`,
  'CREATE TABLE no_key (a int, b text)',
  'ALTER TABLE no_key REPLICA IDENTITY FULL',
  'CREATE TABLE full_row (id int PRIMARY KEY, a text, big text, n int)',
  'ALTER TABLE full_row REPLICA IDENTITY FULL',
  `CREATE TABLE large (id int PRIMARY KEY, big text, bytes bytea, list text[], numbers int[], n int, doc jsonb, required text NOT NULL,
     int2s int2[], int8s int8[], floats float8[], decimals numeric[], uuids uuid[], moments timestamptz[], dates date[], docs jsonb[], bits varbit, price numeric, x xml, blobs bytea[], flags bool[], map hstore, locals timestamp[], clocks time[], moods mood[], oids oid[], prices numeric(9,2)[], ranges int4range[])`,
  'ALTER TABLE large ALTER big SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL, ALTER list SET STORAGE EXTERNAL, ALTER numbers SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL, ALTER required SET STORAGE EXTERNAL, ALTER int2s SET STORAGE EXTERNAL, ALTER int8s SET STORAGE EXTERNAL, ALTER floats SET STORAGE EXTERNAL, ALTER decimals SET STORAGE EXTERNAL, ALTER uuids SET STORAGE EXTERNAL, ALTER moments SET STORAGE EXTERNAL, ALTER dates SET STORAGE EXTERNAL, ALTER docs SET STORAGE EXTERNAL, ALTER bits SET STORAGE EXTERNAL, ALTER price SET STORAGE EXTERNAL, ALTER x SET STORAGE EXTERNAL, ALTER blobs SET STORAGE EXTERNAL, ALTER flags SET STORAGE EXTERNAL, ALTER map SET STORAGE EXTERNAL, ALTER locals SET STORAGE EXTERNAL, ALTER clocks SET STORAGE EXTERNAL, ALTER moods SET STORAGE EXTERNAL, ALTER oids SET STORAGE EXTERNAL, ALTER prices SET STORAGE EXTERNAL, ALTER ranges SET STORAGE EXTERNAL',
  'CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, n int)',
  'CREATE UNIQUE INDEX by_index_code ON by_index (code)',
  'ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code',
  'CREATE TABLE changing (id int PRIMARY KEY, a text)',
  'CREATE TABLE parent (id int PRIMARY KEY)',
  'CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)',
];

/** A generator that the same seed starts again (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** From 0 up to, not including, `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

const row = (table: string, id: number, all: readonly TypedColumn[], value: (column: TypedColumn) => string): string =>
  `INSERT INTO ${table} VALUES (${[id, ...all.map(value)].join(', ')})`;

const big = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)`;
const many = (element: string) => `(SELECT array_agg(${element}) FROM generate_series(1, 2000) i)`;
const largeRow = `INSERT INTO large SELECT 1, ${big}, ${big}::bytea, ARRAY[${big}], ${many('i')}, 1, to_jsonb(${big}), ${big}, ${many('i::int2')}, ${many('i::int8')}, ${many('i::float8')}, ${many('i::numeric')}, ${many('gen_random_uuid()')}, ${many('now()')}, ${many('current_date')}, ${many('to_jsonb(i)')}, repeat('10', 40000)::varbit, repeat('12', 20000)::numeric, ('<a>' || ${big} || '</a>')::xml, ${many('i::text::bytea')}, ${many('true')}, hstore('k', ${big}), ${many('localtimestamp')}, ${many('localtime')}, ${many("'ok'::mood")}, ${many('i::oid')}, ${many('i::numeric(9,2)')}, ${many('int4range(i, i + 5)')}`;

/** What is there before anybody captures: each table in the order of its key. */
export function* rowsOfBefore(): Generator<string> {
  const longest = Math.max(...columns.map(column => column.values.length));
  for (let i = 0; i < longest; i++) {
    yield row('every_type', i + 1, columns, ({ values }) => values[i] ?? 'NULL');
  }
  yield row('required', 1, columns, ({ values }) => values[0]!);
  yield 'INSERT INTO defaults DEFAULT VALUES';
  yield 'INSERT INTO computed DEFAULT VALUES';
  yield row('left_out', 1, leftOut, ({ values }) => values[0]!);
  yield `INSERT INTO "Mixed Case" VALUES (1, 'ą', 'p"1'), (2, NULL, 'p2')`;
  yield `INSERT INTO no_key VALUES (1, 'x'), (1, 'x'), (NULL, NULL)`;
  yield `INSERT INTO full_row VALUES (1, 'x', repeat('long', 10000), 1), (2, NULL, NULL, 2)`;
  yield largeRow;
  yield `INSERT INTO by_index VALUES (1, 'a', 1), (2, 'b', 2)`;
  yield 'INSERT INTO parent VALUES (1), (2), (3); INSERT INTO child VALUES (1, 1)';
}

/** Each entry is one transaction, or several where it says so itself. */
export function* knownCases(): Generator<string> {
  const longest = Math.max(...columns.map(column => column.values.length));
  for (let i = 0; i < longest; i++) {
    yield row('every_type', i + 1, columns, ({ values }) => values[i] ?? 'NULL');
  }
  yield `INSERT INTO every_type (id, c_numeric) VALUES (90, 'NaN')`;
  yield `INSERT INTO every_type (id, c_time) VALUES (91, '24:00:00')`;
  yield `INSERT INTO every_type (id, c_int4_array) VALUES (92, '{{1,2},{3,4}}')`;
  yield `UPDATE every_type SET c_text = 'x' WHERE id = 2; UPDATE every_type SET id = 22 WHERE id = 2; DELETE FROM every_type WHERE id = 22`;
  yield 'ALTER TABLE every_type REPLICA IDENTITY FULL; UPDATE every_type SET c_int2 = 1; DELETE FROM every_type WHERE id = 1; ALTER TABLE every_type REPLICA IDENTITY DEFAULT';
  yield row('required', 1, columns, ({ values }) => values[0]!);
  yield `UPDATE required SET c_text = 'y'; UPDATE required SET id = 2; DELETE FROM required`;
  yield 'INSERT INTO defaults DEFAULT VALUES; UPDATE defaults SET id = 77; DELETE FROM defaults';
  yield `INSERT INTO defaults (${columns.map(({ name }) => `"${name}"`).join(', ')}) VALUES (${columns.map(() => 'NULL').join(', ')})`;
  yield 'INSERT INTO computed DEFAULT VALUES; UPDATE computed SET n = 3; DELETE FROM computed';
  yield row('left_out', 1, leftOut, ({ values }) => values[0]!);
  yield 'DELETE FROM left_out';
  yield `INSERT INTO "Mixed Case" VALUES (1, 'ą', 'p"1'), (2, NULL, 'p2'); UPDATE "Mixed Case" SET part = 'p3' WHERE "Some Id" = 1; DELETE FROM "Mixed Case"`;
  yield `INSERT INTO no_key VALUES (1, 'x'), (1, 'x'), (NULL, NULL); UPDATE no_key SET b = 'y' WHERE a = 1; DELETE FROM no_key`;
  yield `INSERT INTO full_row VALUES (1, 'x', repeat('long', 10000), 1); UPDATE full_row SET n = 2; UPDATE full_row SET id = 3; DELETE FROM full_row`;
  yield largeRow;
  yield 'UPDATE large SET n = 2; UPDATE large SET id = 2; UPDATE large SET big = NULL; DELETE FROM large';
  yield `INSERT INTO by_index VALUES (1, 'a', 1); UPDATE by_index SET n = 2; UPDATE by_index SET code = 'b'; UPDATE by_index SET id = 2; DELETE FROM by_index`;
  yield `SELECT pg_logical_emit_message(true, 'prefix', 'in a transaction'), pg_logical_emit_message(true, 'bytes', '\\x00ff'::bytea)`;
  yield `BEGIN; SELECT pg_logical_emit_message(true, 'gone', 'rolled back'); INSERT INTO parent VALUES (99); ROLLBACK`;
  yield 'INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2)';
  yield 'TRUNCATE parent CASCADE';
  yield 'INSERT INTO parent VALUES (1); TRUNCATE every_type; INSERT INTO parent VALUES (2)';
  yield `INSERT INTO changing VALUES (1, 'a')`;
  yield `ALTER TABLE changing ADD b int NOT NULL DEFAULT 4; INSERT INTO changing VALUES (2, 'b', 5)`;
  yield 'ALTER TABLE changing RENAME a TO c; ALTER TABLE changing ALTER b TYPE bigint; UPDATE changing SET b = 9007199254740993 WHERE id = 1';
  yield 'ALTER TABLE changing DROP c; DELETE FROM changing WHERE id = 2';
  yield `BEGIN; INSERT INTO changing VALUES (7, 7); SAVEPOINT a; INSERT INTO changing VALUES (8, 8); ROLLBACK TO a; SAVEPOINT b; INSERT INTO changing VALUES (9, 9); RELEASE b; COMMIT`;
  // Streamed before its commit, where the server decodes with little memory.
  yield `INSERT INTO full_row SELECT i, md5(i::text), NULL, i FROM generate_series(1000, 3000) i`;
  yield 'UPDATE full_row SET n = n + 1 WHERE id < 1500; DELETE FROM full_row';
}

/** Transactions of random rows in `every_type`, `full_row` and "Mixed Case". */
export function* randomTransactions(seed: number, count: number): Generator<string> {
  const random = new Random(seed);
  yield `SELECT setseed(${random.below(1000) / 1000})`;
  const value = (column: TypedColumn): string => {
    if (random.below(8) === 0) return 'NULL';
    return column.random !== undefined && random.below(3) > 0 ? column.random : random.of(column.values);
  };
  const id = (): number => random.below(40) + 100;
  const upsert = (): string => {
    const chosen = columns.filter(() => random.below(5) === 0);
    const names = ['id', ...chosen.map(({ name }) => `"${name}"`)].join(', ');
    const set = chosen.map(({ name }) => `"${name}" = excluded."${name}"`).join(', ');
    const conflict = set === '' ? 'NOTHING' : `UPDATE SET ${set}`;
    return `INSERT INTO every_type (${names}) VALUES (${[id(), ...chosen.map(value)].join(', ')}) ON CONFLICT (id) DO ${conflict}`;
  };
  const statements: readonly (() => string)[] = [
    upsert,
    upsert,
    upsert,
    () => `DELETE FROM every_type WHERE id = ${id()}`,
    () => `UPDATE every_type SET id = id + 1000 WHERE id = ${id()}`,
    () => `DELETE FROM every_type WHERE id >= 1000`,
    () =>
      `INSERT INTO full_row SELECT ${id()}, md5(random()::text), NULL, ${id()} ON CONFLICT (id) DO UPDATE SET a = excluded.a`,
    () => `UPDATE full_row SET n = n + 1 WHERE id % 7 = ${random.below(7)}`,
    () => `DELETE FROM full_row WHERE id = ${id()}`,
    () => `INSERT INTO "Mixed Case" VALUES (${id()}, md5(random()::text), 'p') ON CONFLICT DO NOTHING`,
    () => `UPDATE "Mixed Case" SET "Some Id" = "Some Id" + 1000 WHERE "Some Id" = ${id()}`,
    () => `DELETE FROM "Mixed Case" WHERE "Some Id" % 5 = ${random.below(5)}`,
    () => `SELECT pg_logical_emit_message(true, 'random', '${random.below(1e9)}')`,
  ];
  for (let i = 0; i < count; i++) {
    const length = 1 + random.below(5);
    yield Array.from({ length }, () => random.of(statements)()).join('; ');
  }
}
