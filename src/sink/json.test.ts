import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExactNumber, parseJson, stringifyJson } from './json.ts';

test('numbers that doubles do not hold are kept as they are written', () => {
  const text =
    '{ "a" : 12345678901234567890, "b":[0.10000000000000000001, -1e400 , 1.5, 1.50], "c":{"d\\"}":"1234567890123456"},"e":[],"f":{}, "g":[ ], "h":null,"i":[true , false ] , "j" : null }';
  const value = parseJson(text) as Record<string, unknown>;
  assert.deepEqual(value.a, new ExactNumber('12345678901234567890'));
  assert.deepEqual(value.b, [
    new ExactNumber('0.10000000000000000001'),
    new ExactNumber('-1e400'),
    1.5,
    new ExactNumber('1.50'),
  ]);
  assert.deepEqual(value.c, { 'd"}': '1234567890123456' });
  assert.equal(
    stringifyJson(value),
    '{"a":12345678901234567890,"b":[0.10000000000000000001,-1e400,1.5,1.50],"c":{"d\\"}":"1234567890123456"},"e":[],"f":{},"g":[],"h":null,"i":[true,false],"j":null}',
  );
});

test('anything else is read and written as JSON does', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(0, 1, 2), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      const read = parseJson(text);
      assert.equal(JSON.stringify(JSON.parse(stringifyJson(read))), JSON.stringify(value));
    }),
  );
  for (const broken of ['', '{"a":12345678901234567890', '[1 2345678901234567890]', '01234567890123456'])
    assert.throws(() => parseJson(broken), SyntaxError);
});
