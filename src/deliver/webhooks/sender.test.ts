import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { test } from 'node:test';
import { secrets } from '../../../test/deliver-rig.ts';
import { type Answer, Receiver, verifies } from '../../../test/webhook-receiver.ts';
import { addressRule } from './addresses.ts';
import { retryAfter, Sender } from './sender.ts';
import { keyOf } from './signature.ts';

const keys = [secrets.WEBHOOK_SECRET, secrets.WEBHOOK_SECRET_NEW].map(secret => keyOf(secret)!);
const message = { id: '1-17', body: '{"grüße": 1}', headers: { 'content-type': 'application/json' } };

async function withReceiver(work: (receiver: Receiver, sender: Sender) => Promise<void>): Promise<void> {
  const receiver = await Receiver.open();
  const sender = new Sender({ mayAsk: addressRule(['127.0.0.1']), maxIdle: 10 });
  try {
    await work(receiver, sender);
  } finally {
    sender.close();
    await receiver.close();
  }
}

/** A resolver that gives each answer once, and the last for ever. */
const resolver = (answers: readonly (readonly string[])[]) => {
  let asked = 0;
  const lookup = ((_name: string, _options: unknown, callback: (error: null, found: LookupAddress[]) => void) => {
    const found = answers[Math.min(asked++, answers.length - 1)]!;
    setImmediate(() =>
      callback(
        null,
        found.map(address => ({ address, family: address.includes(':') ? 6 : 4 })),
      ),
    );
  }) as NonNullable<ConstructorParameters<typeof Sender>[0]['lookup']>;
  return { lookup, asked: () => asked };
};

test('a request has the headers of Standard Webhooks, and a signature for each key', async () => {
  await withReceiver(async (receiver, sender) => {
    assert.deepEqual(await sender.send(receiver.url, keys, message, 10_000), { kind: 'delivered' });
    const [received] = receiver.received;
    assert.equal(received!.body, message.body);
    assert.equal(received!.headers['webhook-id'], '1-17');
    assert.match(String(received!.headers['webhook-timestamp']), /^\d{10}$/);
    assert.equal(received!.headers['content-type'], 'application/json');
    assert.ok(verifies(received!, secrets.WEBHOOK_SECRET));
    assert.ok(verifies(received!, secrets.WEBHOOK_SECRET_NEW));
    assert.ok(!verifies(received!, `whsec_${Buffer.alloc(32, 3).toString('base64')}`));
    assert.ok(!verifies({ ...received!, body: '{}' }, secrets.WEBHOOK_SECRET));
  });
});

test('answers are told apart; redirects are not followed', async () => {
  await withReceiver(async (receiver, sender) => {
    const asked = async (answer: Answer) => {
      receiver.answer = () => answer;
      return sender.send(receiver.url, keys, message, 10_000);
    };
    assert.equal((await asked(204)).kind, 'delivered');
    assert.equal((await asked(410)).kind, 'gone');
    assert.deepEqual(await asked({ status: 429, headers: { 'retry-after': '7' } }), {
      ...{ kind: 'throttled', code: 'HTTP_429', reason: 'answered 429', retryAfterMs: 7000 },
    });
    assert.deepEqual(await asked({ status: 503, headers: { 'retry-after': '2' } }), {
      ...{ kind: 'failed', code: 'HTTP_503', reason: 'answered 503', retryAfterMs: 2000 },
    });
    const before = receiver.received.length;
    const redirected = await asked({ status: 307, headers: { location: `http://127.0.0.1:${receiver.port}/other` } });
    assert.deepEqual([redirected.kind, 'code' in redirected && redirected.code], ['failed', 'HTTP_307']);
    assert.equal(receiver.received.length, before + 1);
  });
});

test('a receiver that hangs is given up at its timeout; one that is not there at once', async () => {
  await withReceiver(async (receiver, sender) => {
    receiver.answer = () => 'hang';
    const late = await sender.send(receiver.url, keys, message, 50);
    assert.deepEqual([late.kind, 'code' in late && late.code], ['failed', 'TIMEOUT']);
    const closed = await Receiver.open();
    await closed.close();
    const refused = await sender.send(receiver.url.replace(String(receiver.port), '1'), keys, message, 10_000);
    assert.deepEqual([refused.kind, 'code' in refused && refused.code], ['failed', 'ECONNREFUSED']);
  });
});

test('addresses that may not be asked are refused, as literals and behind names', async () => {
  await withReceiver(async receiver => {
    const { lookup } = resolver([['10.0.0.1'], ['93.184.215.14', '127.0.0.1']]);
    const sender = new Sender({ mayAsk: addressRule([]), maxIdle: 10, lookup });
    const { port } = receiver;
    const hosts = [
      '127.0.0.1',
      '0x7f.1',
      '2130706433',
      '[::1]',
      '[::ffff:127.0.0.1]',
      '[fe80::1]',
      'private.test',
      'both.test',
    ];
    for (const host of hosts) {
      const outcome = await sender.send(`http://${host}:${port}/`, keys, message, 10_000);
      assert.deepEqual([outcome.kind, 'code' in outcome && outcome.code], ['failed', 'ADDRESS_REFUSED'], host);
    }
    assert.deepEqual(receiver.received, []);
    sender.close();
  });
});

test('what was looked at is what is connected to, however the name is resolved the next time', async () => {
  await withReceiver(async receiver => {
    const { lookup, asked } = resolver([['127.0.0.1'], ['127.0.0.2']]);
    const sender = new Sender({ mayAsk: addressRule(['127.0.0.1']), maxIdle: 10, lookup });
    const url = `http://rebinding.test:${receiver.port}/`;
    assert.equal((await sender.send(url, keys, message, 10_000)).kind, 'delivered');
    assert.equal(asked(), 1);
    sender.close();
    const again = await sender.send(url, keys, message, 10_000);
    assert.deepEqual([again.kind, 'code' in again && again.code], ['failed', 'ADDRESS_REFUSED']);
    assert.equal(receiver.received.length, 1);
    sender.close();
  });
});

test('Retry-After is seconds or a date, and a day at most', () => {
  const now = Date.parse('2026-11-21T12:00:00Z');
  assert.equal(retryAfter('120', now), 120_000);
  assert.equal(retryAfter('Sat, 21 Nov 2026 12:00:30 GMT', now), 30_000);
  assert.equal(retryAfter('Sat, 21 Nov 2026 11:00:00 GMT', now), 0);
  assert.equal(retryAfter('9999999', now), 86_400_000);
  assert.equal(retryAfter('soon', now), undefined);
  assert.equal(retryAfter(undefined, now), undefined);
});
