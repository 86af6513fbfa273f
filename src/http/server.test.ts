import assert from 'node:assert/strict';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { createRegistry } from '../runtime/metrics.ts';
import { HttpServer } from './server.ts';
import type { Status } from './status.ts';

const status: Status = {
  version: '0.1.0',
  startedAt: new Date(0),
  kafka: '127.0.0.1:9092',
  database: 'PostgreSQL 18.4',
  databaseBytes: 5n * 1024n * 1024n,
  topics: [{ name: '<script>"&\'', partitions: 3, records: 1_234_567n, bytes: 1536n }],
  groups: [{ id: 'g&g', state: 'Stable', members: 2, lag: 7n }],
  captures: [
    {
      name: 'shop',
      state: 'failed',
      reason: 'replication slot <shop> is gone',
      hint: 'accept the gap with: DELETE',
      tables: ['public.orders'],
      records: 4321,
      lagMs: 1500,
      notices: [{ table: 'public.loose', reason: 'its rows cannot be told apart', hint: 'give a primary key' }],
      slot: { retainedBytes: 7n * 1024n * 1024n },
    },
  ],
};

interface Given {
  reason?: string | undefined;
  status?: Status | undefined;
  profiling?: boolean;
}

async function withServer(given: Given, work: (url: string) => Promise<void>): Promise<void> {
  const server = new HttpServer({
    address: { host: '127.0.0.1', port: 0 },
    registry: createRegistry(),
    profiling: given.profiling ?? false,
    readiness: async () => given.reason,
    readStatus: async () => given.status,
  });
  await server.start();
  try {
    await work(`http://127.0.0.1:${server.address.port}`);
  } finally {
    await server.stop(new AbortController().signal);
  }
}

test('health answers always, readiness says why not', async () => {
  const given: Given = { reason: 'starting' };
  await withServer(given, async url => {
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    const notReady = await fetch(`${url}/readyz`);
    assert.deepEqual([notReady.status, await notReady.text()], [503, 'starting\n']);
    given.reason = undefined;
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
  });
});

test('metrics are in Prometheus form', async () => {
  await withServer({}, async url => {
    const response = await fetch(`${url}/metrics`);
    assert.match(response.headers.get('content-type') ?? '', /^text\/plain/);
    assert.match(await response.text(), /^# HELP process_cpu_seconds_total /m);
  });
});

test('the page shows topics and groups, with everything escaped', async () => {
  await withServer({ status }, async url => {
    const page = await (await fetch(url)).text();
    assert.ok(!page.includes('<script>'));
    assert.ok(page.includes('&#60;script&#62;&#34;&#38;&#39;'));
    for (const shown of [
      '1,234,567',
      '1.5 KiB',
      '5.0 MiB',
      'g&#38;g',
      'failed',
      '&#60;shop&#62; is gone; accept the gap',
      '4,321',
      '1.5 s',
      '7.0 MiB',
      'public.loose: its rows',
      '1970-01-01 00:00:00 UTC',
    ]) {
      assert.ok(page.includes(shown), shown);
    }
  });
  await withServer({}, async url => assert.match(await (await fetch(url)).text(), /is starting/));
});

test('profiles are served when asked for, to names of this machine only', async () => {
  await withServer({}, async url => assert.equal((await fetch(`${url}/debug/cpu-profile`)).status, 404));
  await withServer({ profiling: true }, async url => {
    const profile = await (await fetch(`${url}/debug/cpu-profile?seconds=0.05`)).json();
    assert.ok(Array.isArray((profile as { nodes: unknown }).nodes));
    assert.equal((await fetch(`${url}/debug/cpu-profile?seconds=x`)).status, 400);
    assert.equal(await statusFor(`${url}/debug/heap-snapshot`, 'attacker.example'), 403);
  });
});

/** fetch does not let a Host header be given. */
function statusFor(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(url, { headers: { host } }, response => {
      response.resume();
      resolve(response.statusCode);
    })
      .once('error', reject)
      .end();
  });
}

test('a taken port is told with the flag that helps', async () => {
  const other = createServer();
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve));
  const { port } = other.address() as { port: number };
  const server = new HttpServer({
    address: { host: '127.0.0.1', port },
    registry: createRegistry(),
    profiling: false,
    readiness: async () => undefined,
    readStatus: async () => undefined,
  });
  await assert.rejects(server.start(), { code: 'LISTEN', message: `the HTTP port 127.0.0.1:${port} is taken` });
  await server.stop(new AbortController().signal);
  await new Promise(resolve => other.close(resolve));
});
