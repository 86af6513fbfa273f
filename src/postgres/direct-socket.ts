// A socket that reads into one buffer again and again. A 'data' event comes with a buffer of its own; at the rate of a
// consumer catching up, that was a full collection every 25 MB (runtime/buffer-pool.ts).
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';

/** What is read from the socket at once. */
const readBytes = 262_144;

export class DirectSocket {
  readonly socket: Socket;
  #receive: (chunk: Buffer) => void;

  constructor() {
    // During login pg listens, and keeps what it gets.
    this.#receive = chunk => this.socket.emit('data', Buffer.from(chunk));
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafeSlow(readBytes),
      callback: (bytes, buffer) => {
        this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
        return true;
      },
    };
    // The constructor takes it as connect() does, which pg calls; its type lacks it.
    this.socket = new Socket({ onread } as SocketConstructorOpts);
  }

  /** `receive` gets every chunk from now on, and must be done with it when it returns. */
  handOver(receive: (chunk: Buffer) => void): void {
    this.#receive = receive;
  }
}
