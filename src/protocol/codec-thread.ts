// Runs codecs on one thread of their own (codec-worker.ts says why), one batch at a time. The thread begins with the first
// batch, and does not keep the process from ending.
import { Worker } from 'node:worker_threads';
import type { Done, Operation, Task } from './codec-worker.ts';

interface Waiting {
  resolve(bytes: Buffer): void;
  reject(error: Error): void;
}

const fromSource = import.meta.url.endsWith('.ts');
const file = new URL(`./codec-worker.${fromSource ? 'ts' : 'js'}`, import.meta.url);

let worker: Worker | undefined;
let nextId = 0;
const waiting = new Map<number, Waiting>();

export function onCodecThread(operation: Operation, bytes: Buffer): Promise<Buffer> {
  worker ??= start();
  const thread = worker;
  const id = nextId++;
  // A copy: it can be handed over, and the request's memory may be used again before the thread has come to it.
  const copy = new Uint8Array(bytes);
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    thread.ref();
    thread.postMessage({ id, operation, bytes: copy } satisfies Task, [copy.buffer]);
  });
}

function start(): Worker {
  const thread = fromSource ? startFromSource() : new Worker(file);
  thread.on('message', ({ id, result }: Done) => {
    const { resolve, reject } = waiting.get(id)!;
    waiting.delete(id);
    if (waiting.size === 0) thread.unref();
    if (result instanceof Error) reject(result);
    else resolve(Buffer.from(result.buffer, result.byteOffset, result.byteLength));
  });
  const ended = (error: Error) => {
    if (worker !== thread) return;
    worker = undefined; // the next batch begins another
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  thread.on('error', ended);
  thread.on('exit', code => ended(new Error(`the codec thread ended with code ${code}`)));
  return thread;
}

/** In a thread of its own, tsx has to be told to load TypeScript. */
function startFromSource(): Worker {
  const [tsx, source] = [import.meta.resolve('tsx/esm/api'), file.href].map(url => JSON.stringify(url));
  return new Worker(`import(${tsx}).then(({ register }) => (register(), import(${source})))`, { eval: true });
}
