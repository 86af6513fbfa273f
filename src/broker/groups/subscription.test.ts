import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { subscription } from '../../../test/group-rig.ts';
import { subscribedTopics } from './subscription.ts';

test('topics are read, whatever version and whatever follows', () => {
  assert.deepEqual(subscribedTopics(subscription('orders', 'paiements-é')), ['orders', 'paiements-é']);
  assert.deepEqual(subscribedTopics(subscription()), []);
  // Version 3 as the Java client sends it: topics, user data, owned partitions, generation, rack.
  const metadata = Buffer.from(
    `0003000000010006${Buffer.from('orders').toString('hex')}ffffffff00000000ffffffffffff`,
    'hex',
  );
  assert.deepEqual(subscribedTopics(metadata), ['orders']);
});

test('what is no subscription is null, and never an error', () => {
  assert.equal(subscribedTopics(Buffer.alloc(0)), null);
  assert.equal(subscribedTopics(Buffer.from('00007fffffff', 'hex')), null);
  assert.equal(subscribedTopics(Buffer.from('0000ffffffff', 'hex')), null);
  assert.equal(subscribedTopics(Buffer.from('0000000000010009616263', 'hex')), null);
  assert.equal(subscribedTopics(Buffer.from('000000000001ffff', 'hex')), null);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
      const topics = subscribedTopics(Buffer.from(bytes));
      assert.ok(topics === null || topics.length <= 20);
    }),
  );
});
