// The thread of codec-thread.ts. Snappy and lz4 come from native modules whose allocator gives memory back only where it
// was taken, and whose results V8 does not count: on Node's thread pool 400 results of 8 MB left 2.9 GB behind. Here
// one thread takes and gives, and collects its garbage by what it has produced.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort } from 'node:worker_threads';
import { compressFrameSync, decompressFrameSync } from 'lz4-napi';
import * as snappy from 'snappy';

export const operations = {
  'snappy compress': (bytes: Buffer) => snappy.compressSync(bytes),
  'snappy uncompress': (bytes: Buffer) => snappy.uncompressSync(bytes, { asBuffer: true }) as Buffer,
  'lz4 compress': (bytes: Buffer) => compressFrameSync(bytes),
  'lz4 uncompress': (bytes: Buffer) => decompressFrameSync(bytes),
} as const;

export type Operation = keyof typeof operations;
export interface Task {
  readonly id: number;
  readonly operation: Operation;
  readonly bytes: Uint8Array;
}
export interface Done {
  readonly id: number;
  readonly result: Uint8Array | Error;
}

/** A collection of this small heap takes a millisecond or two. */
const collectAfterBytes = 16 * 1024 * 1024;

if (parentPort !== null) {
  const port = parentPort;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  let uncollected = 0;
  port.on('message', ({ id, operation, bytes }: Task) => {
    try {
      const produced = operations[operation](Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
      const result = new Uint8Array(produced); // the module's own memory cannot be handed over
      port.postMessage({ id, result } satisfies Done, [result.buffer]);
      uncollected += produced.length;
    } catch (error) {
      port.postMessage({ id, result: error as Error } satisfies Done);
    }
    if (uncollected >= collectAfterBytes) {
      uncollected = 0;
      collect();
    }
  });
}
