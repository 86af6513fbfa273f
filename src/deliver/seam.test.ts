// One connection against a model: an inbox that grows while pages are read, a client that takes what it is sent now and
// then. Whatever the order of things, it has every event once and in order.
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { eventFrame } from './frame.ts';
import type { InboxEvent } from './inbox.ts';
import { PlainOutlet } from './outlet.ts';
import { Stream } from './stream.ts';

const pageEvents = 4;

function event(seq: number): InboxEvent {
  const fixed = { subscriber: 'ada', type: null, priority: 4, topic: 'events', time: 0, expires: null };
  return { ...fixed, seq: BigInt(seq), eventId: `${seq}`, data: `${seq}` };
}

/** What a response is to a stream: it takes text, and the client takes that when told to. */
class Client extends Writable {
  readonly #taken: string[] = [];
  readonly #waiting: (() => void)[] = [];

  constructor() {
    super({ highWaterMark: 60, decodeStrings: false });
  }

  override _write(text: string, _encoding: string, done: () => void): void {
    this.#waiting.push(() => {
      this.#taken.push(text);
      done();
    });
  }

  take(): boolean {
    const next = this.#waiting.shift();
    next?.();
    return next !== undefined;
  }

  get seqs(): number[] {
    return [...this.#taken.join('').matchAll(/^id: 1-(\d+)$/gm)].map(([, seq]) => Number(seq));
  }
}

type Step = 'append' | 'offer' | 'snapshot' | 'answer' | 'take' | 'turn';

test('whatever comes first at the seam, every event is there once and in order', async () => {
  const steps = fc.array(fc.constantFrom<Step>('append', 'offer', 'snapshot', 'answer', 'take', 'turn'), {
    minLength: 20,
    maxLength: 200,
  });
  await fc.assert(
    fc.asyncProperty(steps, fc.integer({ min: 0, max: 12 }), async (order, before) => {
      const inbox = Array.from({ length: before }, (_, i) => event(i + 1));
      let offered = before;
      const reads: { after: bigint; page?: InboxEvent[]; answer: (events: InboxEvent[]) => void }[] = [];
      let written = 0n;
      const client = new Client();
      const stream = new Stream({
        inboxId: 1,
        subscriber: 'ada',
        outlet: new PlainOutlet(client),
        position: 0n,
        unknownId: undefined,
        wants: () => true,
        read: after =>
          new Promise(resolve => {
            reads.push({ after, answer: events => resolve({ events, firstSeq: 1n }) });
          }),
        pageEvents,
        maxBuffered: 100,
        onWritten: (_events, seq) => {
          assert.ok(client.seqs.includes(Number(seq)), 'nothing is told as written that was not taken');
          written = seq;
        },
        onClosed: () => {},
      });
      void stream.catchUp();
      const act: Record<Step, () => void> = {
        append: () => inbox.push(event(inbox.length + 1), event(inbox.length + 2)),
        offer: () => {
          const events = inbox.slice(offered, offered + 2);
          offered += events.length;
          if (events.length > 0)
            stream.offer(
              events,
              events.map(one => eventFrame(1, one)),
            );
        },
        snapshot: () => {
          const [read] = reads;
          if (read) read.page ??= inbox.filter(({ seq }) => seq > read.after).slice(0, pageEvents);
        },
        answer: () => {
          const page = reads[0]?.page;
          if (page) reads.shift()!.answer(page);
        },
        take: () => void client.take(),
        turn: () => {},
      };
      for (const step of order) {
        act[step]();
        await nextTurn();
      }
      for (let idle = 0; idle < 5; ) {
        for (const step of ['offer', 'snapshot', 'answer'] as const) act[step]();
        idle = client.take() || reads.length > 0 || offered < inbox.length ? 0 : idle + 1;
        await nextTurn();
      }
      assert.deepEqual(
        client.seqs,
        inbox.map(({ seq }) => Number(seq)),
      );
      assert.equal(written, BigInt(inbox.length));
      assert.ok(stream.live);
    }),
    { numRuns: 300 },
  );
});
