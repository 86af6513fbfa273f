// From a frame to the chunks of its answer: header, handler, codec. What a Kafka broker answers to a key or version
// it does not serve is answered here: ApiVersions of an unknown version gets version 0 with the list (KIP-511);
// anything else closes the connection.
import { readRequest } from '../protocol/compile.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { peekRequest, readRequestHeader, responseFrame } from '../protocol/header.ts';
import { ApiVersions } from '../protocol/messages/18-api-versions.ts';
import type { BrokerContext, RequestContext } from './context.ts';
import type { Handler } from './handler.ts';

/** The connection cannot go on: what came is not a request that can be answered. */
export class RefusedRequest extends Error {
  override name = 'RefusedRequest';
}

export type ConnectionContext = Omit<RequestContext, 'broker' | 'apiVersion' | 'clientId'>;

export interface Served {
  readonly name: string;
  /** `undefined`: nothing is to be answered. */
  readonly chunks: Buffer[] | undefined;
}

export class Dispatcher {
  readonly #handlers = new Map<number, Handler>();
  readonly #broker: BrokerContext;

  constructor(handlers: readonly Handler[], broker: BrokerContext) {
    for (const handler of handlers) this.#handlers.set(handler.api.key, handler);
    this.#broker = broker;
  }

  /** Throws RefusedRequest or WireError for bad input; anything else that is thrown is a failure here. */
  async serve(frame: Buffer, connection: ConnectionContext): Promise<Served> {
    const { apiKey, apiVersion, correlationId } = peekRequest(frame);
    const handler = this.#handlers.get(apiKey);
    if (!handler) throw new RefusedRequest(`API key ${apiKey} is not served`);
    const { api, versions } = handler;
    if (apiVersion < versions[0] || apiVersion > versions[1]) {
      if (apiKey !== ApiVersions.key) {
        throw new RefusedRequest(
          `${api.name} version ${apiVersion} is not served, ${versions[0]} to ${versions[1]} are`,
        );
      }
      return { name: api.name, chunks: this.#unknownApiVersions(correlationId) };
    }
    const { clientId, bodyAt } = readRequestHeader(api, frame);
    const request = readRequest(api, apiVersion, frame, bodyAt);
    const { clientHost, ending, readyForNext, closeConnection, hold, whenSent } = connection;
    // Named one by one: spreading took about a twentieth of the process's time with many small requests.
    const context = {
      broker: this.#broker,
      apiVersion,
      clientId,
      clientHost,
      ending,
      readyForNext,
      closeConnection,
      hold,
      whenSent,
    };
    const response = await handler.handle(request, context);
    return { name: api.name, chunks: response && responseFrame(api, apiVersion, correlationId, response) };
  }

  #unknownApiVersions(correlationId: number): Buffer[] {
    return responseFrame(ApiVersions, 0, correlationId, {
      errorCode: ErrorCode.UNSUPPORTED_VERSION,
      apiKeys: this.#broker.served.map(({ key, versions }) => ({
        apiKey: key,
        minVersion: versions[0],
        maxVersion: versions[1],
      })),
    });
  }
}
