// What stands before a partition: held appends keep their order, and waits for the target end by its word or by their time.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCode } from '../protocol/errors.ts';
import { buildBatch } from '../protocol/records.ts';
import { type AppendResult, type PendingAppend, refused } from '../storage/group.ts';
import { PartitionLog } from '../storage/partition-log.ts';
import { PartitionGate } from './gates.ts';
import { SyncGate } from './sync.ts';

const batch = buildBatch({ records: [1, 2].map(() => ({ timestamp: 1n, value: Buffer.from('v') })) });
const taken = (baseOffset: bigint): AppendResult => ({ error: ErrorCode.NONE, baseOffset, logAppendTime: -1n });

/** A log that takes each batch at once. */
function logOf() {
  const order: string[] = [];
  const append = (name: string) => (): PendingAppend => {
    order.push(name);
    return { result: Promise.resolve(taken(BigInt(order.length - 1) * 2n)), expire: async () => {} };
  };
  return { order, append };
}

test('what comes to a closed gate is held, in order, until it opens; what expires meanwhile is in no log', async () => {
  const partition = new PartitionLog(1, 0, 0n, 0n);
  const gate = new PartitionGate(partition, 'm');
  const { order, append } = logOf();
  gate.close();
  assert.equal(partition.gate, gate);
  const [a, b, c] = ['a', 'b', 'c'].map(name => gate.append(batch, -1, false, append(name)));
  await b!.expire(ErrorCode.REQUEST_TIMED_OUT);
  assert.deepEqual(await b!.result, refused(ErrorCode.REQUEST_TIMED_OUT));
  assert.deepEqual(order, []);
  gate.open(undefined);
  assert.equal(partition.gate, undefined, 'nothing stands there any more');
  assert.deepEqual([await a!.result, await c!.result], [taken(0n), taken(2n)]);
  assert.deepEqual(order, ['a', 'c']);

  gate.lock();
  const held = gate.append(batch, -1, false, append('x'));
  gate.open(undefined);
  assert.deepEqual(order, ['a', 'c'], 'whoever opens it while it is locked');
  gate.unlock();
  assert.deepEqual(await held.result, taken(4n));
  order.pop();

  gate.close();
  gate.lock();
  gate.unlock();
  const closed = gate.append(batch, -1, false, append('y'));
  assert.deepEqual(order, ['a', 'c'], 'it had been closed before it was locked, and is so again');
  await closed.expire(ErrorCode.REQUEST_TIMED_OUT);
  const d = gate.append(batch, -1, false, append('d'));
  gate.remove();
  assert.deepEqual(await d.result, refused(ErrorCode.NOT_LEADER_OR_FOLLOWER));
  assert.deepEqual(order, ['a', 'c']);
});

test('a gate is settled once the rule has answered what had passed', async () => {
  const gate = new PartitionGate(new PartitionLog(1, 0, 0n, 0n), 'm');
  let answer!: (result: AppendResult) => void;
  const result = new Promise<AppendResult>(resolve => {
    answer = resolve;
  });
  gate.open({ append: () => ({ result, expire: async () => {} }) });
  gate.append(batch, -1, false, () => assert.fail('it is for the rule'));
  gate.close();
  let settled = false;
  const settling = gate.settled().then(() => {
    settled = true;
  });
  await new Promise(setImmediate);
  assert.equal(settled, false);
  answer(taken(0n));
  await settling;
});

test('a gate is not settled by an answer that came for the time alone', async () => {
  const gate = new PartitionGate(new PartitionLog(1, 0, 0n, 0n), 'm');
  let answer!: (result: AppendResult) => void;
  let end!: () => void;
  const result = new Promise<AppendResult>(resolve => {
    answer = resolve;
  });
  const ended = new Promise<void>(resolve => {
    end = resolve;
  });
  const expire = (error: number): Promise<void> => {
    answer(refused(error));
    return ended;
  };
  gate.open({ append: () => ({ result, expire }) });
  const expiring = gate.append(batch, -1, false, () => assert.fail('it is for the rule')).expire(7);
  gate.lock();
  let settled = false;
  const settling = gate.settled().then(() => {
    settled = true;
  });
  await new Promise(setImmediate);
  assert.equal(settled, false, 'it is still on its way');
  end();
  await Promise.all([settling, expiring]);
});

test('acks=all waits until the target has the batch, and no longer than it is told to', async () => {
  const copy = { nextOffset: 0n, arrivals: new Set<() => void>() };
  const { append } = logOf();
  const waiting = new SyncGate({ timeoutMs: 60_000, onTimeout: 'fail' }, copy);
  let answered = false;
  const pending = waiting.append(batch, -1, false, append('a'));
  void pending.result.then(() => {
    answered = true;
  });
  assert.deepEqual(await waiting.append(batch, 1, false, append('b')).result, taken(2n), 'acks=1 does not wait');
  assert.deepEqual(await waiting.append(batch, -1, true, append('c')).result, taken(4n), 'nor what is no producer’s');
  copy.nextOffset = 1n;
  for (const look of copy.arrivals) look();
  await new Promise(setImmediate);
  assert.equal(answered, false, 'one of its two records is there');
  copy.nextOffset = 2n;
  for (const look of copy.arrivals) look();
  assert.deepEqual(await pending.result, taken(0n));
  assert.equal(copy.arrivals.size, 0);

  const failing = new SyncGate({ timeoutMs: 1, onTimeout: 'fail' }, copy);
  assert.deepEqual(await failing.append(batch, -1, false, append('d')).result, refused(ErrorCode.REQUEST_TIMED_OUT));
  const lenient = new SyncGate({ timeoutMs: 1, onTimeout: 'acknowledge' }, copy);
  assert.deepEqual(await lenient.append(batch, -1, false, append('e')).result, taken(8n));
  assert.equal(copy.arrivals.size, 0);
});
