// Foreign bytes: what Kafka's own classes wrote (compat/java-fixtures), read and written by our codecs.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { everyApi } from '../../test/every-api.ts';
import { requestReader, responseReader, writeRequest, writeResponse } from './compile.ts';
import { decodeBatch } from './compression.ts';
import { readRequestHeader, readResponseHeader, requestFrame, responseFrame } from './header.ts';
import * as header from './record-batch.ts';
import type { Api, Fields, Spec } from './schema.ts';
import { Reader, WireError } from './wire.ts';

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
interface Message {
  readonly hex: string;
  readonly value: { [name: string]: Json };
}
interface Fixture {
  readonly key: number;
  readonly version: number;
  readonly requestHeader: string;
  readonly responseHeader: string;
  readonly [filling: `${string}Request` | `${string}Response`]: Message;
}

const fixturesAt = new URL('../../test/fixtures/', import.meta.url);
const load = <T>(name: string): T => JSON.parse(readFileSync(new URL(name, fixturesAt), 'utf8')) as T;
const fixtures = [...load<Fixture[]>('messages/kafka-3.9.1.json'), ...load<Fixture[]>('messages/kafka-4.3.1.json')];
const apis = await everyApi();

/** The value a fixture writes as JSON, in the types of our readers. */
function typed(spec: Spec, value: Json): unknown {
  if (value === null) return null;
  switch (spec.kind) {
    case 'int64':
      return BigInt(value as string);
    case 'bytes':
    case 'records':
      return Buffer.from(value as string, 'hex');
    case 'array':
      return (value as Json[]).map(item => typed(spec.element!, item));
    case 'struct':
      return typedFields(spec.fields!, value as { [name: string]: Json });
    default:
      return value;
  }
}
const typedFields = (fields: Fields, value: { [name: string]: Json }): object =>
  Object.fromEntries(Object.entries(value).map(([name, item]) => [name, typed(fieldOf(fields, name), item)]));

function fieldOf(fields: Fields, name: string): Spec {
  assert.ok(Object.hasOwn(fields, name), `field ${name} is not declared`);
  return fields[name]!.spec;
}

/** `read` without the fields that `version` does not carry, which the fixtures leave out. */
function carried(fields: Fields, version: number, read: object): object {
  const part = (spec: Spec, value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(item => part(spec.element!, item));
    return spec.kind === 'struct' && value !== null ? carried(spec.fields!, version, value as object) : value;
  };
  return Object.fromEntries(
    Object.entries(read)
      .filter(([name]) => fields[name]!.spec.since <= version && version <= fields[name]!.spec.until)
      .map(([name, value]) => [name, part(fields[name]!.spec, value)]),
  );
}

for (const api of apis) {
  const ofApi = fixtures.filter(({ key }) => key === api.key);
  test(`${api.name}: every version reads and writes as Kafka does`, () => {
    const versions = ofApi.map(({ version }) => version);
    const [first, last] = api.versions;
    assert.deepEqual(
      versions.sort((a, b) => a - b),
      Array.from({ length: last - first + 1 }, (_, i) => first + i),
    );
    for (const fixture of ofApi) {
      for (const filling of ['default', 'full', 'nulls']) {
        check(api, fixture.version, 'request', fixture[`${filling}Request`]!);
        check(api, fixture.version, 'response', fixture[`${filling}Response`]!);
      }
    }
  });

  test(`${api.name}: headers`, () => {
    for (const { version, requestHeader, responseHeader, ...fixture } of ofApi) {
      const request = Buffer.from(requestHeader, 'hex');
      assert.deepEqual(readRequestHeader(api, request), {
        apiKey: api.key,
        apiVersion: version,
        correlationId: 0x01020304,
        clientId: 'clïent',
        bodyAt: request.length,
      });
      const sent = Buffer.concat([request, Buffer.from(fixture.fullRequest!.hex, 'hex')]);
      const value = typedFields(api.request, fixture.fullRequest!.value);
      const frame = Buffer.concat(requestFrame(api, version, 0x01020304, 'clïent', value));
      assert.equal(frame.readInt32BE(0), sent.length);
      assert.deepEqual(frame.subarray(4), sent);

      const response = Buffer.from(responseHeader, 'hex');
      assert.deepEqual(readResponseHeader(api, version, response), {
        correlationId: 0x01020304,
        bodyAt: response.length,
      });
      const answered = Buffer.concat([response, Buffer.from(fixture.fullResponse!.hex, 'hex')]);
      const answer = typedFields(api.response, fixture.fullResponse!.value);
      const answerFrame = Buffer.concat(responseFrame(api, version, 0x01020304, answer));
      assert.equal(answerFrame.readInt32BE(0), answered.length);
      assert.deepEqual(answerFrame.subarray(4), answered);
    }
  });
}

function check(api: Api, version: number, kind: 'request' | 'response', { hex, value }: Message): void {
  const where = `${api.name} ${kind} ${version}`;
  const bytes = Buffer.from(hex, 'hex');
  const reader = new Reader(bytes);
  const read = (kind === 'request' ? requestReader : responseReader)(api, version)(reader);
  assert.equal(reader.remaining, 0, where);
  const expected = typedFields(api[kind], value);
  assert.deepEqual(carried(api[kind], version, read), expected, where);
  const write = kind === 'request' ? writeRequest : writeResponse;
  assert.equal(Buffer.concat(write(api, version, read)).toString('hex'), hex, where);
  assert.equal(Buffer.concat(write(api, version, expected)).toString('hex'), hex, where);
}

interface BatchFixture {
  readonly magic: number;
  readonly bytes: number;
  readonly valuesSha256: string;
  readonly records?: { offset: string; timestamp: string; key: string | null; value: string | null; headers: Json[] }[];
  readonly [field: string]: unknown;
}

const bytesOf = (hex: string | null): Buffer | null => (hex === null ? null : Buffer.from(hex, 'hex'));

for (const { name, hex, batches } of load<{ name: string; hex: string; batches: BatchFixture[] }[]>(
  'record-batches.json',
)) {
  test(`record batch, ${name}`, async () => {
    const run = Buffer.from(hex, 'hex');
    if (batches[0]!.magic < 2) {
      assert.equal(header.magic(run), batches[0]!.magic);
      assert.throws(() => header.splitBatches(run), WireError);
      return;
    }
    const split = header.splitBatches(run);
    assert.equal(split.length, batches.length);
    for (const [i, expected] of batches.entries()) await checkBatch(split[i]!, expected);
  });
}

async function checkBatch(batch: Buffer, expected: BatchFixture): Promise<void> {
  assert.deepEqual(
    {
      magic: header.magic(batch),
      bytes: header.batchBytes(batch),
      baseOffset: `${header.baseOffset(batch)}`,
      lastOffset: `${header.lastOffset(batch)}`,
      leaderEpoch: header.leaderEpoch(batch),
      maxTimestamp: `${header.maxTimestamp(batch)}`,
      isLogAppendTime: header.isLogAppendTime(batch),
      producerId: `${header.producerId(batch)}`,
      producerEpoch: header.producerEpoch(batch),
      baseSequence: header.baseSequence(batch),
      isTransactional: header.isTransactional(batch),
      isControl: header.isControl(batch),
      codec: header.codec(batch),
      crc: header.crc(batch),
      recordCount: header.recordCount(batch),
    },
    Object.fromEntries(Object.entries(expected).filter(([name]) => name !== 'records' && name !== 'valuesSha256')),
  );
  assert.equal(header.crc(batch), header.computeCrc(batch));
  const records = await decodeBatch(batch, 1024 * 1024);
  const values = createHash('sha256');
  for (const { value } of records) if (value !== null) values.update(value);
  assert.equal(values.digest('hex'), expected.valuesSha256);
  if (expected.records === undefined) return;
  assert.deepEqual(
    records,
    expected.records.map(record => ({
      offset: BigInt(record.offset),
      timestamp: BigInt(record.timestamp),
      key: bytesOf(record.key),
      value: bytesOf(record.value),
      headers: (record.headers as { key: string; value: string | null }[]).map(({ key, value }) => ({
        key,
        value: bytesOf(value),
      })),
    })),
  );
}
