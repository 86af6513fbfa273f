// A remote cluster as its client knows it: which brokers there are, who leads which partition, and a connection to each
// that is needed. What it knows can be old at any moment, so whoever is told NOT_LEADER_OR_FOLLOWER or loses a connection
// calls `refresh` and asks again; `retrying` is that loop. Only topics that somebody has asked about are kept.
import { ErrorCode } from '../protocol/errors.ts';
import { Metadata } from '../protocol/messages/03-metadata.ts';
import type { Api, ReceivedResponse, RequestToSend } from '../protocol/schema.ts';
import { backoff } from '../runtime/backoff.ts';
import { messageOf } from '../runtime/errors.ts';
import { type Address, Connection, type ConnectionOptions, type RequestOptions } from './connection.ts';
import { ClientClosedError, IncompatibleError, isRetriable, KafkaError, UnreachableError } from './errors.ts';

export interface ClusterOptions extends ConnectionOptions {
  readonly bootstrap: readonly Address[];
  /** Told of what goes wrong and is tried again, and with undefined once it went well. */
  readonly onTrouble?: (error: Error | undefined) => void;
}

export interface PartitionLayout {
  /** -1 while there is none. */
  readonly leader: number;
  readonly leaderEpoch: number;
}

export interface TopicLayout {
  readonly name: string;
  readonly topicId: string;
  /** By partition id. */
  readonly partitions: readonly PartitionLayout[];
}

/** 'any' broker, the controller, or the one of an id. */
export type Node = number | 'any' | 'controller';

/** Connections are kept by lane as well: what waits at the broker (a long poll) must not hold up the rest. */
export interface AskOptions extends RequestOptions {
  readonly lane?: string;
}

const topicsPerRequest = 500;
const retryWaits = { firstMs: 50, maxMs: 3000 };

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #closing = new AbortController();
  readonly #connections = new Map<string, Promise<Connection>>();
  #brokers = new Map<number, Address>();
  #controller = -1;
  #clusterId: string | undefined;
  /** undefined: there is none; an error: the cluster does not tell. */
  readonly #topics = new Map<string, TopicLayout | KafkaError | undefined>();
  #refreshing: Promise<void> | undefined;

  constructor(options: ClusterOptions) {
    this.#options = options;
  }

  /** Known after the first answer. */
  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  /** As last heard. */
  get brokerIds(): readonly number[] {
    return [...this.#brokers.keys()];
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Aborted by `close`. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  close(): void {
    this.#closing.abort();
    for (const connection of this.#connections.values()) connection.then(open => open.close()).catch(() => {});
    this.#connections.clear();
  }

  /**
   * Runs `work` until it succeeds, fails with what trying again does not mend, or the cluster is closed. Between tries
   * it waits, longer each time, and looks up the leaders anew.
   */
  async retrying<T>(work: () => Promise<T>): Promise<T> {
    const wait = backoff(retryWaits);
    for (let failed = false; ; ) {
      this.#throwIfClosed();
      try {
        const result = await work();
        if (failed) this.#options.onTrouble?.(undefined);
        return result;
      } catch (error) {
        this.#throwIfClosed();
        if (!isRetriable(error)) throw error;
        this.#options.onTrouble?.(error as Error);
        failed = true;
      }
      await wait(this.#closing.signal);
      await this.refresh().catch((error: unknown) => {
        if (!isRetriable(error)) throw error;
      });
    }
  }

  /** The topic's partitions and leaders, asked for if they are not known; undefined where there is no such topic. */
  async topic(name: string): Promise<TopicLayout | undefined> {
    const known = this.#topics.get(name);
    if (known === undefined || known instanceof KafkaError) {
      this.#topics.set(name, undefined);
      await this.refresh(true);
    }
    const layout = this.#topics.get(name);
    if (layout instanceof KafkaError) throw layout;
    return layout;
  }

  /** Of those of `names` that there are. What is not known yet is asked for at once. Rejects with a ClientError. */
  async layouts(names: readonly string[]): Promise<TopicLayout[]> {
    const unknown = names.filter(name => !isLayout(this.#topics.get(name)));
    for (const name of unknown) this.#topics.set(name, undefined);
    if (unknown.length > 0) await this.refresh(true);
    return names.flatMap(name => {
      const layout = this.#topics.get(name);
      if (layout instanceof KafkaError) throw layout;
      return layout ?? [];
    });
  }

  /** The names of all topics that it shows this client, but for its own (__consumer_offsets). Rejects with a ClientError. */
  async listTopics(): Promise<string[]> {
    const body = { topics: null, allowAutoTopicCreation: false };
    const { topics } = await this.request('any', Metadata, body, { least: 4, most: 12 });
    return topics.flatMap(({ name, isInternal }) => (name === null || isInternal ? [] : [name]));
  }

  /** The broker that leads, as last heard. Throws KafkaError where none is known. */
  leaderOf(topic: string, partition: number): number {
    const layout = this.#topics.get(topic);
    if (layout instanceof KafkaError) throw layout;
    const leader = layout?.partitions[partition]?.leader ?? -1;
    if (leader >= 0) return leader;
    const code = layout ? ErrorCode.LEADER_NOT_AVAILABLE : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
    throw new KafkaError(code, `partition ${partition} of ${topic}`);
  }

  /** Keeps nothing about a topic that is no longer of interest. */
  forget(topic: string): void {
    this.#topics.delete(topic);
  }

  /** Rejects with a ClientError. */
  async request<A extends Api>(
    node: Node,
    api: A,
    body: RequestToSend<A>,
    { lane = '', ...options }: AskOptions = {},
  ): Promise<ReceivedResponse<A>> {
    const connection = await this.#connection(node, lane);
    return connection.request(api, body, options);
  }

  /** Asks for the brokers and for the topics of interest. Those who ask at the same time share it, unless `anew`. */
  async refresh(anew = false): Promise<void> {
    if (anew) await this.#refreshing?.catch(() => {});
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<void> {
    const names = [...this.#topics.keys()];
    for (let at = 0; at === 0 || at < names.length; at += topicsPerRequest) {
      const asked = names.slice(at, at + topicsPerRequest);
      const topics = asked.map(name => ({ name }));
      const answer = await this.request(
        'any',
        Metadata,
        { topics, allowAutoTopicCreation: false },
        { least: 4, most: 12 },
      );
      this.#take(answer);
    }
  }

  #take(answer: ReceivedResponse<typeof Metadata>): void {
    const clusterId = answer.clusterId ?? '';
    if (this.#clusterId !== undefined && clusterId !== this.#clusterId) {
      throw new IncompatibleError(`the cluster was ${this.#clusterId}, and now answers as ${clusterId}`);
    }
    this.#clusterId = clusterId;
    this.#brokers = new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }]));
    this.#controller = answer.controllerId;
    for (const { name, topicId, errorCode, partitions } of answer.topics) {
      if (name === null || !this.#topics.has(name)) continue;
      if (errorCode !== ErrorCode.NONE) {
        const unknown = errorCode === ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
        this.#topics.set(name, unknown ? undefined : new KafkaError(errorCode, `topic ${name}`));
        continue;
      }
      const layout: PartitionLayout[] = [];
      for (const { partitionIndex, leaderId, leaderEpoch } of partitions) {
        if (partitionIndex < 0 || partitionIndex >= partitions.length) {
          throw new UnreachableError(
            `topic ${name} of ${partitions.length} partitions is said to have ${partitionIndex}`,
          );
        }
        layout[partitionIndex] = { leader: leaderId, leaderEpoch };
      }
      this.#topics.set(name, { name, topicId, partitions: layout });
    }
  }

  async #connection(node: Node, lane: string): Promise<Connection> {
    this.#throwIfClosed();
    if (node === 'any') return this.#anyConnection(lane);
    const id = node === 'controller' ? this.#controller : node;
    const address = this.#brokers.get(id);
    // Until the first metadata there is no controller to name.
    if (address === undefined && node === 'controller') return this.#anyConnection(lane);
    if (address === undefined) throw new UnreachableError(`broker ${id} is not known`);
    return this.#open(address, lane);
  }

  /** A broker that is connected to, or one that can be: known ones first, then those to begin with. */
  async #anyConnection(lane: string): Promise<Connection> {
    const known = shuffled([...this.#brokers.values()]);
    const candidates = [...known, ...shuffled(this.#options.bootstrap)];
    const open = candidates.find(address => this.#connections.has(keyOf(address, lane)));
    let failure: unknown;
    for (const address of open ? [open, ...candidates] : candidates) {
      this.#throwIfClosed();
      try {
        return await this.#open(address, lane);
      } catch (error) {
        failure = error;
      }
    }
    throw failure instanceof Error ? failure : new UnreachableError(`no broker can be reached: ${messageOf(failure)}`);
  }

  async #open(address: Address, lane: string): Promise<Connection> {
    const key = keyOf(address, lane);
    let opening = this.#connections.get(key);
    if (opening !== undefined) {
      const connection = await opening;
      if (connection.isOpen && !connection.isRetired) return connection;
      // What is in flight on an expiring login is answered there; what follows goes over the next.
      if (connection.isOpen && connection.inFlight === 0) connection.close();
      else if (connection.isOpen) throw new UnreachableError(`${connection}: the login is being renewed`);
      if (this.#connections.get(key) === opening) this.#connections.delete(key);
      return this.#open(address, lane);
    }
    opening = Connection.open(address, this.#options);
    this.#connections.set(key, opening);
    const forget = () => {
      if (this.#connections.get(key) === opening) this.#connections.delete(key);
    };
    try {
      const connection = await opening;
      if (this.isClosed) connection.close();
      this.#throwIfClosed();
      void connection.ended.then(forget);
      return connection;
    } catch (error) {
      forget();
      throw error;
    }
  }

  #throwIfClosed(): void {
    if (this.isClosed) throw new ClientClosedError();
  }
}

const isLayout = (known: TopicLayout | KafkaError | undefined): boolean =>
  known !== undefined && !(known instanceof KafkaError);

const keyOf = ({ host, port }: Address, lane: string): string => `${host}:${port}/${lane}`;

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map(item => ({ item, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
