// sslmode as libpq has it, on a server with TLS and on one without.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openRig } from '../../test/capture-rig.ts';
import { type Certificates, cannotMakeCertificates, makeCertificates } from '../../test/certificates.ts';
import { type OwnPostgres, startPostgres } from '../../test/own-postgres.ts';
import { OperationalError } from '../runtime/errors.ts';
import { checkDatabase } from './check.ts';
import { PostgresClient } from './client.ts';
import { openPool } from './pool.ts';
import { ReplicationConnection } from './replication.ts';
import { Session } from './session.ts';
import { readAddress } from './tls.ts';

const skip = cannotMakeCertificates();
const directory = mkdtempSync(join(tmpdir(), 'millrace-tls-'));
chmodSync(directory, 0o711);
let certificates: Certificates;
let secure: OwnPostgres;
let open: OwnPostgres;
let version = 0;

const rules = `
local   all all trust
hostssl all only_tls 127.0.0.1/32 scram-sha-256
host    all only_tls 127.0.0.1/32 reject
hostnossl all only_plain 127.0.0.1/32 scram-sha-256
host    all only_plain 127.0.0.1/32 reject
hostssl all with_certificate 127.0.0.1/32 cert
host    all all 127.0.0.1/32 scram-sha-256
`;

before(async () => {
  if (skip) return;
  certificates = makeCertificates(directory, ['DNS:localhost', 'DNS:db.example'], 'with_certificate');
  writeFileSync(join(directory, 'pg_hba.conf'), rules, { mode: 0o644 });
  [secure, open] = await Promise.all([
    startPostgres({ fsync: 'off', hba_file: join(directory, 'pg_hba.conf') }),
    startPostgres({ fsync: 'off' }),
  ]);
  const client = new PostgresClient(secure.url);
  await client.connect();
  version = Number((await client.query('SHOW server_version_num')).rows[0].server_version_num);
  // Through the server: its keys must be its own user's.
  for (const [name, path] of [
    ['authority.crt', certificates.authority],
    ['server.crt', certificates.server.cert],
    ['server.key', certificates.server.key],
  ] as const) {
    const lines = client.escapeLiteral(readFileSync(path, 'utf8').trim());
    await client.query(`COPY (SELECT unnest(string_to_array(${lines}, E'\\n'))) TO PROGRAM 'umask 077; cat > ${name}'`);
  }
  await client.query(`ALTER SYSTEM SET ssl_ca_file = 'authority.crt'`);
  await client.query(`ALTER SYSTEM SET ssl = on`);
  for (const role of ['only_tls', 'only_plain', 'with_certificate'])
    await client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`);
  await client.end();
  await secure.stop();
  await secure.start();
});

after(async () => {
  await Promise.all([secure?.remove(), open?.remove()]);
  rmSync(directory, { recursive: true, force: true });
});

interface Target {
  readonly of?: OwnPostgres;
  readonly host?: string;
  readonly role?: string;
}

function urlWith(parameters: Readonly<Record<string, string>>, { of = secure, host, role }: Target = {}): string {
  const url = new URL(of.url);
  if (host) url.hostname = host;
  if (role) [url.username, url.password] = [role, 'secret'];
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}

/** Whether the connection has TLS, as the server and the client see it. */
async function hasTls(parameters: Readonly<Record<string, string>>, target?: Target): Promise<boolean> {
  const client = new PostgresClient(urlWith(parameters, target), { connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
    const { rows } = await client.query<{ ssl: boolean }>('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
    assert.equal(rows[0]!.ssl, client.encrypted);
    return rows[0]!.ssl;
  } finally {
    await client.end();
  }
}

const refused = (parameters: Readonly<Record<string, string>>, reason: RegExp, target?: Target) =>
  assert.rejects(hasTls(parameters, target), (error: Error) => {
    assert.match(error instanceof OperationalError ? error.sentence : error.message, reason);
    return true;
  });

test('each sslmode on a server that offers TLS', { skip }, async () => {
  const { authority, stranger } = certificates;
  assert.equal(await hasTls({}), true, 'prefer is the default');
  assert.equal(await hasTls({ sslmode: 'disable' }), false);
  assert.equal(await hasTls({ sslmode: 'allow' }), false);
  assert.equal(await hasTls({ sslmode: 'prefer' }), true);
  assert.equal(await hasTls({ sslmode: 'require' }), true, 'nothing is verified without an authority');
  assert.equal(await hasTls({ ssl: 'true' }), true);
  assert.equal(await hasTls({ sslmode: 'verify-ca', sslrootcert: authority }), true, 'whatever its name');
  assert.equal(await hasTls({ sslmode: 'verify-full', sslrootcert: authority }, { host: 'localhost' }), true);
  await refused(
    { sslmode: 'verify-full', sslrootcert: authority },
    /is another host’s .*127\.0\.0\.1.*; connect by a name that the certificate has/,
  );
  for (const sslmode of ['require', 'verify-ca', 'verify-full']) {
    await refused({ sslmode, sslrootcert: stranger }, /is not from an authority of \S+stranger\.crt .*sslrootcert/, {
      host: 'localhost',
    });
  }
  await refused({ sslmode: 'verify-full', sslrootcert: 'system' }, /is not from an authority of system/, {
    host: 'localhost',
  });
  assert.equal(await hasTls({ sslmode: 'prefer', sslrootcert: stranger }), false, 'prefer goes on without');
});

test('each sslmode on a server without TLS', { skip }, async () => {
  const { authority } = certificates;
  for (const sslmode of ['disable', 'allow', 'prefer']) assert.equal(await hasTls({ sslmode }, { of: open }), false);
  for (const sslmode of ['require', 'verify-ca', 'verify-full']) {
    await refused({ sslmode, sslrootcert: authority }, /offers no TLS, and sslmode is/, {
      of: open,
      host: 'localhost',
    });
  }
});

test('where pg_hba.conf wants TLS, or wants none, allow and prefer find it out', { skip }, async () => {
  assert.equal(await hasTls({ sslmode: 'allow' }, { role: 'only_tls' }), true);
  assert.equal(await hasTls({ sslmode: 'prefer' }, { role: 'only_tls' }), true);
  await refused({ sslmode: 'disable' }, /rejects connection/, { role: 'only_tls' });
  assert.equal(await hasTls({ sslmode: 'prefer' }, { role: 'only_plain' }), false);
  assert.equal(await hasTls({ sslmode: 'allow' }, { role: 'only_plain' }), false);
  await refused({ sslmode: 'require' }, /rejects connection/, { role: 'only_plain' });
  await refused({ sslmode: 'allow' }, /role "nobody" does not exist|password authentication failed/, {
    role: 'nobody',
  });
});

test('a certificate of one’s own is shown', { skip }, async () => {
  const { cert: sslcert, key: sslkey } = certificates.client;
  const role = 'with_certificate';
  assert.equal(await hasTls({ sslmode: 'require', sslcert, sslkey }, { role }), true);
  await refused({ sslmode: 'require' }, /valid client certificate/, { role });
  await refused({ sslmode: 'require', sslcert: join(directory, 'none.crt'), sslkey }, /file of sslcert cannot be read/);
});

test('sslnegotiation=direct, from PostgreSQL 17 on', { skip }, async () => {
  const parameters = { sslmode: 'require', sslnegotiation: 'direct' };
  if (version >= 170_000) assert.equal(await hasTls(parameters), true);
  else await refused(parameters, /TLS with the PostgreSQL at \S+ failed/);
});

test('every connection that Millrace makes has it', { skip }, async () => {
  const url = urlWith({ sslmode: 'verify-full', sslrootcert: certificates.authority }, { host: 'localhost' });
  const wrong = urlWith({ sslmode: 'verify-full', sslrootcert: certificates.stranger }, { host: 'localhost' });
  const tls = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()';
  const pool = openPool(url, { max: 2, applicationName: 'tls' });
  assert.equal((await pool.query(tls)).rows[0].ssl, true);
  await pool.end();
  const session = await Session.open(url, { applicationName: 'tls' });
  assert.equal((await session.query(tls, [])).rows[0]![0]![0], 1);
  const large = await session.query(`SELECT convert_to(repeat('x', 3000000), 'UTF8')`, []);
  assert.equal(large.rows[0]![0]!.length, 3_000_000);
  await session.end();
  const replication = await ReplicationConnection.open(url, 'tls');
  assert.equal((await replication.command(tls))[0]!.ssl, true);
  await replication.end();
  for (const connecting of [
    () => Session.open(wrong, { applicationName: 'tls' }),
    () => ReplicationConnection.open(wrong, 'tls'),
    () => checkDatabase(wrong, 1),
    async () => {
      const failing = openPool(wrong, { max: 1, applicationName: 'tls' });
      await failing.query('SELECT 1').finally(() => failing.end());
    },
  ]) {
    await assert.rejects(connecting, /is not from an authority of/);
  }
});

test('a capture streams through TLS, and says what is wrong with it', { skip, timeout: 300_000 }, async () => {
  const client = new PostgresClient(secure.url);
  await client.connect();
  await client.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
  const rig = await openRig();
  const definition = (parameters: Readonly<Record<string, string>>) => ({
    source: urlWith(parameters, { host: 'localhost' }),
    tables: ['public.items'],
    format: 'plain',
  });
  const { authority, stranger } = certificates;
  try {
    const refusing = rig.start('tls', definition({ sslmode: 'verify-full', sslrootcert: stranger }));
    const { reason, hint } = await refusing.reached('retrying');
    assert.match(`${reason}; ${hint}`, /is not from an authority of .*; name the file .* with sslrootcert/);
    await refusing.halt();
    const unclear = rig.start('tls', definition({ sslmode: 'no-verify' }));
    assert.match((await unclear.reached('failed')).reason!, /sslmode of the database URL is no-verify; it is one of/);
    const running = rig.start('tls', definition({ sslmode: 'verify-full', sslrootcert: authority }));
    await running.reached('streaming');
    await client.query(`INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i`);
    const records = await rig.until('tls.public.items', found => found.length >= 20_000);
    assert.equal(records.length, 20_000);
    const { rows } = await client.query(
      `SELECT bool_and(ssl) AS ssl, count(*)::int AS count FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
       WHERE application_name = 'millrace capture'`,
    );
    assert.deepEqual(rows[0], { ssl: true, count: 2 });
    await running.finish();
  } finally {
    await client.end();
    await rig.remove();
  }
});

test('what cannot be meant, or would be passed over, is refused', () => {
  const read = (query: string, environment = {}) => readAddress(`postgres://a:b@h/d?${query}`, environment);
  for (const [query, reason] of [
    ['sslmode=no-verify', /it is one of disable, allow/],
    ['ssl=1', /ssl=1/],
    ['sslrootcert=system&sslmode=require', /needs sslmode=verify-full/],
    ['sslnegotiation=direct', /needs sslmode require/],
    ['channel_binding=require', /channel_binding=require .* not supported/],
    ['requirepeer=postgres', /not supported/],
    ['ssl_min_protocol_version=TLSv9', /is one of TLSv1/],
  ] as const) {
    assert.throws(() => read(query), reason);
  }
  const { url, tls } = read('application_name=a%20b&sslmode=verify-ca&sslrootcert=%2Fca&host=%2Ftmp');
  assert.equal(url, 'postgres://a:b@h/d?application_name=a+b&host=%2Ftmp');
  assert.equal(tls.mode, 'verify-ca');
  assert.equal(tls.rootCert, '/ca');
  assert.equal(read('', { PGSSLMODE: 'require' }).tls.mode, 'require');
  assert.equal(read('sslmode=disable', { PGSSLMODE: 'require' }).tls.mode, 'disable');
  assert.equal(readAddress('postgres://h/d', {}).url, 'postgres://h/d');
});
