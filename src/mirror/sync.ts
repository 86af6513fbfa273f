// `sync`: what a producer wants acknowledged by all (acks=all) is acknowledged when the target has it too. It is in this log
// first, and stays there whatever comes of the wait, as Kafka has it of replicas that are late: the producer is told
// REQUEST_TIMED_OUT, sends it again, and an idempotent one has it there once.
import { ErrorCode } from '../protocol/errors.ts';
import { lastOffsetDelta } from '../protocol/record-batch.ts';
import { type AppendResult, type PendingAppend, refused } from '../storage/group.ts';
import type { AppendGate } from '../storage/partition-log.ts';
import type { Sync } from './modes.ts';

/** How far a copy has come, and who waits for it. */
export interface Progress {
  readonly nextOffset: bigint;
  /** Woken when it has moved on. */
  readonly arrivals: Set<() => void>;
}

export class SyncGate implements AppendGate {
  readonly #sync: Sync;
  readonly #copy: Progress;

  constructor(sync: Sync, copy: Progress) {
    this.#sync = sync;
    this.#copy = copy;
  }

  append(batch: Buffer, acks: number, carries: boolean, toLog: () => PendingAppend): PendingAppend {
    const records = BigInt(lastOffsetDelta(batch)) + 1n;
    const pending = toLog();
    if (acks !== -1 || carries) return pending;
    const { onTimeout } = this.#sync;
    let answer!: (result: AppendResult) => void;
    const result = new Promise<AppendResult>(resolve => {
      answer = resolve;
    });
    void pending.result.then(async appended => {
      if (appended.error !== ErrorCode.NONE) return answer(appended);
      const arrived = await this.#arrival(appended.baseOffset + records);
      answer(arrived || onTimeout === 'acknowledge' ? appended : refused(ErrorCode.REQUEST_TIMED_OUT));
    });
    return {
      result,
      expire: error => {
        answer(refused(error));
        return pending.expire(error);
      },
    };
  }

  /** False when the time is over first. */
  #arrival(nextOffset: bigint): Promise<boolean> {
    const { arrivals } = this.#copy;
    if (this.#copy.nextOffset >= nextOffset) return Promise.resolve(true);
    return new Promise(resolve => {
      const end = (arrived: boolean): void => {
        clearTimeout(timer);
        arrivals.delete(look);
        resolve(arrived);
      };
      const look = (): void => {
        if (this.#copy.nextOffset >= nextOffset) end(true);
      };
      const timer = setTimeout(end, this.#sync.timeoutMs, false);
      arrivals.add(look);
    });
  }
}
