// kafka.decode_batches and kafka.decode_headers against batches of foreign encoders: kafkajs here, Kafka's own
// Java classes in the fixtures.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { createDatabase, type TestDatabase } from '../database.ts';
import { encodeBatch, type ForeignBatch, plainBatch } from './foreign-encoder.ts';

let database: TestDatabase;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

interface Decoded {
  readonly offset: bigint;
  readonly timestamp: bigint | null;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [key: string, value: string | null])[];
  readonly codec: number;
}

async function decode(row: Buffer, from?: bigint, to?: bigint): Promise<Decoded[]> {
  const { rows } = await database.pool.query<Decoded>({
    name: 'decode',
    text: `SELECT partition_offset AS offset, timestamp_ms AS timestamp, key, value, codec,
        (SELECT coalesce(jsonb_agg(jsonb_build_array(h.key, encode(h.value, 'hex')) ORDER BY n), '[]')
         FROM unnest(kafka.decode_headers(raw_headers)) WITH ORDINALITY h (key, value, n)) AS headers
      FROM kafka.decode_batches($1, $2, $3)`,
    values: [row, from ?? 0n, to ?? 9223372036854775807n],
  });
  return rows;
}

function expected(batches: readonly ForeignBatch[]): Decoded[] {
  return batches.flatMap(batch =>
    batch.records.map(record => ({
      offset: batch.baseOffset + BigInt(record.offsetDelta),
      timestamp: record.timestamp,
      key: record.key,
      value: record.value,
      headers: record.headers.map(([key, value]) => [`${key}`, value?.toString('hex') ?? null] as const),
      codec: 0,
    })),
  );
}

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map(array => Buffer.from(array));
const nullable = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });
/** Lengths of every varint width, the wide ones rarely. */
const body = fc.oneof(
  { weight: 20, arbitrary: bytes(200) },
  { weight: 1, arbitrary: fc.integer({ min: 8_000, max: 9_000 }).map(length => Buffer.alloc(length, 'x')) },
  { weight: 1, arbitrary: fc.integer({ min: 1_048_000, max: 1_049_000 }).map(length => Buffer.alloc(length, 'y')) },
);
const headerKey = fc
  .string({ unit: 'binary', maxLength: 12 })
  .filter(key => !key.includes('\0') && !/\p{Surrogate}/u.test(key));
const timestamp = fc.oneof(
  fc.bigInt({ min: 1_700_000_000_000n, max: 1_700_000_000_300n }),
  fc.bigInt({ min: 0n, max: 1n << 42n }),
  fc.bigInt({ min: -(1n << 60n), max: 1n << 60n }),
);
const record = fc.record({
  gap: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(3_000_000) }),
  timestamp,
  key: nullable(bytes(80)),
  value: nullable(body),
  headers: fc.oneof(fc.constant([]), fc.array(fc.tuple(headerKey, nullable(bytes(70))), { maxLength: 5 })),
});
const batch = fc.record({ baseTimestamp: timestamp, records: fc.array(record, { minLength: 1, maxLength: 90 }) });

/** The batches of a row follow each other, as the log numbers them. */
function number(
  start: bigint,
  parts: readonly { baseTimestamp: bigint; records: (typeof record extends fc.Arbitrary<infer R> ? R : never)[] }[],
): ForeignBatch[] {
  let baseOffset = start;
  return parts.map(({ baseTimestamp, records }) => {
    let next = 0;
    const numbered = records.map(({ gap, ...rest }) => {
      const offsetDelta = next + gap;
      next = offsetDelta + 1;
      return { ...rest, offsetDelta };
    });
    const made = { baseOffset, baseTimestamp, maxTimestamp: baseTimestamp, records: numbered };
    baseOffset += BigInt(next);
    return made;
  });
}

test('any records, as kafkajs encodes them, are decoded', { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.bigInt({ min: 0n, max: 1n << 60n }),
      fc.array(batch, { minLength: 1, maxLength: 3 }),
      async (start, parts) => {
        const batches = number(start, parts);
        const row = Buffer.concat(await Promise.all(batches.map(encodeBatch)));
        assert.deepEqual(await decode(row), expected(batches));
      },
    ),
    { numRuns: 150 },
  );
});

test('a range of offsets takes those records and no others', async () => {
  const row = Buffer.concat(await Promise.all([0n, 10n, 20n].map(base => plainBatch(base, 10))));
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 35 }), fc.integer({ min: 0, max: 35 }), async (from, to) => {
      const offsets = (await decode(row, BigInt(from), BigInt(to))).map(({ offset }) => Number(offset));
      const wanted = Array.from({ length: 30 }, (_, i) => i).filter(i => i >= from && i <= to);
      assert.deepEqual(offsets, wanted);
    }),
    { numRuns: 60 },
  );
});

interface Fixture {
  readonly name: string;
  readonly hex: string;
  readonly batches: readonly {
    readonly magic: number;
    readonly bytes: number;
    readonly baseOffset: string;
    readonly lastOffset: string;
    readonly maxTimestamp: string;
    readonly isControl: boolean;
    readonly isLogAppendTime: boolean;
    readonly codec: number;
    readonly recordCount: number;
    readonly records?: readonly {
      readonly offset: string;
      readonly timestamp: string;
      readonly key: string | null;
      readonly value: string | null;
      readonly headers: readonly { readonly key: string; readonly value: string | null }[];
    }[];
  }[];
}

const fixtures: Fixture[] = JSON.parse(
  readFileSync(new URL('../fixtures/record-batches.json', import.meta.url), 'utf8'),
);
const fromHex = (hex: string | null): Buffer | null => (hex === null ? null : Buffer.from(hex, 'hex'));

for (const fixture of fixtures.filter(({ batches }) => batches[0]!.magic === 2)) {
  test(`as Kafka writes them: ${fixture.name}`, async () => {
    const row = Buffer.from(fixture.hex, 'hex');
    let at = 0;
    const wanted = fixture.batches.flatMap((part): Decoded[] => {
      const baseTimestamp = row.readBigInt64BE(at + 27);
      at += part.bytes;
      if (part.isControl) return [];
      if (part.codec === 0) {
        return part.records!.map(({ offset, timestamp, key, value, headers }) => ({
          offset: BigInt(offset),
          timestamp: BigInt(timestamp),
          key: fromHex(key),
          value: fromHex(value),
          headers: headers.map(header => [header.key, header.value] as const),
          codec: 0,
        }));
      }
      const max = BigInt(part.maxTimestamp);
      return Array.from({ length: part.recordCount }, (_, i) => ({
        offset: BigInt(part.baseOffset) + BigInt(i),
        timestamp: part.isLogAppendTime || baseTimestamp === max ? max : null,
        key: null,
        value: null,
        headers: [],
        codec: part.codec,
      }));
    });
    assert.deepEqual(await decode(row), wanted);
  });
}

test('a compressed batch shows its offsets, and the timestamp that all its records have', async () => {
  const part = {
    baseOffset: 7n,
    baseTimestamp: 1_700_000_000_000n,
    maxTimestamp: 1_700_000_000_000n,
    records: [0, 1, 2].map(offsetDelta => ({
      offsetDelta,
      timestamp: 1_700_000_000_000n,
      key: null,
      value: Buffer.from('v'),
      headers: [],
    })),
    codec: 'gzip' as const,
  };
  const rest = { key: null, value: null, headers: [], codec: 1 };
  const wanted = [7n, 8n, 9n].map(offset => ({ offset, timestamp: part.baseTimestamp, ...rest }));
  assert.deepEqual(await decode(await encodeBatch(part)), wanted);
  assert.deepEqual(
    await decode(await encodeBatch({ ...part, maxTimestamp: 1_700_000_000_009n })),
    wanted.map(record => ({ ...record, timestamp: null })),
  );
  assert.deepEqual(await decode(await encodeBatch(part), 8n, 8n), wanted.slice(1, 2));
});

test('a header key that is not UTF-8 is shown escaped', async () => {
  const records = [
    {
      offsetDelta: 0,
      timestamp: 0n,
      key: null,
      value: null,
      headers: [
        [Buffer.from([0xff, 0x61]), Buffer.from('1')],
        [Buffer.from('nul\0'), null],
        [Buffer.from('back\\slash'), null],
        [Buffer.from('zürich'), null],
      ] as const,
    },
  ];
  const row = await encodeBatch({ baseOffset: 0n, baseTimestamp: 0n, maxTimestamp: 0n, records });
  assert.deepEqual((await decode(row))[0]!.headers, [
    ['\\377a', '31'],
    ['nul\\000', null],
    ['back\\slash', null],
    ['zürich', null],
  ]);
});

test('a timestamp that Postgres cannot hold is NULL', async () => {
  const { rows } = await database.pool.query<{ ms: bigint; at: Date | null }>(
    `SELECT ms, kafka.timestamp_of(ms) AS at FROM unnest($1::bigint[]) ms`,
    [[-1n, 0n, 1_700_000_000_123n, -(2n ** 63n), 2n ** 63n - 1n, 10n ** 16n]],
  );
  assert.deepEqual(
    rows.map(({ at }) => at?.getTime()),
    [undefined, 0, 1_700_000_000_123, undefined, undefined, undefined],
  );
});

test('timestamps out of all bounds are NULL, not an overflow', async () => {
  const most = 2n ** 63n - 1n;
  for (const [baseTimestamp, timestamp] of [
    [2n ** 61n, 2n ** 61n + most],
    [-(2n ** 61n), -(2n ** 61n) - most],
    [most, most - 5n],
  ] as const) {
    const records = [{ offsetDelta: 0, timestamp, key: null, value: null, headers: [] }];
    const row = await encodeBatch({ baseOffset: 0n, baseTimestamp, maxTimestamp: 0n, records });
    assert.deepEqual(
      (await decode(row)).map(record => record.timestamp),
      [null],
    );
  }
});

test('damage costs the damaged batch at most, and never the query', { timeout: 300_000 }, async () => {
  const first = await plainBatch(0n, 5);
  const second = await plainBatch(5n, 5);
  const good = await decode(first);
  const cut = await decode(Buffer.concat([first, second.subarray(0, 100)]));
  assert.deepEqual(cut, good);
  // The third record's length is wrong, so nothing from there on can be told apart, but the next batch can.
  const damaged = Buffer.from(first);
  const recordBytes = (first.length - 61) / 5;
  damaged[61 + 2 * recordBytes] = 0xff;
  damaged[62 + 2 * recordBytes] = 0xff;
  const offsets = (await decode(Buffer.concat([damaged, second]))).map(({ offset }) => Number(offset));
  assert.deepEqual(offsets, [0, 1, 5, 6, 7, 8, 9]);

  const client = await database.pool.connect();
  try {
    await client.query(`SET statement_timeout = '5s'`);
    const row = Buffer.concat([first, second]);
    const flaw = fc.record({ at: fc.nat(row.length - 1), byte: fc.integer({ min: 0, max: 255 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(flaw, { minLength: 1, maxLength: 6 }), fc.nat(row.length), async (flaws, length) => {
        const bad = Buffer.from(row);
        for (const { at, byte } of flaws) bad[at] = byte;
        const { rows } = await client.query(
          `SELECT partition_offset, timestamp_ms, key, value, kafka.decode_headers(raw_headers)
           FROM kafka.decode_batches($1, 0, 9)`,
          [bad.subarray(0, length)],
        );
        assert.ok(rows.length <= row.length);
      }),
      { numRuns: 2000 },
    );
  } finally {
    client.release();
  }
});
