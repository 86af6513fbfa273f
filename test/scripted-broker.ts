// A broker of a few requests, in memory, for tests of those who talk to one: a test decides about each request whether it
// is served, refused, answered never, or served while its connection breaks. Sequences are checked as a log checks them.
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { readRequest } from '../src/protocol/compile.ts';
import { ErrorCode } from '../src/protocol/errors.ts';
import { FrameReader } from '../src/protocol/frame.ts';
import { peekRequest, readRequestHeader, responseFrame } from '../src/protocol/header.ts';
import { Produce } from '../src/protocol/messages/00-produce.ts';
import { Fetch } from '../src/protocol/messages/01-fetch.ts';
import { ListOffsets } from '../src/protocol/messages/02-list-offsets.ts';
import { Metadata } from '../src/protocol/messages/03-metadata.ts';
import { ApiVersions } from '../src/protocol/messages/18-api-versions.ts';
import { CreateTopics } from '../src/protocol/messages/19-create-topics.ts';
import { InitProducerId } from '../src/protocol/messages/22-init-producer-id.ts';
import { DescribeConfigs } from '../src/protocol/messages/32-describe-configs.ts';
import * as header from '../src/protocol/record-batch.ts';
import type { Api, RequestOf, ResponseOf } from '../src/protocol/schema.ts';
import { Producers } from '../src/storage/producers.ts';

/**
 * What becomes of a request. A number refuses what it asks for with that error; 'hold' serves it when `release` is called;
 * 'serve unheard' never answers.
 */
export type Verdict = 'serve' | 'break' | 'serve and break' | 'serve unheard' | 'never' | 'hold' | number;

interface Partition {
  readonly batches: Buffer[];
  readonly producers: Producers;
  end: bigint;
  /** Transactions, up to the markers that end them. */
  aborted?: readonly { readonly producerId: bigint; readonly firstOffset: bigint; readonly lastOffset: bigint }[];
}

const apis: readonly Api[] = [
  Produce,
  Fetch,
  ListOffsets,
  Metadata,
  ApiVersions,
  CreateTopics,
  InitProducerId,
  DescribeConfigs,
] as unknown as Api[];

export class ScriptedBroker {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #held: (() => void)[] = [];
  readonly topics = new Map<string, Partition[]>();
  clusterId = 'scripted';
  /** Asked for each request, in the order in which they come. */
  decide: (api: Api, request: never) => Verdict = () => 'serve';
  /** Sent instead of an answer, if it gives any. */
  instead: (api: Api, correlationId: number) => Buffer | undefined = () => undefined;
  /** Requests that have come, and not been answered. */
  unanswered = 0;
  mostUnanswered = 0;
  connections = 0;
  #producerId = 1000n;
  readonly #waiting = new Set<() => void>();

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', socket => this.#accept(socket));
  }

  static async start(): Promise<ScriptedBroker> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ScriptedBroker(server);
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: (this.#server.address() as { port: number }).port };
  }

  create(topic: string, partitions: number): void {
    this.topics.set(
      topic,
      Array.from({ length: partitions }, () => ({ batches: [], producers: new Producers(), end: 0n })),
    );
  }

  /** How many requests are held back. */
  get held(): number {
    return this.#held.length;
  }

  release(): void {
    for (const serve of this.#held.splice(0)) serve();
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>(resolve => this.#waiting.add(resolve));
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(socket: Socket): void {
    this.connections++;
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {});
    const frames = new FrameReader({ maxBytes: 2 ** 24 });
    socket.on('data', chunk => {
      for (const frame of frames.push(chunk)) this.#request(socket, frame);
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
    });
  }

  #request(socket: Socket, frame: Buffer): void {
    const { apiKey, apiVersion, correlationId } = peekRequest(frame);
    const api = apis.find(({ key }) => key === apiKey)!;
    const { bodyAt } = readRequestHeader(api, frame);
    const request = readRequest(api, apiVersion, frame, bodyAt) as never;
    this.unanswered++;
    this.mostUnanswered = Math.max(this.mostUnanswered, this.unanswered);
    const verdict = this.decide(api, request);
    const serve = (error: number = ErrorCode.NONE, answer = true) => {
      const response = this.#serve(api, request, error) as never;
      this.unanswered--;
      if (!answer) return;
      const bytes = this.instead(api, correlationId);
      const chunks = bytes ? [bytes] : responseFrame(api, apiVersion, correlationId, response);
      for (const chunk of chunks) socket.write(chunk);
    };
    if (verdict === 'serve') serve();
    else if (typeof verdict === 'number') serve(verdict);
    else if (verdict === 'hold') this.#held.push(() => serve(ErrorCode.NONE, !socket.destroyed));
    else if (verdict === 'serve unheard') serve(ErrorCode.NONE, false);
    else if (verdict !== 'never') {
      if (verdict === 'serve and break') serve(ErrorCode.NONE, false);
      else this.unanswered--;
      socket.destroy();
    }
  }

  #serve(api: Api, request: never, error: number): unknown {
    switch (api as unknown) {
      case ApiVersions:
        return {
          errorCode: error,
          apiKeys: apis.map(({ key, versions: [minVersion, maxVersion] }) => ({ apiKey: key, minVersion, maxVersion })),
        } satisfies ResponseOf<typeof ApiVersions>;
      case Metadata:
        return this.#metadata(request, error);
      case InitProducerId:
        return { errorCode: error, producerId: this.#producerId++, producerEpoch: 0 };
      case Produce:
        return this.#produce(request, error);
      case ListOffsets:
        return this.#offsets(request, error);
      case Fetch:
        return this.#fetch(request, error);
      case CreateTopics:
        for (const { name, numPartitions } of (request as RequestOf<typeof CreateTopics>).topics) {
          if (error === ErrorCode.NONE) this.create(name, numPartitions < 0 ? 2 : numPartitions);
        }
        return {
          topics: (request as RequestOf<typeof CreateTopics>).topics.map(({ name }) => ({
            name,
            errorCode: error,
            configs: null,
          })),
        } satisfies ResponseOf<typeof CreateTopics>;
      default:
        return {
          results: (request as RequestOf<typeof DescribeConfigs>).resources.map(resource => ({
            ...resource,
            errorCode: error,
            configs: [{ name: 'max.message.bytes', value: '1048588', readOnly: false, isSensitive: false }],
          })),
        } satisfies ResponseOf<typeof DescribeConfigs>;
    }
  }

  #metadata({ topics }: RequestOf<typeof Metadata>, error: number): ResponseOf<typeof Metadata> {
    return {
      brokers: [{ nodeId: 1, ...this.address }],
      clusterId: this.clusterId,
      controllerId: 1,
      topics: (topics ?? Array.from(this.topics.keys(), name => ({ name }))).map(({ name }) => {
        const partitions = this.topics.get(name!) ?? [];
        return {
          name: name!,
          errorCode: error || (partitions.length > 0 ? ErrorCode.NONE : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
          partitions: partitions.map((_, partitionIndex) => ({
            errorCode: ErrorCode.NONE,
            partitionIndex,
            leaderId: 1,
            replicaNodes: [1],
            isrNodes: [1],
          })),
        };
      }),
    };
  }

  #produce({ topicData }: RequestOf<typeof Produce>, error: number): ResponseOf<typeof Produce> {
    return {
      responses: topicData.map(({ name, partitionData }) => ({
        name,
        partitionResponses: partitionData.map(({ index, records }) => {
          const [errorCode, baseOffset] = error ? [error, -1n] : this.append(name, index, Buffer.from(records!));
          return { index, errorCode, baseOffset };
        }),
      })),
    };
  }

  /** As a log does it; returns the error and the offset. */
  append(topic: string, index: number, batch: Buffer): [number, bigint] {
    const partition = this.topics.get(topic)?.[index];
    if (partition === undefined) return [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1n];
    const check = partition.producers.check(batch);
    if (check.kind === 'refused') return [check.error, -1n];
    if (check.kind === 'duplicate') return [ErrorCode.NONE, check.baseOffset];
    const baseOffset = partition.end;
    header.assignOffset(batch, 0, baseOffset, 0);
    partition.producers.begin();
    partition.producers.append(batch, baseOffset, Date.now());
    partition.producers.settle();
    partition.batches.push(batch);
    partition.end += BigInt(header.recordCount(batch));
    return [ErrorCode.NONE, baseOffset];
  }

  #offsets({ topics }: RequestOf<typeof ListOffsets>, error: number): ResponseOf<typeof ListOffsets> {
    return {
      topics: topics.map(({ name, partitions }) => ({
        name,
        partitions: partitions.map(({ partitionIndex, timestamp }) => {
          const { batches, end } = this.topics.get(name)![partitionIndex]!;
          const start = batches[0] ? header.baseOffset(batches[0]) : end;
          return { partitionIndex, errorCode: error, offset: timestamp === -1n ? end : start, oldStyleOffsets: [] };
        }),
      })),
    };
  }

  #fetch({ topics, maxBytes }: RequestOf<typeof Fetch>, error: number): ResponseOf<typeof Fetch> {
    let left = maxBytes;
    return {
      responses: topics.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map(({ partition, fetchOffset }) => {
          const { batches, end, aborted = [] } = this.topics.get(topic)![partition]!;
          const start = batches[0] ? header.baseOffset(batches[0]) : end;
          const outside = fetchOffset > end || fetchOffset < start;
          const from = batches
            .filter(batch => header.lastOffset(batch) >= fetchOffset)
            .slice(0, 3)
            .filter(batch => {
              const fits = batch.length <= left || left === maxBytes;
              left = fits ? left - batch.length : 0;
              return fits;
            });
          return {
            partitionIndex: partition,
            errorCode: error || (outside ? ErrorCode.OFFSET_OUT_OF_RANGE : ErrorCode.NONE),
            highWatermark: end,
            abortedTransactions: aborted.filter(({ lastOffset }) => lastOffset >= fetchOffset),
            records: outside ? null : Buffer.concat(from),
          };
        }),
      })),
    };
  }
}
