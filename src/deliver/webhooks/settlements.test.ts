import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Lane } from './cursor.ts';
import { Settlements } from './settlements.ts';

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
