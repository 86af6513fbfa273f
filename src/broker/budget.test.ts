import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import fc from 'fast-check';
import { Budget, type Paused } from './budget.ts';

const piece = 100;

/** A connection that sends frames in pieces: it waits when it is told to, and is served when a frame is whole. */
class Sender implements Paused {
  readonly budget: Budget;
  paused = false;
  closed = false;
  held = 0;
  served = 0;
  #length = 0;
  #claim = 0;

  constructor(budget: Budget) {
    this.budget = budget;
  }

  get wanted(): number {
    return this.#length - this.held;
  }

  begin(pieces: number): void {
    this.#length = pieces * piece;
    this.send();
  }

  /** The next piece; true when the frame is whole. */
  send(): boolean {
    this.budget.takeRequest(piece);
    this.held += piece;
    const used = Math.min(this.#claim, piece);
    this.#claim -= used;
    this.budget.unclaim(used);
    if (this.wanted === 0) return true;
    this.budget.beginFrame(this);
    if (this.#claim > 0 || this.budget.excepts(this)) return false;
    if (this.budget.claim(this.wanted)) {
      this.#claim = this.wanted;
    } else {
      this.paused = true;
      this.budget.pause(this);
    }
    return false;
  }

  /** Its frame is whole: served and let go. */
  finish(): void {
    this.budget.release(this);
    this.budget.changePending(1);
    this.served++;
    this.budget.giveRequest(this.#forget());
    this.budget.changePending(-1);
  }

  resume(claimed: number): void {
    this.#claim += claimed;
    this.paused = false;
    if (this.held > 0) this.budget.beginFrame(this);
  }

  giveUp(): void {
    this.closed = true;
    this.budget.unclaim(this.#claim);
    this.#claim = 0;
    this.budget.giveRequest(this.#forget());
    this.budget.release(this);
  }

  #forget(): number {
    const held = this.held;
    this.held = 0;
    this.#length = 0;
    return held;
  }
}

test('senders who go on are all served in any order, none is kept half-way for ever, and all is given back', () => {
  const frames = fc.array(fc.record({ of: fc.nat(7), pieces: fc.integer({ min: 1, max: 30 }) }), { maxLength: 80 });
  fc.assert(
    fc.property(frames, fc.infiniteStream(fc.nat(7)), (jobs, choices) => {
      const budget = new Budget(4 * 1000);
      const senders = Array.from({ length: 8 }, () => new Sender(budget));
      const queues = senders.map((_, i) => jobs.filter(job => job.of === i).map(job => job.pieces));
      const due = queues.map(queue => queue.length);
      const idle = (i: number) => senders[i]!.held === 0 && queues[i]!.length === 0;
      for (let turn = 0; !senders.every((_, i) => idle(i)); turn++) {
        assert.ok(turn < 10_000, 'nobody gets on');
        const from = choices.next().value!;
        const order = senders.map((_, i) => (i + from) % 8);
        const i = order.find(i => !senders[i]!.paused && !idle(i));
        assert.notEqual(i, undefined, 'all who have something to send wait, and nothing is under way');
        const sender = senders[i!]!;
        if (sender.held === 0) {
          const pieces = queues[i!]!.shift()!;
          sender.begin(pieces);
          if (pieces === 1) sender.finish();
        } else if (sender.send()) {
          sender.finish();
        }
        // One piece of each may be there before it is known what follows; a frame larger than all goes alone.
        assert.ok(budget.held <= 1000 + 8 * piece + 3000);
      }
      assert.deepEqual(
        senders.map(sender => sender.served),
        due,
      );
      assert.equal(budget.held, 0);
      assert.ok(!budget.over);
    }),
  );
});

test('who found no room waits in line until there is some', () => {
  const budget = new Budget(4000);
  budget.changePending(1);
  budget.takeRequest(900);
  const [large, small] = [new Sender(budget), new Sender(budget)];
  large.begin(8);
  small.begin(2);
  assert.deepEqual([large.paused, small.paused], [true, true]);
  budget.giveRequest(500); // enough for the small one, which is not the first
  assert.deepEqual([large.paused, small.paused], [true, true]);
  budget.giveRequest(300);
  assert.deepEqual([large.paused, small.paused], [false, true]);
  while (!large.send());
  large.finish();
  assert.ok(!small.paused);
});

test('three bounds: reading, requests under way, and the end', () => {
  const budget = new Budget(4000);
  const bounds = () => [budget.over, budget.tight, budget.exhausted];
  budget.takeRequest(1000);
  assert.deepEqual(bounds(), [false, false, false]);
  budget.takeRequest(1);
  assert.deepEqual(bounds(), [true, false, false]);
  budget.takeRequest(1000);
  assert.deepEqual(bounds(), [true, true, false]);
  budget.takeRequest(2000);
  assert.deepEqual(bounds(), [true, true, true]);
});

test('answers that are not taken limit fetches, not requests', () => {
  const budget = new Budget(2000);
  budget.takeAnswer(900);
  assert.equal(budget.free, 100);
  budget.takeAnswer(900);
  assert.equal(budget.free, 0);
  assert.ok(budget.answersOver);
  assert.ok(!budget.over);
  budget.giveAnswer(1800);
  assert.equal(budget.free, 1000);
  assert.equal(budget.held, 0);
});

test('who announces much and sends nothing is given up once others wait, and they go on', () => {
  mock.timers.enable({ apis: ['setInterval'] });
  const clock = mock.method(performance, 'now', () => 0);
  try {
    const budget = new Budget(4000);
    const silent = Array.from({ length: 3 }, () => new Sender(budget));
    for (const sender of silent) sender.begin(3);
    const waiting = new Sender(budget);
    waiting.begin(2);
    assert.ok(waiting.paused);
    clock.mock.mockImplementation(() => 4000);
    mock.timers.tick(500);
    assert.ok(!silent.some(sender => sender.closed));
    clock.mock.mockImplementation(() => 6000);
    mock.timers.tick(500);
    assert.ok(silent.every(sender => sender.closed));
    assert.deepEqual([waiting.paused, waiting.closed], [false, false]);
    assert.equal(budget.held, waiting.held);
  } finally {
    clock.mock.restore();
    mock.timers.reset();
  }
});

test('an exception that has nothing to send makes way for the next, and is not closed', () => {
  mock.timers.enable({ apis: ['setInterval'] });
  try {
    const budget = new Budget(4000);
    budget.takeRequest(1001);
    const [idle, busy] = [new Sender(budget), new Sender(budget)];
    for (const sender of [idle, busy]) {
      sender.paused = true;
      budget.pause(sender);
    }
    assert.deepEqual([idle.paused, busy.paused], [false, true]);
    mock.timers.tick(500);
    assert.deepEqual([idle.paused, busy.paused], [false, false]);
    assert.ok(budget.excepts(busy));
    assert.ok(!idle.closed);
  } finally {
    mock.timers.reset();
  }
});
