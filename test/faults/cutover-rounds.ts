// Idempotent producers with five batches under way write to a Millrace whose topic is cut over to a target and back, while
// either side and PostgreSQL are killed at any moment of it. In the end both sides have each record once and in order.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { createTopic } from '../../src/client/admin.ts';
import { clusterAt } from '../mirror-rig.ts';
import { type Acknowledged, assertHolds, readContents } from './audit.ts';
import { IdempotentProducer } from './idempotent-producer.ts';
import { type Remote, withMirror } from './mirror-remote.ts';
import type { MirrorRounds } from './mirror-rounds.ts';
import { type Random, randomFrom } from './random.ts';
import type { TestServer } from './server.ts';
import { strikeServer } from './strike.ts';

const partitions = 2;
const topic = 'moving';
/** What waits for a copy that is behind waits long on a machine that does much else. */
const deadlineMs = 600_000;
const faults = ['none', 'broker', 'target', 'postgres', 'both', 'none', 'stop'] as const;

interface Told {
  readonly state: string;
  readonly lag: number;
  readonly partitions: readonly { readonly primary: string }[];
}

/** Returns how many records there were. Throws where one is missing, there twice or out of order. */
export function cutoverRounds({ seed, rounds, into, say = () => {} }: MirrorRounds): Promise<number> {
  const mirror = (address: string) => `move: {target: {bootstrap: "${address}"}, topics: [${topic}]}`;
  return withMirror(into, mirror, (source, target) => drill(source, target, randomFrom(seed), rounds, say));
}

async function drill(
  source: TestServer,
  target: Remote,
  random: Random,
  rounds: number,
  say: (line: string) => void,
): Promise<number> {
  const here = clusterAt(source.address);
  try {
    await createTopic(here, { name: topic, partitionCount: partitions, config: { 'compression.type': 'producer' } });
  } finally {
    here.close();
  }
  await until(source, 'here');
  const acknowledged: Acknowledged[] = [];
  const producers = Array.from(
    { length: partitions },
    (_, partition) =>
      new IdempotentProducer({
        port: source.port,
        name: `p${partition}`,
        topic,
        partition,
        batchSize: () => 1 + random.below(20),
        onAcknowledged: each => acknowledged.push(each),
      }),
  );
  const running = Promise.all(producers.map(producer => producer.run()));
  running.catch(() => {}); // it is awaited in the end
  try {
    for (let round = 0; round < rounds; round++) {
      const to = round % 2 === 0 ? 'target' : 'here';
      const fault = random.pick(faults);
      await delay(random.below(300));
      const switching = switchOnce(source, to);
      await delay(random.below(250)); // when to strike: nothing is waited for
      if (fault === 'target') await target.strike();
      else if (fault !== 'none') await strikeServer(source, fault, random);
      await switching;
      await until(source, to);
      say(`round ${round}: primary ${to}, ${fault}; ${acknowledged.length} records`);
    }
    if (rounds % 2 === 1) await until(source, 'here');
  } finally {
    for (const producer of producers) producer.stop();
  }
  await running;
  await until(source, 'here', true);
  const there = Number(target.address.split(':').at(-1));
  const [ofSource, ofTarget] = [
    await readContents(source.port, topic, partitions),
    await readContents(there, topic, partitions),
  ];
  for (const contents of [ofSource, ofTarget]) {
    assertHolds(contents, acknowledged);
    assert.equal(contents.flat().length, acknowledged.length);
  }
  return acknowledged.length;
}

const command = { target: 'cutover', here: 'rollback' } as const;

/** Whether it was done is seen by what is so then: whoever was asked may be gone. */
async function switchOnce(source: TestServer, to: 'here' | 'target'): Promise<void> {
  await fetch(`http://127.0.0.1:${source.httpPort}/api/mirrors/move/${command[to]}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ timeoutMs: 20_000 }),
  }).catch(() => {});
}

/** Asks again for the primary until it is so; with `copied` until nothing is left to copy. */
async function until(source: TestServer, primary: 'here' | 'target', copied = false): Promise<void> {
  let last: unknown;
  for (const deadline = Date.now() + deadlineMs; Date.now() < deadline; await delay(50)) {
    try {
      last = await (await fetch(`http://127.0.0.1:${source.httpPort}/api/mirrors/move`)).json();
    } catch {
      continue; // it is being started
    }
    const { state, lag, partitions: all } = last as Told;
    if (state === 'failed') break;
    if (state !== 'running' || all.length < partitions) continue;
    if (all.some(each => each.primary !== primary)) await switchOnce(source, primary);
    else if (!copied || lag === 0) return;
  }
  assert.fail(`never so: ${JSON.stringify(last)}\n${source.log}`);
}
