// A Millrace whose topics are mirrored, and what they are mirrored to: a second Millrace, or the cluster that is given. Into
// the first (`createInto`), what is the target otherwise is the source.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { Cluster } from '../src/client/cluster.ts';
import { fetchOffsets } from '../src/client/groups.ts';
import { commitOffsets } from '../src/client/offsets.ts';
import { type Compared, compareMirror, type Difference } from '../src/mirror/compare.ts';
import type { MirrorStatus } from '../src/mirror/mirror.ts';
import { ErrorCode, errorOf } from '../src/protocol/errors.ts';
import { Produce } from '../src/protocol/messages/00-produce.ts';
import { createDatabase, type TestDatabase } from './database.ts';
import { Millrace } from './millrace.ts';

/** A status as JSON has it. */
export type JsonStatus = Omit<MirrorStatus, 'lag' | 'partitions'> & {
  readonly lag: number;
  readonly partitions: readonly Record<string, number | string>[];
};

const deadlineMs = 60_000;

export class MirrorRig {
  readonly source: Millrace;
  readonly sourceAddress: string;
  readonly targetAddress: string;
  readonly sourceCluster: Cluster;
  readonly targetCluster: Cluster;
  readonly database: TestDatabase;
  readonly #cleanUp: (() => unknown)[];

  private constructor(source: Millrace, targetAddress: string, database: TestDatabase, cleanUp: (() => unknown)[]) {
    this.source = source;
    this.database = database;
    this.#cleanUp = cleanUp;
    this.sourceAddress = addressOf(source);
    this.targetAddress = targetAddress;
    this.sourceCluster = clusterAt(this.sourceAddress);
    this.targetCluster = clusterAt(targetAddress);
  }

  static async open(target?: string): Promise<MirrorRig> {
    const cleanUp: (() => unknown)[] = [];
    const start = async () => {
      const database = await createDatabase();
      cleanUp.unshift(() => database.drop());
      const millrace = new Millrace([`--database-url=${database.url}`, '--log-level=warn'], {
        env: process.env.MILLRACE_TEST_LOG ? { MILLRACE_LOG_LEVEL: process.env.MILLRACE_TEST_LOG } : {},
      });
      cleanUp.unshift(() => millrace.stop('SIGKILL'));
      await millrace.ready();
      return { database, millrace };
    };
    try {
      const { millrace, database } = await start();
      const address = target ?? addressOf((await start()).millrace);
      return new MirrorRig(millrace, address, database, cleanUp);
    } catch (error) {
      for (const work of cleanUp) await work();
      throw error;
    }
  }

  async api<T>(path: string, method = 'GET', body?: object): Promise<T> {
    const response = await fetch(`${this.source.http}/api/mirrors${path}`, {
      method,
      ...(body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}),
    });
    const answer = (await response.json()) as T;
    if (!response.ok) throw new Error(`${response.status} ${JSON.stringify(answer)}`);
    return answer;
  }

  create(name: string, definition: object): Promise<JsonStatus> {
    const target = { bootstrap: this.targetAddress };
    return this.api('', 'POST', { name, definition: { target, ...definition } });
  }

  createInto(name: string, definition: object): Promise<JsonStatus> {
    const source = { bootstrap: this.targetAddress, metadataMs: 200 };
    return this.api('', 'POST', { name, definition: { source, ...definition } });
  }

  status(name: string): Promise<JsonStatus> {
    return this.api(`/${name}`);
  }

  async until(name: string, condition: (status: JsonStatus) => boolean): Promise<JsonStatus> {
    for (const deadline = Date.now() + deadlineMs; ; await delay(20)) {
      const status = await this.status(name);
      if (condition(status)) return status;
      if (Date.now() > deadline) throw new Error(`never so: ${JSON.stringify(status)}\n${this.source.stderr}`);
    }
  }

  caughtUp(name: string, partitions = 1): Promise<JsonStatus> {
    return this.until(name, s => s.state === 'running' && s.lag === 0 && s.partitions.length >= partitions);
  }

  /** Returns what differs beside the sums. */
  async compare(name: string): Promise<Compared & { readonly found: readonly Difference[] }> {
    const found: Difference[] = [];
    const { partitions, source: isInto } = await this.status(name);
    const compared = await compareMirror({
      source: isInto ? this.targetCluster : this.sourceCluster,
      target: isInto ? this.sourceCluster : this.targetCluster,
      partitions: partitions as never,
      ranges: await this.api(`/${name}/offsets`),
      onDifference: difference => found.push(difference),
    });
    return { ...compared, found };
  }

  async remove(): Promise<void> {
    this.sourceCluster.close();
    this.targetCluster.close();
    for (const work of this.#cleanUp) await work();
  }
}

export const addressOf = (millrace: Millrace): string => /Kafka +(127\.0\.0\.1:\d+)/.exec(millrace.stdout)![1]!;

export function clusterAt(address: string): Cluster {
  const [host, port] = address.split(':');
  return new Cluster({ bootstrap: [{ host: host!, port: Number(port) }], clientId: 'test' });
}

/** A whole batch, as it is. */
export async function produce(cluster: Cluster, topic: string, partition: number, batch: Buffer): Promise<bigint> {
  await cluster.topic(topic);
  const { responses } = await cluster.request(
    cluster.leaderOf(topic, partition),
    Produce,
    {
      acks: -1,
      timeoutMs: 30_000,
      topicData: [{ name: topic, partitionData: [{ index: partition, records: batch }] }],
    },
    { most: 12 },
  );
  const { errorCode, baseOffset } = responses[0]!.partitionResponses[0]!;
  if (errorCode !== ErrorCode.NONE) throw new Error(errorOf(errorCode).name);
  return baseOffset;
}

/** Where offsets of topic `moved` are in the target, which had seven records before its first and has three behind its tenth. */
const moved: readonly (readonly [source: bigint, target: bigint])[] = [
  [0n, 7n],
  [9n, 16n],
  [10n, 20n],
  [20n, 30n],
];

/**
 * Commits `from` at source offsets in turn, each by a group of its own, has mirror `move` write them, and looks for the target
 * offsets in `to`. The group at offset 9 then goes its own way.
 */
export async function assertGroupsMove(rig: MirrorRig, from: Cluster, to: Cluster): Promise<void> {
  const commit = (cluster: Cluster, group: string, offset: bigint, metadata?: string): Promise<void> =>
    commitOffsets(cluster, group, [{ topic: 'moved', partition: 0, offset, metadata }]);
  const sync = () => rig.api<{ group: string; state: string }[]>('/move/groups', 'POST');
  for (const [source, target] of moved) {
    await commit(from, `g${source}`, source, 'm');
    await sync();
    const [there] = await fetchOffsets(to, `g${source}`);
    assert.deepEqual([there?.offset, there?.metadata], [target, 'm'], `offset ${source}`);
  }
  const at = async () => (await fetchOffsets(to, 'g9'))[0]!.offset;
  // Back again at its source, it follows; once it has committed in the target itself, it is left alone.
  await commit(from, 'g9', 2n);
  await sync();
  assert.equal(await at(), 9n, 'seven records are before the first in the target');
  await commit(to, 'g9', 12n);
  await commit(from, 'g9', 4n);
  assert.equal((await sync()).find(({ group }) => group === 'g9')?.state, 'moved');
  assert.equal(await at(), 12n);
}
