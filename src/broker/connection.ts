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
import type { Budget, Paused } from './budget.ts';
import { type Dispatcher, RefusedRequest } from './dispatch.ts';

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
}

/** What a request costs in memory beyond its bytes: its objects and promises, about. */
const requestOverheadBytes = 1024;
/** How long one client's requests may keep the event loop from the others, ms. */
const turnMs = 3;
/** How long a frame may take to arrive whole, ms: a client that sends a byte a minute must not hold memory for ever. */
const frameTimeoutMs = 60_000;

export class Connection implements Paused {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #frames: FrameReader;
  readonly #abort = new AbortController();
  readonly #clientHost: string;
  #held = 0;
  #queue: Buffer[] = [];
  readonly #answers: Answer[] = [];
  /** The newest request begun lets the next begin. */
  #ready = true;
  #undrained = false;
  #turnBegan = 0;
  #yielding = false;
  #draining = false;
  #reason: string | undefined;
  #frameTimer: NodeJS.Timeout | undefined;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#clientHost = socket.remoteAddress ?? '';
    this.#frames = new FrameReader({
      maxBytes: options.maxRequestBytes,
      reserve: bytes => this.#takeRequest(bytes),
      memory: options.memory,
    });
    socket.setNoDelay(true);
    socket.setTimeout(options.maxIdleMs, () => {
      if (this.#answers.length === 0) this.close('idle');
    });
    socket.on('data', chunk => this.#receive(chunk));
    socket.on('drain', () => {
      this.#undrained = false;
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
    this.#socket.pause();
    this.#abort.abort(); // long polls end now, with what they have
    if (this.#answers.length === 0) this.#socket.end();
  }

  resume(): void {
    if (this.#draining) return;
    if (this.#frames.reserved > 0) this.#options.budget.beginFrame(this);
    this.#socket.resume();
  }

  /** For the budget: others wait for the memory of a request that does not arrive. */
  giveUp(): void {
    this.#options.logger.warn({ client: this.#clientHost }, 'a request does not arrive while memory is short');
    this.close('its request did not arrive while memory was short');
  }

  #receive(chunk: Buffer): void {
    this.#turnBegan = performance.now();
    try {
      const frames = this.#frames.push(chunk);
      if (frames.length > 0) {
        this.#takeRequest(frames.length * requestOverheadBytes);
        this.#options.budget.release(this);
        this.#queue.push(...frames);
        this.#next();
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#refuse(error);
      return;
    }
    this.#watchFrame();
    this.#pauseIfOver();
  }

  #watchFrame(): void {
    const partial = this.#frames.reserved > 0;
    if (partial) this.#options.budget.beginFrame(this);
    if (partial && this.#frameTimer === undefined) {
      this.#frameTimer = setTimeout(() => this.close('a request did not arrive whole in time'), frameTimeoutMs);
    } else if (!partial && this.#frameTimer !== undefined) {
      clearTimeout(this.#frameTimer);
      this.#frameTimer = undefined;
    }
  }

  #pauseIfOver(): void {
    if (this.#socket.destroyed) return;
    const { budget, maxInFlightBytes } = this.#options;
    // A single frame larger than the bound must still get through, alone.
    const tooMuch = this.#held - this.#frames.reserved > maxInFlightBytes;
    if (tooMuch) {
      this.#socket.pause();
    } else if (budget.over && !budget.excepts(this)) {
      this.#socket.pause();
      budget.pause(this);
    }
  }

  #takeRequest(bytes: number): void {
    this.#held += bytes;
    this.#options.budget.takeRequest(bytes);
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
      this.resume();
      this.#pauseIfOver();
    }
  }

  #next(): void {
    while (this.#queue.length > 0 && this.#ready && !this.#undrained && !this.#draining && !this.#socket.destroyed) {
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
    const { budget, dispatcher, logger, onServed } = this.#options;
    const answer: Answer = { frame, chunks: undefined, done: false, held: undefined, whenSent: undefined };
    this.#answers.push(answer);
    this.#ready = false;
    const readyForNext = () => {
      if (this.#answers.at(-1) !== answer || this.#ready) return;
      this.#ready = true;
      // Not at once: the handler that says so is still on the stack, and its own work comes first.
      queueMicrotask(() => this.#next());
    };
    budget.beginServing();
    const begun = performance.now();
    try {
      const served = await dispatcher.serve(frame, {
        clientHost: this.#clientHost,
        signal: this.#abort.signal,
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
      onServed(served.name, (performance.now() - begun) / 1000);
      answer.chunks = served.chunks;
    } catch (error) {
      if (error instanceof WireError || error instanceof RefusedRequest) {
        this.#refuse(error);
      } else {
        logger.error({ err: error, client: this.#clientHost }, 'a request failed; its connection is closed');
        this.close('a request failed');
      }
    } finally {
      budget.endServing();
    }
    answer.done = true;
    readyForNext();
    this.#flush();
  }

  /** Writes the answers that are done and whose turn it is. */
  #flush(): void {
    this.#socket.cork();
    while (this.#answers[0]?.done) {
      const answer = this.#answers.shift()!;
      this.#releaseRequest(answer);
      let bytes = 0;
      for (const chunk of this.#socket.destroyed ? [] : (answer.chunks ?? [])) {
        bytes += chunk.length;
        this.#socket.write(chunk);
      }
      this.#takeAnswer(bytes);
      const sent = () => {
        this.#giveAnswer(bytes);
        for (const callback of answer.whenSent ?? []) callback();
      };
      if (bytes > 0) this.#socket.write('', sent);
      else sent();
    }
    this.#undrained = this.#hasTooMuchUnsent();
    process.nextTick(() => this.#socket.uncork());
    if (this.#draining && this.#answers.length === 0) this.#socket.end();
  }

  /** Only where 'drain' will follow. */
  #hasTooMuchUnsent(): boolean {
    const { budget, maxInFlightBytes } = this.#options;
    if (!this.#socket.writableNeedDrain) return false;
    return budget.answersOver || this.#socket.writableLength > maxInFlightBytes;
  }

  #releaseRequest({ frame, held }: Answer): void {
    const release = () => {
      this.#giveRequest(frame.length + requestOverheadBytes);
      this.#options.memory.give(frame);
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
    clearTimeout(this.#frameTimer);
    this.#abort.abort();
    const queued = this.#queue.splice(0).reduce((sum, frame) => sum + frame.length + requestOverheadBytes, 0);
    const partial = this.#frames.reserved;
    this.#options.budget.release(this);
    if (queued + partial > 0) this.#giveRequest(queued + partial);
    this.#options.onClosed(this.#reason);
  }
}
