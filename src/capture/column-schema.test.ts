// Schemas of columns, and what stands where there is no value; the differ (compat/debezium) holds them against Debezium.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columnSchema } from './column-schema.ts';
import { converterFor, oid, type TypeInfo, type ValueStyle } from './values.ts';

const style: ValueStyle = { style: 'debezium', decimals: 'precise', binary: 'base64' };
const noType = { elementOid: 0, baseOid: 0, baseModifier: -1, delimiter: ',', labels: [] };
const known: readonly TypeInfo[] = [
  { ...noType, oid: 16_400, name: 'mood', kind: 'e', labels: ['sad', 'ok "so"'] },
  { ...noType, oid: 16_401, name: '_mood', kind: 'b', elementOid: 16_400 },
  { ...noType, oid: 16_402, name: 'price', kind: 'd', baseOid: oid.numeric, baseModifier: (7 << 16) + 2 + 4 },
  { ...noType, oid: 1007, name: '_int4', kind: 'b', elementOid: oid.int4 },
  { ...noType, oid: 1022, name: '_float8', kind: 'b', elementOid: oid.float8 },
];
const types = (typeOid: number): TypeInfo | undefined => known.find(type => type.oid === typeOid);

function schema(
  typeOid: number,
  options: { modifier?: number; required?: boolean; default?: string; typed?: boolean } = {},
) {
  const { modifier = -1, required = false, default: defaultExpression = null, typed = true } = options;
  const converter = converterFor(typeOid, modifier, style, types);
  const column = { typeOid, typeModifier: modifier };
  return columnSchema(column, { required, defaultExpression }, style, types, converter, { masked: false, typed });
}

const read = (members: string): unknown => JSON.parse(`{${members}}`);

test('types have the names, versions and parameters that Debezium gives them', () => {
  assert.deepEqual(read(schema(oid.numeric, { modifier: (9 << 16) + 2 + 4 }).json), {
    type: 'bytes',
    optional: true,
    name: 'org.apache.kafka.connect.data.Decimal',
    version: 1,
    parameters: { scale: '2', 'connect.decimal.precision': '9' },
  });
  assert.deepEqual(read(schema(16_401, { required: true }).json), {
    type: 'array',
    items: {
      type: 'string',
      optional: false,
      name: 'io.debezium.data.Enum',
      version: 1,
      parameters: { allowed: 'sad,ok "so"' },
    },
    optional: false,
  });
  assert.equal(
    schema(oid.timestamp, { modifier: 3 }).json,
    '"type":"int64","optional":true,"name":"io.debezium.time.Timestamp","version":1',
  );
  assert.match(schema(16_402).json, /"scale":"2"/);
  const negative = schema(oid.numeric, { modifier: (5 << 16) + (-2 & 0x7ff) + 4 });
  assert.match(negative.json, /"scale":"-2","connect.decimal.precision":"5"/);
});

test('literals are converted, calls are the zero of their type, and what else is computed is no default', () => {
  const defaults: readonly [number, number, string, unknown][] = [
    [oid.int4, -1, '7', 7],
    [oid.int8, -1, `'-12'::integer`, -12],
    [oid.int4, -1, `nextval('orders_id_seq'::regclass)`, 0],
    [oid.int4, -1, '(1 + 1)', undefined],
    [oid.bool, -1, 'true', true],
    [oid.text, -1, `'it''s'::text`, "it's"],
    [oid.text, -1, `E'back\\\\slash'::text`, 'back\\slash'],
    [oid.text, -1, "upper('x'::text)", ''],
    [oid.text, -1, 'NULL::text', undefined],
    [oid.numeric, (9 << 16) + 2 + 4, `'-1.5'::numeric`, '/2o='],
    [oid.numeric, (9 << 16) + 2 + 4, '1.125', undefined],
    [oid.numeric, -1, '1.5', undefined],
    [oid.date, -1, `'2024-02-29'::date`, 19_782],
    [oid.date, -1, 'CURRENT_DATE', 0],
    [oid.date, -1, `('now'::text)::date`, 0],
    [oid.timestamptz, 3, 'now()', '1970-01-01T00:00:00.000Z'],
    [oid.json, -1, `json_build_object()`, '{}'],
    [3904, -1, `'[1,5)'::int4range`, undefined],
    [1007, -1, `'{1}'::integer[]`, undefined],
    [16_400, -1, `'sad'::mood`, 'sad'],
  ];
  for (const [typeOid, modifier, expression, expected] of defaults) {
    const members = read(schema(typeOid, { modifier, default: expression }).json) as { default?: unknown };
    assert.deepEqual(members.default, expected, expression);
  }
});

test('a column that cannot be NULL is never null', () => {
  assert.equal(schema(oid.int4).whenNull, 'null');
  assert.equal(schema(oid.int4, { required: true }).whenNull, '0');
  assert.equal(schema(oid.int4, { required: true, default: '5' }).whenNull, '5');
  assert.equal(schema(1007, { required: true }).whenNull, '[]');
  assert.equal(schema(oid.timestamptz, { required: true }).whenNull, '"1970-01-01T00:00:00Z"');
});

test('a value that was not logged has a placeholder, which is of its type where the schema is told', () => {
  const placeholder = '__debezium_unavailable_value';
  assert.equal(schema(oid.text).whenUnchanged, `"${placeholder}"`);
  assert.equal(schema(oid.bytea).whenUnchanged, `"${Buffer.from(placeholder).toString('base64')}"`);
  assert.equal(schema(1007).whenUnchanged, JSON.stringify([...Buffer.from(placeholder)]));
  assert.equal(schema(1022).whenUnchanged, 'null');
  assert.equal(schema(1022, { typed: false }).whenUnchanged, `["${placeholder}"]`);
  assert.equal(schema(oid.numeric, { typed: false }).whenUnchanged, `"${placeholder}"`);
});
