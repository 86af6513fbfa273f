import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { JsonBuffer } from './json-buffer.ts';
import { converterFor, type TypeInfo, type ValueStyle } from './values.ts';

const debezium: ValueStyle = { style: 'debezium', decimals: 'precise', binary: 'base64' };
const plain: ValueStyle = { style: 'plain', decimals: 'string', binary: 'hex' };
const types = (oid: number): TypeInfo | undefined =>
  oid === 1009
    ? { oid, name: '_text', kind: 'b', elementOid: 25, baseOid: 0, baseModifier: -1, delimiter: ',', labels: [] }
    : undefined;

function convert(text: string, oid: number, modifier = -1, style = debezium): string {
  const out = new JsonBuffer(4);
  const bytes = Buffer.from(text);
  converterFor(oid, modifier, style, types)(out, bytes, 0, bytes.length);
  return out.copy().toString();
}

test('values are as Debezium 3.6.1 wrote the same rows', () => {
  const cases: [string, number, number, string][] = [
    ['9223372036854775807', 20, -1, '9223372036854775807'],
    ['12345678901234567890.123456789', 1700, -1, '{"scale":9,"value":"J+QbMka+ybFuOYEV"}'],
    ['1234567.89', 1700, (9 << 16) + 2 + 4, '"B1vNFQ=="'],
    ['-0.00100', 1700, -1, '{"scale":3,"value":"/w=="}'],
    ['$1,234.56', 790, -1, '"AeJA"'],
    ['\\x00ff10', 17, -1, '"AP8Q"'],
    ['1010101011', 1560, 10, '"qwI="'],
    ['1', 1560, 1, 'true'],
    ['2024-02-29', 1082, -1, '19782'],
    ['0044-03-15 BC', 1082, -1, '-735160'],
    ['24:00:00', 1083, -1, '86400000000'],
    ['12:34:56.789', 1083, 3, '45296789'],
    ['12:34:56.789012+02', 1266, -1, '"10:34:56.789012Z"'],
    ['2024-02-29 12:34:56.789012', 1114, -1, '1709210096789012'],
    ['12024-01-01 00:00:00', 1114, -1, '317273587200000000'],
    ['infinity', 1114, -1, '9223372036825200000'],
    ['0044-03-15 10:00:00+00 BC', 1184, -1, '"-0043-03-15T10:00:00.000000Z"'],
    ['2024-02-29 10:34:56+00', 1184, 0, '"2024-02-29T10:34:56Z"'],
    ['1 year 2 mons 3 days 04:05:06.789', 1186, -1, '37091106789000'],
    ['-1 days -02:03:04.5', 1186, -1, '-93784500000'],
    ['{"b": 1,  "a":2}', 114, -1, '"{\\"b\\": 1,  \\"a\\":2}"'],
    ['{"a b","c\\"d",NULL,"","NULL"}', 1009, -1, '["a b","c\\"d",null,"","NULL"]'],
    ['NaN', 701, -1, '"NaN"'],
  ];
  for (const [text, oid, modifier, expected] of cases) assert.equal(convert(text, oid, modifier), expected, text);
});

test('the plain style keeps json, exact numbers and microseconds', () => {
  assert.equal(convert('{"b": 1e400}', 114, -1, plain), '{"b": 1e400}');
  assert.equal(convert('1e30', 1700, -1, plain), '"1e30"');
  assert.equal(convert('2024-02-29 10:34:56.789012+00', 1184, -1, plain), '"2024-02-29T10:34:56.789012Z"');
  assert.equal(convert('infinity', 1184, -1, plain), '"infinity"');
});

test('any text becomes the JSON string of it', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      assert.equal(JSON.parse(convert(text, 25)), Buffer.from(text).toString());
    }),
  );
});
