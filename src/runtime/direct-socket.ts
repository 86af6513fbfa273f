// Sockets that read into one buffer again and again. A 'data' event comes with 64 KiB of memory of its own, however
// little was read; at the rate of a busy client the collector then spends a third of the process's time on it, with
// pauses of tens of milliseconds, and malloc's heap stays as large as it ever was.
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';

/** Is given what was read; the bytes are overwritten by the next read, of any socket, so what is to stay is copied. */
export type Receive = (chunk: Buffer) => void;

/** What is read at once, in bytes. */
const readBytes = 65_536;
/** Reading and receiving happen in one turn, one socket after the other: all accepted sockets share it. */
const shared = Buffer.allocUnsafeSlow(readBytes);

/** A socket to connect with, which reads up to `bytes` at once. */
export function directSocket(bytes: number, receive: Receive): Socket {
  // The constructor takes what connect() does; its type lacks it.
  return new Socket({ onread: readInto(Buffer.allocUnsafeSlow(bytes), receive) } as SocketConstructorOpts);
}

/**
 * Takes over the connection of `accepted`, which is of a server with `pauseOnConnect`, and begins to read. A server has
 * no option for this, so the handle is moved to a socket that has it, as Node's own server makes one; should a version
 * of Node not have what that needs, the socket's events bring the same bytes.
 */
export function takeOver(accepted: Socket, receive: Receive): Socket {
  const inner = accepted as unknown as { _handle?: { useUserBuffer?: unknown } | null };
  const handle = inner._handle;
  if (typeof handle?.useUserBuffer !== 'function') {
    accepted.on('data', receive);
    return accepted.resume();
  }
  inner._handle = null;
  accepted.destroy();
  return new Socket({ handle, onread: readInto(shared, receive) } as SocketConstructorOpts);
}

function readInto(buffer: Buffer, receive: Receive): OnReadOpts {
  return {
    buffer,
    callback: bytes => {
      receive(buffer.subarray(0, bytes));
      return true;
    },
  };
}
