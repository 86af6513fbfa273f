import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { createGunzip, gunzipSync } from 'node:zlib';
import { GzipOutlet, takesGzip } from './outlet.ts';

/** What a response is to an outlet: the client takes what waits when told to. */
class Client extends Writable {
  readonly taken: Buffer[] = [];
  #waiting: (() => void)[] = [];

  constructor() {
    super({ highWaterMark: 1000 });
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#waiting.push(() => {
      this.taken.push(chunk);
      done();
    });
  }

  /** Takes all that waits. */
  take(): void {
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const next of waiting) next();
    }
  }
}

const noise = (length: number): string =>
  Buffer.from(crypto.getRandomValues(new Uint8Array(length))).toString('base64');

test('what is written is told as written when the response has taken it, and not before', async () => {
  const client = new Client();
  const outlet = new GzipOutlet(client);
  let told = 0;
  outlet.write('id: 1\n\n', () => told++);
  outlet.write('id: 2\n\n', () => told++);
  while (client.writableLength === 0) await new Promise(resolve => setImmediate(resolve));
  assert.equal(told, 0);
  while (told < 2) {
    client.take();
    await new Promise(resolve => setImmediate(resolve));
  }
  outlet.end();
  while (!client.writableFinished) {
    client.take();
    await new Promise(resolve => setImmediate(resolve));
  }
  assert.equal(gunzipSync(Buffer.concat(client.taken)).toString(), 'id: 1\n\nid: 2\n\n');
});

test('an outlet whose client takes nothing says so, counts what waits, and tells when it goes on', async () => {
  const client = new Client();
  const outlet = new GzipOutlet(client);
  let text = '';
  let drained = 0;
  outlet.on('drain', () => drained++);
  for (let taken = true; taken; ) {
    const part = noise(900);
    text += part;
    taken = outlet.write(part);
    await new Promise(resolve => setImmediate(resolve));
  }
  await new Promise(resolve => setImmediate(resolve));
  assert.ok(outlet.waiting >= 1000, `${outlet.waiting}`);
  assert.equal(drained, 0);
  while (drained === 0) {
    client.take();
    await new Promise(resolve => setImmediate(resolve));
  }
  assert.equal(drained, 1);
  outlet.end();
  while (!client.writableFinished) {
    client.take();
    await new Promise(resolve => setImmediate(resolve));
  }
  assert.equal(gunzipSync(Buffer.concat(client.taken)).toString(), text);
});

test('each write reaches the client at once, and a connection that is lost is told', async () => {
  let outlet: GzipOutlet | undefined;
  let closed = 0;
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' });
    outlet = new GzipOutlet(response);
    outlet.on('close', () => closed++);
    outlet.write('one');
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const asked = request({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', agent: false });
  asked.end();
  const [response] = await once(asked, 'response');
  const text = response.pipe(createGunzip()).setEncoding('utf8');
  assert.deepEqual(await once(text, 'data'), ['one']);
  outlet!.write('two');
  assert.deepEqual(await once(text, 'data'), ['two']);
  text.on('error', () => {});
  asked.destroy();
  while (closed === 0) await new Promise(resolve => setImmediate(resolve));
  outlet!.write('three');
  server.close();
});

test('Accept-Encoding', () => {
  const takes: [string | undefined, boolean][] = [
    [undefined, false],
    ['', false],
    ['identity', false],
    ['gzip', true],
    ['gzip, deflate, br, zstd', true],
    ['br;q=1.0, GZIP;q=0.8, *;q=0.1', true],
    ['gzip;q=0', false],
    ['gzip; q=0.000', false],
    ['*', true],
    ['*, gzip;q=0', false],
    ['deflate, *;q=0', false],
    ['x-gzip', true],
    ['gzip;q=nonsense', false],
  ];
  for (const [header, expected] of takes) assert.equal(takesGzip(header), expected, `${header}`);
});
