// Connections and group members of the @platformatic/kafka suite. Run as a program (HOST:PORT GROUP TOPIC) it is a member
// that lives until it is killed.

import { fileURLToPath } from 'node:url';
import {
  Consumer,
  type Message,
  type MessagesStream,
  MessagesStreamFallbackModes,
  MessagesStreamModes,
} from '@platformatic/kafka';
import { until } from '../suite.ts';

export const identity = (bootstrap: string) => ({
  clientId: 'compat-platformatic',
  bootstrapBrokers: [bootstrap],
  retries: 5,
  retryDelay: 100,
});

export interface Member {
  consumer: Consumer;
  stream: MessagesStream<Buffer, Buffer, Buffer, Buffer>;
  /** Partitions after the last rebalance; empty while there is none. */
  partitions: () => number[];
  records: Message[];
  leave(): Promise<void>;
}

export async function join(bootstrap: string, group: string, topic: string, autocommit = true): Promise<Member> {
  const consumer = new Consumer({
    ...identity(bootstrap),
    groupId: group,
    sessionTimeout: 6000,
    heartbeatInterval: 300,
    rebalanceTimeout: 6000,
    autocommit,
    maxWaitTime: 200,
  });
  const records: Message[] = [];
  const stream = await consumer.consume({
    topics: [topic],
    mode: MessagesStreamModes.COMMITTED,
    fallbackMode: MessagesStreamFallbackModes.EARLIEST,
  });
  stream.on('data', message => records.push(message));
  return {
    consumer,
    stream,
    records,
    partitions: () => consumer.assignments?.find(one => one.topic === topic)?.partitions ?? [],
    leave: async () => {
      await stream.close();
      await consumer.close(true);
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [bootstrap, group, topic] = process.argv.slice(2);
  const member = await join(bootstrap!, group!, topic!);
  await until('an assignment', () => member.partitions().length > 0);
  console.log('joined');
}
