// The exchange of RFC 7677 section 3, word for word; then what a broker could try.
import assert from 'node:assert/strict';
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { test } from 'node:test';
import { AuthenticationError } from './errors.ts';
import { ScramExchange } from './scram.ts';

const serverFirst = 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096';
const exchange = () => new ScramExchange('SCRAM-SHA-256', 'user', 'pencil', 'rOprNGfwEbeRWgbNEkqO');

test('SCRAM-SHA-256 says what RFC 7677 says, and takes its server’s signature', async () => {
  const scram = exchange();
  assert.equal(scram.first().toString(), 'n,,n=user,r=rOprNGfwEbeRWgbNEkqO');
  assert.equal(
    (await scram.final(Buffer.from(serverFirst))).toString(),
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  );
  scram.verify(Buffer.from('v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='));
});

test('a broker that does not know the password is found out', async () => {
  for (const last of ['v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=', 'v=', '', 'e=invalid-proof', 'x=1']) {
    const scram = exchange();
    await scram.final(Buffer.from(serverFirst));
    assert.throws(() => scram.verify(Buffer.from(last)), AuthenticationError, last);
  }
  assert.throws(() => exchange().verify(Buffer.from('v=')), AuthenticationError);
});

test('a first message that weakens the exchange is refused', async () => {
  const refused = [
    serverFirst.replace('i=4096', 'i=4095'),
    serverFirst.replace('i=4096', 'i=999999999'),
    serverFirst.replace('i=4096', 'i=-4096'),
    serverFirst.replace('r=r', 'r=R'),
    'r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
    `m=required,${serverFirst}`,
    's=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
    '',
  ];
  for (const first of refused) {
    await assert.rejects(exchange().final(Buffer.from(first)), AuthenticationError, first);
  }
});

test('SCRAM-SHA-512, and a name with what has to be escaped', async () => {
  const scram = new ScramExchange('SCRAM-SHA-512', 'a=b,c', 'päss', 'fyko');
  assert.equal(scram.first().toString(), 'n,,n=a=3Db=2Cc,r=fyko');
  const salt = Buffer.from('salt of eight');
  const first = `r=fykoServer,s=${salt.toString('base64')},i=8192`;
  const final = (await scram.final(Buffer.from(first))).toString();
  // As a server checks it: from the stored key and the proof comes the client key.
  const salted = pbkdf2Sync('päss', salt, 8192, 64, 'sha512');
  const hmac = (key: Buffer, text: string) => createHmac('sha512', key).update(text).digest();
  const message = `n=a=3Db=2Cc,r=fyko,${first},c=biws,r=fykoServer`;
  const clientKey = hmac(salted, 'Client Key');
  const signature = hmac(createHash('sha512').update(clientKey).digest(), message);
  const proof = Buffer.from(final.slice(final.indexOf(',p=') + 3), 'base64');
  assert.deepEqual(Buffer.from(proof.map((byte, i) => byte ^ signature[i]!)), clientKey);
  scram.verify(Buffer.from(`v=${hmac(hmac(salted, 'Server Key'), message).toString('base64')}`));
});
