// Consumer groups by @platformatic/kafka: members that join, leave and die, commit and resume, seek by time.

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Admin, Consumer, MessagesStreamModes, Producer } from '@platformatic/kafka';
import { bootstrap, type Check, startMember, unique, until } from '../suite.ts';
import { identity, join, type Member } from './member.ts';

const memberScript = fileURLToPath(new URL('member.ts', import.meta.url));

async function withAdmin<T>(use: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Admin(identity(bootstrap));
  try {
    return await use(admin);
  } finally {
    await admin.close();
  }
}

async function newTopic(word: string, partitions: number): Promise<string> {
  const topic = unique(`platformatic-${word}`);
  await withAdmin(admin => admin.createTopics({ topics: [topic], partitions, replicas: 1 }));
  return topic;
}

/** Sends values named by the word, spread over the partitions; returns them. */
async function send(topic: string, partitions: number, word: string, count = 40): Promise<string[]> {
  const producer = new Producer(identity(bootstrap));
  const values = Array.from({ length: count }, (_, i) => `${word} ${i}`);
  const messages = values.map((value, i) => ({ topic, value: Buffer.from(value), partition: i % partitions }));
  await producer.send({ messages, acks: -1 });
  await producer.close();
  return values;
}

const values = (...members: Member[]) => members.flatMap(member => member.records.map(({ value }) => String(value)));

/** Waits until the members together have each value. Some come twice: a rebalance does not wait for a commit. */
async function received(expected: string[], ...members: Member[]): Promise<void> {
  await until(`${expected.length} records`, () => new Set(values(...members)).size >= expected.length);
  assert.deepEqual([...new Set(values(...members))].sort(), [...expected].sort());
}

const share = (member: Member) => member.partitions().length;

export const groupChecks: Check[] = [
  {
    name: 'group: members joining and leaving share the partitions',
    run: async () => {
      const topic = await newTopic('share', 4);
      const group = unique('platformatic-share');
      const first = await join(bootstrap, group, topic);
      await until('all partitions', () => share(first) === 4);
      const sent = await send(topic, 4, 'alone');
      await received(sent, first);
      const second = await join(bootstrap, group, topic);
      await until('two partitions each', () => share(first) === 2 && share(second) === 2);
      sent.push(...(await send(topic, 4, 'together')));
      await received(sent, first, second);
      assert.ok(second.records.length > 0);
      await second.leave();
      await until('all partitions again', () => share(first) === 4);
      sent.push(...(await send(topic, 4, 'after')));
      await received(sent, first, second);
      await first.leave();
    },
  },
  {
    name: 'group: the partitions of a killed member go to the others',
    run: async () => {
      const topic = await newTopic('killed', 4);
      const group = unique('platformatic-killed');
      const child = await startMember(memberScript, [bootstrap, group, topic], 'joined');
      const survivor = await join(bootstrap, group, topic);
      await until('two partitions', () => share(survivor) === 2);
      child.removeAllListeners('exit');
      child.kill('SIGKILL');
      const sent = await send(topic, 4, 'orphaned');
      await until('all partitions', () => share(survivor) === 4);
      await received(sent, survivor);
      await survivor.leave();
    },
  },
  {
    name: 'group: commit by hand and resume',
    run: async () => {
      const topic = await newTopic('commit', 1);
      const group = unique('platformatic-commit');
      const sent = await send(topic, 1, 'record', 20);
      const first = await join(bootstrap, group, topic, false);
      await received(sent, first);
      await first.consumer.commit({ offsets: [{ topic, partition: 0, offset: 12n, leaderEpoch: 0 }] });
      await first.leave();
      await withAdmin(async admin => {
        const [found] = await admin.listConsumerGroupOffsets({ groups: [group] });
        const [partition] = found!.topics[0]!.partitions;
        assert.equal(found?.topics[0]?.name, topic);
        assert.equal(partition?.committedOffset, 12n);
        assert.equal(partition?.committedLeaderEpoch, 0);
      });
      const second = await join(bootstrap, group, topic, false);
      await received(sent.slice(12), second);
      await second.leave();
    },
  },
  {
    name: 'group: seek by time',
    run: async () => {
      const topic = await newTopic('seek', 1);
      await send(topic, 1, 'early', 5);
      await delay(20);
      const timestamp = BigInt(Date.now());
      const late = await send(topic, 1, 'late', 5);
      const consumer = new Consumer({ ...identity(bootstrap), groupId: unique('platformatic-seek'), maxWaitTime: 200 });
      const offsets = await consumer.listOffsets({ topics: [topic], timestamp });
      assert.deepEqual(offsets.get(topic), [5n]);
      const stream = await consumer.consume({
        topics: [topic],
        mode: MessagesStreamModes.MANUAL,
        offsets: [{ topic, partition: 0, offset: 5n }],
      });
      const found: string[] = [];
      stream.on('data', message => found.push(String(message.value)));
      await until('the late records', () => found.length >= 5);
      assert.deepEqual(found, late);
      await stream.close();
      await consumer.close(true);
    },
  },
  {
    name: 'group: described, listed and deleted',
    run: async () => {
      const topic = await newTopic('described', 2);
      const group = unique('platformatic-described');
      const member = await join(bootstrap, group, topic);
      await until('an assignment', () => share(member) === 2);
      await withAdmin(async admin => {
        const described = (await admin.describeGroups({ groups: [group] })).get(group);
        assert.equal(described?.state, 'STABLE');
        assert.equal(described?.protocolType, 'consumer');
        assert.equal(described?.protocol, 'roundrobin');
        const [one] = [...described!.members.values()];
        assert.equal(one?.clientId, 'compat-platformatic');
        assert.equal(one?.clientHost, '/127.0.0.1');
        assert.deepEqual(one?.assignments?.get(topic)?.partitions, [0, 1]);
        const stable = await admin.listGroups({ states: ['STABLE'] });
        assert.equal(stable.get(group)?.groupType, 'classic');
        assert.ok(!(await admin.listGroups({ states: ['EMPTY'] })).has(group));
        await assert.rejects(admin.deleteGroups({ groups: [group] }));
        await member.leave();
        assert.equal((await admin.listGroups({ states: ['EMPTY'] })).get(group)?.state, 'EMPTY');
        await admin.deleteGroups({ groups: [group] });
        assert.ok(!(await admin.listGroups()).has(group));
      });
    },
  },
  {
    name: 'group: offsets set and deleted by the admin client',
    run: async () => {
      const topic = await newTopic('offsets', 1);
      const group = unique('platformatic-offsets');
      const sent = await send(topic, 1, 'record', 10);
      await withAdmin(async admin => {
        const partitionOffsets = [{ partition: 0, offset: 7n }];
        await admin.alterConsumerGroupOffsets({ groupId: group, topics: [{ name: topic, partitionOffsets }] });
        const member = await join(bootstrap, group, topic, false);
        await received(sent.slice(7), member);
        const ours = { groupId: group, topics: [{ name: topic, partitionIndexes: [0] }] };
        await assert.rejects(admin.deleteConsumerGroupOffsets(ours));
        await member.leave();
        const deleted = await admin.deleteConsumerGroupOffsets(ours);
        assert.deepEqual(deleted, [{ name: topic, partitionIndexes: [0] }]);
        const [after] = await admin.listConsumerGroupOffsets({ groups: [group] });
        assert.ok(!after?.topics.some(one => one.name === topic));
      });
    },
  },
];
