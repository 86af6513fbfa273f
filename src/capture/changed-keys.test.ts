import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChangedKeys } from './changed-keys.ts';
import { Visibility } from './visibility.ts';

test('only what a snapshot does not see has changed behind its back', () => {
  const changed = new ChangedKeys();
  changed.add(5, 'a');
  changed.add(8, 'b');
  changed.add(8, 'c');
  changed.add(12, 'd');
  const snapshot = new Visibility('5:10:8');
  assert.deepEqual(changed.unseenBy(snapshot), new Set(['b', 'c', 'd']));
  changed.forget(snapshot);
  assert.deepEqual(changed.unseenBy(new Visibility('1:1:')), new Set(['b', 'c', 'd']));
});

test('a transaction that changes everything hides the rest of its keys', () => {
  const changed = new ChangedKeys();
  changed.add(7, 'a');
  changed.addAll(7);
  changed.add(7, 'b');
  assert.equal(changed.unseenBy(new Visibility('7:7:')), 'all');
  assert.deepEqual(changed.unseenBy(new Visibility('9:9:')), new Set());
});

test('keys beyond what is remembered count as everything', () => {
  const changed = new ChangedKeys();
  for (let i = 0; i < 200_001; i++) changed.add(3, String(i));
  assert.equal(changed.unseenBy(new Visibility('3:3:')), 'all');
});
