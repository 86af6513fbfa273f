import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Cursor, Lane, type Retry } from './cursor.ts';
import { Settlements } from './settlements.ts';
import type { Changes } from './store.ts';

test('what is being stored of a lane is still to be stored: the lane is not given back before it is', async () => {
  const lane = new Lane(3, 1n);
  let commit!: (lanes: number[]) => void;
  const committed = new Promise<number[]>(resolve => {
    commit = resolve;
  });
  const settlements = new Settlements({
    store: { settle: () => committed },
    logger: pino({ level: 'silent' }),
    onStored: () => {},
    onRefused: () => {},
  });
  assert.equal(settlements.has(lane), false);
  settlements.delivered(lane);
  assert.equal(settlements.has(lane), true);
  const flushed = settlements.flush();
  await Promise.resolve();
  assert.equal(settlements.has(lane), true, 'under way');
  commit([3]);
  assert.equal(await flushed, true);
  assert.equal(settlements.has(lane), false);
});

test('what could not be stored is stored later, unless something newer stands for it', async () => {
  const lane = new Lane(3, 1n);
  const told: Changes[] = [];
  const stored: number[][] = [];
  const settlements = new Settlements({
    store: {
      settle: async (_lanes, changes) => {
        told.push(changes);
        if (told.length === 1) {
          // While it was under way.
          settlements.retry(retry(7n, 2));
          throw new Error('the connection is gone');
        }
        return [3];
      },
    },
    logger: pino({ level: 'silent' }),
    onStored: (...counts) => stored.push(counts),
    onRefused: () => assert.fail('the lane is held'),
  });
  const retry = (seq: bigint, attempts: number): Retry => ({
    ...{ seq, lane, attempts, nextAt: 0, parked: false, taken: false, endpoint: undefined, reason: '' },
  });
  const cursor = new Cursor(lane, 0, 0n);
  cursor.scanned = 9n;
  settlements.moved(cursor);
  settlements.retry(retry(7n, 1));
  settlements.retry(retry(8n, 1));
  settlements.dead(lane, { seq: 5n, attempts: 3, code: 'HTTP_500', reason: '', endpoint: 1n });
  for (let i = 0; i < 4; i++) settlements.delivered(lane);
  assert.equal(await settlements.flush(), false);
  assert.equal(cursor.stored, 0n);
  assert.equal(await settlements.flush(), true);
  settlements.stop();
  assert.deepEqual(stored, [[4, 1]]);
  assert.equal(cursor.stored, 9n);
  const { positions, dead, retries = [] } = told[1]!;
  assert.deepEqual([positions?.map(({ seq }) => seq), dead?.map(({ seq }) => seq)], [['9'], ['5']]);
  assert.deepEqual(retries.map(({ seq, attempts }) => [seq, attempts]).sort(), [
    ['7', 2],
    ['8', 1],
  ]);
});

test('what was done under a lease that is another’s is counted as refused, and no position counts as stored', async () => {
  const [mine, lost] = [new Lane(1, 1n), new Lane(2, 1n)];
  const outcomes: unknown[] = [];
  const settlements = new Settlements({
    store: { settle: async () => [1] },
    logger: pino({ level: 'silent' }),
    onStored: (delivered, dead) => outcomes.push(['stored', delivered, dead]),
    onRefused: (lane, completions) => outcomes.push(['refused', lane.id, completions]),
  });
  const cursors = [mine, lost].map(lane => new Cursor(lane, 0, 0n));
  for (const cursor of cursors) {
    cursor.scanned = 4n;
    settlements.moved(cursor);
    settlements.delivered(cursor.lane);
    settlements.dead(cursor.lane, { seq: 4n, attempts: 1, code: 'HTTP_500', reason: '', endpoint: 1n });
  }
  await settlements.flush();
  assert.deepEqual(outcomes, [
    ['stored', 1, 1],
    ['refused', 2, 2],
  ]);
  assert.deepEqual(
    cursors.map(({ stored }) => stored),
    [4n, 0n],
  );
});
