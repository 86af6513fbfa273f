// Waiting for one partition of a source.
import type { SourcePartition } from './source.ts';

/** Resolves when `partition` may have something to say at `offset`, or once `signal` is aborted. */
export function ready(partition: SourcePartition, offset: bigint, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      signal.removeEventListener('abort', done);
      partition.waiters.delete(done);
      resolve();
    };
    signal.addEventListener('abort', done);
    partition.waiters.add(done);
    if (signal.aborted || partition.isReadyAt(offset)) done();
  });
}
