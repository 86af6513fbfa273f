import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { Millrace } from '../../test/millrace.ts';

let database: TestDatabase;
let millrace: Millrace;

before(async () => {
  database = await createDatabase();
  millrace = await new Millrace([`--database-url=${database.url}`, '--num-partitions=2']).ready();
});

after(async () => {
  await millrace.stop();
  await database.drop();
});

test('the status page shows what is in the topics and how far the groups are behind', async () => {
  const [, bootstrap] = /Kafka +(\S+)/.exec(millrace.stdout)!;
  const kafka = new kafkajs.Kafka({ brokers: [bootstrap!], logLevel: kafkajs.logLevel.NOTHING });
  const producer = kafka.producer();
  await producer.connect();
  const messages = Array.from({ length: 7 }, (_, index) => ({ value: `${index}`, partition: index % 2 }));
  await producer.send({ topic: 'seen', messages });
  await producer.disconnect();
  const admin = kafka.admin();
  await admin.connect();
  await admin.setOffsets({ groupId: 'readers', topic: 'seen', partitions: [{ partition: 0, offset: '1' }] });
  await admin.disconnect();

  const page = (await (await fetch(millrace.http)).text()).replaceAll('\n', '');
  assert.match(page, /<td>seen<\/td><td>2<\/td><td>7<\/td><td>[\d.]+ KiB<\/td>/);
  // Partition 0 has the records 0, 2, 4 and 6.
  assert.match(page, /<td>readers<\/td><td>Empty<\/td><td>0<\/td><td>3<\/td>/);
});
