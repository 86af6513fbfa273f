// Connections and group members of the kafkajs suite. Run as a program (HOST:PORT GROUP TOPIC) it is a member that lives
// until it is killed.

import { fileURLToPath } from 'node:url';
import kafkajs, { type Consumer, type KafkaMessage } from 'kafkajs';
import { until } from '../suite.ts';
import { registerCodecs } from './codecs.ts';

registerCodecs();

export const connect = (bootstrap: string) =>
  new kafkajs.Kafka({
    clientId: 'compat-kafkajs',
    brokers: [bootstrap],
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { initialRetryTime: 50, retries: 8 },
  });

export interface Member {
  consumer: Consumer;
  /** Partitions after the last rebalance; empty while there is none. */
  partitions: number[];
  records: { partition: number; message: KafkaMessage }[];
}

export async function join(bootstrap: string, group: string, topic: string, autoCommit = true): Promise<Member> {
  const consumer = connect(bootstrap).consumer({
    groupId: group,
    sessionTimeout: 6000,
    heartbeatInterval: 300,
    maxWaitTimeInMs: 200,
  });
  const member: Member = { consumer, partitions: [], records: [] };
  consumer.on(consumer.events.GROUP_JOIN, event => {
    member.partitions = [...(event.payload.memberAssignment[topic] ?? [])].sort();
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit,
    eachMessage: async ({ partition, message }) => {
      member.records.push({ partition, message });
    },
  });
  return member;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [bootstrap, group, topic] = process.argv.slice(2);
  const member = await join(bootstrap!, group!, topic!);
  await until('an assignment', () => member.partitions.length > 0);
  console.log('joined');
}
