import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChangedKeys } from './changed-keys.ts';
import { Visibility } from './visibility.ts';

const keys = (changed: ReadonlyMap<string, boolean> | 'all') => (changed === 'all' ? changed : [...changed.keys()]);

test('only what a snapshot does not see has changed behind its back', () => {
  const changed = new ChangedKeys();
  changed.add(5, 'a');
  changed.add(8, 'b');
  changed.add(8, 'c');
  changed.add(12, 'd');
  const snapshot = new Visibility('5:10:8');
  assert.deepEqual(keys(changed.unseenBy(snapshot)), ['b', 'c', 'd']);
  changed.forget([snapshot]);
  assert.deepEqual(keys(changed.unseenBy(new Visibility('1:1:'))), ['b', 'c', 'd']);
});

test('what one of several sessions may not see yet is not forgotten', () => {
  const changed = new ChangedKeys();
  changed.add(5, 'a');
  changed.add(8, 'b');
  changed.forget([new Visibility('9:9:'), new Visibility('7:7:')]);
  assert.deepEqual(keys(changed.unseenBy(new Visibility('1:1:'))), ['b']);
});

test('a row that any change has left values out of is not whole', () => {
  const changed = new ChangedKeys();
  changed.add(5, 'a', false);
  changed.add(5, 'a');
  changed.add(6, 'b');
  changed.add(7, 'b', false);
  changed.add(8, 'c');
  assert.deepEqual(
    changed.unseenBy(new Visibility('1:1:')),
    new Map([
      ['a', false],
      ['b', false],
      ['c', true],
    ]),
  );
});

test('a transaction that changes everything hides the rest of its keys', () => {
  const changed = new ChangedKeys();
  changed.add(7, 'a');
  changed.addAll(7);
  changed.add(7, 'b');
  assert.equal(changed.unseenBy(new Visibility('7:7:')), 'all');
  assert.deepEqual(keys(changed.unseenBy(new Visibility('9:9:'))), []);
});

test('keys beyond what is remembered count as everything', () => {
  const changed = new ChangedKeys();
  for (let i = 0; i < 200_001; i++) changed.add(3, String(i));
  assert.equal(changed.unseenBy(new Visibility('3:3:')), 'all');
});
