// Requests of real clients, bent: bits, lengths, counts, keys and versions that no client sends.
import { readdirSync, readFileSync } from 'node:fs';
import { readRequest } from '../../src/protocol/compile.ts';
import { readRequestHeader, requestFrame } from '../../src/protocol/header.ts';
import type { Api } from '../../src/protocol/schema.ts';
import type { Random } from './random.ts';

const directory = new URL('../fixtures/frames/', import.meta.url);

/** Requests as they went over the wire, without their size. */
export function capturedFrames(): Buffer[] {
  return readdirSync(directory).flatMap(file =>
    (JSON.parse(readFileSync(new URL(file, directory), 'utf8')) as { request: string }[]).map(({ request }) =>
      Buffer.from(request, 'hex'),
    ),
  );
}

/** The request, but about this topic, wherever it names topics. */
export function aimed(api: Api, frame: Buffer, topic: { readonly name: string; readonly id: string }): Buffer {
  const { apiVersion, correlationId, clientId, bodyAt } = readRequestHeader(api, frame);
  const body = aim(readRequest(api, apiVersion, frame, bodyAt), topic);
  return Buffer.concat(requestFrame(api, apiVersion, correlationId, clientId, body as never)).subarray(4);
}

function aim(value: unknown, topic: { readonly name: string; readonly id: string }): unknown {
  if (Array.isArray(value)) return value.map(one => aim(one, topic));
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return value;
  const names = Object.keys(value);
  const isTopic = names.some(name => /^(topicId|partition)/.test(name));
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => {
      if (name === 'topicId') return [name, topic.id];
      if (isTopic && (name === 'name' || name === 'topic')) return [name, topic.name];
      return [name, aim(field, topic)];
    }),
  );
}

const extremes = [0, 1, -1, -2, 0x7fff_ffff, -0x8000_0000, 2_000_000_000, 0x0100_0000, 65_536, 32_768];

const mutations: readonly ((frame: Buffer, random: Random) => Buffer)[] = [
  function flipBits(frame, random) {
    for (let i = random.below(8); i >= 0; i--) frame[random.below(frame.length)]! ^= 1 << random.below(8);
    return frame;
  },
  function setBytes(frame, random) {
    const at = random.below(frame.length);
    const end = Math.min(at + 1 + random.below(8), frame.length);
    frame.fill(random.pick([0, 0xff, 0x7f, 0x80, random.below(256)]), at, end);
    return frame;
  },
  function setInt32(frame, random) {
    if (frame.length >= 4) frame.writeInt32BE(random.pick(extremes), random.below(frame.length - 3));
    return frame;
  },
  function setInt16(frame, random) {
    if (frame.length >= 2)
      frame.writeInt16BE(random.pick([0, -1, -2, 0x7fff, -0x8000]), random.below(frame.length - 1));
    return frame;
  },
  function setVarint(frame, random) {
    const varint = random.pick([
      [0xff, 0xff, 0xff, 0xff, 0x0f],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
      [0x80, 0x80, 0x80, 0x01],
      [0],
    ]);
    Buffer.from(varint).copy(frame, random.below(frame.length));
    return frame;
  },
  (frame, random) => frame.subarray(0, random.below(frame.length + 1)),
  function repeatPart(frame, random) {
    const from = random.below(frame.length);
    const part = frame.subarray(from, from + random.below(frame.length - from + 1));
    return Buffer.concat([
      frame.subarray(0, from),
      ...new Array<Buffer>(random.below(40)).fill(part),
      frame.subarray(from),
    ]);
  },
  function removePart(frame, random) {
    const from = random.below(frame.length);
    return Buffer.concat([frame.subarray(0, from), frame.subarray(from + random.below(frame.length - from + 1))]);
  },
  function insertBytes(frame, random) {
    const at = random.below(frame.length);
    return Buffer.concat([frame.subarray(0, at), random.bytes(random.below(64)), frame.subarray(at)]);
  },
  function setVersion(frame, random) {
    if (frame.length >= 4) frame.writeInt16BE(random.pick([random.below(20), -1, 0x7fff]), 2);
    return frame;
  },
  function setKey(frame, random) {
    if (frame.length >= 2) frame.writeInt16BE(random.pick([random.below(100), -1, 0x7fff]), 0);
    return frame;
  },
];

/** One to four of the above. */
export function mutate(frame: Buffer, random: Random): Buffer {
  let mutated: Buffer = Buffer.from(frame);
  for (let i = random.below(4); i >= 0 && mutated.length > 0; i--) mutated = random.pick(mutations)(mutated, random);
  return mutated;
}

/** With its size before it. */
export function sized(frame: Buffer, size = frame.length): Buffer {
  const head = Buffer.alloc(4);
  head.writeInt32BE(size);
  return Buffer.concat([head, frame]);
}
