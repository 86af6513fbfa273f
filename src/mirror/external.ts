// A partition whose primary is the target: producers' batches are passed on as they are, each producer under an id that the
// target has given for it (client-ids.ts), with its own epoch and sequence. So the target tells repetitions, and its answer is
// the producer's. Nothing is tried again here: a producer that is told an error to retry sends the same again.
//
//   a batch that this log has (sent before the cut-over, its answer lost)   answered from here, with its offset there
//   the first of a producer that the target does not know yet               alone, and only where it follows what is here:
//                                                                           the target would take any sequence for a beginning
//   what follows                                                            several under way, in order; the target judges
import type { Logger } from 'pino';
import type { Cluster } from '../client/cluster.ts';
import { KafkaError } from '../client/errors.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { Produce } from '../protocol/messages/00-produce.ts';
import * as header from '../protocol/record-batch.ts';
import { messageOf } from '../runtime/errors.ts';
import { type AppendResult, answered, type PendingAppend, refused } from '../storage/group.ts';
import type { AppendGate, PartitionLog } from '../storage/partition-log.ts';
import type { ClientIds } from './client-ids.ts';

export interface ExternalGateOptions {
  readonly cluster: Cluster;
  readonly ids: ClientIds;
  readonly source: PartitionLog;
  /** Resolves when the producers of `source` are known. */
  readonly openSource: () => Promise<void>;
  readonly targetTopic: string;
  readonly partition: number;
  /** Where the record at an offset here is in the target. */
  readonly translate: (offset: bigint) => Promise<bigint>;
  /** The target has acknowledged so many records. */
  readonly onTaken: (records: number) => void;
  /** A request has no answer: it may still arrive there. */
  readonly onDoubt: () => void;
  readonly logger: Logger;
}

/** How a producer stands with the target. */
interface Known {
  /** The target has taken a batch of it: it tells repetitions and gaps by itself. */
  proven: boolean;
  /** One after another until then. */
  turn: Promise<unknown>;
  waiting: number;
}

const ackTimeoutMs = 30_000;
const unproven = (): Known => ({ proven: false, turn: Promise.resolve(), waiting: 0 });

export class ExternalGate implements AppendGate {
  readonly #options: ExternalGateOptions;
  readonly #producers = new Map<bigint, Known>();

  constructor(options: ExternalGateOptions) {
    this.#options = options;
  }

  append(batch: Buffer, _acks: number, carries: boolean): PendingAppend {
    // What commits with a row of this database cannot go there.
    if (carries) return answered(refused(ErrorCode.NOT_LEADER_OR_FOLLOWER));
    const done = this.#pass(batch);
    let answer!: (result: AppendResult) => void;
    const result = new Promise<AppendResult>(resolve => {
      answer = resolve;
    });
    void done.then(answer);
    return {
      result,
      expire: async error => {
        answer(refused(error));
        await done;
      },
    };
  }

  async #pass(batch: Buffer): Promise<AppendResult> {
    const producerId = header.producerId(batch);
    if (producerId < 0n) return this.#send(batch);
    let known = this.#producers.get(producerId);
    if (known === undefined) {
      known = unproven();
      this.#producers.set(producerId, known);
    }
    if (known.proven && known.waiting === 0 && this.#options.source.opened) return this.#judge(known, batch);
    known.waiting++;
    const turn = known.turn.then(async () => {
      await this.#options.openSource();
      return this.#judge(known, batch);
    });
    known.turn = turn
      .catch(() => {})
      .finally(() => {
        known.waiting--;
      });
    return turn.catch((error: unknown) => {
      this.#options.logger.warn({ error: messageOf(error) }, 'the producers of a partition could not be read');
      return refused(ErrorCode.NOT_LEADER_OR_FOLLOWER);
    });
  }

  /** By what is here, which has all that was taken before the cut-over; then by the target. */
  async #judge(known: Known, batch: Buffer): Promise<AppendResult> {
    const check = this.#options.source.producers.check(batch);
    if (check.kind === 'duplicate') return this.#translated(check.baseOffset);
    if (check.kind === 'refused' && !known.proven) return refused(check.error);
    const result = await this.#under(header.producerId(batch), batch);
    known.proven ||= result.error === ErrorCode.NONE;
    return result;
  }

  async #under(producerId: bigint, batch: Buffer): Promise<AppendResult> {
    let id: bigint;
    try {
      id = await this.#options.ids.there(producerId);
    } catch (error) {
      this.#options.logger.warn({ error: messageOf(error) }, 'a producer was given no id in the target');
      return refused(ErrorCode.NOT_LEADER_OR_FOLLOWER);
    }
    header.assignProducer(batch, id, header.producerEpoch(batch), header.baseSequence(batch));
    return this.#send(batch);
  }

  async #translated(offset: bigint): Promise<AppendResult> {
    try {
      return { error: ErrorCode.NONE, baseOffset: await this.#options.translate(offset), logAppendTime: -1n };
    } catch (error) {
      this.#options.logger.warn({ error: messageOf(error) }, 'an offset could not be translated');
      return refused(ErrorCode.NOT_LEADER_OR_FOLLOWER);
    }
  }

  async #send(batch: Buffer): Promise<AppendResult> {
    const { cluster, targetTopic: name, partition: index } = this.#options;
    try {
      const { responses } = await cluster.request(
        cluster.leaderOf(name, index),
        Produce,
        { acks: -1, timeoutMs: ackTimeoutMs, topicData: [{ name, partitionData: [{ index, records: batch }] }] },
        { lane: 'produce', least: 3, most: 12, timeoutMs: ackTimeoutMs + 10_000 },
      );
      const { errorCode: error, baseOffset, logAppendTimeMs } = responses[0]!.partitionResponses[0]!;
      if (error === ErrorCode.NONE) this.#options.onTaken(header.recordCount(batch));
      else this.#refresh();
      return { error, baseOffset, logAppendTime: logAppendTimeMs };
    } catch (error) {
      this.#refresh();
      if (error instanceof KafkaError) return refused(ErrorCode.NOT_LEADER_OR_FOLLOWER); // no leader is known
      this.#options.onDoubt();
      return refused(ErrorCode.REQUEST_TIMED_OUT);
    }
  }

  #refresh(): void {
    void this.#options.cluster.refresh().catch(() => {}); // the producer's next try tells
  }
}
