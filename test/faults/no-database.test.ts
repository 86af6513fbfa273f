// Postgres is there and lets nobody in: whatever a client asks, it is answered, and told to ask again.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { errorOf } from '../../src/protocol/errors.ts';
import { Fetch } from '../../src/protocol/messages/01-fetch.ts';
import { ListOffsets } from '../../src/protocol/messages/02-list-offsets.ts';
import { Metadata } from '../../src/protocol/messages/03-metadata.ts';
import { OffsetCommit } from '../../src/protocol/messages/08-offset-commit.ts';
import { OffsetFetch } from '../../src/protocol/messages/09-offset-fetch.ts';
import { JoinGroup } from '../../src/protocol/messages/11-join-group.ts';
import { DescribeGroups } from '../../src/protocol/messages/15-describe-groups.ts';
import { ListGroups } from '../../src/protocol/messages/16-list-groups.ts';
import { CreateTopics } from '../../src/protocol/messages/19-create-topics.ts';
import { DeleteTopics } from '../../src/protocol/messages/20-delete-topics.ts';
import { DeleteRecords } from '../../src/protocol/messages/21-delete-records.ts';
import { InitProducerId } from '../../src/protocol/messages/22-init-producer-id.ts';
import { OffsetForLeaderEpoch } from '../../src/protocol/messages/23-offset-for-leader-epoch.ts';
import { AlterConfigs } from '../../src/protocol/messages/33-alter-configs.ts';
import { DescribeLogDirs } from '../../src/protocol/messages/35-describe-log-dirs.ts';
import { CreatePartitions } from '../../src/protocol/messages/37-create-partitions.ts';
import { DeleteGroups } from '../../src/protocol/messages/42-delete-groups.ts';
import { IncrementalAlterConfigs } from '../../src/protocol/messages/44-incremental-alter-configs.ts';
import { OffsetDelete } from '../../src/protocol/messages/47-offset-delete.ts';
import { createDatabase, onServer, type TestDatabase } from '../database.ts';
import { batchOf, createTopic, produce } from './kafka.ts';
import { TestServer } from './server.ts';
import { WireClient } from './wire.ts';

let database: TestDatabase;
let server: TestServer;
let client: WireClient;

before(async () => {
  database = await createDatabase();
  server = await TestServer.start({ databaseUrl: database.url, settings: { 'tail.cache.bytes': '0' } });
  client = await WireClient.connect(server.port);
  await createTopic(client, 'there');
  await produce(client, 'there', 0, batchOf('a', 'b'));
  const noticed = server.nextLog(/cannot lead yet/);
  const name = new URL(database.url).pathname.slice(1);
  await onServer(async session => {
    await session.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await session.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  });
  await noticed;
});

after(async () => {
  client?.close();
  await server?.remove();
  await database?.drop();
});

const name = 'there';
const partitions = [{ partitionIndex: 0 }];
const retention = { name: 'retention.ms', value: '1000', configOperation: 0 };
const timeoutMs = 5000;

const asked: Readonly<Record<string, readonly [ask: () => Promise<unknown>, answer: string]>> = {
  Fetch: [
    () =>
      client.request(Fetch, 11, {
        maxWaitMs: 0,
        minBytes: 1,
        maxBytes: 1000,
        sessionId: 0,
        sessionEpoch: -1,
        topics: [{ topic: name, partitions: [{ partition: 0, fetchOffset: 0n, partitionMaxBytes: 1000 }] }],
        forgottenTopicsData: [],
        rackId: '',
      }),
    'KAFKA_STORAGE_ERROR',
  ],
  'ListOffsets for a time': [() => listOffsets(5n), 'KAFKA_STORAGE_ERROR'],
  'ListOffsets for the newest': [() => listOffsets(-3n), 'KAFKA_STORAGE_ERROR'],
  'Metadata of a topic to be made': [
    () =>
      client.request(Metadata, 9, {
        topics: [{ name: 'new' }],
        allowAutoTopicCreation: true,
        includeTopicAuthorizedOperations: false,
      }),
    'LEADER_NOT_AVAILABLE',
  ],
  OffsetCommit: [
    () =>
      client.request(OffsetCommit, 2, {
        groupId: 'g',
        memberId: '',
        topics: [{ name, partitions: [{ partitionIndex: 0, committedOffset: 1n, committedMetadata: null }] }],
      }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  OffsetFetch: [
    () => client.request(OffsetFetch, 7, { groupId: 'g', topics: null, requireStable: true }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  JoinGroup: [
    () =>
      client.request(JoinGroup, 3, {
        groupId: 'g',
        sessionTimeoutMs: 10_000,
        memberId: '',
        protocolType: 'consumer',
        protocols: [{ name: 'range', metadata: Buffer.alloc(0) }],
      }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  DescribeGroups: [
    () => client.request(DescribeGroups, 5, { groups: ['g'], includeAuthorizedOperations: false }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  ListGroups: [() => client.request(ListGroups, 4, { statesFilter: [] }), 'COORDINATOR_NOT_AVAILABLE'],
  DeleteGroups: [() => client.request(DeleteGroups, 2, { groupsNames: ['g'] }), 'COORDINATOR_NOT_AVAILABLE'],
  OffsetDelete: [
    () => client.request(OffsetDelete, 0, { groupId: 'g', topics: [{ name, partitions }] }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  CreateTopics: [
    () =>
      client.request(CreateTopics, 5, {
        topics: [{ name: 'newer', numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] }],
        timeoutMs,
        validateOnly: false,
      }),
    'REQUEST_TIMED_OUT',
  ],
  DeleteTopics: [() => client.request(DeleteTopics, 5, { topicNames: [name], timeoutMs }), 'REQUEST_TIMED_OUT'],
  CreatePartitions: [
    () =>
      client.request(CreatePartitions, 3, {
        topics: [{ name, count: 2, assignments: null }],
        timeoutMs,
        validateOnly: false,
      }),
    'REQUEST_TIMED_OUT',
  ],
  AlterConfigs: [
    () =>
      client.request(AlterConfigs, 2, {
        resources: [{ resourceType: 2, resourceName: name, configs: [retention] }],
        validateOnly: false,
      }),
    'REQUEST_TIMED_OUT',
  ],
  IncrementalAlterConfigs: [
    () =>
      client.request(IncrementalAlterConfigs, 1, {
        resources: [{ resourceType: 2, resourceName: name, configs: [retention] }],
        validateOnly: false,
      }),
    'REQUEST_TIMED_OUT',
  ],
  DeleteRecords: [
    () =>
      client.request(DeleteRecords, 2, {
        topics: [{ name, partitions: [{ partitionIndex: 0, offset: 1n }] }],
        timeoutMs,
      }),
    'KAFKA_STORAGE_ERROR',
  ],
  InitProducerId: [
    () => client.request(InitProducerId, 4, { transactionalId: null, transactionTimeoutMs: 1000 }),
    'COORDINATOR_NOT_AVAILABLE',
  ],
  OffsetForLeaderEpoch: [
    () =>
      client.request(OffsetForLeaderEpoch, 4, {
        topics: [{ topic: name, partitions: [{ partition: 0, leaderEpoch: 0 }] }],
      }),
    'LEADER_NOT_AVAILABLE',
  ],
  DescribeLogDirs: [() => client.request(DescribeLogDirs, 3, { topics: null }), 'KAFKA_STORAGE_ERROR'],
};

function listOffsets(timestamp: bigint): Promise<unknown> {
  return client.request(ListOffsets, 7, {
    replicaId: -1,
    isolationLevel: 0,
    topics: [{ name, partitions: [{ partitionIndex: 0, timestamp }] }],
  });
}

/** Every error in an answer, however deep. */
function errorsIn(answer: unknown): number[] {
  if (typeof answer !== 'object' || answer === null || Buffer.isBuffer(answer)) return [];
  const { errorCode } = answer as { errorCode?: number };
  return [...(errorCode ? [errorCode] : []), ...Object.values(answer).flatMap(errorsIn)];
}

for (const [what, [ask, answer]] of Object.entries(asked)) {
  test(`${what} is answered with ${answer}`, async () => {
    if (client.socket.destroyed) client = await WireClient.connect(server.port);
    const errors = errorsIn(await ask()).map(errorOf);
    assert.deepEqual(
      errors.map(error => error.name),
      [answer],
    );
    assert.ok(errors[0]!.retriable);
  });
}
