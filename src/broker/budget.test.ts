import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import fc from 'fast-check';
import { Budget, type Paused } from './budget.ts';

/** A connection that sends frames of a size; it stops when it is told to pause and goes on when it is resumed. */
class Sender implements Paused {
  readonly budget: Budget;
  paused = false;
  closed = false;
  /** Of the frame it is in the middle of. */
  held = 0;
  served = 0;

  constructor(budget: Budget) {
    this.budget = budget;
  }

  send(bytes: number): void {
    this.budget.takeRequest(bytes);
    this.held += bytes;
    this.budget.beginFrame(this);
    if (this.budget.over && !this.budget.excepts(this)) {
      this.paused = true;
      this.budget.pause(this);
    }
  }

  /** Its frame is whole and served. */
  finish(): void {
    this.budget.release(this);
    this.budget.beginServing();
    this.budget.giveRequest(this.held);
    this.held = 0;
    this.served++;
    this.budget.endServing();
  }

  resume(): void {
    this.paused = false;
    if (this.held > 0) this.budget.beginFrame(this);
  }

  giveUp(): void {
    this.closed = true;
    this.budget.release(this);
    this.budget.giveRequest(this.held);
    this.held = 0;
  }
}

test('whatever the order, senders who go on are all served, and everything is given back', () => {
  const work = fc.array(fc.record({ of: fc.nat(7), pieces: fc.integer({ min: 1, max: 6 }) }), { maxLength: 60 });
  fc.assert(
    fc.property(work, fc.infiniteStream(fc.nat(7)), (jobs, choices) => {
      const budget = new Budget(2000);
      const senders = Array.from({ length: 8 }, () => new Sender(budget));
      const queues = senders.map((_, i) => jobs.filter(job => job.of === i).map(job => job.pieces));
      const due = queues.map(queue => queue.length);
      const left = queues.map(queue => queue.shift() ?? 0);
      for (let turn = 0; left.some(pieces => pieces > 0); turn++) {
        assert.ok(turn < 10_000, 'nobody gets on');
        const start = choices.next().value!;
        const at = senders.findIndex((_, i) => !senders[(i + start) % 8]!.paused && left[(i + start) % 8]! > 0);
        assert.notEqual(at, -1, 'all who have something to send are paused, and nobody is served');
        const i = (at + start) % 8;
        senders[i]!.send(300);
        left[i]!--;
        if (left[i] === 0) {
          senders[i]!.paused = false; // a whole frame is served, paused or not
          senders[i]!.finish();
          left[i] = queues[i]!.shift() ?? 0;
        }
      }
      assert.deepEqual(
        senders.map(sender => sender.served),
        due,
      );
      assert.equal(budget.held, 0);
    }),
  );
});

test('past the bound nobody reads, until something is given back', () => {
  const budget = new Budget(2000);
  const [first, second] = [new Sender(budget), new Sender(budget)];
  budget.beginServing();
  budget.takeRequest(1001);
  first.send(1);
  second.send(1);
  assert.deepEqual([first.paused, second.paused], [true, true]);
  budget.giveRequest(500);
  assert.deepEqual([first.paused, second.paused], [false, false]);
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
    const budget = new Budget(2000);
    const silent = Array.from({ length: 3 }, () => new Sender(budget));
    for (const sender of silent) sender.send(333); // just within the bound
    const other = new Sender(budget);
    other.send(100);
    // While it is the exception it may go on; then a silent one's turn comes, which does not use it.
    const waiting = new Sender(budget);
    waiting.send(100);
    assert.ok(waiting.paused);
    clock.mock.mockImplementation(() => 4000);
    mock.timers.tick(500);
    assert.deepEqual(
      silent.map(sender => sender.closed),
      [false, false, false],
    );
    clock.mock.mockImplementation(() => 6000);
    mock.timers.tick(500);
    assert.ok(silent.some(sender => sender.closed));
    assert.ok(!waiting.paused);
    assert.ok(!waiting.closed);
    assert.ok(!budget.over);
  } finally {
    clock.mock.restore();
    mock.timers.reset();
  }
});

test('the exception that has nothing to send makes way for the next, and is not closed', () => {
  mock.timers.enable({ apis: ['setInterval'] });
  try {
    const budget = new Budget(2000);
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
