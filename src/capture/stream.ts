// One replication stream into one outlet: transactions as they were committed, each change in its topic once.
//
//   begin … changes … commit              appended as they come: the server sends only what has committed
//   stream start … stop (uncommitted)     into a spool, until stream commit replays it or stream abort drops it
//   keepalive                             with nothing pending, what the server has passed over is confirmed
//
// What the server may forget is written to kafka.captures first (progress), then confirmed; never the other way round.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Lsn, noLsn } from '../postgres/lsn.ts';
import { type Message, PgOutputDecoder, PgOutputError, protocolVersion, type Relation } from '../postgres/pgoutput.ts';
import { ReplicationConnection } from '../postgres/replication.ts';
import { ChangeHeaders } from './change-headers.ts';
import type { TransactionInfo } from './envelope.ts';
import type { Outlet } from './outlet.ts';
import { type Source, setPrinting } from './source.ts';
import { Spool } from './spool.ts';

/** What becomes of decoded changes; called in commit order. A promise holds up everything after it. */
export interface ChangeHandler {
  relation(relation: Relation): Promise<void>;
  begin(transaction: TransactionInfo): void;
  /** A row, truncate or logical message; `ordinal` counts them in the transaction. */
  change(message: Message, transaction: Transaction, ordinal: number, walStart: Lsn): void | Promise<void>;
  /** After the last of its `changes`. */
  commit(transaction: Transaction, changes: number, endLsn: Lsn): void;
}

export interface Transaction extends TransactionInfo {
  /** ms since the Unix epoch. */
  readonly commitMs: number;
  readonly headers: ChangeHeaders;
}

export interface StreamOptions {
  readonly sourceUrl: string;
  readonly source: Source;
  readonly slot: string;
  readonly publication: string;
  readonly from: Lsn;
  readonly outlet: Outlet;
  readonly handler: ChangeHandler;
  /** Where transactions in progress are kept; made and emptied by the owner. */
  readonly spoolDirectory: string;
  /** Makes it durable that everything before `lsn` is in the log. */
  readonly saveProgress: (lsn: Lsn) => Promise<void>;
  /** Called once, however it ends but for `stop`. */
  readonly onEnd: (error: Error) => void;
}

export interface StreamCounters {
  transactions: number;
  changes: number;
  spooledBytes: number;
  /** Commit time of the newest transaction seen, ms. */
  newestCommitMs: number;
}

/** Appends under way, bytes: past the first nothing is read, until it is below the second. */
const pauseAbove = 8 * 1024 * 1024;
const resumeBelow = 4 * 1024 * 1024;
const progressEveryMs = 500;
/** An idle source's WAL is let go of in steps, each of which writes a row. */
const idleStep = 1_048_576n;
const idleEveryMs = 60_000;

export class ChangeStream {
  readonly #options: StreamOptions;
  readonly #decoder = new PgOutputDecoder();
  readonly #spools = new Map<number, Spool>();
  readonly #headers = new ChangeHeaders();
  readonly counters: StreamCounters = { transactions: 0, changes: 0, spooledBytes: 0, newestCommitMs: 0 };
  #connection: ReplicationConnection | undefined;
  #transaction: Transaction | undefined;
  #ordinal = 0;
  #previousEnd: Lsn = noLsn;
  /** Of the transaction that is being streamed. */
  #streaming: Spool | undefined;
  #saved: Lsn;
  #savedAt = Date.now();
  #saving: Promise<void> = Promise.resolve();
  #recordsSaved = 0;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#saved = options.from;
  }

  /** What the slot has been told, or is about to be. */
  get confirmed(): Lsn {
    return this.#saved;
  }

  async start(): Promise<void> {
    const { sourceUrl, slot, publication, from, source } = this.#options;
    const connection = await ReplicationConnection.open(sourceUrl, 'millrace capture');
    this.#connection = connection;
    let walSenderTimeoutMs: number;
    try {
      await connection.command(setPrinting);
      // A machine that vanished keeps its slot until TCP gives up on it: within ten seconds.
      await connection.command(
        `SELECT set_config('tcp_keepalives_idle', '4', false), set_config('tcp_keepalives_interval', '2', false),
                set_config('tcp_keepalives_count', '2', false)`,
      );
      const [row] = await connection.command<{ ms: number }>(
        `SELECT setting::int AS ms FROM pg_settings WHERE name = 'wal_sender_timeout'`,
      );
      walSenderTimeoutMs = row!.ms;
    } catch (error) {
      connection.destroy();
      throw error;
    }
    const protocol = protocolVersion(source.version);
    const options: Record<string, string> = {
      proto_version: String(protocol),
      publication_names: `"${publication.replaceAll('"', '""')}"`,
      messages: 'true',
    };
    if (protocol >= 2) options.streaming = 'on';
    await connection.start(
      { slot, from, options, walSenderTimeoutMs },
      {
        onMessage: (bytes, start, end, walStart) => this.#message(bytes, start, end, walStart),
        onKeepalive: walEnd => this.#keepalive(walEnd),
        onDrained: () => this.#drained(),
        onEnd: error => this.#fail(error),
      },
    );
    if (!this.#ended) this.#timer = setInterval(() => this.#progress(), progressEveryMs);
  }

  /** Appends what has come, confirms it, and lets the slot go. */
  async stop(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    const connection = this.#connection;
    connection?.pause();
    await this.#options.outlet.settled();
    this.#options.outlet.abandon();
    await this.#saving;
    await this.#save(this.#options.outlet.durable).catch(() => {}); // the next start reads from a little earlier
    await connection?.end();
    this.#discardSpools();
  }

  /** Ends at once; everything not in the log comes again. */
  fail(error: Error): void {
    this.#fail(error);
  }

  #fail(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    this.#options.outlet.abandon();
    this.#connection?.destroy();
    this.#discardSpools();
    this.#options.onEnd(error);
  }

  #discardSpools(): void {
    for (const spool of this.#spools.values()) spool.discard();
    this.#spools.clear();
  }

  #message(bytes: Buffer, start: number, end: number, walStart: Lsn): void | Promise<void> {
    if (this.#ended) return undefined;
    const type = bytes[start];
    if (this.#streaming !== undefined && type !== 0x45) {
      // In a stream block every message has its subtransaction's id after its type.
      this.#streaming.append(bytes.readUInt32BE(start + 1), walStart, bytes, start, end);
      this.counters.spooledBytes += end - start;
      return undefined;
    }
    const message = this.#decoder.read(bytes, start, end);
    switch (message.kind) {
      case 'begin':
        this.#begin(message.finalLsn, message.timestamp, message.xid);
        return undefined;
      case 'commit':
        this.#commit(message.endLsn);
        return undefined;
      case 'streamStart':
        this.#streaming = this.#spoolOf(message.xid);
        return undefined;
      case 'streamStop':
        this.#streaming = undefined;
        return undefined;
      case 'streamAbort':
        this.#abort(message.xid, message.subxid);
        return undefined;
      case 'streamCommit':
        return this.#replay(message.xid, message.commitLsn, message.endLsn, message.timestamp);
      case 'message':
        if (!message.transactional) return this.#nonTransactional(message, walStart);
        return this.#change(message, walStart);
      default:
        return this.#change(message, walStart);
    }
  }

  #change(message: Message, walStart: Lsn): void | Promise<void> {
    switch (message.kind) {
      case 'insert':
      case 'update':
      case 'delete':
      case 'truncate':
      case 'message': {
        const transaction = this.#transaction;
        if (transaction === undefined) throw new PgOutputError(`a ${message.kind} outside of a transaction`);
        const ordinal = this.#ordinal++;
        this.counters.changes++;
        return this.#options.handler.change(message, transaction, ordinal, walStart);
      }
      case 'relation':
        return this.#options.handler.relation(message);
      case 'type':
      case 'origin':
        return undefined;
      default:
        throw new PgOutputError(`a ${message.kind} message, which was not asked for`);
    }
  }

  #begin(commitLsn: Lsn, commitMicros: bigint, xid: number | null): void {
    this.#headers.begin(commitLsn);
    const commitMs = Number(commitMicros / 1000n);
    this.#transaction = {
      commitLsn,
      commitMicros,
      xid,
      previousEnd: this.#previousEnd,
      commitMs,
      headers: this.#headers,
    };
    this.#ordinal = 0;
    this.counters.newestCommitMs = commitMs;
    this.#options.handler.begin(this.#transaction);
  }

  #commit(endLsn: Lsn): void {
    if (this.#transaction !== undefined) this.#options.handler.commit(this.#transaction, this.#ordinal, endLsn);
    this.#transaction = undefined;
    this.#previousEnd = endLsn;
    this.counters.transactions++;
    this.#options.outlet.ended(endLsn);
  }

  /** A message of its own: its LSN takes the place of a commit's. It lies before the commits that come after it. */
  #nonTransactional(message: Message & { kind: 'message' }, walStart: Lsn): void | Promise<void> {
    this.#begin(message.lsn, BigInt(Date.now()) * 1000n, null);
    const waitFor = this.#change(message, walStart);
    const done = () => {
      this.#transaction = undefined;
    };
    if (waitFor) return waitFor.then(done);
    done();
    return undefined;
  }

  #spoolOf(xid: number): Spool {
    let spool = this.#spools.get(xid);
    if (spool === undefined) {
      spool = new Spool(join(this.#options.spoolDirectory, `${xid}.spool`));
      this.#spools.set(xid, spool);
    }
    return spool;
  }

  #abort(xid: number, subxid: number): void {
    const spool = this.#spools.get(xid);
    if (xid !== subxid) {
      spool?.abort(subxid);
      return;
    }
    spool?.discard();
    this.#spools.delete(xid);
  }

  async #replay(xid: number, commitLsn: Lsn, endLsn: Lsn, commitMicros: bigint): Promise<void> {
    const { outlet } = this.#options;
    const spool = this.#spools.get(xid);
    this.#begin(commitLsn, commitMicros, xid);
    if (spool !== undefined) {
      const decoder = new PgOutputDecoder(true);
      await spool.replay((bytes, start, end, walStart) => {
        if (this.#ended) throw new Error('the capture is stopping');
        const waitFor = this.#change(decoder.read(bytes, start, end), walStart);
        if (waitFor) return waitFor;
        if (outlet.inFlightBytes < pauseAbove) return undefined;
        return outlet.room(resumeBelow);
      });
      spool.discard();
      this.#spools.delete(xid);
    }
    this.#commit(endLsn);
  }

  #drained(): void {
    const { outlet } = this.#options;
    outlet.flush();
    if (outlet.inFlightBytes < pauseAbove) return;
    this.#connection!.pause();
    void outlet.room(resumeBelow).then(() => {
      if (!this.#ended) this.#connection!.resume();
    });
  }

  #keepalive(walEnd: Lsn): void {
    const { outlet } = this.#options;
    if (this.#transaction !== undefined || !outlet.idle) return;
    outlet.ended(walEnd);
    outlet.flush();
  }

  /** Off the data path: what is durable by now is noted, then the slot is told. */
  #progress(): void {
    const { outlet } = this.#options;
    const { durable, records } = outlet;
    if (durable <= this.#saved) return;
    const idle = records === this.#recordsSaved;
    if (idle && durable - this.#saved < idleStep && Date.now() - this.#savedAt < idleEveryMs) return;
    this.#recordsSaved = records;
    this.#saving = this.#saving.then(() => this.#save(durable)).catch((error: Error) => this.#fail(error));
  }

  async #save(lsn: Lsn): Promise<void> {
    if (lsn <= this.#saved) return;
    await this.#options.saveProgress(lsn);
    this.#saved = lsn;
    this.#savedAt = Date.now();
    this.#connection?.confirm(lsn);
  }
}

export function emptySpoolDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
