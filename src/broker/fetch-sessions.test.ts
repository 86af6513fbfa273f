import assert from 'node:assert/strict';
import test from 'node:test';
import { ErrorCode } from '../protocol/errors.ts';
import { type FetchPartition, FetchSessions } from './fetch-sessions.ts';

const partition = (index: number, fetchOffset = 0n): FetchPartition => ({
  topicName: 'orders',
  topicId: '',
  partition: index,
  currentLeaderEpoch: -1,
  fetchOffset,
  lastFetchedEpoch: -1,
  maxBytes: 1000,
});
const many = (count: number) => Array.from({ length: count }, (_, index) => partition(index));
const quiet = { highWatermark: 5n, logStartOffset: 0n, errorCode: ErrorCode.NONE, bytes: 0 };

function begun(context: ReturnType<FetchSessions['begin']>) {
  assert.ok(!('errorCode' in context));
  return context;
}

test('a session remembers its partitions and tells only what has changed', () => {
  const sessions = new FetchSessions(10);
  const first = begun(sessions.begin(0, 0, [partition(0), partition(1)], []));
  assert.ok(first.sessionId > 0);
  assert.deepEqual(
    first.partitions.map(p => first.include(p, quiet)),
    [true, true],
  );
  const second = begun(sessions.begin(first.sessionId, 1, [partition(1, 3n)], []));
  assert.deepEqual(
    second.partitions.map(p => [p.partition, p.fetchOffset]),
    [
      [0, 0n],
      [1, 3n],
    ],
  );
  assert.equal(second.include(partition(0), quiet), false);
  assert.equal(second.include(partition(1), { ...quiet, highWatermark: 6n }), true);
  const third = begun(sessions.begin(first.sessionId, 2, [], [{ topicName: 'orders', topicId: '', partition: 0 }]));
  assert.deepEqual(
    third.partitions.map(p => p.partition),
    [1],
  );
});

test('an epoch out of turn, an unknown session and an ended one are told apart', () => {
  const sessions = new FetchSessions(10);
  const { sessionId } = begun(sessions.begin(0, 0, many(1), []));
  assert.deepEqual(sessions.begin(sessionId, 7, [], []), { errorCode: ErrorCode.INVALID_FETCH_SESSION_EPOCH });
  assert.deepEqual(sessions.begin(sessionId + 1, 1, [], []), { errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND });
  assert.equal(begun(sessions.begin(sessionId, -1, many(1), [])).sessionId, 0);
  assert.deepEqual(sessions.begin(sessionId, 1, [], []), { errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND });
});

test('sessions are bounded in number and in partitions over all; who gets none is served all the same', () => {
  const few = new FetchSessions(1);
  assert.ok(begun(few.begin(0, 0, many(1), [])).sessionId > 0);
  assert.equal(begun(few.begin(0, 0, many(1), [])).sessionId, 0);

  const large = new FetchSessions(1000);
  const { sessionId } = begun(large.begin(0, 0, many(150_000), []));
  assert.ok(sessionId > 0);
  assert.equal(begun(large.begin(0, 0, many(150_000), [])).sessionId, 0);
  const other = begun(large.begin(0, 0, many(10), []));
  assert.deepEqual(large.begin(other.sessionId, 1, many(100_000), []), {
    errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND,
  });
  large.begin(sessionId, -1, [], []);
  assert.ok(begun(large.begin(0, 0, many(150_000), [])).sessionId > 0, 'an ended session gives its room back');
});
