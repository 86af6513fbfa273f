import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Allowance } from './allowance.ts';

const turn = () => new Promise(setImmediate);

test('takers are admitted in order, never past the bound but one alone, and all of them in the end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 40 }), fc.nat(), async (sizes, choice) => {
      const allowance = new Allowance(400);
      const admitted: number[] = [];
      const holding: number[] = [];
      for (const [i, bytes] of sizes.entries()) {
        void allowance.take(bytes).then(() => {
          admitted.push(i);
          holding.push(bytes);
        });
      }
      await turn();
      while (holding.length > 0) {
        const held = holding.reduce((sum, bytes) => sum + bytes);
        assert.equal(allowance.taken, held);
        assert.ok(held <= 400 || holding.length === 1);
        allowance.give(holding.splice(choice % holding.length, 1)[0]!);
        await turn();
      }
      assert.deepEqual(admitted, [...sizes.keys()]);
      assert.equal(allowance.taken, 0);
    }),
    { numRuns: 50 },
  );
});

test('what is larger than the bound goes alone', async () => {
  const allowance = new Allowance(100);
  const order: string[] = [];
  void allowance.take(50).then(() => order.push('small'));
  void allowance.take(5000).then(() => order.push('large'));
  void allowance.take(1).then(() => order.push('last'));
  await turn();
  assert.deepEqual(order, ['small']);
  allowance.give(50);
  await turn();
  assert.deepEqual(order, ['small', 'large']);
  allowance.give(5000);
  await turn();
  assert.deepEqual(order, ['small', 'large', 'last']);
});
