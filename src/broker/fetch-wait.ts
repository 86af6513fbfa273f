// Long polls: a fetch that found too little waits for the high watermark of any of its partitions to move, for its
// time to pass, or for its connection to close. Signals come from the leader in this process; nothing polls.
import type { PartitionLog } from '../storage/partition-log.ts';

/** Resolves at the first of: a partition moves, `maxWaitMs` pass, `signal` aborts. */
export function awaitChange(
  partitions: readonly PartitionLog[],
  maxWaitMs: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      for (const partition of partitions) partition.waiters.delete(done);
      resolve();
    };
    const timer = setTimeout(done, maxWaitMs);
    if (signal.aborted) {
      done();
      return;
    }
    signal.addEventListener('abort', done);
    for (const partition of partitions) partition.waiters.add(done);
  });
}
