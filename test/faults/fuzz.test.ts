// Any bytes on the socket: the server lives, nothing in it fails unexpectedly, what it answers can be read, its memory
// is bounded, and another client, on one connection all the while, notices nothing. MILLRACE_FUZZ_CASES makes it longer;
// the seed is printed, MILLRACE_FUZZ_SEED repeats it.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { handlers } from '../../src/broker/handlers/index.ts';
import { readResponse, supports } from '../../src/protocol/compile.ts';
import { compress } from '../../src/protocol/compression.ts';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { readResponseHeader } from '../../src/protocol/header.ts';
import { Metadata } from '../../src/protocol/messages/03-metadata.ts';
import {
  batchBytes,
  headerBytes,
  lastOffset,
  replaceRecords,
  splitBatches,
  writeCrc,
} from '../../src/protocol/record-batch.ts';
import { batchOf, createTopic, fetchOnce, latest, listOffset, produce } from './kafka.ts';
import { Watch } from './memory.ts';
import { aimed, capturedFrames, mutate, sized } from './mutate.ts';
import { newSeed, type Random, randomFrom } from './random.ts';
import { TestServer } from './server.ts';
import { WireClient } from './wire.ts';

const MiB = 2 ** 20;
const residentBound = 512 * MiB;
const cases = Number(process.env.MILLRACE_FUZZ_CASES ?? 1500);
const seed = Number(process.env.MILLRACE_FUZZ_SEED ?? newSeed());

const server = await TestServer.start();
after(async () => {
  if (!server.running) console.error(server.log);
  await server.remove();
});
const watch = new Watch(server);
const witness = await WireClient.connect(server.port);
await createTopic(witness, 'witness');
const captured = capturedFrames();
const apis = new Map(handlers.map(({ api, versions }) => [api.key, { api, versions }]));
const target = await makeTarget();
const aimedFrames = captured.flatMap(frame => {
  const api = apis.get(frame.readInt16BE(0))?.api;
  return api && supports(api, frame.readInt16BE(2)) ? [aimed(api, frame, target)] : [];
});

/** A topic with something in it, for requests to be about. */
async function makeTarget(): Promise<{ name: string; id: string }> {
  await createTopic(witness, 'target', 3);
  for (let i = 0; i < 30; i++) await produce(witness, 'target', i % 3, batchOf(`target ${i}`));
  const { topics } = await witness.request(Metadata, 12, {
    topics: [{ name: 'target' }],
    includeTopicAuthorizedOperations: false,
  });
  return { name: 'target', id: topics[0]!.topicId };
}

const unexpected: string[] = [];
server.onLog(line => {
  if (/"level":"(error|fatal)"/.test(line)) unexpected.push(line);
});

async function assertWell(what: string): Promise<void> {
  const { errorCode, baseOffset } = await produce(witness, 'witness', 0, batchOf(what));
  assert.equal(errorCode, ErrorCode.NONE, what);
  const { records } = await fetchOnce(witness, 'witness', 0, baseOffset);
  assert.ok(records!.includes(what));
  assert.deepEqual(unexpected, [], what);
}

/** Sends, ends, and returns all that came until the connection was closed. */
function exchange(bytes: Buffer): Promise<Buffer> {
  return new Promise(resolve => {
    const socket = connect({ port: server.port, host: '127.0.0.1' });
    const chunks: Buffer[] = [];
    socket.on('data', chunk => chunks.push(chunk));
    socket.on('error', () => {}); // reset by the server
    socket.on('close', () => resolve(Buffer.concat(chunks)));
    socket.end(bytes);
  });
}

/** Whole answers to some of `sent`, in their order, each in the form its API and version have. */
function assertAnswers(received: Buffer, sent: readonly Buffer[]): number {
  let next = 0;
  let answers = 0;
  for (let at = 0; at < received.length; answers++) {
    const size = received.readInt32BE(at);
    // The connection may have been closed in the middle of an answer, as it is when a later request is malformed.
    if (at + 4 + size > received.length) return answers;
    const answer = received.subarray(at + 4, at + 4 + size);
    const correlationId = answer.readInt32BE(0);
    while (next < sent.length && sent[next]!.readInt32BE(4) !== correlationId) next++;
    assert.ok(next < sent.length, `an answer to ${correlationId}, which nobody asked`);
    const request = sent[next++]!;
    const { api, versions } = apis.get(request.readInt16BE(0))!;
    const asked = request.readInt16BE(2);
    const version = asked >= versions[0] && asked <= versions[1] ? asked : 0; // KIP-511
    readResponse(api, version, answer, readResponseHeader(api, version, answer).bodyAt);
    at += 4 + size;
  }
  return answers;
}

async function inRounds(times: number, once: (random: Random) => Promise<void>, what: string): Promise<void> {
  const random = randomFrom(seed);
  for (let done = 0; done < times; ) {
    const round = Math.min(50, times - done);
    await Promise.all(Array.from({ length: round }, () => once(random)));
    done += round;
    await assertWell(`${what} ${done}`);
  }
}

test('requests of real clients are answered', async t => {
  t.diagnostic(`seed ${seed}, ${captured.length} captured requests`);
  let answers = 0;
  await inRounds(
    captured.length,
    async random => {
      const frame = random.pick(captured);
      answers += assertAnswers(await exchange(sized(frame)), [frame]);
    },
    'captured',
  );
  assert.ok(answers > 0);
});

test('bent requests', async () => {
  const sound = [...captured, ...aimedFrames];
  await inRounds(
    cases,
    async random => {
      const frames = Array.from({ length: 1 + random.below(4) }, () => mutate(random.pick(sound), random));
      const received = await exchange(Buffer.concat(frames.map(frame => sized(frame))));
      assertAnswers(
        received,
        frames.filter(frame => frame.length >= 8),
      );
    },
    'bent',
  );
});

test('bytes without any order, and sizes that are not what follows', async () => {
  await inRounds(
    cases / 3,
    async random => {
      const frame = random.pick(captured);
      const bytes = random.pick([
        () => random.bytes(random.below(300)),
        () => sized(frame, random.pick([2_000_000_000, -1, -0x8000_0000, 0, 0x7fff_ffff, frame.length + 1, 100 * MiB])),
        () => sized(frame).subarray(0, random.below(frame.length + 4)),
        () => Buffer.concat([random.bytes(random.below(4)), sized(frame)]),
        () => Buffer.concat([sized(frame), random.bytes(random.below(50))]),
        () => Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'),
        () => Buffer.from('16030100c6010000c20303', 'hex'), // the beginning of a TLS handshake
      ])();
      await exchange(bytes);
    },
    'random',
  );
});

test('batches that are bent, with a CRC that fits: whatever was accepted can be read, by SQL too', async () => {
  const topics = ['bent', 'bent-producer', 'bent-gzip'];
  for (const [i, topic] of topics.entries()) {
    await createTopic(witness, topic, 1, { 'compression.type': ['uncompressed', 'producer', 'gzip'][i]! });
  }
  const accepted = new Map(topics.map(topic => [topic, 0]));
  await inRounds(
    cases / 3,
    async random => {
      const plain = batchOf('first', random.bytes(random.below(200)), 'last');
      const codec = random.below(5);
      const section = await compress(plain.subarray(headerBytes), codec);
      const batch = replaceRecords(plain, section, codec);
      for (let i = random.below(4); i > 0; i--) batch[random.below(batch.length - 21) + 21] = random.below(256);
      batch.writeBigInt64BE(-1n, 43); // of no producer
      if (batch.length === batchBytes(batch)) writeCrc(batch);
      const topic = random.pick(topics);
      const client = await WireClient.connect(server.port);
      const answer = await produce(client, topic, 0, batch);
      if (answer.errorCode === ErrorCode.NONE) accepted.set(topic, accepted.get(topic)! + 1);
      client.close();
    },
    'bent batches',
  );
  const sql = await server.sql();
  for (const topic of topics) {
    assert.ok(accepted.get(topic)! > 0);
    const end = await listOffset(witness, topic, 0, latest);
    let next = 0n;
    while (next < end) {
      const { errorCode, records } = await fetchOnce(witness, topic, 0, next);
      assert.equal(errorCode, ErrorCode.NONE);
      next = splitBatches(records!).reduce((_, batch) => lastOffset(batch) + 1n, next);
    }
    for (const timestamp of [0n, BigInt(Date.now()) - 1000n, -3n]) {
      // Where the producer's bytes are kept as they came, bytes that do not decompress have no timestamps to look at.
      await listOffset(witness, topic, 0, timestamp).catch(error => assert.equal(error.message, 'CORRUPT_MESSAGE'));
    }
    const { rows } = await sql.query('SELECT count(*)::int AS n, count(value) FROM kafka.messages WHERE topic = $1', [
      topic,
    ]);
    assert.ok(rows[0].n > 0);
  }
  await sql.end();
});

test('a request that comes a few bytes at a time is answered like any other', async () => {
  await inRounds(
    40,
    async random => {
      const frame = random.pick(captured.filter(frame => frame.length < 400));
      const client = await WireClient.connect(server.port);
      const bytes = sized(frame);
      for (let at = 0; at < bytes.length; ) {
        const end = at + 1 + random.below(20);
        await client.send(bytes.subarray(at, end));
        at = end;
      }
      client.socket.end();
      await client.closed;
    },
    'dribble',
  );
});

test('thousands of connections that say nothing, or begin what they do not finish', async () => {
  const random = randomFrom(seed);
  const idle: WireClient[] = [];
  for (let i = 0; i < 3000; i++) {
    const client = await WireClient.connect(server.port);
    idle.push(client);
    const beginning = random.pick([
      Buffer.alloc(0),
      sized(Buffer.alloc(0), 100 * MiB),
      sized(random.pick(captured), 50 * MiB),
      sized(random.pick(captured)).subarray(0, 1 + random.below(6)),
    ]);
    await client.send(beginning);
    if (i % 500 === 0) await assertWell(`half-open ${i}`);
  }
  await assertWell('half-open');
  // A large request finds its way as well, between those that hold memory for theirs.
  const large = await WireClient.connect(server.port);
  assert.equal((await produce(large, 'witness', 0, batchOf(Buffer.alloc(900_000)))).errorCode, ErrorCode.NONE);
  for (const client of idle) client.close();
  await assertWell('closed');
});

test('keys and versions nobody serves', async () => {
  const random = randomFrom(seed);
  const header = (key: number, version: number) => {
    const frame = Buffer.alloc(14);
    frame.writeInt16BE(key, 0);
    frame.writeInt16BE(version, 2);
    frame.writeInt32BE(7, 4);
    frame.writeInt16BE(-1, 8);
    return frame;
  };
  for (const key of [-1, 4, 5, 6, 7, 26, 93, 999, 32_767]) {
    assert.equal((await exchange(sized(header(key, random.below(3))))).length, 0, `key ${key} closes the connection`);
  }
  for (const version of [-1, 14, 999]) assert.equal((await exchange(sized(header(0, version)))).length, 0);
  // ApiVersions of a version that is not known is answered in version 0, with the list (KIP-511).
  for (const version of [5, 99, 32_767, -1]) {
    const answer = await exchange(sized(header(18, version)));
    const { api } = apis.get(18)!;
    const body = readResponse(api, 0, answer, 8) as unknown as { errorCode: number; apiKeys: unknown[] };
    assert.equal(body.errorCode, ErrorCode.UNSUPPORTED_VERSION);
    assert.equal(body.apiKeys.length, handlers.length);
  }
  await assertWell('keys');
});

test('nothing failed in the server, and its memory stayed bounded', async () => {
  await assertWell('end');
  watch.assertBelow(residentBound);
});
