// An idempotent producer with five batches in flight to one partition, as Java and librdkafka have: it keeps its
// sequences over every reconnection and sends what was not acknowledged again, in order, byte for byte.
import { ErrorCode, errorOf } from '../../src/protocol/errors.ts';
import { buildBatch } from '../../src/protocol/records.ts';
import type { Acknowledged } from './audit.ts';
import { newProducerId, produce, record } from './kafka.ts';
import { ClosedError, WireClient } from './wire.ts';

const maxInFlight = 5;

interface Batch {
  readonly bytes: Buffer;
  readonly ids: readonly string[];
}

export interface ProducerOptions {
  readonly port: number;
  readonly name: string;
  readonly topic: string;
  readonly partition: number;
  /** How many records the next batch has. */
  readonly batchSize: () => number;
  readonly onAcknowledged: (acknowledged: Acknowledged) => void;
}

export class IdempotentProducer {
  readonly #options: ProducerOptions;
  #producerId: bigint | undefined;
  #nextSequence = 0;
  #nextRecord = 0;
  /** Sent and not acknowledged, in order; then what has been made up to follow them. */
  readonly #unacknowledged: Batch[] = [];
  #stopping = false;
  #abandoned = false;

  constructor(options: ProducerOptions) {
    this.#options = options;
  }

  /** Produces until `stop`, whatever happens to the broker; resolves when everything has been acknowledged. */
  async run(): Promise<void> {
    while (!this.#abandoned && (!this.#stopping || this.#unacknowledged.length > 0)) {
      const client = await WireClient.connect(this.#options.port).catch(() => undefined);
      if (!client) {
        await new Promise(resolve => setTimeout(resolve, 20));
        continue;
      }
      try {
        this.#producerId ??= await newProducerId(client);
        await this.#produceOn(client);
      } catch (error) {
        if (!(error instanceof ClosedError || error instanceof RetriableError)) throw error;
      } finally {
        client.close();
      }
    }
  }

  stop(): void {
    this.#stopping = true;
  }

  /** Ends without the acknowledgements that are missing. */
  abandon(): void {
    this.#abandoned = true;
  }

  async #produceOn(client: WireClient): Promise<void> {
    let inFlight: Promise<void>[] = [];
    let sent = 0;
    let failure: unknown;
    while (!this.#abandoned) {
      while (inFlight.length < maxInFlight && failure === undefined) {
        if (sent === this.#unacknowledged.length) {
          if (this.#stopping) break;
          this.#unacknowledged.push(this.#makeBatch());
        }
        const batch = this.#unacknowledged[sent++]!;
        inFlight.push(
          this.#send(client, batch).then(
            () => void sent--,
            error => {
              failure ??= error;
            },
          ),
        );
      }
      if (inFlight.length === 0) return;
      if (failure !== undefined) {
        // With a batch missing, those behind it can only be refused. All are awaited, then sent again in order.
        await Promise.all(inFlight);
        throw failure;
      }
      await inFlight[0];
      inFlight = inFlight.slice(1);
    }
  }

  async #send(client: WireClient, batch: Batch): Promise<void> {
    const { topic, partition, onAcknowledged } = this.#options;
    const { errorCode, baseOffset } = await produce(client, topic, partition, Buffer.from(batch.bytes));
    if (errorCode !== ErrorCode.NONE) {
      // Out of order is what the batches behind a failed one get; for the oldest one it means that the log lost some.
      const known = errorOf(errorCode);
      const oldest = this.#unacknowledged[0] === batch;
      if (known.retriable || (errorCode === ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER && !oldest)) {
        throw new RetriableError(known.name);
      }
      throw new Error(`${this.#options.name} got ${known.name} for ${batch.ids[0]}`);
    }
    // One before it may have failed and be in the log nevertheless: that goes again.
    this.#unacknowledged.splice(this.#unacknowledged.indexOf(batch), 1);
    for (const [i, id] of batch.ids.entries()) onAcknowledged({ partition, offset: baseOffset + BigInt(i), id });
  }

  #makeBatch(): Batch {
    const { name, batchSize } = this.#options;
    const ids = Array.from({ length: batchSize() }, () => `${name}:${this.#nextRecord++}`);
    const bytes = buildBatch({
      records: ids.map(id => record(id)),
      producerId: this.#producerId!,
      producerEpoch: 0,
      baseSequence: this.#nextSequence,
    });
    this.#nextSequence += ids.length;
    return { bytes, ids };
  }
}

class RetriableError extends Error {
  override name = 'RetriableError';
}
