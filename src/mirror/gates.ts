// What stands before the partitions of a mirror's topics (AppendGate): nothing, as a rule; a wait for the target (sync.ts);
// the target itself (external.ts); or nobody passes, while a topic's primary changes. What comes then is held, in order, until
// the gate is opened, or its own time is over.
import { ErrorCode } from '../protocol/errors.ts';
import { type AppendResult, type PendingAppend, refused } from '../storage/group.ts';
import type { Log } from '../storage/log.ts';
import type { AppendGate, PartitionLog } from '../storage/partition-log.ts';
import type { Topic } from '../storage/topics.ts';

interface Held {
  begin(): void;
  refuse(): void;
}

export class PartitionGate implements AppendGate {
  readonly owner: string;
  readonly #partition: PartitionLog;
  #rule: AppendGate | undefined;
  /** Until whoever closed it opens it. */
  #closed = false;
  /** Whatever else is so: for as long as a topic's primary changes. */
  #locked = false;
  #held = new Set<Held>();
  readonly #under = new Set<Promise<unknown>>();

  constructor(partition: PartitionLog, owner: string) {
    this.#partition = partition;
    this.owner = owner;
  }

  append(batch: Buffer, acks: number, carries: boolean, toLog: () => PendingAppend): PendingAppend {
    const pass = () => this.#pass(batch, acks, carries, toLog);
    return this.#closed || this.#locked ? this.#hold(this.#held, pass) : pass();
  }

  /** From now on what comes waits. */
  close(): void {
    this.#closed = true;
    this.#stand();
  }

  /** Lets what is held pass, and what comes; by `rule`, where there is one. */
  open(rule: AppendGate | undefined): void {
    this.#rule = rule;
    this.#closed = false;
    this.#stand();
  }

  lock(): void {
    this.#locked = true;
    this.#stand();
  }

  /** It is open now, or closed, as it has been told meanwhile. */
  unlock(): void {
    this.#locked = false;
    this.#stand();
  }

  /** Resolves when everything that had passed has its answer, and is on its way nowhere. */
  async settled(): Promise<void> {
    await this.#partition.settled();
    while (this.#under.size > 0) await Promise.all(this.#under);
  }

  /** Nobody looks after it any more. Locked, it stays: who takes the records is not known. */
  remove(): void {
    for (const { refuse } of this.#held) refuse();
    this.#held.clear();
    this.#rule = undefined;
    this.#closed = false;
    this.#stand();
  }

  /** Another mirror's that stands there. */
  get inTheWay(): AppendGate | undefined {
    const { gate } = this.#partition;
    return gate === this ? undefined : gate;
  }

  /** Before the partition where it has something to do there. */
  #stand(): void {
    const holds = this.#closed || this.#locked;
    if (holds || this.#rule) this.#partition.gate = this;
    else if (this.#partition.gate === this) this.#partition.gate = undefined;
    if (holds) return;
    const held = this.#held;
    this.#held = new Set();
    for (const { begin } of held) begin();
  }

  #pass(batch: Buffer, acks: number, carries: boolean, toLog: () => PendingAppend): PendingAppend {
    if (this.#rule === undefined) return toLog();
    const { result, expire } = this.#rule.append(batch, acks, carries, toLog);
    this.#track(result);
    return { result, expire: error => this.#track(expire(error)) };
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const ended: Promise<unknown> = work.then(() => this.#under.delete(ended));
    this.#under.add(ended);
    return work;
  }

  #hold(all: Set<Held>, pass: () => PendingAppend): PendingAppend {
    let answer!: (result: AppendResult) => void;
    const result = new Promise<AppendResult>(resolve => {
      answer = resolve;
    });
    let passed: PendingAppend | undefined;
    const held: Held = {
      begin: () => {
        passed = pass();
        void passed.result.then(answer);
      },
      refuse: () => answer(refused(ErrorCode.NOT_LEADER_OR_FOLLOWER)),
    };
    all.add(held);
    return {
      result,
      expire: async error => {
        if (passed) return passed.expire(error);
        all.delete(held);
        answer(refused(error));
      },
    };
  }
}

/** Those of one mirror. */
export class Gates {
  readonly #log: Log;
  /** The mirror's name. */
  readonly #owner: string;
  /** By topic id and partition. */
  readonly #gates = new Map<string, PartitionGate>();
  /** When a request to a target was last left without an answer, ms since the epoch: it may still arrive there. */
  doubtfulAt = Number.NEGATIVE_INFINITY;

  constructor(log: Log, owner: string) {
    this.#log = log;
    this.#owner = owner;
  }

  of(topic: Topic, partition: number): PartitionGate {
    const key = `${topic.id} ${partition}`;
    let gate = this.#gates.get(key);
    if (gate === undefined) {
      gate = new PartitionGate(this.#log.partition(topic, partition)!, this.#owner);
      this.#gates.set(key, gate);
    }
    return gate;
  }

  all(topic: Topic): PartitionGate[] {
    return Array.from({ length: topic.partitionCount }, (_, partition) => this.of(topic, partition));
  }

  /** The mirror whose gate stands before a topic where one of these is to. */
  inTheWay(topic: Topic): string | undefined {
    return this.all(topic).find(gate => gate.inTheWay)?.inTheWay?.owner;
  }

  remove(): void {
    for (const gate of this.#gates.values()) gate.remove();
    this.#gates.clear();
  }
}
