// A transaction that the server streams before its commit (logical_decoding_work_mem passed): its messages wait here, a
// little in memory and the rest in a file, until it commits or is gone. A subtransaction that is rolled back takes its
// messages with it. Files are worth nothing after a crash: the server sends an open transaction again from its start.
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Lsn } from '../postgres/lsn.ts';

/** Size of the message, its subtransaction, its LSN. */
const frameBytes = 16;
const bufferBytes = 65_536;
const readBytes = 262_144;
const relationType = 0x52;

export class Spool {
  readonly #path: string;
  #buffer = Buffer.alloc(0);
  #at = 0;
  #file: number | undefined;
  #fileBytes = 0;
  readonly #aborted = new Set<number>();

  constructor(path: string) {
    this.#path = path;
  }

  /** On disk. */
  get fileBytes(): number {
    return this.#fileBytes;
  }

  append(subxid: number, walStart: Lsn, bytes: Buffer, start: number, end: number): void {
    const length = end - start;
    if (this.#at + frameBytes + length > this.#buffer.length) this.#makeRoom(frameBytes + length);
    const buffer = this.#buffer;
    buffer.writeUInt32BE(length, this.#at);
    buffer.writeUInt32BE(subxid, this.#at + 4);
    buffer.writeBigUInt64BE(walStart, this.#at + 8);
    bytes.copy(buffer, this.#at + frameBytes, start, end);
    this.#at += frameBytes + length;
  }

  abort(subxid: number): void {
    this.#aborted.add(subxid);
  }

  /**
   * Hands on what has not been rolled back, in order; `bytes` are overwritten after `message` has ended. Descriptions of
   * tables are handed on even if they came in a subtransaction that was rolled back: the server sends them once.
   */
  async replay(
    message: (bytes: Buffer, start: number, end: number, walStart: Lsn) => void | Promise<void>,
  ): Promise<void> {
    /** Of a message that is not whole, at the beginning of the next chunk. */
    let kept = 0;
    const take = async (chunk: Buffer, length: number): Promise<void> => {
      let at = 0;
      while (length - at >= frameBytes) {
        const end = at + frameBytes + chunk.readUInt32BE(at);
        if (end > length) break;
        const start = at + frameBytes;
        if (chunk[start] === relationType || !this.#aborted.has(chunk.readUInt32BE(at + 4))) {
          const waitFor = message(chunk, start, end, chunk.readBigUInt64BE(at + 8));
          if (waitFor) await waitFor;
        }
        at = end;
      }
      chunk.copy(chunk, 0, at, length);
      kept = length - at;
    };
    if (this.#file !== undefined) {
      const file = await open(this.#path, 'r');
      try {
        let chunk = Buffer.allocUnsafe(readBytes);
        for (let position = 0; position < this.#fileBytes; ) {
          const wanted = kept >= frameBytes ? chunk.readUInt32BE(0) + frameBytes : 0;
          if (Math.max(wanted, kept + 1) > chunk.length) {
            const larger = Buffer.allocUnsafe(wanted);
            chunk.copy(larger, 0, 0, kept);
            chunk = larger;
          }
          const { bytesRead } = await file.read(chunk, kept, chunk.length - kept, position);
          if (bytesRead === 0) throw new Error(`${this.#path} is shorter than what was written to it`);
          position += bytesRead;
          await take(chunk, kept + bytesRead);
        }
      } finally {
        await file.close();
      }
    }
    if (kept > 0) throw new Error(`${this.#path} ends within a message`);
    await take(this.#buffer, this.#at);
  }

  discard(): void {
    if (this.#file === undefined) return;
    closeSync(this.#file);
    this.#file = undefined;
    rmSync(this.#path, { force: true });
  }

  #makeRoom(needed: number): void {
    if (this.#at > 0 && this.#buffer.length >= bufferBytes) {
      // What does not fit waits in the page cache: a write of this size takes 30 µs, and nothing is read meanwhile.
      this.#file ??= openSync(this.#path, 'w', 0o600);
      for (let written = 0; written < this.#at; ) {
        written += writeSync(this.#file, this.#buffer, written, this.#at - written);
      }
      this.#fileBytes += this.#at;
      this.#at = 0;
    }
    if (this.#at + needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(
      Math.max(this.#at + needed, Math.min(bufferBytes, this.#buffer.length * 4 || 1024)),
    );
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }
}
