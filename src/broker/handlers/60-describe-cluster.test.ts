import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call, topicBroker } from '../../../test/handler-call.ts';
import { ErrorCode } from '../../protocol/errors.ts';
import { DescribeCluster } from '../../protocol/messages/60-describe-cluster.ts';
import type { Topics } from '../../storage/topics.ts';
import { describeCluster } from './60-describe-cluster.ts';

const ask = (version: number, request: object = {}) =>
  call(
    DescribeCluster,
    describeCluster,
    version,
    { includeClusterAuthorizedOperations: false, ...request },
    topicBroker({} as Topics),
  );

test('the one broker, which is the controller too', async () => {
  for (const version of [0, 1, 2]) {
    assert.deepEqual(await ask(version), {
      throttleTimeMs: 0,
      errorCode: 0,
      errorMessage: null,
      endpointType: 1,
      clusterId: 'a-test-cluster',
      controllerId: 1,
      brokers: [{ brokerId: 1, host: 'broker.example', port: 9092, rack: null, isFenced: false }],
      clusterAuthorizedOperations: -2_147_483_648,
    });
  }
  assert.equal((await ask(0, { includeClusterAuthorizedOperations: true })).clusterAuthorizedOperations, 8096);
});

test('no other kind of endpoint is here', async () => {
  assert.equal((await ask(1, { endpointType: 2 })).errorCode, ErrorCode.MISMATCHED_ENDPOINT_TYPE);
  assert.equal((await ask(2, { endpointType: 3 })).errorCode, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE);
});
