import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keyOf, sign } from './signature.ts';

/** Published with the specification and its libraries. */
const vectors = [
  {
    secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    timestampS: 1614265330,
    body: '{"test": 2432232314}',
    signature: 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  },
  {
    secret: 'whsec_plJ3nmyCDGBKInavdOK15jsl',
    id: 'msg_loFOjxBNrRLzqYUf',
    timestampS: 1731705121,
    body: '{"event_type":"ping","data":{"success":true}}',
    signature: 'v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=',
  },
];

test('signatures are those of the published test vectors', () => {
  for (const { secret, id, timestampS, body, signature } of vectors) {
    assert.equal(sign([keyOf(secret)!], id, timestampS, body), signature);
    assert.equal(sign([keyOf(secret.slice('whsec_'.length))!], id, timestampS, body), signature);
  }
});

test('each key signs, the newest first, so that keys can be changed', () => {
  const [first, second] = vectors.map(({ secret }) => keyOf(secret)!);
  const { id, timestampS, body, signature } = vectors[0]!;
  const signatures = sign([second!, first!], id, timestampS, body).split(' ');
  assert.equal(signatures.length, 2);
  assert.equal(signatures[1], signature);
  assert.notEqual(signatures[0], signature);
});

const asymmetric = {
  secret: 'whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==',
  publicKey: 'whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=',
  signature: 'v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==',
};

test('an ed25519 key signs as v1a, beside others, and tells its public key', () => {
  const { secret, publicKey, signature } = asymmetric;
  const { id, timestampS, body, secret: shared, signature: byShared } = vectors[0]!;
  assert.equal(keyOf(secret)!.publicKey, publicKey);
  assert.equal(keyOf(shared)!.publicKey, undefined);
  assert.equal(sign([keyOf(secret)!, keyOf(shared)!], id, timestampS, body), `${signature} ${byShared}`);
  // Without the public key behind it, and one that somebody else has made.
  const seed = Buffer.from(secret.slice('whsk_'.length), 'base64').subarray(0, 32);
  assert.equal(sign([keyOf(`whsk_${seed.toString('base64')}`)!], id, timestampS, body), signature);
  const pair = generateKeyPairSync('ed25519');
  const bytes = pair.privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32);
  const [scheme, text] = sign([keyOf(`whsk_${bytes.toString('base64')}`)!], 'a', 1, 'b').split(',');
  assert.equal(scheme, 'v1a');
  assert.ok(verify(null, Buffer.from('a.1.b'), pair.publicKey, Buffer.from(text!, 'base64')));
});

const openssl = spawnSync('openssl', ['version']);
test('OpenSSL verifies it with the public key alone', {
  skip: openssl.status === 0 ? false : 'openssl is not installed',
}, () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-signature-'));
  try {
    const path = (name: string): string => join(directory, name);
    const { id, timestampS, body } = vectors[0]!;
    const key = keyOf(asymmetric.secret)!;
    const bytes = Buffer.from(key.publicKey!.slice('whpk_'.length), 'base64');
    const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), bytes]);
    const pem = createPublicKey({ key: der, format: 'der', type: 'spki' }).export({ format: 'pem', type: 'spki' });
    writeFileSync(path('public.pem'), pem);
    const signature = sign([key], id, timestampS, body).slice('v1a,'.length);
    writeFileSync(path('signature'), Buffer.from(signature, 'base64'));
    const verified = (content: string): boolean => {
      writeFileSync(path('content'), content);
      const flags = ['-verify', '-pubin', '-inkey', path('public.pem'), '-rawin', '-in', path('content')];
      return spawnSync('openssl', ['pkeyutl', ...flags, '-sigfile', path('signature')]).status === 0;
    };
    assert.ok(verified(`${id}.${timestampS}.${body}`));
    assert.ok(!verified(`${id}.${timestampS}.${body} `));
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('what is no secret of 16 to 64 bytes is refused', () => {
  const secretOf = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;
  for (const right of [secretOf(16), secretOf(64)]) assert.ok(keyOf(right));
  const asymmetricOf = (bytes: number) => secretOf(bytes).replace('whsec_', 'whsk_');
  const wrong = [secretOf(15), secretOf(65), 'whsec_', 'whsec_no base64', '', asymmetric.publicKey];
  // Of 64 bytes the last 32 are the public key of the first.
  for (const text of [...wrong, asymmetricOf(31), asymmetricOf(33), asymmetricOf(64)])
    assert.equal(keyOf(text), undefined);
});
