// PostgreSQL refuses to run as root. As root, it is run as another user of this machine, and then its data and
// its binaries must be reachable for that user even when they lie under a home that only root may enter.
import { readFileSync, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { OperationalError } from '../runtime/errors.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** The user PostgreSQL runs as: this process's own, or as root the data's owner, or one found in /etc/passwd. */
export function chooseOwner(clusterDirectory: string): Owner {
  const self = { uid: process.getuid!(), gid: process.getgid!() };
  const existing = statSync(clusterDirectory, { throwIfNoEntry: false });
  if (self.uid !== 0) {
    if (existing !== undefined && existing.uid !== self.uid) {
      throw new OperationalError(`the data in ${clusterDirectory} belongs to another user (uid ${existing.uid})`, {
        code: 'DATA_DIRECTORY',
        hint: 'run Millrace as that user or as root, or choose another directory with --data-dir',
      });
    }
    return self;
  }
  if (existing !== undefined && existing.uid !== 0) return { uid: existing.uid, gid: existing.gid };
  const users = readUsers();
  for (const name of ['millrace', 'postgres', 'nobody']) {
    const user = users.get(name);
    if (user !== undefined && user.uid !== 0) return user;
  }
  throw new OperationalError(
    'PostgreSQL does not run as root, and there is no user millrace, postgres or nobody here',
    {
      code: 'EMBEDDED_POSTGRES',
      hint: 'make one (useradd --system millrace) or run Millrace as a normal user',
    },
  );
}

function readUsers(): Map<string, Owner> {
  const users = new Map<string, Owner>();
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name, , uid, gid] = line.split(':');
    // macOS writes nobody's id as -2.
    if (name && uid && gid) users.set(name, { uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 });
  }
  return users;
}

/** Whether `owner` may enter every directory on the way to `path`, and `path` itself. Access lists are not read. */
export function canReach(path: string, owner: Owner): boolean {
  for (let at = path; ; at = dirname(at)) {
    if (!mayEnter(statSync(at), owner)) return false;
    if (at === dirname(at)) return true;
  }
}

function mayEnter(stats: Stats, owner: Owner): boolean {
  const shift = stats.uid === owner.uid ? 6 : stats.gid === owner.gid ? 3 : 0;
  return ((stats.mode >> shift) & 1) === 1;
}
