// The data directory: who holds it, and what lies where in it. One Millrace at a time: it holds the directory by
// listening on a socket in it, which the kernel closes with the process, whatever kills it.
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, lstatSync, mkdirSync, statSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeOf, messageOf, OperationalError } from '../runtime/errors.ts';
import type { Owner } from './embedded-owner.ts';

/** sockaddr_un holds 108 bytes on Linux, 104 on macOS; the longest name is .s.PGSQL.65535.lock. */
const maxDirectoryBytes = 80;

export interface DataDirectory {
  readonly path: string;
  /** PostgreSQL's own directory. */
  readonly cluster: string;
  readonly sockets: string;
  readonly passwordFile: string;
  readonly portFile: string;
  readonly logFile: string;
}

export function openDataDirectory(path: string): DataDirectory {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const directory = {
      path,
      cluster: join(path, 'postgres'),
      sockets: socketDirectory(path),
      passwordFile: join(path, 'password'),
      portFile: join(path, 'port'),
      logFile: join(path, 'postgres.log'),
    };
    mkdirSync(directory.sockets, { recursive: true, mode: 0o700 });
    return directory;
  } catch (error) {
    throw unusable(path, error);
  }
}

/** The sockets lie in the data directory, or in the temporary one when their paths would be too long. */
function socketDirectory(path: string): string {
  const inside = join(path, 'run');
  if (Buffer.byteLength(inside) <= maxDirectoryBytes) return inside;
  return join(tmpdir(), `millrace-${createHash('sha256').update(path).digest('hex').slice(0, 16)}`);
}

/** Lets PostgreSQL's user into the directories it needs, and nobody else. */
export function giveTo(owner: Owner, directory: DataDirectory): void {
  const self = process.getuid!();
  try {
    const { uid } = lstatSync(directory.sockets);
    if (uid !== owner.uid && uid !== self) throw new Error(`${directory.sockets} belongs to uid ${uid}`);
    if (self === 0) chownSync(directory.sockets, owner.uid, owner.gid);
    chmodSync(directory.sockets, 0o700);
    // As another user, PostgreSQL passes through the directory without reading it.
    if (statSync(directory.path).uid !== owner.uid) chmodSync(directory.path, 0o711);
  } catch (error) {
    throw unusable(directory.path, error);
  }
}

/** Takes the directory for this process; the server that is returned holds it until it is closed. */
export async function holdDataDirectory(directory: DataDirectory): Promise<Server> {
  const path = join(directory.sockets, 'millrace.sock');
  const holder = await askHolder(path);
  if (holder !== undefined) {
    throw new OperationalError(
      `another Millrace (process ${holder}) is running on the data directory ${directory.path}`,
      {
        code: 'DATA_DIRECTORY',
        hint: 'stop it, or choose another directory with --data-dir',
      },
    );
  }
  try {
    unlinkSync(path); // left by a process that was killed
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw unusable(directory.path, error);
  }
  const server = createServer(socket => socket.on('error', () => {}).end(String(process.pid)));
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(unusable(directory.path, error)));
    server.listen(path, resolve);
  });
  return server;
}

function askHolder(path: string): Promise<string | undefined> {
  return new Promise(resolve => {
    let answer = '';
    const socket = connect(path);
    socket.on('data', chunk => {
      answer += chunk;
    });
    socket.on('error', () => resolve(undefined));
    socket.on('end', () => resolve(answer));
  });
}

function unusable(path: string, error: unknown): OperationalError {
  return new OperationalError(`cannot use the data directory ${path} (${messageOf(error)})`, {
    code: 'DATA_DIRECTORY',
    hint: 'correct its owner and permissions, or choose another directory with --data-dir',
    cause: error,
  });
}
