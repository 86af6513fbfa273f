import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { everyApi } from '../../test/every-api.ts';
import { readRequest, readResponse, writeRequest, writeResponse } from './compile.ts';
import {
  type Api,
  api,
  array,
  boolean,
  bytes,
  type Fields,
  int32,
  records,
  type Spec,
  string,
  struct,
} from './schema.ts';
import { WireError } from './wire.ts';

const apis = await everyApi();
const versionsOf = ({ versions: [first, last] }: Api): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

const octets = fc.uint8Array({ maxLength: 40 }).map(value => Buffer.from(value));
const uuidText = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(value => {
  const hex = Buffer.from(value).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
});

function anyValue(spec: Spec, version: number): fc.Arbitrary<unknown> {
  const value = ((): fc.Arbitrary<unknown> => {
    switch (spec.kind) {
      case 'int8':
        return fc.integer({ min: -128, max: 127 });
      case 'int16':
        return fc.integer({ min: -0x8000, max: 0x7fff });
      case 'uint16':
        return fc.integer({ min: 0, max: 0xffff });
      case 'int32':
        return fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });
      case 'uint32':
        return fc.integer({ min: 0, max: 0xffff_ffff });
      case 'int64':
        return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
      case 'float64':
        return fc.double({ noNaN: true });
      case 'boolean':
        return fc.boolean();
      case 'string':
        return fc.string({ maxLength: 150, unit: 'grapheme' });
      case 'bytes':
      case 'records':
        return octets;
      case 'uuid':
        return uuidText;
      case 'array':
        return fc.array(anyValue(spec.element!, version), { maxLength: 3 });
      case 'struct':
        return anyStruct(spec.fields!, version);
    }
  })();
  return version >= spec.nullableSince ? fc.option(value) : value;
}

const carries = (spec: Spec, version: number): boolean => spec.since <= version && version <= spec.until;

const anyStruct = (fields: Fields, version: number): fc.Arbitrary<object> =>
  fc.record(
    Object.fromEntries(
      Object.entries(fields)
        .filter(([, { spec }]) => carries(spec, version))
        .map(([name, { spec }]) => [name, anyValue(spec, version)]),
    ),
    { noNullPrototype: true },
  );

/** `read` cut down to the fields of `written`: what the version does not carry reads as its default. */
function cutTo(written: unknown, read: unknown): unknown {
  if (Array.isArray(written)) return written.map((item, i) => cutTo(item, (read as unknown[])[i]));
  if (written === null || typeof written !== 'object' || Buffer.isBuffer(written)) return read;
  return Object.fromEntries(
    Object.entries(written).map(([name, value]) => [name, cutTo(value, (read as Record<string, unknown>)[name])]),
  );
}

for (const declared of apis) {
  test(`${declared.name}: every version reads what it wrote`, () => {
    for (const version of versionsOf(declared)) {
      fc.assert(
        fc.property(
          anyStruct(declared.request, version),
          anyStruct(declared.response, version),
          (request, response) => {
            const sent = Buffer.concat(writeRequest(declared, version, request));
            const read = readRequest(declared, version, sent);
            assert.deepEqual(cutTo(request, read), request);
            assert.deepEqual(Buffer.concat(writeRequest(declared, version, read)), sent);
            const answered = Buffer.concat(writeResponse(declared, version, response));
            const answer = readResponse(declared, version, answered);
            assert.deepEqual(cutTo(response, answer), response);
            assert.deepEqual(Buffer.concat(writeResponse(declared, version, answer)), answered);
          },
        ),
        { numRuns: 15 },
      );
    }
  });

  test(`${declared.name}: hostile bytes are read or refused as such, and cost what they weigh`, () => {
    const edits = fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 0x20)), { maxLength: 4 });
    for (const version of versionsOf(declared)) {
      const mutated = fc
        .tuple(anyStruct(declared.request, version), edits, fc.nat(20))
        .map(([request, changes, cut]) => {
          const written = Buffer.concat(writeRequest(declared, version, request));
          for (const [at, byte] of changes) if (written.length > 0) written[at % written.length] = byte;
          return written.subarray(0, written.length - Math.min(cut > 10 ? 0 : cut, written.length));
        });
      const rubbish = fc.uint8Array({ maxLength: 200 }).map(value => Buffer.from(value));
      fc.assert(
        fc.property(fc.oneof(mutated, rubbish), hostile => {
          try {
            assert.ok(weight(readRequest(declared, version, hostile)) <= 200 + 200 * hostile.length);
          } catch (error) {
            assert.ok(error instanceof WireError, `${error}`);
          }
        }),
        { numRuns: 40 },
      );
    }
  });
}

/** Roughly what a value takes in memory. */
function weight(value: unknown): number {
  if (Buffer.isBuffer(value)) return value.length;
  if (typeof value === 'string') return value.length;
  if (value === null || typeof value !== 'object') return 8;
  return Object.values(value).reduce((sum: number, part) => sum + 8 + weight(part), 16);
}

const Sample = api({
  key: 99,
  name: 'Sample',
  versions: [0, 3],
  flexibleSince: 2,
  request: {
    name: string,
    count: int32.since(1).until(2).default(7),
    items: array({ on: boolean, note: string.nullable().default('none') }),
    label: string.since(2).default('plain').tag(1),
    place: struct({ x: int32.default(-1), y: int32.default(-1) })
      .since(2)
      .tag(0),
    blob: bytes.nullable().default(null),
  },
  response: { data: records.nullable(), after: int32 },
});

test('a field left out is written as its default, and reads as it where a version lacks it', () => {
  for (const version of [0, 1, 2, 3]) {
    const [written] = writeRequest(Sample, version, { name: 'a', items: [{ on: true }, { on: false, note: null }] });
    assert.deepEqual(readRequest(Sample, version, written!), {
      name: 'a',
      count: 7,
      items: [
        { on: true, note: 'none' },
        { on: false, note: null },
      ],
      label: 'plain',
      place: { x: -1, y: -1 },
      blob: null,
    });
  }
});

test('tagged fields are sent only when they differ, and unknown ones are skipped', () => {
  const plain = { name: 'a', items: [] };
  const [none] = writeRequest(Sample, 3, { ...plain, label: 'plain', place: { x: -1 } });
  assert.equal(none!.at(-1), 0);
  const [both] = writeRequest(Sample, 3, { ...plain, label: 'x'.repeat(300), place: { y: 5 } });
  const read = readRequest(Sample, 3, both!);
  assert.deepEqual([read.label.length, read.place], [300, { x: -1, y: 5 }]);
  const unknown = Buffer.concat([none!.subarray(0, -1), Buffer.from([1, 99, 3, 1, 2, 3])]);
  assert.deepEqual(readRequest(Sample, 3, unknown), readRequest(Sample, 3, none!));
  const wrongSize = Buffer.concat([none!.subarray(0, -1), Buffer.from([1, 1, 3, 2, 65, 0])]);
  assert.throws(() => readRequest(Sample, 3, wrongSize), WireError);
});

test('large records are handed on by reference, small ones are copied, parts are joined', () => {
  const [big, small] = [Buffer.alloc(5000, 1), Buffer.alloc(10, 2)];
  for (const version of [0, 3]) {
    const chunks = writeResponse(Sample, version, { data: [big, small, big], after: 9 });
    assert.ok(chunks.includes(big));
    assert.deepEqual(readResponse(Sample, version, Buffer.concat(chunks)), {
      data: Buffer.concat([big, small, big]),
      after: 9,
    });
    assert.equal(writeResponse(Sample, version, { data: small, after: 9 }).length, 1);
    assert.equal(
      readResponse(Sample, version, writeResponse(Sample, version, { data: null, after: 9 })[0]!).data,
      null,
    );
  }
});

test('a version that is not declared is a bug of the caller', () => {
  assert.throws(() => readRequest(Sample, 4, Buffer.alloc(0)), RangeError);
  assert.throws(() => readRequest(Sample, -1, Buffer.alloc(0)), RangeError);
});

test('null where a version has no null is refused in both directions', () => {
  assert.throws(() => writeRequest(Sample, 0, { name: null as unknown as string, items: [] }), TypeError);
  assert.throws(() => readRequest(Sample, 0, Buffer.from([0xff, 0xff])), WireError);
});
