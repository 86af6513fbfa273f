// A connection to a walsender (manual, "Streaming Replication Protocol"). pg does the login and TLS; after
// START_REPLICATION the socket is ours: what arrives is handed on in place, every keepalive that asks is answered at
// once with the position last confirmed, and the confirmation goes out by the clock too, so that a reader that has
// been paused for hours is not taken for dead (wal_sender_timeout).
import type { Socket } from 'node:net';
import type pg from 'pg';
import { type ClientOptions, type LoggedIn, logIn } from './client.ts';
import { formatLsn, type Lsn, noLsn } from './lsn.ts';
import { ConnectionLostError, type PostgresError, parseError } from './session.ts';

export interface ReplicationHandlers {
  /**
   * A message of the plugin: `bytes` from `start` to `end`, overwritten when this returns. Where it returns a promise,
   * the next message waits for it. What it throws or rejects with ends the connection.
   */
  readonly onMessage: (bytes: Buffer, start: number, end: number, walStart: Lsn) => void | Promise<void>;
  /** Everything up to `walEnd` has been sent. */
  readonly onKeepalive: (walEnd: Lsn) => void;
  /** Everything that had arrived has been handed on. */
  readonly onDrained: () => void;
  /** Called once, however it ends, but for `end()`. */
  readonly onEnd: (error: Error) => void;
}

export interface StartOptions {
  readonly slot: string;
  /** Where to begin; the server begins at the slot's confirmed position if that is later. */
  readonly from: Lsn;
  /** The plugin's; names and values are put into the command in quotes. */
  readonly options: Readonly<Record<string, string>>;
  /** The server's: it takes for dead who has said nothing for that long, ms; 0 for ever. */
  readonly walSenderTimeoutMs: number;
}

/** Or a third of wal_sender_timeout, if that is less. */
const confirmEveryMs = 2000;
/** pg's microseconds count from the year 2000. */
const epochMs = 946_684_800_000;
const headBytes = 5;
const copyData = 0x64;
/** What is read from the socket at once. */
const readBytes = 262_144;

/** pg knows the startup parameter, its types do not. */
interface ReplicationOptions extends ClientOptions {
  replication: 'database';
}

export class ReplicationConnection {
  readonly #login: LoggedIn;
  #handlers: ReplicationHandlers | undefined;
  #socket: Socket | undefined;
  /** Everything before this may be forgotten by the server. */
  #confirmed: Lsn = noLsn;
  #confirmationSent = false;
  /** How far the server has come with sending. */
  #received: Lsn = noLsn;
  /** What came after a message that is being waited for. */
  #held: Buffer[] | undefined;
  #paused = false;
  #timer: NodeJS.Timeout | undefined;
  #partial: Buffer | undefined;
  #filled = 0;
  /** Of what was read from last. */
  #view: DataView = new DataView(new ArrayBuffer(0));
  #ended = false;
  #error: PostgresError | undefined;
  #started: { resolve(): void; reject(error: Error): void } | undefined;

  private constructor(login: LoggedIn) {
    this.#login = login;
  }

  /** Logged in as a walsender of the URL's database. The role needs REPLICATION. */
  static async open(databaseUrl: string, applicationName: string): Promise<ReplicationConnection> {
    const options: ReplicationOptions = {
      application_name: applicationName,
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
      replication: 'database',
    };
    return new ReplicationConnection(await logIn(databaseUrl, options, readBytes));
  }

  /** A replication command or a simple query, before `start`. */
  async command<T extends pg.QueryResultRow>(sql: string): Promise<T[]> {
    return (await this.#login.client.query<T>(sql)).rows;
  }

  /**
   * Begins to stream; resolves once the server does. Refusals (the slot is in use, or gone) reject it, as PostgresError,
   * and come through `onEnd` too.
   */
  start(options: StartOptions, handlers: ReplicationHandlers): Promise<void> {
    this.#handlers = handlers;
    const started = new Promise<void>((resolve, reject) => {
      this.#started = { resolve, reject };
    });
    const socket = this.#login.takeOver(chunk => this.#receive(chunk));
    this.#socket = socket;
    socket.on('error', error =>
      this.#end(new ConnectionLostError(`lost the replication connection: ${error.message}`)),
    );
    socket.on('close', () => this.#end(new ConnectionLostError('the replication connection was closed')));
    socket.setNoDelay(true);
    this.#confirmed = options.from;
    const plugin = Object.entries(options.options).map(([name, value]) => `${name} '${value.replaceAll("'", "''")}'`);
    const sql = `START_REPLICATION SLOT ${quoteIdentifier(options.slot)} LOGICAL ${formatLsn(options.from)} (${plugin.join(', ')})`;
    const length = Buffer.byteLength(sql);
    const query = Buffer.allocUnsafe(length + 6);
    query[0] = 0x51; // Query
    query.writeInt32BE(length + 5, 1);
    query.write(sql, headBytes);
    query[length + 5] = 0;
    socket.write(query);
    const patience = options.walSenderTimeoutMs > 0 ? options.walSenderTimeoutMs / 3 : confirmEveryMs;
    this.#timer = setInterval(() => this.#sendStatus(), Math.min(confirmEveryMs, patience));
    return started;
  }

  /** `lsn` is durable wherever it goes: the server may forget what is before it. Never goes back. */
  confirm(lsn: Lsn): void {
    if (lsn <= this.#confirmed) return;
    this.#confirmed = lsn;
    this.#confirmationSent = false;
    this.#sendStatus();
  }

  get confirmed(): Lsn {
    return this.#confirmed;
  }

  /** Reads no more until `resume`; what has been read already is still handed on. */
  pause(): void {
    this.#paused = true;
    this.#socket?.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#held === undefined) this.#socket?.resume();
  }

  /** Confirms what there is to confirm, and says goodbye. */
  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#started?.reject(new ConnectionLostError('the replication connection was ended'));
    clearInterval(this.#timer);
    const socket = this.#socket;
    if (socket === undefined) {
      await this.#login.client.end().catch(() => {});
      return;
    }
    if (socket.destroyed) return;
    const closed = new Promise<void>(resolve => socket.once('close', () => resolve()));
    this.#sendStatus();
    // A walsender in the middle of a transaction reads our CopyDone only when its buffer is full, so the connection is
    // cut once the status is written.
    socket.write(Buffer.from([0x63, 0, 0, 0, 4]), () => socket.destroy());
    await closed;
  }

  destroy(): void {
    this.#ended = true;
    this.#started?.reject(new ConnectionLostError('the replication connection was ended'));
    clearInterval(this.#timer);
    if (this.#socket) this.#socket.destroy();
    else void this.#login.client.end().catch(() => {});
  }

  #end(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    this.#socket?.destroy();
    this.#started?.reject(this.#error ?? error);
    this.#handlers?.onEnd(this.#error ?? error);
  }

  /**
   * Written: what has arrived. Flushed, which the slot goes by: what is confirmed, or nothing when that is known already:
   * a server that shuts down waits for its last byte to be flushed, or written if no flush is told, and what we confirm
   * may be kept in that very server.
   */
  #sendStatus(): void {
    const socket = this.#socket;
    if (!socket?.writable) return;
    const flushed = this.#confirmationSent && this.#received > this.#confirmed ? noLsn : this.#confirmed;
    this.#confirmationSent = true;
    const status = Buffer.allocUnsafe(39);
    status[0] = copyData;
    status.writeInt32BE(38, 1);
    status[5] = 0x72; // Standby status update
    let written = this.#received;
    if (written < this.#confirmed) written = this.#confirmed;
    status.writeBigUInt64BE(written, 6);
    status.writeBigUInt64BE(flushed, 14);
    status.writeBigUInt64BE(flushed, 22); // applied
    status.writeBigInt64BE(BigInt(Date.now() - epochMs) * 1000n, 30);
    status[38] = 0; // no reply wanted
    socket.write(status);
  }

  #receive(chunk: Buffer): void {
    if (this.#ended) return;
    if (this.#held) {
      this.#held.push(Buffer.from(chunk));
      return;
    }
    let at = 0;
    while (at < chunk.length) {
      let waitFor: void | Promise<void>;
      if (this.#partial === undefined) {
        const left = chunk.length - at;
        const size = left >= headBytes ? chunk.readInt32BE(at + 1) + 1 : headBytes;
        if (left >= headBytes && left >= size) {
          waitFor = this.#message(chunk, at, at + size);
          at += size;
        } else {
          this.#partial = Buffer.allocUnsafe(size);
          this.#filled = 0;
          continue;
        }
      } else {
        const copied = chunk.copy(this.#partial, this.#filled, at, at + this.#partial.length - this.#filled);
        at += copied;
        this.#filled += copied;
        if (this.#filled < this.#partial.length) break;
        const size = this.#partial.readInt32BE(1) + 1;
        if (size > this.#partial.length) {
          // Only the head was there; now the message's size is known.
          const whole = Buffer.allocUnsafe(size);
          this.#partial.copy(whole);
          this.#partial = whole;
          continue;
        }
        const message = this.#partial;
        this.#partial = undefined;
        waitFor = this.#message(message, 0, message.length);
      }
      if (this.#ended) return;
      if (waitFor) {
        void this.#hold(waitFor, chunk.subarray(at));
        return;
      }
    }
    this.#handlers!.onDrained();
  }

  /** Nothing is copied: a socket that is paused does not read, so nothing overwrites the message or what is after it. */
  async #hold(waitFor: Promise<void>, rest: Buffer): Promise<void> {
    this.#held = [rest];
    this.#socket!.pause();
    try {
      await waitFor;
    } catch (error) {
      this.#end(error as Error);
      return;
    }
    const held: Buffer[] = this.#held;
    this.#held = undefined;
    while (held.length > 0 && this.#held === undefined) this.#receive(held.shift()!);
    // It is waiting again, and what is left comes after what it has put aside.
    (this.#held as Buffer[] | undefined)?.push(...held);
    if (this.#held === undefined && !this.#paused) this.#socket!.resume();
  }

  /** Reading a bigint of a DataView takes a third of the time that it takes of a Buffer. */
  #viewOf(bytes: Buffer): DataView {
    if (this.#view.buffer !== bytes.buffer) this.#view = new DataView(bytes.buffer);
    return this.#view;
  }

  #message(bytes: Buffer, start: number, end: number): void | Promise<void> {
    const type = bytes[start];
    const body = start + headBytes;
    if (type === copyData) {
      const kind = bytes[body];
      if (kind === 0x77) {
        const walStart = this.#viewOf(bytes).getBigUint64(bytes.byteOffset + body + 1);
        if (walStart > this.#received) this.#received = walStart;
        try {
          return this.#handlers!.onMessage(bytes, body + 25, end, walStart);
        } catch (error) {
          this.#end(error as Error);
        }
      } else if (kind === 0x6b) {
        this.#received = bytes.readBigUInt64BE(body + 1);
        this.#handlers!.onKeepalive(this.#received);
        if (bytes[body + 17] === 1) this.#sendStatus();
      }
    } else if (type === 0x45) {
      this.#error ??= parseError(bytes.subarray(body, end));
    } else if (type === 0x57) {
      this.#started?.resolve(); // CopyBothResponse
    } else if (type === 0x63) {
      // CopyDone: the server is shutting down and has sent everything.
      this.#socket!.write(Buffer.from([0x63, 0, 0, 0, 4]));
    } else if (type === 0x5a) {
      this.#end(this.#error ?? new ConnectionLostError('the server ended the stream'));
    }
    return undefined;
  }
}

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
