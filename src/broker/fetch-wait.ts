// Long polls: a fetch that found too little waits for the high watermark of any of its partitions to move, for its
// time to pass, or for its connection to close. Signals come from the leader in this process; nothing polls.
import type { PartitionLog } from '../storage/partition-log.ts';
import type { Ending } from './ending.ts';
import { Turns } from './turns.ts';

/** Consumers that began together, or wait for the same record, wake together: of all connections. */
const turns = new Turns();

/** Resolves at the first of: a partition moves, `maxWaitMs` pass, the connection ends; and then when it is its turn. */
export function awaitChange(partitions: readonly PartitionLog[], maxWaitMs: number, ending: Ending): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer);
      ending.waiters.delete(done);
      for (const partition of partitions) partition.waiters.delete(done);
      turns.add(resolve);
    };
    const timer = setTimeout(done, maxWaitMs);
    if (ending.begun) {
      done();
      return;
    }
    ending.waiters.add(done);
    for (const partition of partitions) partition.waiters.add(done);
  });
}
