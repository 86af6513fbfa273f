// Captures into a real Apache Kafka: every way to log in, and a broker that is killed while records go into it. Read with
// kafkajs.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster } from '../src/client/cluster.ts';
import type { ConnectionOptions, TlsOptions } from '../src/client/connection.ts';
import { AuthenticationError, UnreachableError } from '../src/client/errors.ts';
import { openRig } from './capture-rig.ts';
import { readRemote } from './read-remote.ts';
import { logins, SecuredKafka, securedKafkaIsMissing } from './secured-kafka.ts';

const missing = securedKafkaIsMissing();
const skip = missing ? { skip: missing } : {};

const text = (path: string): string => readFileSync(path, 'utf8');

let directory: string;
let kafka: SecuredKafka;

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-kafka-'));
  kafka = await SecuredKafka.start(directory, { 'num.partitions': '3' });
});

after(async () => {
  await kafka?.stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

async function logIn(host: string, port: number, options: Partial<ConnectionOptions>): Promise<string | undefined> {
  const cluster = new Cluster({ bootstrap: [{ host, port }], clientId: 'test', ...options });
  try {
    await cluster.refresh();
    return cluster.clusterId;
  } finally {
    cluster.close();
  }
}

test('Kafka takes the logins that are right, and none of the others', skip, async () => {
  const { certificates, ports } = kafka;
  const tls: TlsOptions = { ca: text(certificates.authority) };
  const plainId = await logIn('127.0.0.1', ports.plain, {});
  assert.ok(plainId);
  for (const sasl of Object.values(logins)) {
    assert.equal(await logIn('127.0.0.1', ports.sasl, { sasl }), plainId);
    assert.equal(await logIn('localhost', ports.saslTls, { sasl, tls }), plainId);
    const wrong = { ...sasl, password: 'guessed' };
    await assert.rejects(logIn('127.0.0.1', ports.sasl, { sasl: wrong }), AuthenticationError);
  }
  await assert.rejects(
    logIn('127.0.0.1', ports.sasl, { sasl: { ...logins.bob, username: 'ann' } }),
    AuthenticationError,
  );
});

test('Kafka’s certificate is verified, and ours shown', skip, async () => {
  const { certificates, ports } = kafka;
  const [ca, stranger] = [text(certificates.authority), text(certificates.stranger)];
  const [cert, key] = [text(certificates.client.cert), text(certificates.client.key)];
  const sasl = logins.ann512;
  const refused: [TlsOptions, RegExp][] = [
    [{}, /self-signed certificate|unable to verify|unable to get/],
    [{ ca: stranger }, /self-signed certificate|unable to verify|unable to get/],
    [{ ca, servername: 'elsewhere' }, /does not match certificate's altnames/],
  ];
  for (const [tls, reason] of refused) {
    await assert.rejects(logIn('localhost', ports.saslTls, { sasl, tls }), reason);
  }
  for (const tls of [{ ca, servername: 'elsewhere', verify: 'ca' }, { verify: 'none' }] as const) {
    assert.ok(await logIn('localhost', ports.saslTls, { sasl, tls }));
  }
  assert.ok(await logIn('localhost', ports.tls, { tls: { ca, cert, key } }));
  await assert.rejects(logIn('localhost', ports.tls, { tls: { ca } }), UnreachableError);
  await assert.rejects(logIn('localhost', ports.saslTls, { sasl }), UnreachableError);
});

test('a table’s rows and changes go to Kafka once, in order, though its broker is killed', {
  ...skip,
  timeout: 300_000,
}, async t => {
  const { certificates, ports } = kafka;
  const rig = await openRig();
  process.env.TARGET_PASSWORD = logins.ann256.password;
  process.env.TARGET_CA = text(certificates.authority);
  try {
    const { pool } = rig.database;
    await pool.query('CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL)');
    await pool.query('INSERT INTO item SELECT i, 0 FROM generate_series(1, 500) i');
    const capture = rig.start('shop', {
      tables: ['public.item'],
      format: 'plain',
      snapshot: 'initial',
      target: {
        bootstrap: `localhost:${ports.saslTls}`,
        tls: { ca: 'env:TARGET_CA' },
        sasl: { mechanism: 'SCRAM-SHA-256', username: 'ann', password: 'env:TARGET_PASSWORD' },
      },
    });
    await capture.reached('streaming');
    for (let round = 1; round <= 2; round++) {
      const change = pool.query('UPDATE item SET n = $1 WHERE id % 7 <> $1', [round]);
      await kafka.kill();
      await change;
      await pool.query('INSERT INTO item SELECT 1000 * $1::int + i, $1 FROM generate_series(1, 50) i', [round]);
      await pool.query('DELETE FROM item WHERE id = $1', [round]);
      await kafka.start();
    }
    const { rows } = await pool.query<{ id: number; n: number }>('SELECT id, n FROM item ORDER BY id');
    const folded = (records: readonly { key: string | null; value: string | null }[]) => {
      const fold = new Map<string, object>();
      for (const { key, value } of records) {
        if (value === null) fold.delete(key!);
        else fold.set(key!, (JSON.parse(value) as { data: object }).data);
      }
      return [...fold.values()].sort((a, b) => (a as { id: number }).id - (b as { id: number }).id);
    };
    const read = () => readRemote(`127.0.0.1:${ports.plain}`, 'shop.public.item');
    let records = await read();
    for (const deadline = Date.now() + 240_000; folded(records).length !== rows.length && Date.now() < deadline; ) {
      records = await read();
    }
    await capture.stop();
    records = await read();
    assert.deepEqual(folded(records), rows);
    assert.deepEqual([...new Set(records.map(({ partition }) => partition))].sort(), [0, 1, 2]);
    const seen = records.map(({ headers, value }) => `${headers.commit_lsn}.${headers.ordinal} ${value === null}`);
    assert.equal(new Set(seen).size, seen.length, 'a change is there twice');
    t.diagnostic(`${records.length} records`);
    assert.equal(capture.status().target?.clusterId, 'Z2lhbnQtbWlsbHJhY2UtMQ');
  } finally {
    await rig.remove();
  }
});
