// The process of idle.ts. Arguments are name=value: bootstrap, topic, partitions, consumers. Prints a line when all have
// had an answer, and ends when its stdin does.
import { connect, type Socket } from 'node:net';
import { FrameReader } from '../../src/protocol/frame.ts';
import { requestFrame } from '../../src/protocol/header.ts';
import { Fetch } from '../../src/protocol/messages/01-fetch.ts';

/** What librdkafka and the Java client wait by default. */
const maxWaitMs = 500;
const maxBytes = 1_000_000;
/** The oldest that Kafka 4 accepts: without sessions, a frame stays the same. */
const fetchVersion = 4;

const values = new Map(process.argv.slice(2).map(word => word.split(/=(.*)/s) as [string, string]));
const [host, port] = values.get('bootstrap')!.split(':') as [string, string];
const topic = values.get('topic')!;
const partitions = Number(values.get('partitions'));
const consumers = Number(values.get('consumers'));

let answered = 0;
for (let i = 0; i < consumers; i++) startConsumer(fetchFrame(i % partitions));
process.stdin.resume().once('end', () => process.exit(0));

function startConsumer(frame: Buffer): void {
  const socket: Socket = connect({ host, port: Number(port), noDelay: true }, () => socket.write(frame));
  const frames = new FrameReader({ maxBytes: 2 * maxBytes });
  let isWaiting = true;
  socket.on('data', chunk => {
    for (const _ of frames.push(chunk)) {
      if (isWaiting && ++answered === consumers) process.stdout.write('ready\n');
      isWaiting = false;
      socket.write(frame);
    }
  });
  socket.on('error', error => process.stderr.write(`idle consumer: ${error.message}\n`));
  socket.on('close', () => process.exit(1));
}

/** A Fetch of one partition from its beginning, in a frame. */
function fetchFrame(partition: number): Buffer {
  return Buffer.concat(
    requestFrame(Fetch, fetchVersion, 0, 'millrace-bench-idle', {
      maxWaitMs,
      minBytes: 1,
      maxBytes,
      isolationLevel: 0,
      topics: [{ topic, partitions: [{ partition, fetchOffset: 0n, partitionMaxBytes: maxBytes }] }],
    }),
  );
}
