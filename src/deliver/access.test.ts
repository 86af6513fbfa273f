import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportJWK, type JWTPayload, SignJWT } from 'jose';
import { pino } from 'pino';
import { openAccess, openDeliverRig, StreamClient } from '../../test/deliver-rig.ts';
import { eventually } from '../../test/open-log.ts';
import { Access, type AccessOptions, signUrl } from './access.ts';

const secret = 's'.repeat(32);
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = (key: typeof rsa.publicKey): string => key.export({ type: 'spki', format: 'pem' }) as string;
type SigningKey = Parameters<SignJWT['sign']>[0];

function token(key: SigningKey, alg: string, claims: JWTPayload = { sub: 'ada' }, header = {}): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg, ...header }).sign(key);
}

const accessWith = (options: Partial<AccessOptions>): Access => new Access({ ...openAccess, ...options });
const wanted = { inbox: 'news', subscriber: 'ada' };
const bearer = (text: string) => ({ authorization: `Bearer ${text}`, origin: undefined, host: undefined, query: {} });

async function status(work: Promise<unknown>): Promise<number> {
  return work.then(
    () => 200,
    (error: { status?: number }) => error.status ?? -1,
  );
}

test('tokens of each algorithm are accepted by their key, and by no other', async () => {
  const jwk = { ...(await exportJWK(rsa.publicKey)), kid: 'r', alg: 'RS256' };
  const ecJwk = { ...(await exportJWK(ec.publicKey)), kid: 'e', alg: 'ES256' };
  const set = accessWith({ jwtKey: JSON.stringify({ keys: [jwk, ecJwk] }) });
  const byKey = {
    HS256: accessWith({ jwtKey: secret }),
    RS256: accessWith({ jwtKey: pem(rsa.publicKey) }),
    ES256: accessWith({ jwtKey: pem(ec.publicKey) }),
  };
  const tokens = {
    HS256: await token(Buffer.from(secret), 'HS256'),
    RS256: await token(rsa.privateKey, 'RS256', { sub: 'ada' }, { kid: 'r' }),
    ES256: await token(ec.privateKey, 'ES256', { sub: 'ada' }, { kid: 'e' }),
  };
  for (const [name, access] of Object.entries(byKey)) {
    for (const [algorithm, text] of Object.entries(tokens)) {
      const expected = name === algorithm ? 200 : 401;
      assert.equal(await status(access.grant(bearer(text), wanted)), expected, `${algorithm} with a key for ${name}`);
    }
  }
  assert.equal(await status(set.grant(bearer(tokens.RS256), wanted)), 200);
  assert.equal(await status(set.grant(bearer(tokens.ES256), wanted)), 200);
  assert.equal(await status(set.grant(bearer(tokens.HS256), wanted)), 401);
  // A public key is no secret: a token signed with its text must not pass.
  const confused = await token(Buffer.from(pem(rsa.publicKey)), 'HS256');
  assert.equal(await status(byKey.RS256.grant(bearer(confused), wanted)), 401);
  const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from('{"sub":"ada"}').toString('base64url')}.`;
  assert.equal(await status(byKey.HS256.grant(bearer(unsigned), wanted)), 401);
});

test('a token reads its own subscriber, its inboxes, until it ends, from its issuer for its audience', async () => {
  const key = Buffer.from(secret);
  const access = accessWith({ jwtKey: secret, jwtIssuer: 'login', jwtAudience: 'events' });
  const good = { sub: 'ada', iss: 'login', aud: 'events' };
  const now = Math.floor(Date.now() / 1000);
  const outcomes: [JWTPayload, number][] = [
    [good, 200],
    [{ ...good, sub: 'bob' }, 403],
    [{ iss: 'login', aud: 'events' }, 403],
    [{ ...good, iss: 'other' }, 401],
    [{ ...good, aud: 'other' }, 401],
    [{ ...good, exp: now - 60 }, 401],
    [{ ...good, nbf: now + 60 }, 401],
    [{ ...good, inboxes: ['news'] }, 200],
    [{ ...good, inboxes: ['other'] }, 403],
    [{ ...good, topics: 'jobs' }, 403],
  ];
  for (const [claims, expected] of outcomes) {
    const outcome = await status(access.grant(bearer(await token(key, 'HS256', claims)), wanted));
    assert.equal(outcome, expected, JSON.stringify(claims));
  }
  const claims = { ...good, topics: ['jobs'], exp: now + 60 };
  const shown = { ...bearer(''), authorization: undefined, query: { token: await token(key, 'HS256', claims) } };
  assert.deepEqual(await access.grant(shown, { inbox: 'news', subscriber: undefined }), {
    subscriber: 'ada',
    topics: ['jobs'],
    expiresAt: (now + 60) * 1000,
  });
});

test('a signed URL says all that it grants', async () => {
  const access = accessWith({ urlKey: secret });
  const expires = String(Math.floor(Date.now() / 1000) + 60);
  const parts = { inbox: 'news', subscriber: 'ada', expires, allow: 'jobs' };
  const signature = signUrl(secret, parts).toString('hex');
  const shown = (query: Record<string, string>) => ({
    ...{ authorization: undefined, origin: undefined, host: undefined },
    query: { expires, allow: 'jobs', signature, ...query },
  });
  assert.deepEqual((await access.grant(shown({}), wanted)).topics, ['jobs']);
  assert.equal(await status(access.grant(shown({}), { ...wanted, subscriber: 'bob' })), 401);
  assert.equal(await status(access.grant(shown({}), { ...wanted, inbox: 'other' })), 401);
  assert.equal(await status(access.grant(shown({ allow: 'jobs,secrets' }), wanted)), 401);
  assert.equal(await status(access.grant(shown({ expires: `${expires}0` }), wanted)), 401);
  assert.equal(await status(access.grant(shown({ signature: '' }), wanted)), 401);
  const past = { ...parts, expires: '1000000000' };
  const old = { expires: past.expires, signature: signUrl(secret, past).toString('hex') };
  assert.equal(await status(access.grant(shown(old), wanted)), 401);
});

test('without keys only this machine is served, and no page of another origin or under another name', async () => {
  assert.throws(() => accessWith({ host: '0.0.0.0' }).assertServable(), /readable by everybody/);
  assert.throws(() => accessWith({ jwtKey: 'short' }), /32 bytes/);
  assert.throws(() => accessWith({ jwtKey: '-----BEGIN PUBLIC KEY-----\nx' }), /cannot be read/);
  const access = accessWith({ corsOrigins: ['https://app.example'] });
  const shown = (host: string, origin?: string) => ({ authorization: undefined, host, origin, query: {} });
  for (const [host, origin, expected] of [
    ['127.0.0.1:8080', undefined, 200],
    ['localhost:8080', 'http://localhost:8080', 200],
    ['[::1]:8080', undefined, 200],
    ['localhost:8080', 'https://app.example', 200],
    ['localhost:8080', 'https://evil.example', 403],
    ['rebound.example:8080', 'http://rebound.example:8080', 403],
  ] as const) {
    assert.equal(await status(access.grant(shown(host, origin), wanted)), expected, `${host} ${origin}`);
  }
});

test('over HTTP: nothing is read across subscribers, topics that a token lacks are left out, and a stream ends with its token', async () => {
  const rig = await openDeliverRig();
  try {
    const [jobs, other] = [await rig.createTopic('jobs'), await rig.createTopic('secrets')];
    const access = { ...openAccess, jwtKey: secret, corsOrigins: ['https://app.example'] };
    const server = await rig.serve({ news: { topics: ['*'] } }, { access });
    await rig.send(other, [{ key: 'ada', value: 'hidden' }]);
    await rig.send(jobs, [{ key: 'ada', value: 'shown' }]);
    await rig.filled(server, 'news');
    const key = Buffer.from(secret);
    const exp = Math.floor(Date.now() / 1000) + 2;
    const authorization = `Bearer ${await token(key, 'HS256', { sub: 'ada', topics: ['jobs'], exp })}`;
    const get = (path: string, headers: Record<string, string> = { authorization }) =>
      fetch(`${server.url}${path}`, { headers });
    assert.equal((await get('/v1/stream?subscriber=ada', {})).status, 401);
    assert.equal((await get('/v1/stream?subscriber=bob')).status, 403);
    assert.equal((await get('/v1/notifications/bob')).status, 403);
    const listed = (await (await get('/v1/notifications/ada')).json()) as { notifications: { data: string }[] };
    assert.deepEqual(
      listed.notifications.map(({ data }) => data),
      ['shown'],
    );
    const ack = await fetch(`${server.url}/v1/ack`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ subscriber: 'bob', id: '1-1' }),
    });
    assert.equal(ack.status, 403);

    const client = await StreamClient.open(`${server.url}/v1/stream`, { authorization, origin: 'https://app.example' });
    assert.equal(client.headers['access-control-allow-origin'], 'https://app.example');
    await client.received(1);
    assert.deepEqual(client.data, ['shown']);
    await client.end();
    assert.equal(server.deliveries.status()[0]!.closed.expired, 1);
    const preflight = await fetch(`${server.url}/v1/ack`, {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example' },
    });
    assert.equal(preflight.status, 204);
    assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /authorization/);
    const stranger = await fetch(`${server.url}/v1/ack`, {
      method: 'OPTIONS',
      headers: { origin: 'https://evil.example' },
    });
    assert.equal(stranger.headers.get('access-control-allow-origin'), null);
  } finally {
    await rig.remove();
  }
});

test('a key file that changes is used at once; one that cannot be used leaves the keys of before, and is told', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
  const file = join(directory, 'keys.json');
  const jwk = async (key: typeof rsa.publicKey, kid: string) => ({ ...(await exportJWK(key)), kid });
  const setOf = (...keys: object[]): string => JSON.stringify({ keys });
  const [one, other] = [await jwk(rsa.publicKey, 'r'), await jwk(ec.publicKey, 'e')];
  const byOne = await token(rsa.privateKey, 'RS256', { sub: 'ada' }, { kid: 'r' });
  const byOther = await token(ec.privateKey, 'ES256', { sub: 'ada' }, { kid: 'e' });
  const lines: { level: number; error?: string }[] = [];
  const logger = pino({}, { write: line => void lines.push(JSON.parse(line)) });
  try {
    const access = accessWith({ jwtKey: setOf(one), jwtKeyFile: file });
    const outcomes = () => Promise.all([byOne, byOther].map(text => status(access.grant(bearer(text), wanted))));
    const write = async (text: string): Promise<void> => {
      writeFileSync(file, text);
      await access.look(logger);
      await access.look(logger);
    };
    await write(setOf(one));
    assert.deepEqual([await outcomes(), lines.length], [[200, 401], 0]);
    await write(setOf(one, other));
    assert.deepEqual([await outcomes(), lines.length], [[200, 200], 1]);
    await write(setOf(other));
    assert.deepEqual([await outcomes(), lines.length], [[401, 200], 2]);

    const broken = [setOf(other).slice(0, -5), '', 'x'.repeat(64), setOf(), pem(rsa.publicKey)];
    for (const [i, text] of broken.entries()) {
      await write(text);
      assert.deepEqual([await outcomes(), lines.length], [[401, 200], 3 + i], text.slice(0, 20));
      assert.match(access.trouble!, /deliver\.jwt\.key .*; the key of before is used/);
      assert.ok(lines.at(-1)!.level >= 50 && !lines.at(-1)!.error!.includes(text.slice(0, 20) || 'x'));
    }
    rmSync(file);
    await access.look(logger);
    assert.match(access.trouble!, /cannot be read \(ENOENT\)/);
    assert.deepEqual(await outcomes(), [401, 200]);
    await write(setOf(one));
    assert.deepEqual([await outcomes(), access.trouble], [[200, 401], undefined]);

    writeFileSync(file, 'k'.repeat(32));
    const urls = accessWith({ urlKey: secret, urlKeyFile: file });
    const expires = String(Math.floor(Date.now() / 1000) + 60);
    const parts = { ...wanted, expires, allow: undefined };
    const signed = (key: string) =>
      status(urls.grant({ ...bearer(''), authorization: undefined, query: signedBy(key) }, wanted));
    const signedBy = (key: string) => ({ expires, signature: signUrl(key, parts).toString('hex') });
    assert.deepEqual([await signed(secret), await signed('k'.repeat(32))], [200, 401]);
    await urls.look(logger);
    assert.deepEqual([await signed(secret), await signed('k'.repeat(32))], [401, 200]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a process that serves looks at its key files by itself, and says what is wrong with one in the status', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
  const file = join(directory, 'key');
  writeFileSync(file, secret);
  const rig = await openDeliverRig();
  try {
    const server = await rig.serve(
      { news: { topics: ['events'] } },
      { access: { ...openAccess, jwtKey: secret, jwtKeyFile: file } },
    );
    writeFileSync(file, 'too short');
    await eventually(() => /shorter|at least/.test(server.deliveries.describe('news').reason ?? ''));
    writeFileSync(file, 'n'.repeat(32));
    const authorization = `Bearer ${await token(Buffer.from('n'.repeat(32)), 'HS256')}`;
    await eventually(
      async () => (await fetch(`${server.url}/v1/notifications/ada`, { headers: { authorization } })).ok,
    );
  } finally {
    await rig.remove();
    rmSync(directory, { recursive: true });
  }
});
