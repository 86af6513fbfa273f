// The process of idle.ts. Arguments are name=value: bootstrap, topic, partitions, consumers. Prints a line when all have
// had an answer, and ends when its stdin does.
import { connect, type Socket } from 'node:net';

/** What librdkafka and the Java client wait by default. */
const maxWaitMs = 500;
const fetchKey = 1;
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
  let answers = 0;
  let head = Buffer.alloc(0);
  /** Bytes of the current answer that have not come yet. */
  let missing = 0;
  socket.on('data', chunk => {
    let rest = chunk;
    while (rest.length > 0) {
      if (missing === 0) {
        const wanted = 4 - head.length;
        head = Buffer.concat([head, rest.subarray(0, wanted)]);
        rest = rest.subarray(wanted);
        if (head.length < 4) return;
        missing = head.readInt32BE();
        head = Buffer.alloc(0);
      }
      const taken = Math.min(missing, rest.length);
      missing -= taken;
      rest = rest.subarray(taken);
      if (missing > 0) return;
      if (++answers === 1 && ++answered === consumers) process.stdout.write('ready\n');
      socket.write(frame);
    }
  });
  socket.on('error', error => process.stderr.write(`idle consumer: ${error.message}\n`));
  socket.on('close', () => process.exit(1));
}

/** A Fetch of one partition from its beginning, in a frame. */
function fetchFrame(partition: number): Buffer {
  const body = Buffer.concat([
    int16(fetchKey),
    int16(fetchVersion),
    int32(0), // correlation id
    string('millrace-bench-idle'),
    int32(-1), // replica id: a consumer
    int32(maxWaitMs),
    int32(1), // min bytes
    int32(1_000_000), // max bytes
    Buffer.of(0), // read uncommitted
    int32(1),
    string(topic),
    int32(1),
    int32(partition),
    Buffer.alloc(8), // offset 0
    int32(1_000_000),
  ]);
  return Buffer.concat([int32(body.length), body]);
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function string(text: string): Buffer {
  return Buffer.concat([int16(Buffer.byteLength(text)), Buffer.from(text)]);
}
