// Captures into a real Apache Kafka: every way to log in, and a broker that is killed while records go into it. Read with
// kafkajs.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePorts, type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { Cluster } from '../src/client/cluster.ts';
import type { ConnectionOptions, TlsOptions } from '../src/client/connection.ts';
import { AuthenticationError, UnreachableError } from '../src/client/errors.ts';
import { openRig } from './capture-rig.ts';
import { type Certificates, cannotMakeCertificates, makeCertificates } from './certificates.ts';
import { readRemote } from './read-remote.ts';

const missing = kafkaIsMissing() || cannotMakeCertificates();
const skip = missing ? { skip: missing } : {};
const password = 'scram secret';

const text = (path: string): string => readFileSync(path, 'utf8');
const serverFile = (): string => join(directory, 'server.pem');

let directory: string;
let certificates: Certificates;
let kafka: KafkaServer;
let ports: { plain: number; sasl: number; saslTls: number; tls: number };

async function start(): Promise<void> {
  kafka = await startKafka({
    port: ports.plain,
    dataDir: join(directory, 'kafka'),
    heap: '400M',
    listeners: {
      SASL_PLAINTEXT: `127.0.0.1:${ports.sasl}`,
      SASL_SSL: `localhost:${ports.saslTls}`,
      SSL: `localhost:${ports.tls}`,
    },
    scramUsers: { ann: password },
    overrides: {
      'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      ...Object.fromEntries(
        ['sasl_plaintext', 'sasl_ssl'].flatMap(listener => [
          [
            `listener.name.${listener}.plain.sasl.jaas.config`,
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_bob="plain secret";',
          ],
          ...[256, 512].map(bits => [
            `listener.name.${listener}.scram-sha-${bits}.sasl.jaas.config`,
            'org.apache.kafka.common.security.scram.ScramLoginModule required;',
          ]),
        ]),
      ),
      'listener.name.ssl.ssl.client.auth': 'required',
      'ssl.keystore.type': 'PEM',
      'ssl.keystore.location': serverFile(),
      'ssl.truststore.type': 'PEM',
      'ssl.truststore.location': certificates.authority,
      'num.partitions': '3',
    },
  });
}

before(async () => {
  if (missing) return;
  directory = mkdtempSync(join(tmpdir(), 'millrace-kafka-'));
  certificates = makeCertificates(directory, ['DNS:localhost'], 'ann');
  // Key and certificate in one file, as Kafka reads them.
  writeFileSync(serverFile(), text(certificates.server.key) + text(certificates.server.cert));
  const [plain, sasl, saslTls, tls] = await freePorts(4);
  ports = { plain: plain!, sasl: sasl!, saslTls: saslTls!, tls: tls! };
  await start();
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
  const ann = (mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-512') => ({ mechanism, username: 'ann', password });
  const bob = { mechanism: 'PLAIN', username: 'bob', password: 'plain secret' } as const;
  const tls: TlsOptions = { ca: text(certificates.authority) };
  const plainId = await logIn('127.0.0.1', ports.plain, {});
  assert.ok(plainId);
  for (const sasl of [bob, ann('SCRAM-SHA-256'), ann('SCRAM-SHA-512')]) {
    assert.equal(await logIn('127.0.0.1', ports.sasl, { sasl }), plainId);
    assert.equal(await logIn('localhost', ports.saslTls, { sasl, tls }), plainId);
    const wrong = { ...sasl, password: 'guessed' };
    await assert.rejects(logIn('127.0.0.1', ports.sasl, { sasl: wrong }), AuthenticationError);
  }
  await assert.rejects(logIn('127.0.0.1', ports.sasl, { sasl: { ...bob, username: 'ann' } }), AuthenticationError);
});

test('Kafka’s certificate is verified, and ours shown', skip, async () => {
  const [ca, stranger] = [text(certificates.authority), text(certificates.stranger)];
  const [cert, key] = [text(certificates.client.cert), text(certificates.client.key)];
  const sasl = { mechanism: 'SCRAM-SHA-512', username: 'ann', password } as const;
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
  const rig = await openRig();
  process.env.TARGET_PASSWORD = password;
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
      const killed = kafka.pid;
      process.kill(killed, 'SIGKILL');
      await change;
      await pool.query('INSERT INTO item SELECT 1000 * $1::int + i, $1 FROM generate_series(1, 50) i', [round]);
      await pool.query('DELETE FROM item WHERE id = $1', [round]);
      await start();
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
