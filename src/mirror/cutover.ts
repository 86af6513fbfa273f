// Cut-over: from now on the target takes what producers give to a topic here; and back. Producers are held for the moment:
//
//   close the gates ─▶ what has passed is answered ─▶ one side has all of the other ─▶ kafka.topics.primary_mirror ─▶ open
//                 └───────── not within the time: as it was ◀─────────┘
//
// So at every instant one side alone takes records of a topic, and it has all that the other has acknowledged. A crash
// before the primary is noted leaves it as it was, one after it as it has become: neither waits for anything in memory. While
// it is not known which of the two the database has, the gates stay as they are.
import { setTimeout as delay } from 'node:timers/promises';
import { aborted } from '../runtime/aborted.ts';
import type { Topic, Topics } from '../storage/topics.ts';
import type { WriteLane } from '../storage/write-lane.ts';
import { forgetClients } from './client-ids.ts';
import type { CopyPlace } from './copy.ts';
import type { Gates } from './gates.ts';
import type { TopicMode } from './modes.ts';

export type Primary = 'here' | 'target';

/** What the running mirror offers. */
export interface Switching {
  /** Of a topic in the target; undefined where it may not be seen. */
  targetConfig(topic: string, keys: readonly string[]): Promise<Readonly<Record<string, string | null>> | undefined>;
  modeOf(topic: string): TopicMode;
  readonly topics: Pick<Topics, 'setPrimary' | 'settled'>;
  readonly gates: Gates;
  readonly mirrorId: number;
  readonly lane: WriteLane;
  /** Why the side that is to become the topic's primary does not have all records of the other yet. */
  behind(topic: Topic, to: Primary): Promise<string | undefined>;
  /** Notes how far it is. */
  note(): Promise<void>;
  /** Ends the session, and begins another by what is now noted. Resolves when it has ended. */
  restart(): Promise<void>;
  /** The mirror is to stop: nothing is waited for any more. */
  readonly stopping: AbortSignal;
}

/** It could not be done in time; everything is as it was. */
export class SwitchFailed extends Error {
  override name = 'SwitchFailed';
}

const lookEveryMs = 10;
const askAgainMs = 200;

/** Throws SwitchFailed, or what the database says. Topics are switched one after another: those before stay switched. */
export async function switchPrimary(
  switching: Switching,
  topics: readonly Topic[],
  to: Primary,
  timeoutMs: number,
): Promise<void> {
  const { gates, mirrorId, stopping } = switching;
  const primary = to === 'target' ? mirrorId : null;
  for (const topic of topics) {
    const other = gates.inTheWay(topic);
    if (other) throw new SwitchFailed(`mirror ${other} stands before topic ${topic.name}, by its sync`);
  }
  const clock = new AbortController();
  const timer = setTimeout(() => clock.abort(), timeoutMs);
  const signal = AbortSignal.any([clock.signal, stopping]);
  const over = aborted(signal);
  const all = topics.flatMap(topic => gates.all(topic));
  for (const gate of all) gate.lock();
  let certain = true;
  try {
    await within(over, Promise.all(all.map(gate => gate.settled())), 'what is on its way has no answer yet');
    for (const topic of topics) {
      for (;;) {
        const late = `topic ${topic.name}: the target does not answer`;
        const why = await within(over, switching.behind(topic, to), late);
        if (why === undefined) break;
        if (signal.aborted) throw new SwitchFailed(why);
        await delay(lookEveryMs);
      }
      // What is copied back begins where the copy was.
      await switching.note();
      if (to === 'target') await forgetClients(switching.lane, mirrorId, topic.id);
      certain = false;
      const failure = await change(switching, topic, primary);
      certain = true;
      if (failure !== undefined) throw failure;
      // A target that is primary opens its gates when the next session has found it.
      for (const gate of gates.all(topic)) primary === null ? gate.open(undefined) : gate.close();
    }
  } finally {
    clearTimeout(timer);
    if (topics.some(topic => topic.primaryMirror === primary)) await switching.restart();
    // Else nobody may pass in this process any more.
    if (certain) for (const gate of all) gate.unlock();
  }
}

/** Returns why the primary has not changed; undefined when it has. Throws where the mirror stops before that is known. */
async function change({ topics, stopping }: Switching, topic: Topic, primary: number | null): Promise<unknown> {
  try {
    await topics.setPrimary(topic, primary);
    return undefined;
  } catch (error) {
    for (;;) {
      const known = await topics.settled(topic).then(
        () => true,
        () => false,
      );
      if (known) return topic.primaryMirror === primary ? undefined : error;
      if (stopping.aborted) throw error;
      await delay(askAgainMs);
    }
  }
}

async function within<T>(over: Promise<void>, work: Promise<T>, otherwise: string): Promise<T> {
  const late = over.then(() => {
    throw new SwitchFailed(otherwise);
  });
  return Promise.race([work, late]);
}

/** Why the target does not have all records of a topic, to which nothing is appended meanwhile. */
export function notCopied(
  copies: readonly { readonly place: CopyPlace; readonly nextOffset: bigint }[],
): string | undefined {
  const late = copies.find(({ place, nextOffset }) => nextOffset < place.source.end);
  if (late === undefined) return undefined;
  const { topic, partition, source } = late.place;
  return `partition ${partition} of ${topic} ends at ${source.end}, and the target has what is before ${late.nextOffset}`;
}
