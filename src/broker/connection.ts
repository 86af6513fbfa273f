// One client's connection. Requests begin in the order they came and are answered in that order. One is served at a
// time, as in Kafka, except that the next may begin as soon as a handler says that the order is settled
// (readyForNext): so produce requests in flight share a commit. Memory is bounded: what has been read and not yet
// answered, and answers the client has not taken, count against the connection's and the process's bound in
// bytes; past either the socket is not read.
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { FrameReader } from '../protocol/frame.ts';
import { WireError } from '../protocol/wire.ts';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import { takeOver } from '../runtime/direct-socket.ts';
import type { Budget, Paused } from './budget.ts';
import { type Dispatcher, RefusedRequest } from './dispatch.ts';
import { Ending } from './ending.ts';

export interface ConnectionOptions {
  readonly dispatcher: Dispatcher;
  readonly budget: Budget;
  readonly memory: BufferPool;
  readonly maxRequestBytes: number;
  readonly maxInFlightBytes: number;
  readonly maxIdleMs: number;
  readonly logger: Logger;
  readonly onServed: (api: string, seconds: number) => void;
  readonly onClosed: (reason: string | undefined) => void;
}

interface Answer {
  readonly frame: Buffer;
  chunks: Buffer[] | undefined;
  done: boolean;
  /** Work that goes on with the request's bytes after its answer. */
  held: Promise<unknown>[] | undefined;
  whenSent: (() => void)[] | undefined;
  /** Whether nobody reads the frame any more once the answer is given and what is held has ended. */
  reusable: boolean;
}

/** What a request costs in memory beyond its bytes: while it waits, and once it has begun (a small Produce, measured). */
const queuedOverheadBytes = 256;
const begunOverheadBytes = 8192;
/**
 * A connection that holds no more, as with one small request, is read even when memory is short: consumers get on while
 * Postgres stands still.
 */
const alwaysBytes = 16_384;
/** How long one client's requests may keep the event loop from the others, ms. */
const turnMs = 3;
/** How long a frame may take to arrive whole, ms: a client that sends a byte a minute must not hold memory for ever. */
const frameTimeoutMs = 60_000;

export class Connection implements Paused {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #frames: FrameReader;
  readonly #ending = new Ending();
  readonly #clientHost: string;
  #held = 0;
  #queue: Buffer[] = [];
  readonly #answers: Answer[] = [];
  /** The newest request begun lets the next begin. */
  #ready = true;
  #undrained = false;
  #begun = 0;
  /** Memory that the budget keeps for the rest of the frame. */
  #claim = 0;
  /** What the budget has been told of as pending. */
  #pending = 0;
  #turnBegan = 0;
  #yielding = false;
  #draining = false;
  #gathering = false;
  #reason: string | undefined;
  #frameTimer: NodeJS.Timeout | undefined;

  /** `accepted` is of a server with `pauseOnConnect`. */
  constructor(accepted: Socket, options: ConnectionOptions) {
    this.#options = options;
    this.#clientHost = accepted.remoteAddress ?? '';
    this.#frames = new FrameReader({
      maxBytes: options.maxRequestBytes,
      reserve: bytes => {
        this.#takeRequest(bytes);
        this.#unclaim(Math.min(this.#claim, bytes));
      },
      memory: options.memory,
    });
    const socket = takeOver(accepted, chunk => this.#receive(chunk));
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setTimeout(options.maxIdleMs, () => {
      if (this.#answers.length === 0) this.close('idle');
    });
    socket.on('drain', () => {
      this.#undrained = false;
      this.#tellPending();
      this.#next();
    });
    socket.on('error', error => {
      this.#reason ??= error.message;
    });
    socket.on('close', () => this.#closed());
  }

  /** Ends the connection at once. */
  close(reason: string): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }

  /** Begins nothing more; closes once what was begun is answered. */
  drain(): void {
    this.#draining = true;
    this.#socket.resume(); // what comes is thrown away, but for the end: a paused socket would not notice it
    this.#ending.begin(); // long polls end now, with what they have
    if (this.#answers.length === 0) this.#socket.end();
  }

  get wanted(): number {
    return this.#frames.wanted;
  }

  resume(claimed: number): void {
    this.#claim += claimed;
    if (this.#draining || this.#socket.destroyed) return;
    this.#watchFrame();
    this.#socket.resume();
  }

  /** Memory is short, and others wait for what this connection's unfinished request takes. */
  giveUp(): void {
    this.#options.logger.warn({ client: this.#clientHost }, 'memory is short; a connection is closed');
    this.close('memory was short');
  }

  #receive(chunk: Buffer): void {
    if (this.#draining) return;
    this.#turnBegan = performance.now();
    try {
      const before = this.#queue.length;
      try {
        this.#frames.push(chunk, this.#queue);
      } finally {
        this.#takeRequest((this.#queue.length - before) * queuedOverheadBytes);
      }
      if (this.#queue.length > before) {
        this.#options.budget.release(this);
        this.#tellPending();
        this.#next();
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#refuse(error);
      return;
    }
    this.#watchFrame();
    const { budget } = this.#options;
    if (budget.exhausted && this.#held > alwaysBytes && !budget.excepts(this)) this.giveUp();
    this.#pauseIfOver();
  }

  /** What is queued behind answers that the client does not take is not ours to finish. */
  #tellPending(): void {
    const blocked = this.#undrained || this.#socket.destroyed;
    const pending = this.#begun + (blocked ? 0 : this.#queue.length);
    const by = pending - this.#pending;
    this.#pending = pending;
    if (by !== 0) this.#options.budget.changePending(by);
  }

  /** The time for a frame is its client's: it does not run while the socket is not read. */
  #watchFrame(): void {
    const partial = this.#frames.reserved > 0;
    if (partial) this.#options.budget.beginFrame(this);
    if (partial && this.#frameTimer === undefined) {
      this.#frameTimer = setTimeout(() => this.close('a request did not arrive whole in time'), frameTimeoutMs);
    } else if (!partial) {
      this.#stopFrameTimer();
    }
  }

  #stopFrameTimer(): void {
    clearTimeout(this.#frameTimer);
    this.#frameTimer = undefined;
  }

  #pauseIfOver(): void {
    if (this.#socket.destroyed || this.#draining) return;
    const { budget, maxInFlightBytes } = this.#options;
    // A single frame larger than the bound must still get through, alone.
    const tooMuch = this.#held - this.#frames.reserved > maxInFlightBytes;
    if (!tooMuch && this.#mayGoOn()) return;
    this.#socket.pause();
    this.#stopFrameTimer();
    if (tooMuch) budget.suspendFrame(this);
    else budget.pause(this);
  }

  #mayGoOn(): boolean {
    const { budget } = this.#options;
    if (this.#claim > 0 || budget.excepts(this)) return true;
    const { wanted } = this;
    if (wanted === 0) return !budget.over || this.#held <= alwaysBytes;
    if (!budget.claim(wanted)) return false;
    this.#claim = wanted;
    return true;
  }

  #takeRequest(bytes: number): void {
    this.#held += bytes;
    this.#options.budget.takeRequest(bytes);
  }

  #unclaim(bytes: number): void {
    this.#claim -= bytes;
    this.#options.budget.unclaim(bytes);
  }

  #giveRequest(bytes: number): void {
    this.#give(bytes, () => this.#options.budget.giveRequest(bytes));
  }

  #takeAnswer(bytes: number): void {
    this.#held += bytes;
    this.#options.budget.takeAnswer(bytes);
  }

  #giveAnswer(bytes: number): void {
    this.#give(bytes, () => this.#options.budget.giveAnswer(bytes));
  }

  #give(bytes: number, give: () => void): void {
    const wasOver = this.#held - this.#frames.reserved > this.#options.maxInFlightBytes;
    this.#held -= bytes;
    give();
    if (wasOver && this.#held - this.#frames.reserved <= this.#options.maxInFlightBytes) {
      this.resume(0);
      this.#pauseIfOver();
    }
  }

  #next(): void {
    while (this.#queue.length > 0 && this.#ready && !this.#undrained && !this.#draining && !this.#socket.destroyed) {
      if (this.#answers.length > 0 && this.#options.budget.tight) return;
      if (this.#yielding) return;
      if (performance.now() - this.#turnBegan > turnMs) {
        this.#yielding = true;
        setImmediate(() => {
          this.#yielding = false;
          this.#turnBegan = performance.now();
          this.#next();
        });
        return;
      }
      void this.#serve(this.#queue.shift()!);
    }
  }

  async #serve(frame: Buffer): Promise<void> {
    const { dispatcher, logger, onServed } = this.#options;
    const answer: Answer = {
      frame,
      chunks: undefined,
      done: false,
      held: undefined,
      whenSent: undefined,
      reusable: true,
    };
    this.#answers.push(answer);
    this.#takeRequest(begunOverheadBytes);
    this.#ready = false;
    const readyForNext = () => {
      if (this.#answers.at(-1) !== answer || this.#ready) return;
      this.#ready = true;
      // Not at once: the handler that says so is still on the stack, and its own work comes first.
      queueMicrotask(() => this.#next());
    };
    this.#begun++;
    const begunAt = performance.now();
    try {
      const served = await dispatcher.serve(frame, {
        clientHost: this.#clientHost,
        ending: this.#ending,
        readyForNext,
        closeConnection: reason => this.close(reason),
        hold: work => {
          answer.held ??= [];
          answer.held.push(work);
        },
        whenSent: callback => {
          answer.whenSent ??= [];
          answer.whenSent.push(callback);
        },
      });
      onServed(served.name, (performance.now() - begunAt) / 1000);
      answer.chunks = served.chunks;
    } catch (error) {
      if (error instanceof WireError || error instanceof RefusedRequest) {
        this.#refuse(error);
      } else {
        logger.error({ err: error, client: this.#clientHost }, 'a request failed; its connection is closed');
        // What it had begun may still read its bytes, so they are left to the collector.
        answer.reusable = false;
        this.close('a request failed');
      }
    }
    this.#begun--;
    answer.done = true;
    readyForNext();
    this.#flush();
    this.#tellPending();
    this.#next();
  }

  /** Writes the answers that are done and whose turn it is. */
  #flush(): void {
    while (this.#answers[0]?.done) {
      // Those of requests in flight together are often done together, and are then one write.
      const more = this.#answers.length > 1;
      this.#write(this.#answers.shift()!, more);
    }
    this.#undrained = this.#hasTooMuchUnsent();
    if (this.#draining && this.#answers.length === 0) this.#socket.end();
  }

  /** A lone answer of one chunk goes to the socket at once and by itself: in 12 µs, where a gathering write takes 17. */
  #write(answer: Answer, moreFollow: boolean): void {
    this.#releaseRequest(answer);
    const { chunks = [], whenSent } = answer;
    const last = this.#socket.destroyed ? undefined : chunks.at(-1);
    if (last === undefined) {
      for (const callback of whenSent ?? []) callback();
      return;
    }
    let bytes = 0;
    for (const chunk of chunks) bytes += chunk.length;
    this.#takeAnswer(bytes);
    if (moreFollow || chunks.length > 1) this.#gather();
    for (let i = 0; i < chunks.length - 1; i++) this.#socket.write(chunks[i]!);
    this.#socket.write(last, () => {
      this.#giveAnswer(bytes);
      for (const callback of whenSent ?? []) callback();
    });
  }

  /** What is written until this turn's promises have done their work is one write. */
  #gather(): void {
    if (this.#gathering) return;
    this.#gathering = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#gathering = false;
      this.#socket.uncork();
    });
  }

  /** Only where 'drain' will follow. */
  #hasTooMuchUnsent(): boolean {
    const { budget, maxInFlightBytes } = this.#options;
    if (!this.#socket.writableNeedDrain) return false;
    return budget.answersOver || this.#socket.writableLength > maxInFlightBytes;
  }

  #releaseRequest({ frame, held, reusable }: Answer): void {
    const release = () => {
      this.#giveRequest(frame.length + queuedOverheadBytes + begunOverheadBytes);
      if (reusable) this.#options.memory.give(frame);
    };
    if (held) void Promise.allSettled(held).then(release);
    else release();
  }

  #refuse(error: Error): void {
    this.#options.logger.warn(
      { client: this.#clientHost, reason: error.message },
      'bad request; its connection is closed',
    );
    this.close(error.message);
  }

  #closed(): void {
    this.#stopFrameTimer();
    this.#ending.begin();
    const queued = this.#queue.splice(0).reduce((sum, frame) => sum + frame.length + queuedOverheadBytes, 0);
    const partial = this.#frames.reserved;
    this.#unclaim(this.#claim);
    this.#options.budget.release(this);
    if (queued + partial > 0) this.#giveRequest(queued + partial);
    this.#tellPending();
    this.#options.onClosed(this.#reason);
  }
}
