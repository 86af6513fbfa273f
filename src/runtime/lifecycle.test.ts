import assert from 'node:assert/strict';
import test from 'node:test';
import { pino } from 'pino';
import { Lifecycle, StoppedWhileStarting } from './lifecycle.ts';

const logger = pino({ level: 'silent' });

test('all parts drain before the first stops, and they stop in the reverse order of their start', async () => {
  const lifecycle = new Lifecycle(logger);
  const seen: string[] = [];
  for (const name of ['database', 'log', 'listener']) {
    lifecycle.add({
      name,
      drain: () => void seen.push(`drain ${name}`),
      stop: () => void seen.push(`stop ${name}`),
    });
  }
  lifecycle.ready();
  assert.equal(lifecycle.state, 'ready');
  await Promise.all([lifecycle.stop(60_000), lifecycle.stop(60_000)]);
  assert.equal(lifecycle.state, 'stopped');
  assert.deepEqual(seen.slice(0, 3).sort(), ['drain database', 'drain listener', 'drain log']);
  assert.deepEqual(seen.slice(3), ['stop listener', 'stop log', 'stop database']);
});

test('a part that fails to stop does not keep the others from stopping', async () => {
  const lifecycle = new Lifecycle(logger);
  let stopped = false;
  lifecycle.add({
    name: 'first',
    stop: () => {
      stopped = true;
    },
  });
  lifecycle.add({ name: 'second', stop: () => Promise.reject(new Error('no')) });
  await lifecycle.stop(60_000);
  assert.ok(stopped);
});

test('hurry gives up draining, tells the parts, and leaves behind one that does not end', async () => {
  const lifecycle = new Lifecycle(logger);
  const hurried: boolean[] = [];
  lifecycle.add({ name: 'first', stop: hurry => void hurried.push(hurry.aborted) });
  lifecycle.add({ name: 'stuck', drain: () => new Promise(() => {}), stop: () => new Promise(() => {}) });
  const stopped = lifecycle.stop(3_600_000);
  lifecycle.hurry();
  await stopped;
  assert.deepEqual(hurried, [true]);
});

test('a stop during the start ends the start', async () => {
  const lifecycle = new Lifecycle(logger);
  const stopped = lifecycle.stop(60_000);
  assert.throws(() => lifecycle.throwIfStopping(), StoppedWhileStarting);
  assert.throws(() => lifecycle.ready(), StoppedWhileStarting);
  await stopped;
});
