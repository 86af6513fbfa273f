import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { collisionKey, topicNameProblem } from './topic-name.ts';

const legal = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-'];

test('every name of legal characters and length is taken, but . and ..', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...legal), minLength: 1, maxLength: 249 }), name => {
      assert.equal(topicNameProblem(name) === undefined, name !== '.' && name !== '..');
    }),
  );
});

test('one character out of place is enough to refuse a name', () => {
  const other = fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }).filter(text => !legal.includes(text));
  const part = fc.string({ unit: fc.constantFrom(...legal), maxLength: 20 });
  fc.assert(
    fc.property(part, other, part, (before, character, after) => {
      assert.match(topicNameProblem(before + character + after) ?? '', /only ASCII/);
    }),
  );
});

test('the empty name, . and .., and names that are too long are refused', () => {
  for (const name of ['', '.', '..', 'a'.repeat(250), 'with space', 'line\n', 'a\n', 'ü', 'a/b', "a'b", 'a\0']) {
    assert.notEqual(topicNameProblem(name), undefined, JSON.stringify(name));
  }
  assert.equal(topicNameProblem('a'.repeat(249)), undefined);
  assert.equal(topicNameProblem('...'), undefined);
});

test('names that differ only in periods and underscores collide', () => {
  assert.equal(collisionKey('a.b_c'), collisionKey('a_b.c'));
  assert.notEqual(collisionKey('a-b'), collisionKey('a_b'));
});
