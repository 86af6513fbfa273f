import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressRule } from './addresses.ts';

test('private, loopback, link-local and other special addresses are refused, in whatever form', () => {
  const mayAsk = addressRule([]);
  const refused = [
    ...['127.0.0.1', '127.8.9.10', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.169.254'],
    ...['0.0.0.0', '100.64.0.1', '192.0.0.8', '198.18.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255'],
    ...['::1', '::', 'fe80::1', 'fc00::1', 'fd12::1', 'ff02::1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::127.0.0.1'],
    ...['64:ff9b::7f00:1', '64:ff9b:1::1', '2002:7f00:1::', '2001::1', '2001:db8::1', '3fff::1', 'localhost', ''],
  ];
  for (const address of refused) assert.equal(mayAsk(address), false, address);
  for (const address of ['93.184.215.14', '172.32.0.1', '100.128.0.1', '2606:2800:220:1::1', '2a00:1450::1']) {
    assert.equal(mayAsk(address), true, address);
  }
});

test('what is allowed by name is allowed, and nothing beside it', () => {
  const mayAsk = addressRule(['127.0.0.1', '10.1.0.0/16', 'fd00::/8']);
  for (const address of ['127.0.0.1', '10.1.255.1', 'fd12::1']) assert.equal(mayAsk(address), true, address);
  for (const address of ['127.0.0.2', '10.2.0.1', 'fc12::1']) assert.equal(mayAsk(address), false, address);
  for (const wrong of ['localhost', '10.0.0.0/33', '10.0.0.0/x', ''])
    assert.throws(() => addressRule([wrong]), /deliver.webhook.allow/);
});
