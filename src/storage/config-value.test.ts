import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ConfigSpec, formatConfigValue, parseConfigValue } from './config-value.ts';

const long: ConfigSpec = { name: 'x.ms', type: 'long', min: -1 };
const int: ConfigSpec = { name: 'x.bytes', type: 'int' };
const list: ConfigSpec = { name: 'x.policy', type: 'list', allowed: ['compact', 'delete'] };

test('whole numbers keep every digit, and are held to their width', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), number => {
      assert.equal(parseConfigValue(long, ` ${number} `), number);
      assert.equal(formatConfigValue(parseConfigValue(long, String(number))), String(number));
    }),
  );
  assert.equal(parseConfigValue(int, '+7'), 7);
  assert.equal(parseConfigValue(int, '-2147483648'), -2_147_483_648);
  for (const text of ['2147483648', '', ' ', '1.5', '0x10', '1e3', 'abc', '99999999999999999999999999']) {
    assert.throws(() => parseConfigValue(int, text), /x\.bytes: it must be a 32-bit integer/, text);
  }
  assert.throws(() => parseConfigValue(long, '9223372036854775808'), /64-bit/);
  assert.throws(() => parseConfigValue(long, '-2'), /at least -1/);
});

test('lists are split at commas and their entries checked', () => {
  assert.deepEqual(parseConfigValue(list, ' compact , delete '), ['compact', 'delete']);
  assert.deepEqual(parseConfigValue(list, ''), []);
  assert.throws(() => parseConfigValue(list, 'compact,keep'), /each entry must be one of compact, delete/);
  const replicas: ConfigSpec = { name: 'x', type: 'list', pattern: /^\d+:\d+$/ };
  assert.deepEqual(parseConfigValue(replicas, '0:1,2:3'), ['0:1', '2:3']);
  assert.throws(() => parseConfigValue(replicas, '0:1,2'), /must match/);
});

test('booleans, numbers with a fraction and words', () => {
  assert.equal(parseConfigValue({ name: 'x', type: 'boolean' }, 'TRUE'), true);
  assert.throws(() => parseConfigValue({ name: 'x', type: 'boolean' }, 'yes'), /true or false/);
  assert.equal(parseConfigValue({ name: 'x', type: 'double', min: 0, max: 1 }, '0.5'), 0.5);
  assert.throws(() => parseConfigValue({ name: 'x', type: 'double', min: 0, max: 1 }, '1.5'), /at most 1/);
  assert.throws(() => parseConfigValue({ name: 'x', type: 'double' }, 'NaN'), /a number/);
  assert.throws(() => parseConfigValue({ name: 'x', type: 'string', allowed: ['a'] }, 'b'), /one of a/);
});
