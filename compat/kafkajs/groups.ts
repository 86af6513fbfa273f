// Consumer groups by kafkajs: members that join, leave and die, commit and resume, seek.

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { bootstrap, type Check, startMember, unique, until } from '../suite.ts';
import { connect, join, type Member } from './member.ts';

const memberScript = fileURLToPath(new URL('member.ts', import.meta.url));

async function newTopic(word: string, partitions: number): Promise<string> {
  const topic = unique(`kafkajs-${word}`);
  const admin = connect(bootstrap).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions }] });
  await admin.disconnect();
  return topic;
}

/** Sends values named by the word, spread over the partitions; returns them. */
async function send(topic: string, partitions: number, word: string, count = 40): Promise<string[]> {
  const producer = connect(bootstrap).producer();
  await producer.connect();
  const values = Array.from({ length: count }, (_, i) => `${word} ${i}`);
  await producer.send({ topic, messages: values.map((value, i) => ({ value, partition: i % partitions })) });
  await producer.disconnect();
  return values;
}

const values = (...members: Member[]) =>
  members.flatMap(member => member.records.map(({ message }) => String(message.value)));

/** Waits until the members together have each value, and asserts that no value came twice. */
async function received(expected: string[], ...members: Member[]): Promise<void> {
  await until(`${expected.length} records`, () => values(...members).length >= expected.length);
  assert.deepEqual(values(...members).sort(), [...expected].sort());
}

const share = (member: Member) => member.partitions.length;

export const groupChecks: Check[] = [
  {
    name: 'group: members joining and leaving share the partitions',
    run: async () => {
      const topic = await newTopic('share', 4);
      const group = unique('kafkajs-share');
      const first = await join(bootstrap, group, topic);
      await until('all partitions', () => share(first) === 4);
      const sent = await send(topic, 4, 'alone');
      await received(sent, first);
      const second = await join(bootstrap, group, topic);
      await until('two partitions each', () => share(first) === 2 && share(second) === 2);
      sent.push(...(await send(topic, 4, 'together')));
      await received(sent, first, second);
      assert.ok(second.records.length > 0);
      await second.consumer.disconnect();
      await until('all partitions again', () => share(first) === 4);
      sent.push(...(await send(topic, 4, 'after')));
      await received(sent, first, second);
      await first.consumer.disconnect();
    },
  },
  {
    name: 'group: the partitions of a killed member go to the others',
    run: async () => {
      const topic = await newTopic('killed', 4);
      const group = unique('kafkajs-killed');
      const child = await startMember(memberScript, [bootstrap, group, topic], 'joined');
      const survivor = await join(bootstrap, group, topic);
      await until('two partitions', () => share(survivor) === 2);
      child.removeAllListeners('exit');
      child.kill('SIGKILL');
      const sent = await send(topic, 4, 'orphaned');
      await until('all partitions', () => share(survivor) === 4);
      await received(sent, survivor);
      await survivor.consumer.disconnect();
    },
  },
  {
    name: 'group: commit by hand and resume',
    run: async () => {
      const topic = await newTopic('commit', 1);
      const group = unique('kafkajs-commit');
      const sent = await send(topic, 1, 'record', 20);
      const first = await join(bootstrap, group, topic, false);
      await received(sent, first);
      await first.consumer.commitOffsets([{ topic, partition: 0, offset: '12', metadata: 'by hand' }]);
      await first.consumer.disconnect();
      const admin = connect(bootstrap).admin();
      await admin.connect();
      const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      assert.deepEqual(committed?.partitions, [{ partition: 0, offset: '12', metadata: 'by hand' }]);
      await admin.disconnect();
      const second = await join(bootstrap, group, topic, false);
      await received(sent.slice(12), second);
      await second.consumer.disconnect();
    },
  },
  {
    name: 'group: seek by time',
    run: async () => {
      const topic = await newTopic('seek', 1);
      await send(topic, 1, 'early', 5);
      await delay(20);
      const instant = Date.now();
      const late = await send(topic, 1, 'late', 5);
      const admin = connect(bootstrap).admin();
      await admin.connect();
      const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, instant);
      assert.deepEqual(found, { partition: 0, offset: '5' });
      const [past] = await admin.fetchTopicOffsetsByTimestamp(topic, Date.now() + 60_000);
      assert.deepEqual(past, { partition: 0, offset: '10' });
      await admin.disconnect();
      const member = await join(bootstrap, unique('kafkajs-seek'), topic);
      await until('all records', () => member.records.length >= 10);
      member.records.length = 0;
      member.consumer.seek({ topic, partition: 0, offset: found!.offset });
      await received(late, member);
      await member.consumer.disconnect();
    },
  },
  {
    name: 'group: described, listed and deleted',
    run: async () => {
      const topic = await newTopic('described', 2);
      const group = unique('kafkajs-described');
      const member = await join(bootstrap, group, topic);
      await until('an assignment', () => share(member) === 2);
      const admin = connect(bootstrap).admin();
      await admin.connect();
      const { groups } = await admin.describeGroups([group]);
      assert.equal(groups[0]?.state, 'Stable');
      assert.equal(groups[0]?.protocolType, 'consumer');
      assert.equal(groups[0]?.protocol, 'RoundRobinAssigner');
      assert.equal(groups[0]?.members.length, 1);
      assert.equal(groups[0]?.members[0]?.clientId, 'compat-kafkajs');
      assert.match(groups[0]!.members[0]!.clientHost, /^\/127\.0\.0\.1$/);
      const listed = await admin.listGroups();
      assert.ok(listed.groups.some(one => one.groupId === group && one.protocolType === 'consumer'));
      await assert.rejects(admin.deleteGroups([group]), { name: 'KafkaJSDeleteGroupsError' });
      await member.consumer.disconnect();
      await admin.deleteGroups([group]);
      const after = await admin.describeGroups([group]);
      assert.equal(after.groups[0]?.state, 'Dead');
      await admin.disconnect();
    },
  },
  {
    name: 'group: offsets set by the admin client',
    run: async () => {
      const topic = await newTopic('reset', 1);
      const group = unique('kafkajs-reset');
      const sent = await send(topic, 1, 'record', 10);
      const admin = connect(bootstrap).admin();
      await admin.connect();
      await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '7' }] });
      const member = await join(bootstrap, group, topic);
      await received(sent.slice(7), member);
      await member.consumer.disconnect();
      const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      assert.equal(committed?.partitions[0]?.offset, '10');
      await admin.disconnect();
    },
  },
];
