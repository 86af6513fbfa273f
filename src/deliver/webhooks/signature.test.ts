import assert from 'node:assert/strict';
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
    assert.deepEqual(keyOf(secret.slice('whsec_'.length)), keyOf(secret));
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

test('what is no secret of 16 to 64 bytes is refused', () => {
  const secretOf = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;
  assert.equal(keyOf(secretOf(16))?.length, 16);
  assert.equal(keyOf(secretOf(64))?.length, 64);
  for (const wrong of [secretOf(15), secretOf(65), 'whsec_', 'whsec_no base64', ''])
    assert.equal(keyOf(wrong), undefined);
});
