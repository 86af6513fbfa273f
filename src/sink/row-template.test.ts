// Records that are taken where they lie, against the same taken the general way: the same rows, byte for byte, and the same
// records refused for the same reasons, whatever is in them.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import * as header from '../protocol/record-batch.ts';
import { RecordPlaces } from '../protocol/record-places.ts';
import { buildBatch } from '../protocol/records.ts';
import { BadRecord } from './bad-record.ts';
import { Batch, type Inlet, type Source } from './batch.ts';
import type { Column, PgType, TargetTable } from './catalogue.ts';
import { ChangeReader } from './change.ts';
import { readDefinition } from './definition.ts';
import { Mapping } from './mapping.ts';
import { RowTemplates } from './row-templates.ts';

const type = (oid: number, name: string, element?: PgType): PgType => ({
  oid,
  name,
  sql: name,
  kind: 'b',
  element,
  base: undefined,
  baseModifier: -1,
  delimiter: ',',
});
const types = {
  uuid: type(2950, 'uuid'),
  int2: type(21, 'int2'),
  int4: type(23, 'int4'),
  int8: type(20, 'int8'),
  float4: type(700, 'float4'),
  float8: type(701, 'float8'),
  numeric: type(1700, 'numeric'),
  bool: type(16, 'bool'),
  text: type(25, 'text'),
  bytea: type(17, 'bytea'),
  date: type(1082, 'date'),
  timestamp: type(1114, 'timestamp'),
  timestamptz: type(1184, 'timestamptz'),
  inet: type(869, 'inet'),
  jsonb: type(3802, 'jsonb'),
};
type TypeName = keyof typeof types;

const tableOf = (columns: readonly Column[], key: readonly string[]): TargetTable => ({
  oid: 1,
  name: { schema: 'public', name: 't' },
  sql: '"public"."t"',
  columns,
  primaryKey: key,
  uniqueKeys: [key],
});
const column = (name: string, type: PgType, notNull = false): Column => ({
  name,
  type,
  modifier: -1,
  notNull,
  hasDefault: false,
  generated: false,
  identityAlways: false,
  collation: undefined,
});

interface Message {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

interface Outcome {
  /** Of each row its columns, by number. */
  readonly rows: Record<number, string>[];
  readonly refused: string[];
  readonly records: number;
  readonly bytes: number;
  readonly offsets: string;
  /** Records that were taken where they lay. */
  readonly quick: number;
}

/** In batches of 20 records, of which a batch of rows takes up to ten. */
function taken(
  table: TargetTable,
  settings: Readonly<Record<string, unknown>>,
  messages: readonly Message[],
  quickly: boolean,
): Outcome {
  const definition = readDefinition('s', { topics: ['t'], table: 't', unknownFields: 'ignore', ...settings });
  const reader = new ChangeReader(definition);
  const mapping = new Mapping(definition, table, 't');
  const inlet = { topic: { partitionCount: 1 }, reader, templates: new RowTemplates(), mapping } as unknown as Inlet;
  const source = { inlet, partition: 0, position: 0n } as unknown as Source;
  const places = new RecordPlaces();
  const outcome = { rows: [] as Record<number, string>[], refused: [] as string[], records: 0, bytes: 0, quick: 0 };
  const offsets: string[] = [];
  const most = { batchRows: 10, batchBytes: 1e9 };
  let batch = new Batch([]);
  const finish = () => {
    outcome.rows.push(...rowsOf(batch));
    outcome.records += batch.records;
    outcome.bytes += batch.bytes;
    for (const { expected, next } of batch.offsets.values()) offsets.push(`${expected}-${next}`);
    batch = new Batch([]);
  };
  const addOne = (raw: Buffer, i: number): void => {
    const record = places.record(i);
    try {
      batch.add(source, record, source.position, raw);
    } catch (error) {
      if (!(error instanceof BadRecord)) throw error;
      outcome.refused.push(`${record.offset}: ${error.message} (${error.column})`);
      batch.addBad({ source, record, error }, source.position, raw);
    }
    source.position = record.offset + 1n;
  };
  for (let from = 0; from < messages.length; from += 20) {
    const records = messages.slice(from, from + 20).map(message => ({ timestamp: 0n, ...message }));
    const raw = buildBatch({ records, baseOffset: BigInt(from) });
    places.read(raw, raw.subarray(header.headerBytes));
    for (let i = 0; i < places.count; ) {
      const many = quickly ? batch.addMany(source, places, i, raw, most) : 0;
      outcome.quick += many;
      i += many;
      source.position = BigInt(from + i);
      if (batch.records >= most.batchRows) finish();
      else if (i < places.count) addOne(raw, i++);
    }
  }
  finish();
  return { ...outcome, offsets: offsets.join() };
}

/** What the COPY data of a batch say: no two ways write the columns in one order. */
function rowsOf(batch: Batch): Record<number, string>[] {
  const rows: Record<number, string>[] = [];
  for (const run of batch.steps) {
    assert.ok('copy' in run);
    if (run.to === run.from) continue;
    const messages = Buffer.concat([...run.copy.finish().chunks]);
    const parts: Buffer[] = [];
    for (let at = 0; messages[at] === 0x64; at += 1 + messages.readInt32BE(at + 1)) {
      parts.push(messages.subarray(at + 5, at + 1 + messages.readInt32BE(at + 1)));
    }
    const data = Buffer.concat(parts);
    for (let at = 19; data.readInt16BE(at) >= 0; ) {
      const row: Record<number, string> = {};
      const count = data.readInt16BE(at);
      at += 2;
      for (let i = 0; i < count; i++) {
        const length = data.readInt32BE(at);
        const slot = run.direct ? run.slots[i]! : i < 2 ? -1 - i : run.slots[i - 2]!;
        row[slot] = length < 0 ? 'null' : data.toString('hex', at + 4, at + 4 + length);
        at += 4 + Math.max(length, 0);
      }
      rows.push(row);
    }
  }
  return rows;
}

function bothWays(
  table: TargetTable,
  settings: Readonly<Record<string, unknown>>,
  messages: readonly Message[],
): Outcome {
  const quick = taken(table, settings, messages, true);
  assert.deepEqual({ ...quick, quick: 0 }, taken(table, settings, messages, false));
  return quick;
}

const digits = fc.stringMatching(/^-?(0|[1-9]\d{0,18})$/);
const literals: Record<TypeName, fc.Arbitrary<string>> = {
  uuid: fc.uuid().map(id => JSON.stringify(id)),
  int2: fc.integer({ min: -33_000, max: 33_000 }).map(String),
  int4: fc.oneof(fc.integer().map(String), digits),
  int8: fc.oneof(fc.maxSafeInteger().map(String), digits),
  float4: fc.double().map(value => JSON.stringify(value)),
  float8: fc.oneof(
    fc.double().map(value => JSON.stringify(value)),
    fc.double({ min: 0, max: 100 }).map(String),
    fc.stringMatching(/^-?(0|[1-9]\d{0,20})(\.\d{1,25})?([eE][+-]?\d{1,3})?$/),
  ),
  numeric: fc.stringMatching(/^-?(0|[1-9]\d{0,20})(\.\d{1,25})?([eE][+-]?\d)?$/),
  bool: fc.boolean().map(String),
  text: fc.oneof(
    fc.string({ unit: 'grapheme-ascii' }).map(value => JSON.stringify(value)),
    fc.string({ unit: 'binary' }).map(value => JSON.stringify(value)),
  ),
  bytea: fc.base64String().map(value => JSON.stringify(value)),
  date: fc.oneof(fc.integer({ min: -1e6, max: 1e6 }).map(String), fc.constant('"2024-02-29"')),
  timestamp: fc.oneof(
    fc.date({ noInvalidDate: true }).map(date => JSON.stringify(date)),
    fc.stringMatching(/^"20\d\d-[01]\d-[0-3]\d[T X][0-2]\d:\d\d:[0-6]\d(\.\d{0,7})?(Z|\+01:00)?"$/),
  ),
  timestamptz: fc.oneof(
    fc.date({ noInvalidDate: true }).map(date => JSON.stringify(date)),
    fc.maxSafeInteger().map(String),
    digits,
  ),
  inet: fc.constantFrom('"10.0.0.1"', '"::1"', '7'),
  jsonb: fc.json(),
};
const odd = fc.constantFrom('null', '{}', '[]', '""', '-0', '01', '1.', '"\\u0041"', 'nul', 'true', '-', '1e999', ' 1');
const separator = fc.constantFrom(',', ',', ', ', ' ,');

/** Mostly as its column wants it. */
const literal = (name: TypeName): fc.Arbitrary<string> =>
  fc.oneof({ weight: 100, arbitrary: literals[name] }, { weight: 1, arbitrary: odd });
const list = (name: TypeName): fc.Arbitrary<string> =>
  fc.tuple(fc.array(literal(name), { maxLength: 5 }), separator).map(([items, between]) => `[${items.join(between)}]`);

const names = Object.keys(types) as TypeName[];
const columnSpec = fc.record({ name: fc.constantFrom(...names), array: fc.boolean(), notNull: fc.boolean() });
const schemaOf: Partial<Record<TypeName, object>> = {
  timestamptz: { type: 'int64', name: 'io.debezium.time.MicroTimestamp' },
  timestamp: { type: 'int64', name: 'org.apache.kafka.connect.data.Timestamp' },
};

/** Of columns c0, c1, … and a key: a table, and records of one shape but for what goes wrong. */
const anyCase = fc
  .record({ columns: fc.array(columnSpec, { minLength: 1, maxLength: 4 }), keyType: fc.constantFrom(...names) })
  .chain(({ columns, keyType }) => {
    const specs = columns.map(spec => ({ ...spec, array: spec.array && spec.name !== 'jsonb' }));
    const value = fc
      .tuple(...specs.map(({ name, array }) => (array ? list(name) : literal(name))))
      .map(items => `{${items.map((item, i) => `"c${i}": ${item}`).join(',')}}`);
    const fields: object[] = specs.map(({ name, array }, i) => ({
      field: `c${i}`,
      ...(array ? { type: 'array', items: schemaOf[name] ?? { type: 'string' } } : (schemaOf[name] ?? { type: 'any' })),
    }));
    fields.push({ field: 'id', type: 'any' });
    const edit = fc.oneof(
      { weight: 30, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.tuple(fc.nat(), fc.constantFrom(...'"\\{}[],:0 9ux\0\u00ff')) },
    );
    return fc.record({
      table: fc.constant(
        tableOf(
          [
            column('id', types[keyType], true),
            ...specs.map(({ name, array, notNull }, i) =>
              column(`c${i}`, array ? type(types[name].oid + 100_000, `_${name}`, types[name]) : types[name], notNull),
            ),
          ],
          ['id'],
        ),
      ),
      settings: fc.record({
        mode: fc.constantFrom('insert', 'upsert'),
        exclude: fc.constantFrom([], [], ['c0']),
        key: fc.constantFrom('record', 'record', 'value'),
      }),
      envelope: fc.boolean(),
      keyIsObject: fc.boolean(),
      schema: fc.constant(JSON.stringify({ type: 'struct', fields })),
      records: fc.array(fc.tuple(literal(keyType), value, edit), { minLength: 40, maxLength: 60, size: 'max' }),
    });
  });

test('a record that is taken where it lies is the row that it would be the general way', () => {
  let quick = 0;
  fc.assert(
    fc.property(anyCase, ({ table, settings, envelope, keyIsObject, schema, records }) => {
      const messages = records.map(([id, value, edit]): Message => {
        const whole = settings.key === 'value' ? value.replace('{', `{"id":${id},`) : value;
        const bytes = Buffer.from(envelope ? `{"schema":${schema},"payload":${whole}}` : whole);
        if (edit) bytes[edit[0] % bytes.length] = edit[1].charCodeAt(0);
        return { key: Buffer.from(keyIsObject ? `{"id":${id}}` : id), value: bytes };
      });
      quick += bothWays(table, settings, messages).quick;
    }),
    { numRuns: 100 },
  );
  assert.ok(quick > 100, `${quick} records were taken where they lay`);
});

const metrics = tableOf(
  [
    column('device_id', types.uuid, true),
    column('published_at', types.timestamptz, true),
    column('metric_name', types.int2, true),
    column('value', types.float8, true),
    column('tags', type(1009, '_text', types.text)),
  ],
  ['device_id', 'published_at', 'metric_name'],
);
const device = (i: number) => `6f1d2c3b-4a59-4687-8796-${String(i).padStart(12, '0')}`;
const metric = (i: number, change: object = {}, rest = ''): Message => ({
  key: Buffer.from(
    `{"device_id":"${device(i)}","metric_name":7,"published_at":"${new Date(1.7e12 + i).toISOString()}"}`,
  ),
  value: Buffer.from(`${JSON.stringify({ value: i / 7, tags: ['a', `b${i}`], ...change })}${rest}`),
});

test('all records like the first are taken where they lie, from the next batch on', () => {
  const messages = Array.from({ length: 500 }, (_, i) => metric(i));
  assert.equal(bothWays(metrics, {}, messages).quick, 490);
  assert.equal(bothWays(metrics, { mode: 'insert' }, messages).quick, 490);
});

test('records unlike the others go the general way, and the others do not', () => {
  const messages = Array.from({ length: 500 }, (_, i) => {
    if (i % 20 === 3) return metric(i, { tags: ['ü', 'quote "'] });
    if (i % 20 === 7) return metric(i, { value: 'NaN' });
    if (i % 20 === 9) return metric(i, { value: 'no number' });
    if (i % 20 === 11) return { ...metric(i), key: Buffer.from('{}') };
    if (i % 20 === 13) return metric(i, {}, '}');
    return metric(i, { tags: i % 2 ? null : ['ü'] });
  });
  const { quick, refused } = bothWays(metrics, {}, messages);
  assert.equal(refused.length, 75);
  assert.ok(quick > 300, `${quick} records were taken where they lay`);
});

test('a topic whose records change their shape is learned anew', () => {
  const shapes = [metric, (i: number) => ({ ...metric(i), value: Buffer.from(`{ "tags": [ "x" ], "value": ${i} }`) })];
  const messages = Array.from({ length: 2000 }, (_, i) => shapes[i < 1000 ? 0 : 1]!(i));
  const { quick } = bothWays(metrics, {}, messages);
  assert.ok(quick > 1500, `${quick} records were taken where they lay`);
});

test('a field that begins to have values is not passed over', () => {
  const table = tableOf([column('id', types.int4, true)], ['id']);
  const settings = { unknownFields: 'error', evolve: true };
  const message = (i: number, note: string) => ({
    key: Buffer.from(`{"id":${i}}`),
    value: Buffer.from(`{"note":${note}}`),
  });
  const messages = Array.from({ length: 200 }, (_, i) => message(i, i < 150 ? 'null' : '"x"'));
  assert.equal(bothWays(table, settings, messages).refused.length, 50);
});

test('an object is no envelope until it is one', () => {
  const table = tableOf([column('id', types.int4, true), column('schema', types.text)], ['id']);
  const message = (i: number, schema: string) => ({
    key: Buffer.from(String(i)),
    value: Buffer.from(`{"schema":${schema},"payload":{}}`),
  });
  bothWays(
    table,
    {},
    Array.from({ length: 200 }, (_, i) => message(i, i % 50 === 49 ? 'null' : '"x"')),
  );
});
