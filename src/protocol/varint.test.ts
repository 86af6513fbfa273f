import assert from 'node:assert/strict';
import { test } from 'node:test';
import { varintBytes, varlongBytes, writeVarint, writeVarlong } from './varint.ts';

const bytes = Buffer.alloc(16);
const written = (end: number): string => bytes.toString('hex', 0, end);

test('varints as the format documents them', () => {
  for (const [value, hex] of [
    [0, '00'],
    [-1, '01'],
    [1, '02'],
    [63, '7e'],
    [-64, '7f'],
    [64, '8001'],
    [2_147_483_647, 'feffffff0f'],
    [-2_147_483_648, 'ffffffff0f'],
  ] as const) {
    assert.equal(written(writeVarint(bytes, 0, value)), hex);
    assert.equal(varintBytes(value), hex.length / 2);
    assert.equal(written(writeVarlong(bytes, 0, value)), hex);
  }
  assert.equal(written(writeVarlong(bytes, 0, -0x8000_0000_0000_0000n)), 'ffffffffffffffffff01');
});

test('a number and a bigint of one value are written alike', () => {
  for (let exponent = 0; exponent < 53; exponent++) {
    for (const value of [2 ** exponent, 2 ** exponent - 1, -(2 ** exponent), -(2 ** exponent) - 1]) {
      const number = written(writeVarlong(bytes, 0, value));
      assert.equal(number, written(writeVarlong(bytes, 0, BigInt(value))), String(value));
      assert.equal(varlongBytes(value), number.length / 2, String(value));
    }
  }
});
