// Calls a handler as a connection does, codec included: the request is written and read back in the version asked
// for, and so is the answer. What a test sees is what a client of that version would.
import { pino } from 'pino';
import { Allowance } from '../src/broker/allowance.ts';
import type { BrokerContext } from '../src/broker/context.ts';
import { Ending } from '../src/broker/ending.ts';
import type { Handler } from '../src/broker/handler.ts';
import { readRequest, readResponse, writeRequest, writeResponse } from '../src/protocol/compile.ts';
import type { Api, ReceivedResponse, RequestToSend } from '../src/protocol/schema.ts';
import { settingsWith } from '../src/runtime/config.ts';
import type { Settings } from '../src/runtime/settings.ts';
import type { Log } from '../src/storage/log.ts';
import { serverDefaults } from '../src/storage/server-defaults.ts';
import type { Topics } from '../src/storage/topics.ts';

export async function call<A extends Api>(
  api: A,
  handler: Handler,
  version: number,
  request: RequestToSend<A>,
  broker: BrokerContext,
): Promise<ReceivedResponse<A>> {
  if (handler.api !== (api as Api)) throw new Error(`this is not the handler of ${api.name}`);
  const read = readRequest(api, version, Buffer.concat(writeRequest(api, version, request)));
  const response = await handler.handle(read, {
    broker,
    apiVersion: version,
    clientId: 'test',
    clientHost: '127.0.0.1',
    ending: new Ending(),
    readyForNext() {},
    closeConnection() {},
    hold() {},
    whenSent() {},
  });
  return readResponse(api, version, Buffer.concat(writeResponse(api, version, response as never)));
}

/** The part of a broker that topic administration needs; more by `rest`. */
export function topicBroker(
  topics: Topics,
  settings: Partial<Settings> = {},
  rest: Partial<BrokerContext> = {},
): BrokerContext {
  const all = settingsWith(settings);
  return {
    settings: all,
    nodeId: all.nodeId,
    clusterId: 'a-test-cluster',
    advertised: { host: 'broker.example', port: 9092 },
    topics,
    serverDefaults: serverDefaults(all),
    log: { epoch: 7 } as Log,
    inflation: new Allowance(all.inFlightBytes),
    logger: pino({ level: 'silent' }),
    ...rest,
  } as BrokerContext;
}
