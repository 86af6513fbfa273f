import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cursor, type Delivery, Lane } from './cursor.ts';
import { Endpoint } from './endpoint.ts';
import { Queue, type Verdict } from './queue.ts';

const lane = new Lane(0, 1n);
const cursor = new Cursor(lane, 0, 0n);
const row = { id: 1n, url: 'http://example.org/', secrets: [], enabled: true, own: false };
const endpoint = new Endpoint(row, { failures: 1, pause: 1000 });
let seq = 0n;

function delivery(class_: number, subscriber = `s${seq}`): Delivery {
  const event = { seq: ++seq, subscriber } as Delivery['event'];
  const state = { attempts: 0, started: false, discarded: false };
  return { event, endpoint, lane, class: class_, cursor, retry: undefined, ...state };
}

const start = (): Verdict => 'start';

test('of every 13 begun 9 are HIGH, 3 MEDIUM and 1 LOW; who had nothing has saved nothing up', () => {
  const queue = new Queue(1000);
  const take = (count: number): number[] => {
    const taken = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const next = queue.take(start)!;
      taken[next.class]!++;
      queue.ended(next);
    }
    return taken;
  };
  for (let i = 0; i < 200; i++) queue.push(delivery(2));
  assert.deepEqual(take(90), [0, 0, 90], 'what a class does not use the others have');
  for (let i = 0; i < 100; i++) for (const class_ of [0, 1]) queue.push(delivery(class_));
  assert.deepEqual(take(39), [3, 9, 27]);
});

test('LOW gets three quarters of the requests at once, LOW and MEDIUM together seven eighths', () => {
  const queue = new Queue(16);
  for (const class_ of [0, 1]) for (let i = 0; i < 32; i++) queue.push(delivery(class_));
  const begun: Delivery[] = [];
  for (let next = queue.take(start); next !== undefined; next = queue.take(start)) begun.push(next);
  assert.equal(begun.length, 14);
  const others = new Queue(16);
  for (let i = 0; i < 32; i++) others.push(delivery(0));
  const low: Delivery[] = [];
  for (let next = others.take(start); next !== undefined; next = others.take(start)) low.push(next);
  assert.equal(low.length, 12);
  others.ended(low[0]!);
  assert.equal(others.take(start)?.class, 0, 'what has ended makes room');
  others.push(delivery(2));
  assert.equal(others.take(start)?.class, 2);
});

test('whoever waits makes all of its subscriber’s wait; what is removed is gone', () => {
  const queue = new Queue(16);
  const [first, second, third, fourth] = ['ada', 'ada', 'bob', 'eve'].map(subscriber => delivery(1, subscriber));
  for (const given of [first!, second!, third!, fourth!]) queue.push(given);
  const judged: Delivery[] = [];
  const judge = (given: Delivery): Verdict => {
    judged.push(given);
    return given === first ? 'wait' : given === third ? 'remove' : 'start';
  };
  assert.equal(queue.take(judge), fourth);
  assert.deepEqual(judged, [first, third, fourth], 'the second was not asked about');
  assert.equal(queue.lengthOf(1), 2);
  assert.equal(queue.take(start), first);
  assert.equal(queue.take(start), second);
  assert.equal(queue.take(start), undefined);
});
