import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from './turns.ts';

test('what the promises of a piece have to do is done before the next piece', async () => {
  const turns = new Turns();
  const done: string[] = [];
  await Promise.all(
    ['a', 'b', 'c'].map(async name => {
      await new Promise<void>(resolve => turns.add(resolve));
      done.push(`${name} woken`);
      await Promise.resolve();
      done.push(`${name} answered`);
    }),
  );
  assert.deepEqual(
    done,
    ['a', 'b', 'c'].flatMap(name => [`${name} woken`, `${name} answered`]),
  );
});

test('many pieces take several turns of the event loop, in their order, and those added meanwhile come last', async () => {
  const turns = new Turns();
  const pieces = 200;
  const ran: { piece: number; turn: number }[] = [];
  let turn = 0;
  await new Promise<void>(resolve => {
    const mark = () => {
      turn++;
      if (ran.length < 2 * pieces) setImmediate(mark);
      else resolve();
    };
    setImmediate(mark);
    for (let piece = 0; piece < pieces; piece++) {
      turns.add(() => {
        ran.push({ piece, turn });
        turns.add(() => ran.push({ piece: pieces + piece, turn }));
      });
    }
  });
  assert.deepEqual(
    ran.map(({ piece }) => piece),
    Array.from({ length: 2 * pieces }, (_, i) => i),
  );
  const most = Math.max(...Array.from({ length: turn + 1 }, (_, t) => ran.filter(one => one.turn === t).length));
  assert.ok(most > 1 && most < pieces / 4, `${most} in one turn`);
});
