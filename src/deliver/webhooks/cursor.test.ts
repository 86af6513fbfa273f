import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cursor, type Delivery, Hold, Lane } from './cursor.ts';
import { Endpoint } from './endpoint.ts';

const lane = new Lane(3, 1n);
const row = { id: 1n, url: 'http://example.org/', secrets: [], enabled: true, own: true };

function takeUp(cursor: Cursor, seq: bigint, started = false): Delivery {
  const endpoint = new Endpoint(row, { failures: 1, pause: 1000 });
  const event = { seq, subscriber: 'ada' } as Delivery['event'];
  const known = { attempts: 0, started, discarded: false, retry: undefined };
  const delivery: Delivery = { event, endpoint, lane, class: cursor.class, cursor, ...known };
  cursor.pending.set(seq, delivery);
  cursor.scanned = seq;
  return delivery;
}

test('a position stays before the first event that is not settled, in whatever order they are', () => {
  const cursor = new Cursor(lane, 0, 10n);
  assert.equal(cursor.position, 10n);
  for (const seq of [12n, 15n, 16n]) takeUp(cursor, seq);
  assert.equal(cursor.position, 11n);
  cursor.pending.delete(15n);
  assert.equal(cursor.position, 11n);
  cursor.pending.delete(12n);
  assert.equal(cursor.position, 15n);
  cursor.pending.delete(16n);
  assert.equal(cursor.position, 16n);
});

test('a hold that goes back discards what has not been started from there on, and takes it up again', () => {
  const hold = new Hold(new Cursor(lane, 1, 0n), 'ada', 20n);
  const before = takeUp(hold, 21n);
  const failed = takeUp(hold, 22n, true);
  const waiting = takeUp(hold, 23n);
  const underWay = takeUp(hold, 24n, true);
  hold.goBack(22n);
  assert.deepEqual(
    [before, failed, waiting, underWay].map(({ discarded }) => discarded),
    [false, true, true, false],
  );
  assert.deepEqual([...hold.pending.keys()], [21n, 24n]);
  assert.deepEqual([hold.scanned, hold.from, hold.key], [21n, 20n, '1/ada']);
  hold.goBack(15n);
  assert.equal(hold.from, 14n, 'what its lane takes up behind this is its');
});

test('a hold whose endpoint is blocked again stays parked, and one whose endpoint is free does not', () => {
  const endpoint = new Endpoint(row, { failures: 1, pause: 1000 });
  const hold = new Hold(new Cursor(lane, 1, 0n), 'ada', 20n);
  hold.park(endpoint, 100);
  hold.stayParked(100);
  assert.equal(hold.nextAt, 100);
  endpoint.failed(100);
  hold.stayParked(99);
  assert.equal(hold.nextAt, 100, 'it is not its time yet');
  hold.stayParked(100);
  assert.equal(hold.nextAt, endpoint.blockedUntil(100));
});
