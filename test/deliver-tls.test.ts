// Event streams over TLS, to clients that speak HTTP/2 and HTTP/1.1, compressed and not.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:http2';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createGunzip } from 'node:zlib';
import { chromium } from 'playwright-core';
import { HttpServer } from '../src/http/server.ts';
import { createRegistry } from '../src/runtime/metrics.ts';
import { cannotMakeCertificates, makeCertificates } from './certificates.ts';
import { type DeliverRig, openDeliverRig } from './deliver-rig.ts';

const skip = cannotMakeCertificates();
const browsers = [process.env.MILLRACE_TEST_CHROMIUM ?? '', '/usr/bin/chromium', '/usr/bin/google-chrome'];
const executablePath = browsers.find(path => path !== '' && existsSync(path));

let rig: DeliverRig;
let directory: string;
let ca: Buffer;
let tls: { cert: string; key: string };
before(async () => {
  rig = await openDeliverRig();
  directory = mkdtempSync(join(tmpdir(), 'millrace-tls-'));
  if (skip) return;
  const { authority, server } = makeCertificates(directory, ['IP:127.0.0.1'], 'nobody');
  ca = readFileSync(authority);
  tls = { cert: readFileSync(server.cert, 'utf8'), key: readFileSync(server.key, 'utf8') };
});
after(async () => {
  await rig.remove();
  rmSync(directory, { recursive: true, force: true });
});

/** Reads until so many events have come. */
async function events(stream: NodeJS.ReadableStream, count: number): Promise<string[]> {
  let text = '';
  stream.setEncoding('utf8');
  while ((text.match(/^data: /gm) ?? []).length < count) text += (await once(stream, 'data'))[0];
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => data!);
}

test('HTTP/2 and HTTP/1.1 over TLS, with and without gzip: the same events, and a stop that ends them', {
  skip,
}, async () => {
  const topic = await rig.createTopic('secure');
  const server = await rig.serve({ secure: { topics: ['secure'] } }, { tls });
  await rig.send(topic, [{ key: 'ada', value: 'one' }]);
  await rig.filled(server, 'secure');
  const session = connect(server.url, { ca });
  const path = '/v1/stream?inbox=secure&subscriber=ada';
  const plain = session.request({ ':path': path });
  const squeezed = session.request({ ':path': path, 'accept-encoding': 'br, gzip' });
  const [[plainHead], [squeezedHead], [older]] = await Promise.all([
    once(plain, 'response'),
    once(squeezed, 'response'),
    once(get(`${server.url}${path}`, { ca, agent: false, headers: { 'accept-encoding': 'gzip' } }), 'response'),
  ]);
  assert.equal(plainHead[':status'], 200);
  assert.equal(plainHead['content-encoding'], undefined);
  assert.equal(squeezedHead['content-encoding'], 'gzip');
  assert.match(squeezedHead.vary, /accept-encoding/);
  assert.equal(older.headers['content-encoding'], 'gzip');
  const streams = [plain, squeezed.pipe(createGunzip()), older.pipe(createGunzip())];
  const reading = Promise.all(streams.map(stream => events(stream, 2)));
  await rig.send(topic, [{ key: 'ada', value: 'two' }]);
  for (const read of await reading) assert.deepEqual(read.slice(-1), ['two']);

  const ended = [once(streams[0]!, 'end'), once(streams[1]!, 'end'), once(streams[2]!, 'end')];
  for (const stream of streams) stream.resume();
  await server.deliveries.drain();
  await Promise.all(ended);
  await server.stop();
  if (!session.closed) await once(session, 'close');
});

test('a browser has more than six streams at once over HTTP/2', {
  skip: skip || (executablePath === undefined && 'no Chromium is installed (MILLRACE_TEST_CHROMIUM names one)'),
  timeout: 120_000,
}, async () => {
  const topic = await rig.createTopic('many');
  const server = await rig.serve({ many: { topics: ['many'] } }, { tls });
  const browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const tab = await context.newPage();
    await tab.goto(`${server.url}/healthz`);
    await tab.evaluate(`
      window.opened = 0;
      window.received = [];
      for (let i = 0; i < 10; i++) {
        const source = new EventSource('/v1/stream?inbox=many&subscriber=s' + i);
        source.onopen = () => window.opened++;
        source.onmessage = ({ data }) => window.received.push(data);
      }`);
    await tab.waitForFunction('window.opened === 10');
    await rig.send(
      topic,
      Array.from({ length: 10 }, (_, i) => ({ key: `s${i}`, value: `for ${i}` })),
    );
    await tab.waitForFunction('window.received.length === 10');
    const received = (await tab.evaluate('window.received')) as string[];
    assert.deepEqual(
      received.sort(),
      Array.from({ length: 10 }, (_, i) => `for ${i}`),
    );
  } finally {
    await browser.close();
    await server.stop();
  }
});

test('a certificate that is none ends the start with what was expected', async () => {
  const http = new HttpServer({
    address: { host: '127.0.0.1', port: 0 },
    tls: { cert: 'nonsense', key: 'nonsense' },
    registry: createRegistry(),
    profiling: false,
    readiness: async () => undefined,
    readStatus: async () => undefined,
  });
  await assert.rejects(http.start(), /http\.tls\.cert and http\.tls\.key cannot be used/);
});
