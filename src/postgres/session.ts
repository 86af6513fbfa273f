// One connection that speaks the Postgres protocol (manual, chapter "Frontend/Backend Protocol") in bytes, for
// the log's writers and readers. pg does the login and TLS; then the socket is ours, because pg hands out
// text and refuses to pipeline COPY. Two things are done here that pg cannot do:
//  - a whole transaction, COPY data included, goes out in one write and costs one round trip;
//  - result values are subarrays of what came off the socket, so stored batches reach a consumer uncopied.
// Requests may be pipelined: each ends in one ReadyForQuery, and answers come in order.
import type { Socket } from 'node:net';
import type { BufferPool } from '../runtime/buffer-pool.ts';
import { type LoggedIn, logIn } from './client.ts';
import type { CopyPayload } from './copy.ts';
import { settleSession } from './session-settings.ts';

/** An ErrorResponse of the server; `code` is the SQLSTATE. */
export class PostgresError extends Error {
  override name = 'PostgresError';
  readonly code: string;
  readonly detail: string | undefined;

  constructor(message: string, code: string, detail: string | undefined) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

/** The connection ended before the answer came: whether a COMMIT took place is not known. */
export class ConnectionLostError extends Error {
  override name = 'ConnectionLostError';
}

export type Row = readonly (Buffer | null)[];

export interface Result {
  readonly rows: readonly Row[];
  /** Says that the rows' bytes are needed no more; not calling it only costs their memory's reuse. */
  release(): void;
}

interface Request {
  readonly rows: Row[];
  /** Messages that arrived in pieces and so in blocks of their own. */
  readonly blocks: Buffer[];
  error: PostgresError | undefined;
  resolve(result: Result): void;
  reject(error: Error): void;
}

export interface SessionOptions {
  readonly applicationName: string;
  /** Called once, when the connection has ended without `end()` having been called. */
  readonly onLost?: (error: ConnectionLostError) => void;
  /** Where the memory of large rows comes from; the collector's without it. */
  readonly memory?: BufferPool;
}

const maxPrepared = 256;

const dataRow = 0x44;

/** What is read from the socket at once. */
const readBytes = 262_144;

export class Session {
  /** The backend's, which is not what the login tells where a pooler is between. */
  readonly processId: number;
  readonly #socket: Socket;
  readonly #onLost: SessionOptions['onLost'];
  readonly #memory: BufferPool | undefined;
  readonly #waiting: Request[] = [];
  readonly #prepared = new Map<string, string>();
  #nextStatement = 0;
  #ended = false;
  #lost: ConnectionLostError | undefined;
  // A message that did not arrive whole: its buffer and how much of it is filled, or fewer than 5 header bytes.
  #partial: Buffer | undefined;
  #filled = 0;

  /** Whether what #receive is given is overwritten by the next read. */
  readonly #reusesChunks: boolean;

  private constructor(login: LoggedIn, processId: number, { onLost, memory }: SessionOptions) {
    this.processId = processId;
    this.#onLost = onLost;
    this.#memory = memory;
    this.#reusesChunks = login.reusesChunks;
    const socket = login.takeOver(chunk => this.#receive(chunk));
    this.#socket = socket;
    socket.on('error', error => this.#lose(error.message));
    socket.on('close', () => this.#lose('the connection was closed'));
    socket.setNoDelay(true);
  }

  static async open(databaseUrl: string, options: SessionOptions): Promise<Session> {
    const login = await logIn(
      databaseUrl,
      { application_name: options.applicationName, connectionTimeoutMillis: 10_000, keepAlive: true },
      readBytes,
    );
    const { rows } = await login.client.query<{ pid: number }>(settleSession).catch(async (error: unknown) => {
      await login.client.end().catch(() => {});
      throw error;
    });
    return new Session(login, rows[0]!.pid, options);
  }

  get lost(): boolean {
    return this.#lost !== undefined || this.#ended;
  }

  /**
   * Runs the statements of `sql` as one simple query. Each COPY … FROM STDIN (FORMAT binary) in it takes the
   * next of `copies`; their data is sent at once, without waiting for CopyInResponse: the server discards
   * it when an earlier statement failed.
   */
  async execute(sql: string, copies: readonly CopyPayload[] = []): Promise<void> {
    await this.#request(() => {
      const length = Buffer.byteLength(sql);
      const query = Buffer.allocUnsafe(length + 6);
      query[0] = 0x51; // Query
      query.writeInt32BE(length + 5, 1);
      query.write(sql, 5);
      query[length + 5] = 0;
      this.#socket.write(query);
      for (const copy of copies) for (const chunk of copy.chunks) this.#socket.write(chunk);
    });
  }

  /** Runs a prepared statement (prepared on first use), parameters as text, results in binary. */
  query(sql: string, parameters: readonly (string | number | bigint | null)[]): Promise<Result> {
    return this.#request(() => {
      let name = this.#prepared.get(sql);
      if (name === undefined) {
        name = `s${this.#nextStatement++}`;
        this.#parse(name, sql);
      } else {
        this.#prepared.delete(sql); // and back in below, as the most recently used
      }
      this.#prepared.set(sql, name);
      this.#bindAndExecute(name, parameters);
      if (this.#prepared.size > maxPrepared) {
        const [oldSql, oldName] = this.#prepared.entries().next().value!;
        this.#prepared.delete(oldSql);
        this.#send(0x43, Buffer.from(`S${oldName}\0`)); // Close; answered by CloseComplete, which is ignored
      }
      this.#send(0x53, Buffer.alloc(0)); // Sync
    }).catch((error: unknown) => {
      this.#prepared.delete(sql); // Parse may be what failed; a statement left behind costs its name only
      throw error;
    });
  }

  /** Ends the connection once everything asked has been answered. */
  async end(): Promise<void> {
    if (this.lost) return;
    this.#ended = true;
    const closed = new Promise<void>(resolve => this.#socket.once('close', resolve));
    this.#socket.end(Buffer.from([0x58, 0, 0, 0, 4])); // Terminate
    await closed;
  }

  /** Cuts the connection at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  #request(send: () => void): Promise<Result> {
    if (this.#lost || this.#ended)
      return Promise.reject(this.#lost ?? new ConnectionLostError('the session has ended'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ rows: [], blocks: [], error: undefined, resolve, reject });
      this.#socket.cork();
      send();
      this.#socket.uncork();
    });
  }

  #send(type: number, body: Buffer): void {
    const head = Buffer.allocUnsafe(5);
    head[0] = type;
    head.writeInt32BE(body.length + 4, 1);
    this.#socket.write(head);
    if (body.length > 0) this.#socket.write(body);
  }

  #parse(name: string, sql: string): void {
    this.#send(0x50, Buffer.from(`${name}\0${sql}\0\0\0`)); // no parameter types given
  }

  #bindAndExecute(name: string, parameters: readonly (string | number | bigint | null)[]): void {
    const parts: Buffer[] = [Buffer.from(`\0${name}\0`), int16(0), int16(parameters.length)];
    for (const parameter of parameters) {
      if (parameter === null) {
        parts.push(int32(-1));
      } else {
        const text = Buffer.from(String(parameter));
        parts.push(int32(text.length), text);
      }
    }
    parts.push(int16(1), int16(1)); // every result column in binary
    this.#send(0x42, Buffer.concat(parts));
    this.#send(0x45, Buffer.from([0, 0, 0, 0, 0])); // Execute the unnamed portal, all rows
  }

  #receive(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#partial === undefined) {
        const left = chunk.length - at;
        const size = left >= 5 ? chunk.readInt32BE(at + 1) + 1 : 5;
        if (left >= 5 && left >= size && !(this.#reusesChunks && chunk[at] === dataRow)) {
          this.#message(chunk[at]!, chunk.subarray(at + 5, at + size));
          at += size;
          continue;
        }
        this.#partial = this.#allocate(size);
        this.#filled = 0;
      }
      const copied = chunk.copy(this.#partial, this.#filled, at, at + this.#partial.length - this.#filled);
      at += copied;
      this.#filled += copied;
      if (this.#filled < this.#partial.length) return;
      const size = this.#partial.readInt32BE(1) + 1;
      if (size > this.#partial.length) {
        // Only the header was there; now the message's size is known.
        const whole = this.#allocate(size);
        this.#partial.copy(whole);
        this.#partial = whole;
        continue;
      }
      const message = this.#partial;
      this.#partial = undefined;
      this.#waiting[0]?.blocks.push(message);
      this.#message(message[0]!, message.subarray(5));
    }
  }

  #allocate(bytes: number): Buffer {
    return this.#memory?.take(bytes) ?? Buffer.allocUnsafe(bytes);
  }

  #message(type: number, body: Buffer): void {
    const request = this.#waiting[0];
    if (type === dataRow && request) {
      request.rows.push(parseDataRow(body));
    } else if (type === 0x45 && request) {
      request.error ??= parseError(body);
    } else if (type === 0x5a && request) {
      this.#waiting.shift();
      if (request.error) request.reject(request.error);
      else request.resolve({ rows: request.rows, release: () => this.#release(request.blocks) });
    }
    // Everything else (ParseComplete, CommandComplete, CopyInResponse, notices, parameter status) says nothing
    // that ReadyForQuery does not settle. A FATAL error outside a request is followed by the socket's close.
  }

  #release(blocks: Buffer[]): void {
    for (const block of blocks.splice(0)) this.#memory?.give(block);
  }

  #lose(reason: string): void {
    if (this.#lost) return;
    const request = this.#waiting[0];
    const said = request?.error ? ` (${request.error.message})` : '';
    this.#lost = new ConnectionLostError(`lost the connection to Postgres: ${reason}${said}`);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#lost);
    this.#socket.destroy();
    if (!this.#ended) this.#onLost?.(this.#lost);
  }
}

function parseDataRow(body: Buffer): Row {
  const row: (Buffer | null)[] = new Array(body.readInt16BE(0));
  let at = 2;
  for (let i = 0; i < row.length; i++) {
    const length = body.readInt32BE(at);
    at += 4;
    row[i] = length < 0 ? null : body.subarray(at, at + length);
    if (length > 0) at += length;
  }
  return row;
}

export function parseError(body: Buffer): PostgresError {
  const fields = new Map<string, string>();
  for (let at = 0; body[at] !== 0 && at < body.length; ) {
    const end = body.indexOf(0, at + 1);
    fields.set(String.fromCharCode(body[at]!), body.toString('utf8', at + 1, end));
    at = end + 1;
  }
  return new PostgresError(fields.get('M') ?? 'unknown error', fields.get('C') ?? '', fields.get('D'));
}

function int16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeInt32BE(value);
  return bytes;
}
