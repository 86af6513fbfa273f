// Clients written in C: built once with the machine's own compiler, then run as processes of their own, so that they share
// nothing with the systems but the CPUs.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface CClient {
  /** Of the source beside this file. */
  readonly name: string;
  readonly libraries: readonly string[];
  /** What it needs beside a C compiler, and how an error says that it is not there. */
  readonly debianPackage?: { readonly name: string; readonly missing: RegExp };
}

const cache = fileURLToPath(new URL('../../.cache/bench', import.meta.url));

/** Builds it where that has not been done; as root it may install what it needs. Returns the binary's path. */
export function build({ name, libraries, debianPackage }: CClient): string {
  const source = fileURLToPath(new URL(`./${name}.c`, import.meta.url));
  // Named by what it is made from: another tree's, or an earlier one's, is never taken for it.
  const version = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12);
  const binary = `${cache}/${name}-${version}`;
  if (existsSync(binary)) return binary;
  mkdirSync(cache, { recursive: true });
  const compile = () =>
    spawnSync('cc', ['-O2', '-Wall', '-o', binary, source, ...libraries.map(library => `-l${library}`)], {
      encoding: 'utf8',
    });
  let built = compile();
  if (built.status !== 0 && process.getuid?.() === 0 && debianPackage?.missing.test(built.stderr)) {
    process.stderr.write(`installing ${debianPackage.name} with apt-get\n`);
    spawnSync('apt-get', ['install', '-y', '-q', debianPackage.name], { stdio: ['ignore', 2, 2] });
    built = compile();
  }
  if (built.status === 0) return binary;
  const needed = ['a C compiler', debianPackage?.name].filter(Boolean).join(' and ');
  throw new Error(`the client ${name} cannot be built (it needs ${needed}): ${built.error?.message ?? built.stderr}`);
}
